//! A WebSocket server that sends every message back.
//!
//! `cargo run --release --example websocket_echo_server [ADDRESS]`, 127.0.0.1:9001 by default;
//! with port 0 it prints the port that it got.

mod support;

use std::net::{TcpListener, TcpStream};
use std::time::Instant;
use std::{env, error, io, thread};

use balrog_proto::http1::{self, BodyLength, Server, ServerEvent};
use balrog_proto::websocket::{self, Deflate, Offer, Peer, PeerEvent, Refusal};
use balrog_proto::{Link, Step};

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:9001"))?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve(&stream) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

fn serve(stream: &TcpStream) -> Result<(), Box<dyn error::Error>> {
    stream.set_nodelay(true)?;
    let Some(mut link) = handshake(stream)? else { return Ok(()) };
    loop {
        let answer = match link.poll_event(Instant::now()) {
            Ok(Step::Event(PeerEvent::Text(text))) => Some(Ok(text.to_owned())),
            Ok(Step::Event(PeerEvent::Binary(data))) => Some(Err(data.to_owned())),
            Ok(Step::Event(_)) => None,
            // A broken connection has its close in the outbox.
            Ok(Step::NeedInput | Step::Paused | Step::Closed) | Err(_) => {
                if !support::drive(&mut link, stream)? {
                    return Ok(());
                }
                None
            }
        };
        match answer {
            Some(Ok(text)) => link.send_text(&text)?,
            Some(Err(data)) => link.send_binary(&data)?,
            None => {}
        }
    }
}

/// Answers the first request; the link of the WebSocket that it opens, if it asks for one.
fn handshake(stream: &TcpStream) -> Result<Option<Link<Peer>>, Box<dyn error::Error>> {
    let mut link = Link::new(Server::new(http1::Limits::default()));
    let mut offered = Ok(None);
    loop {
        match link.poll_event(Instant::now())? {
            Step::Event(ServerEvent::Request(head)) => offered = websocket::offer(&head),
            Step::Event(ServerEvent::End) => break,
            Step::Event(_) => {}
            Step::NeedInput | Step::Paused | Step::Closed => {
                if !support::drive(&mut link, stream)? {
                    return Ok(None);
                }
            }
        }
    }
    match offered {
        Ok(Some(offer)) => accept(link, &offer).map(Some),
        Ok(None) => refuse(link, stream, Refusal { status: 426, reason: "this speaks WebSocket only" }),
        Err(refusal) => refuse(link, stream, refusal),
    }
}

fn accept(mut link: Link<Server>, offer: &Offer) -> Result<Link<Peer>, Box<dyn error::Error>> {
    let wanted =
        Deflate { server_max_window_bits: 15, client_max_window_bits: 15, min_size: 0, ..Deflate::default() };
    let agreed = offer.deflate(&wanted);
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", offer.accept.as_bytes()),
    ];
    if let Some((_, value)) = &agreed {
        fields.push((b"Sec-WebSocket-Extensions", value.as_bytes()));
    }
    link.switch_protocols(&fields)?;
    let peer = Peer::server(support::roomy());
    Ok(link.replace(match agreed {
        Some((deflate, _)) => peer.deflate(&deflate),
        None => peer,
    }))
}

fn refuse(
    mut link: Link<Server>,
    stream: &TcpStream,
    refusal: Refusal,
) -> Result<Option<Link<Peer>>, Box<dyn error::Error>> {
    let version: [(&[u8], &[u8]); 1] = [(b"Sec-WebSocket-Version", b"13")];
    let fields = if refusal.status == 426 { &version[..] } else { &[] };
    link.respond(refusal.status, "", fields, BodyLength::Length(refusal.reason.len() as u64), true)?;
    link.body(refusal.reason.as_bytes())?;
    link.finish()?;
    support::drive(&mut link, stream)?;
    Ok(None)
}
