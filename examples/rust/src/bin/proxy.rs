//! Passes TCP connections on.
//!
//! `cargo run --bin proxy -- [--mode MODE] FROM TO`, for example `127.0.0.1:8000 127.0.0.1:8001`

use std::io::{self, copy};
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog::net::{TcpStream, Transport};
use balrog::spawn;
use balrog_examples::{Arguments, listen};

fn main() -> io::Result<()> {
    let Arguments { mode, rest } = Arguments::read()?;
    let [from, to] = rest.try_into().map_err(|_| io::Error::other("proxy takes two addresses: FROM TO"))?;
    mode.run(move || {
        let listener = listen(&from)?;
        loop {
            let (client, peer) = listener.accept()?;
            let to = to.clone();
            let _detached = spawn(move || {
                if let Err(error) = pass_on(client, &to) {
                    eprintln!("{peer}: {error}");
                }
            })?;
        }
    })?
}

/// Both ways until both ends are done.
fn pass_on(client: TcpStream, to: &str) -> io::Result<()> {
    let (host, port) = to.rsplit_once(':').unwrap_or((to, "80"));
    let port = port.parse().map_err(io::Error::other)?;
    let server = TcpStream::connect(host, port, Some(Instant::now() + Duration::from_secs(5)))?;
    let (client, server) = (Arc::new(client), Arc::new(server));
    let (from, back) = (Arc::clone(&client), Arc::clone(&server));
    let mut upwards = spawn(move || one_way(&from, &back))?;
    one_way(&server, &client)?;
    upwards.join()?
}

/// The standard library's own `copy`: it reads and writes, and whoever waits lets others run.
fn one_way(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    copy(&mut from, &mut to)?;
    to.shutdown()
}
