//! A client that posts its arguments and prints the response.
//!
//! ```text
//! cargo run -p balrog-proto --example http1_client 127.0.0.1:8000 "two soups"
//! ```

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use balrog_proto::http1::{BodyLength, Client, ClientEvent, Limits};
use balrog_proto::{Link, Step};

#[path = "support/drive.rs"]
mod drive;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments.first().map_or("127.0.0.1:8000", String::as_str);
    let (status, body) = post(address, arguments.get(1..).unwrap_or_default().join(" ").as_bytes())?;
    eprintln!("{status}");
    io::stdout().write_all(&body)
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
