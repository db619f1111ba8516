//! A server that tells each client what it asked for, a thread a connection.
//!
//! ```text
//! cargo run -p balrog-proto --example http1_server 127.0.0.1:8000
//! ```

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use balrog_proto::http1::{BodyLength, Limits, Server, ServerEvent};
use balrog_proto::{Link, Step};

#[path = "support/drive.rs"]
mod drive;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".into());
    let limits = Arc::new(Limits::default());
    for stream in TcpListener::bind(address)?.incoming() {
        let (stream, limits) = (stream?, Arc::clone(&limits));
        std::thread::spawn(move || serve(&stream, limits));
    }
    Ok(())
}

/// Serves a connection to its end.
pub(crate) fn serve(stream: &TcpStream, limits: Arc<Limits>) -> io::Result<()> {
    let mut link = Link::new(Server::new(limits));
    let mut answer = String::new();
    loop {
        match link.poll_event(Instant::now()) {
            Ok(Step::Event(ServerEvent::Request(head))) => {
                answer = format!("{} {}\n", head.method, head.target);
                if head.expect_continue {
                    link.inform(100, &[])?;
                }
            }
            Ok(Step::Event(ServerEvent::Body(data))) => answer.push_str(&String::from_utf8_lossy(data)),
            Ok(Step::Event(ServerEvent::End)) => {
                let body = std::mem::take(&mut answer).into_bytes();
                let headers: [(&[u8], &[u8]); 1] = [(b"Content-Type", b"text/plain; charset=utf-8")];
                link.respond(200, "OK", &headers, BodyLength::Length(body.len() as u64), false)?;
                link.body_owned(body)?;
                link.finish()?;
            }
            // Extensions and trailers were not asked for.
            Ok(Step::Event(_)) => {}
            // Also after an error: what answers it is still to be sent.
            Ok(_) | Err(_) => {
                if !drive::drive(&mut link, stream)? {
                    return Ok(());
                }
            }
        }
    }
}
