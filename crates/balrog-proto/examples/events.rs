//! Tells what a machine makes of bytes: for comparison with other implementations, and for whoever
//! wonders. A line of JSON in, a line of JSON out; bytes as the Latin-1 characters of the same
//! numbers.
//!
//! ```text
//! $ echo '{"role": "server", "bytes": "GET / HTTP/1.1\r\nHost: a\r\n\r\n"}' |
//!       cargo run -q -p balrog-proto --example events
//! {"error":null,"events":[["request","GET","/","Http11",[["Host","a"]]],["end"]]}
//! ```
//!
//! Roles are `server` and `client` of HTTP/1.1 (with the `method` that was asked with, GET by
//! default), `ws-server` and `ws-client`. Behind the bytes the stream ends, if `eof` is true.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use balrog_proto::http1::{self, BodyLength, Client, ClientEvent, Headers, Server, ServerEvent};
use balrog_proto::websocket::{self, Peer, PeerEvent};
use balrog_proto::{Error, Link, Machine, Step};
use serde_json::{Value, json};

fn main() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?)?;
        let text = |name: &str| asked[name].as_str();
        let bytes: Vec<u8> = text("bytes").unwrap_or_default().chars().map(|char| char as u8).collect();
        let eof = asked["eof"] == true;
        let (events, error) = match text("role") {
            Some("server") => server(&bytes, eof),
            Some("client") => client(text("method").unwrap_or("GET"), &bytes, eof),
            Some("ws-server") => peer(Peer::server(websocket::Limits::default()), &bytes, eof),
            Some("ws-client") => {
                let entropy = Box::new(|bytes: &mut [u8]| bytes.fill(0));
                peer(Peer::client(websocket::Limits::default(), entropy), &bytes, eof)
            }
            _ => return Err(io::Error::other("roles are server, client, ws-server and ws-client")),
        };
        let error = error.map(|error| error.to_string());
        writeln!(io::stdout(), "{}", json!({"events": events, "error": error}))?;
    }
    Ok(())
}

type Told = (Vec<Value>, Option<Error>);

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn fields(headers: Headers<'_>) -> Vec<Value> {
    headers.iter().map(|(name, value)| json!([name, latin(value)])).collect()
}

/// Gives `link` all bytes, and asks `turn` for events until there is none.
fn drive<M: Machine>(
    mut link: Link<M>,
    bytes: &[u8],
    eof: bool,
    mut turn: impl FnMut(&mut Link<M>) -> Result<Option<Value>, Error>,
) -> Told {
    link.receive(bytes);
    if eof {
        link.receive_eof();
    }
    let mut events = Vec::new();
    loop {
        match turn(&mut link) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
        link.transmitted(link.unsent());
    }
}

/// A server that answers each request when it is complete.
fn server(bytes: &[u8], eof: bool) -> Told {
    drive(Link::new(Server::new(http1::Limits::default())), bytes, eof, |link| {
        let event = match link.poll_event(Instant::now())? {
            Step::Event(ServerEvent::Request(head)) => {
                let version = format!("{:?}", head.version);
                json!(["request", head.method, head.target, version, fields(head.headers)])
            }
            Step::Event(ServerEvent::Body(data)) => json!(["body", latin(data)]),
            Step::Event(ServerEvent::End) => json!(["end"]),
            _ => return Ok(None),
        };
        if event[0] == "end"
            && (link.respond(204, "", &[], BodyLength::None, false).is_err() || link.finish().is_err())
        {
            return Ok(None);
        }
        Ok(Some(event))
    })
}

/// A client that reads the response to one request.
fn client(method: &str, bytes: &[u8], eof: bool) -> Told {
    let mut link = Link::new(Client::new(http1::Limits::default()));
    if link.request(method, "/", "a", &[], BodyLength::None).is_err() {
        return (Vec::new(), None);
    }
    link.transmitted(link.unsent());
    drive(link, bytes, eof, |link| {
        Ok(Some(match link.poll_event(Instant::now())? {
            Step::Event(ClientEvent::Response(head) | ClientEvent::Informational(head)) => {
                let version = format!("{:?}", head.version);
                json!(["response", head.status, latin(head.reason), version, fields(head.headers)])
            }
            Step::Event(ClientEvent::Body(data)) => json!(["body", latin(data)]),
            Step::Event(ClientEvent::End { .. }) => json!(["end"]),
            _ => return Ok(None),
        }))
    })
}

/// A peer that reads messages.
fn peer(peer: Peer, bytes: &[u8], eof: bool) -> Told {
    drive(Link::new(peer), bytes, eof, |link| {
        Ok(Some(match link.poll_event(Instant::now())? {
            Step::Event(PeerEvent::Text(text)) => json!(["text", text]),
            Step::Event(PeerEvent::Binary(data)) => json!(["binary", latin(data)]),
            Step::Event(PeerEvent::Ping(data)) => json!(["ping", latin(data)]),
            Step::Event(PeerEvent::Pong(data)) => json!(["pong", latin(data)]),
            Step::Event(PeerEvent::Close { code, reason, .. }) => json!(["close", code, reason]),
            _ => return Ok(None),
        }))
    })
}
