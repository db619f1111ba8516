//! A WebSocket client that sends every message back, and counts them. It speaks to the fuzzing
//! server of the Autobahn test suite: all cases, or those that are named.
//!
//! `cargo run --release --example websocket_echo_client [ADDRESS]`, 127.0.0.1:9001 by default.

mod support;

use std::fs::File;
use std::net::TcpStream;
use std::time::Instant;
use std::{env, error};

use balrog_proto::http1::{self, BodyLength, Client, ClientEvent};
use balrog_proto::websocket::{Connect, Deflate, Peer, PeerEvent};
use balrog_proto::{Link, Step};
use support::Urandom;

const AGENT: &str = "balrog-proto";

fn main() -> Result<(), Box<dyn error::Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let count: u32 = echo(&address, "/getCaseCount")?.parse()?;
    for case in 1..=count {
        // Cases that break the protocol break the connection.
        if let Err(error) = echo(&address, &format!("/runCase?case={case}&agent={AGENT}")) {
            eprintln!("case {case}: {error}");
        }
    }
    echo(&address, &format!("/updateReports?agent={AGENT}"))?;
    println!("{count} cases");
    Ok(())
}

/// Sends back what comes until the server closes. The last text.
fn echo(address: &str, target: &str) -> Result<String, Box<dyn error::Error>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut link = open(&stream, address, target)?;
    let mut last = String::new();
    loop {
        let answer = match link.poll_event(Instant::now()) {
            Ok(Step::Event(PeerEvent::Text(text))) => {
                last = text.to_owned();
                Some(None)
            }
            Ok(Step::Event(PeerEvent::Binary(data))) => Some(Some(data.to_owned())),
            Ok(Step::Event(_)) => None,
            // A broken connection has its close in the outbox.
            Ok(Step::NeedInput | Step::Paused | Step::Closed) | Err(_) => {
                if !support::drive(&mut link, &stream)? {
                    return Ok(last);
                }
                None
            }
        };
        match answer {
            // The server counts messages, not ours.
            Some(_) if target == "/getCaseCount" => {}
            Some(Some(data)) => link.send_binary(&data)?,
            Some(None) => link.send_text(&last)?,
            None => {}
        }
    }
}

fn open(stream: &TcpStream, address: &str, target: &str) -> Result<Link<Peer>, Box<dyn error::Error>> {
    let mut entropy = Urandom(File::open("/dev/urandom")?);
    let wanted = Deflate {
        // The suite asks for it, but only those who offer it.
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
        min_size: 0,
        ..Deflate::default()
    };
    let connect = Connect::new(&mut entropy).deflate(wanted);
    let fields = connect.fields();
    let fields: Vec<(&[u8], &[u8])> =
        fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let mut link = Link::new(Client::new(http1::Limits::default()));
    link.request("GET", target, address, &fields, BodyLength::None)?;
    link.finish()?;
    let agreed = loop {
        match link.poll_event(Instant::now())? {
            Step::Event(ClientEvent::Upgraded(head)) => break connect.check(&head)?,
            Step::Event(ClientEvent::Response(head)) => {
                return Err(format!("refused with status {}", head.status).into());
            }
            Step::Event(_) => {}
            Step::NeedInput | Step::Paused | Step::Closed => {
                if !support::drive(&mut link, stream)? {
                    return Err("closed before the response".into());
                }
            }
        }
    };
    let peer = Peer::client(support::roomy(), Box::new(entropy));
    Ok(link.replace(match agreed.deflate {
        Some(deflate) => peer.deflate(&deflate),
        None => peer,
    }))
}
