//! Both sides of HTTP/1.1: a server that tells what it was asked, a thread a connection, and a
//! client that posts.
//!
//! ```text
//! cargo run -p balrog-proto --example http1 serve 127.0.0.1:8000
//! cargo run -p balrog-proto --example http1 post 127.0.0.1:8000 "two soups"
//! ```

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use balrog_proto::http1::{BodyLength, Client, ClientEvent, Limits, Server, ServerEvent};
use balrog_proto::{Link, Step};

#[path = "support/drive.rs"]
mod drive;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address] => {
            let limits = Arc::new(Limits::default());
            for stream in TcpListener::bind(address)?.incoming() {
                let (stream, limits) = (stream?, Arc::clone(&limits));
                std::thread::spawn(move || serve(&stream, limits));
            }
            Ok(())
        }
        ["post", address, text] => {
            let (status, body) = post(address, text.as_bytes())?;
            eprintln!("{status}");
            io::stdout().write_all(&body)
        }
        _ => Err(io::Error::other("arguments: serve ADDRESS | post ADDRESS TEXT")),
    }
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

/// Posts `data`, and returns the status and body of the response.
pub(crate) fn post(address: &str, data: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    let mut link = Link::new(Client::new(Limits::default()));
    link.request("POST", "/", address, &[], BodyLength::Length(data.len() as u64))?;
    link.body(data)?;
    link.finish()?;
    let (mut status, mut body) = (0, Vec::new());
    loop {
        match link.poll_event(Instant::now())? {
            Step::Event(ClientEvent::Response(head)) => status = head.status,
            Step::Event(ClientEvent::Body(piece)) => body.extend_from_slice(piece),
            Step::Event(ClientEvent::End { .. }) => return Ok((status, body)),
            Step::Event(_) => {}
            _ => match link.bulk() {
                // The rest of the body goes from the socket to its place, with no stop between.
                Some(left) if link.unsent() == 0 => {
                    let (before, room) = (body.len(), left.min(64 * 1024) as usize);
                    body.resize(before + room, 0);
                    let n = stream.read(&mut body[before..])?;
                    body.truncate(before + n);
                    match n {
                        0 => link.receive_eof(),
                        n => link.bulk_received(Instant::now(), n),
                    }
                }
                _ => drop(drive::drive(&mut link, &stream)?),
            },
        }
    }
}
