//! What the examples share: how they are told where to run, and where to listen.

use std::io;

use balrog::Runtime;
use balrog::net::TcpListener;

/// What the command line says: `[--mode blocking|native|tokio|async-io] [ARGUMENT…]`.
#[derive(Debug)]
pub struct Arguments {
    /// Where the example runs; `native` unless told otherwise.
    pub mode: Runtime,
    /// All the others.
    pub rest: Vec<String>,
}

impl Arguments {
    /// Reads the process's own.
    ///
    /// # Errors
    ///
    /// When the mode is missing or unknown.
    pub fn read() -> io::Result<Self> {
        let mut arguments = Self { mode: Runtime::native(), rest: Vec::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--mode" {
                arguments.mode = words.next().unwrap_or_default().parse()?;
            } else {
                arguments.rest.push(word);
            }
        }
        Ok(arguments)
    }
}

/// Listens at `address`, and says where.
///
/// # Errors
///
/// When the address cannot be had.
pub fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    Ok(listener)
}

/// The guide's examples are run by `cargo test`.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust.md")]
struct Guide;
