//! Sync-looking network I/O that blocks or runs asynchronously, as its user chooses.
//!
//! Plain synchronous code, run on a [`Runtime`]: on plain threads its calls block; on the others
//! each call suspends a task of its own stack, and thousands of them run on one thread. There is
//! one of each function, with one signature, whichever it is.
//!
//! ```
//! use std::io::{Read, Write};
//!
//! use balrog::Runtime;
//! use balrog::net::{TcpListener, TcpStream};
//!
//! /// Echoes what ten clients say, all at once.
//! fn echo() -> std::io::Result<usize> {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let port = listener.local_addr()?.port();
//!     let mut clients = Vec::new();
//!     for number in 0..10 {
//!         clients.push(balrog::spawn(move || -> std::io::Result<bool> {
//!             let mut stream = TcpStream::connect("127.0.0.1", port, None)?;
//!             stream.write_all(&[number])?;
//!             let mut answer = [0];
//!             stream.read_exact(&mut answer)?;
//!             Ok(answer == [number])
//!         })?);
//!     }
//!     for _ in 0..10 {
//!         let (mut stream, _) = listener.accept()?;
//!         let _detached = balrog::spawn(move || std::io::copy(&mut &stream, &mut &stream))?;
//!     }
//!     let mut right = 0;
//!     for mut client in clients {
//!         right += usize::from(client.join()??);
//!     }
//!     Ok(right)
//! }
//!
//! for runtime in Runtime::all() {
//!     assert_eq!(runtime.run(echo)??, 10);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Features: `tokio` and `async-io` add [`Runtime`]s on these, `json`, `brotli` and `cookies` what they say
//! to the HTTP client; none changes what others do.
#![forbid(unsafe_code)]

mod drive;
pub mod http;
pub mod net;
mod percent;
pub mod postgres;
mod random;
mod runtime;
pub mod tls;
pub mod websocket;

pub use balrog_backends::{offload, sleep_until};
pub use balrog_sched::{
    Builder, Canceller, Interrupt, JoinError, JoinHandle, Panic, Scope, TaskLocal, in_task, scope, spawn,
    sync, wait, wait_until, with_deadline, with_shield, yield_now,
};
pub use runtime::{Handle, Runtime};

#[cfg(feature = "async-io")]
pub use balrog_backends::async_io;
#[cfg(feature = "tokio")]
pub use balrog_backends::tokio;
