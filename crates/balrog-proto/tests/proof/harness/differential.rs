//! The same bytes through another implementation: what we take, it takes for the same.

use std::io::{self, Read, Write};
use std::time::Instant;

use balrog_proto::http1::{BodyLength, Client, ClientEvent, Headers, Limits, Server, ServerEvent};
use balrog_proto::websocket::PeerEvent;
use balrog_proto::{Error, Link, Step};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Bytes, Message};

use super::Subject;
use super::websocket::PeerSide;

/// More than our limit, so that it is never httparse's that counts.
const FIELDS: usize = 128;

fn check_fields(ours: Headers<'_>, theirs: &[httparse::Header<'_>]) {
    let theirs: Vec<(&str, &[u8])> = theirs.iter().map(|header| (header.name, header.value)).collect();
    assert_eq!(ours.iter().collect::<Vec<_>>(), theirs);
}

/// The first head of a server's input and httparse's reading of it.
pub fn request_head(bytes: &[u8]) {
    let mut link = Link::new(Server::new(Limits::default()).with_tunnels());
    link.receive(bytes);
    let Ok(Step::Event(ServerEvent::Request(ours))) = link.poll_event(Instant::now()) else { return };
    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let mut theirs = httparse::Request::new(&mut headers);
    let parsed = theirs.parse(bytes).expect("httparse takes what we take");
    assert!(parsed.is_complete());
    assert_eq!(Some(ours.method), theirs.method);
    assert_eq!(Some(ours.target), theirs.path);
    assert_eq!(Some(ours.version as u8), theirs.version);
    check_fields(ours.headers, theirs.headers);
}

/// The first head of a client's input and httparse's reading of it.
pub fn response_head(bytes: &[u8]) {
    let mut link = Link::new(Client::new(Limits::default()));
    link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
    link.receive(bytes);
    let event = link.poll_event(Instant::now());
    let Ok(Step::Event(ClientEvent::Response(ours) | ClientEvent::Informational(ours))) = event else {
        return;
    };
    // "recipients MAY retain" control characters in a value (RFC 9110 section 5.5), as servers
    // do send them in cookies; httparse refuses them.
    if ours
        .headers
        .iter()
        .any(|(_, value)| value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'))
    {
        return;
    }
    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let mut theirs = httparse::Response::new(&mut headers);
    let parsed = theirs.parse(bytes).expect("httparse takes what we take");
    assert!(parsed.is_complete());
    assert_eq!(Some(ours.status), theirs.code);
    assert_eq!(Some(ours.version as u8), theirs.version);
    // httparse gives no reason that is not ASCII.
    if ours.reason.is_ascii() {
        assert_eq!(Some(ours.reason), theirs.reason.map(str::as_bytes));
    }
    check_fields(ours.headers, theirs.headers);
}

/// What tungstenite reads from, and where its answers go.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The messages of a client, as our server and tungstenite's read them: the same, up to where one
/// of both fails; and if ours does not, tungstenite does not.
pub fn frames(bytes: &[u8]) {
    let side = PeerSide::server();
    let mut link = side.open();
    link.receive(bytes);
    link.receive_eof();
    let mut ours = Vec::new();
    let failed = loop {
        match link.poll_event(Instant::now()) {
            Ok(Step::Event(event)) => ours.push(match event {
                PeerEvent::Text(text) => Message::text(text),
                PeerEvent::Binary(data) => Message::binary(data.to_vec()),
                PeerEvent::Ping(data) => Message::Ping(Bytes::copy_from_slice(data)),
                PeerEvent::Pong(data) => Message::Pong(Bytes::copy_from_slice(data)),
                PeerEvent::Close { code, reason, .. } => {
                    let frame =
                        tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() };
                    Message::Close((code != 1005).then_some(frame))
                }
                other => panic!("{other:?} is for others"),
            }),
            Ok(_) => break None,
            Err(error) => break Some(error),
        }
        link.transmitted(link.unsent());
    };
    let limits = &side.limits;
    let config =
        WebSocketConfig::default().max_message_size(Some(limits.message)).max_frame_size(Some(limits.frame));
    let mut socket = WebSocket::from_raw_socket(Wire(bytes), Role::Server, Some(config));
    let mut theirs = Vec::new();
    while theirs.len() <= ours.len() {
        let Ok(message) = socket.read() else { break };
        theirs.push(message);
    }
    // tungstenite tells a Close without a body and one whose code it does not know in its own
    // way; that there is one counts.
    for messages in [&mut ours, &mut theirs] {
        for message in messages.iter_mut().filter(|message| message.is_close()) {
            *message = Message::Close(None);
        }
    }
    match failed {
        // We fail inside of a frame, it at the end; we refuse lengths that are not the shortest.
        Some(Error::Violation(_) | Error::Limit(_)) => {
            assert!(theirs.starts_with(&ours) || ours.starts_with(&theirs));
        }
        _ => assert_eq!(ours, theirs),
    }
}
