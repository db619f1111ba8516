//! The opening handshake, both sides over the HTTP machines: what is agreed on, what is refused.

use std::time::Instant;

use balrog_proto::http1::{
    self, BodyLength, Client, ClientEvent, RequestHead, ResponseHead, Server, ServerEvent, Version,
};
use balrog_proto::websocket::{self, Agreed, Connect, Deflate, Limits, Offer, Peer, PeerEvent, Refusal};
use balrog_proto::{Error, Link, Step};

use crate::support::{entropy, frame};

const HEAD: &str = "GET /chat HTTP/1.1\r\nHost: conf.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn offer(head: &str) -> Result<Option<Offer>, Refusal> {
    let mut link = Link::new(Server::new(http1::Limits::default()));
    link.receive(format!("{head}\r\n").as_bytes());
    match link.poll_event(Instant::now()) {
        Ok(Step::Event(ServerEvent::Request(head))) => websocket::offer(&head),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offer() {
    let offered = offer(HEAD).unwrap().unwrap();
    assert_eq!(offered.accept, ACCEPT);
    assert_eq!((offered.protocols, offered.origin), (vec![], None));
    let more = "Sec-WebSocket-Protocol: chat , superchat\r\nSec-WebSocket-Protocol: x\r\n\
        Origin: https://conf.test\r\nSec-WebSocket-Extensions: x-none, permessage-deflate;client_max_window_bits\r\n";
    let offered = offer(&format!("{HEAD}{more}")).unwrap().unwrap();
    assert_eq!(offered.protocols, ["chat", "superchat", "x"]);
    assert_eq!(offered.origin.as_deref(), Some("https://conf.test"));
    let (agreed, response) = offered.deflate(&Deflate::default()).unwrap();
    assert_eq!(agreed, Deflate::default());
    assert_eq!(response, "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12");
}

#[test]
fn no_offer() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    ] {
        assert_eq!(offer(head), Ok(None), "{head}");
    }
}

#[test]
fn refusals() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    for (status, head) in [
        (400, HEAD.replace("GET", "POST")),
        (400, HEAD.replace(key, "")),
        (400, HEAD.replace(key, &key.repeat(2))),
        (400, HEAD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ")),
        (400, HEAD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZTE=")),
        (400, HEAD.replace("dGhlIHNhbXBsZSBub25jZQ==", "@@@@@@@@@@@@@@@@@@@@@@==")),
        (400, format!("{HEAD}Content-Length: 3\r\n")),
        (400, format!("{HEAD}Origin: https://a\r\nOrigin: https://b\r\n")),
        (400, format!("{HEAD}Sec-WebSocket-Protocol: a b\r\n")),
        (400, format!("{HEAD}Sec-WebSocket-Protocol: \"a\"\r\n")),
        (400, format!("{HEAD}Sec-WebSocket-Extensions: a b\r\n")),
        (400, format!("{HEAD}Sec-WebSocket-Extensions: permessage-deflate; =1\r\n")),
        (426, HEAD.replace(version, "")),
        (426, HEAD.replace(version, &version.repeat(2))),
        (426, HEAD.replace(version, "Sec-WebSocket-Version: 8\r\n")),
        (426, HEAD.replace(version, "Sec-WebSocket-Version: 13, 8\r\n")),
    ] {
        assert_eq!(offer(&head).map_err(|refusal| refusal.status), Err(status), "{head}");
    }
    // Declined, not refused.
    for extension in ["permessage-deflate; server_max_window_bits=7", "x-webkit-deflate-frame", ""] {
        let offered = offer(&format!("{HEAD}Sec-WebSocket-Extensions: {extension}\r\n")).unwrap().unwrap();
        assert_eq!(offered.deflate(&Deflate::default()), None, "{extension}");
    }
}

/// What others put together is judged as what a machine has read is.
#[test]
fn heads_are_judged_by_themselves() {
    let mut link = Link::new(Server::new(http1::Limits::default()));
    link.receive(format!("{HEAD}\r\n").as_bytes());
    let Ok(Step::Event(ServerEvent::Request(head))) = link.poll_event(Instant::now()) else {
        panic!("no request");
    };
    let old = RequestHead { version: Version::Http10, ..head };
    assert_eq!(websocket::offer(&old).map_err(|refusal| refusal.status), Err(400));

    let mut link = Link::new(Client::new(http1::Limits::default()));
    link.request("GET", "/chat", "conf.test", &[], BodyLength::None).unwrap();
    link.receive(
        format!("HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n").as_bytes(),
    );
    let Ok(Step::Event(ClientEvent::Response(head))) = link.poll_event(Instant::now()) else {
        panic!("no response");
    };
    let why = connect().check(&ResponseHead { status: 101, ..head }).unwrap_err().to_string();
    assert!(why.contains("Connection"), "{why}");
}

/// A client with the RFC's key, what it asked for, and the response.
fn check(connect: Connect, response: &str) -> Result<Agreed, Error> {
    let mut link = Link::new(Client::new(http1::Limits::default()));
    let fields = connect.fields();
    let fields: Vec<(&[u8], &[u8])> =
        fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    link.request("GET", "/chat", "conf.test", &fields, BodyLength::None).unwrap();
    link.finish().unwrap();
    link.receive(format!("{response}\r\n").as_bytes());
    match link.poll_event(Instant::now())? {
        Step::Event(ClientEvent::Upgraded(head) | ClientEvent::Response(head)) => connect.check(&head),
        other => panic!("{other:?}"),
    }
}

fn connect() -> Connect {
    Connect::new(&mut |bytes: &mut [u8]| bytes.copy_from_slice(b"the sample nonce"))
}

#[test]
fn every_field_of_the_response_is_checked() {
    let good = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n"
    );
    assert_eq!(check(connect(), &good), Ok(Agreed::default()));
    assert!(
        check(connect(), &good.replace("websocket", "WebSocket").replace("Upgrade\r", "x, upgrade\r"))
            .is_ok()
    );
    let protocol = format!("{good}Sec-WebSocket-Protocol: b\r\n");
    let asked = || connect().protocols(&["a", "b"]).unwrap();
    assert_eq!(check(asked(), &protocol).unwrap().protocol.as_deref(), Some("b"));
    assert_eq!(check(asked(), &good).unwrap().protocol, None);
    let deflate =
        format!("{good}Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n");
    let compressed = || connect().deflate(Deflate::default());
    assert_eq!(check(compressed(), &deflate).unwrap().deflate, Some(Deflate::default()));
    assert_eq!(check(compressed(), &good).unwrap().deflate, None);
    for (connect, bad) in [
        (connect(), good.replace("101 Switching Protocols", "200 OK")),
        (connect(), good.replace("HTTP/1.1", "HTTP/1.0")),
        (connect(), good.replace("Upgrade: websocket\r\n", "")),
        (connect(), good.replace("Upgrade: websocket", "Upgrade: websocket, x")),
        (connect(), good.replace("Upgrade: websocket", "Upgrade: websocketx")),
        (connect(), good.replace("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket")),
        (connect(), good.replace("Connection: Upgrade\r\n", "")),
        (connect(), good.replace("Connection: Upgrade", "Connection: close")),
        (connect(), good.replace(ACCEPT, "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        (connect(), good.replace("Sec-WebSocket-Accept", "X")),
        (connect(), format!("{good}Sec-WebSocket-Accept: {ACCEPT}\r\n")),
        (connect(), protocol.clone()),
        (asked(), protocol.replace(": b", ": c")),
        (asked(), protocol.replace(": b", ": B")),
        (asked(), protocol.replace(": b", ": a, b")),
        (asked(), format!("{protocol}Sec-WebSocket-Protocol: a\r\n")),
        (connect(), deflate.clone()),
        (compressed(), deflate.replace("=12", "=13")),
        (compressed(), deflate.replace("=12", "=12, permessage-deflate")),
        (compressed(), deflate.replace("=12", "=12; x")),
        (compressed(), deflate.replace("permessage", "perframe")),
        (compressed(), deflate.replace("=12", "= 12 13")),
    ] {
        assert!(matches!(check(connect, &bad), Err(Error::Violation(_))), "{bad}");
    }
}

#[test]
fn an_unsound_subprotocol_is_not_sent() {
    // A-14: nothing gets into the head by a name.
    for bad in ["", "a b", "a,b", "a\r\nX: y", "é", "a\0"] {
        assert!(connect().protocols(&[bad]).is_err(), "{bad:?}");
    }
    assert!(connect().protocols(&["a", "b", "a"]).is_err());
    let keys: std::collections::HashSet<String> =
        (0..20).map(|seed| Connect::new(&mut *entropy(seed)).fields()[2].1.clone()).collect();
    assert_eq!(keys.len(), 20);
}

/// A-05: what comes behind the handshake is frames, in whatever pieces, and only if the server
/// agrees.
#[test]
fn frames_right_behind_the_handshake() {
    let bytes = [format!("{HEAD}\r\n").as_bytes(), &frame(0x81, b"early"), &frame(0x82, b"too")].concat();
    for cut in 0..=bytes.len() {
        let mut link = Link::new(Server::new(http1::Limits::default()));
        let mut accept = None;
        link.receive(&bytes[..cut]);
        let mut rest = Some(&bytes[cut..]);
        while accept.is_none() {
            match link.poll_event(Instant::now()) {
                Ok(Step::Event(ServerEvent::Request(head))) => {
                    accept = Some(websocket::offer(&head).unwrap().unwrap().accept);
                }
                Ok(Step::NeedInput) => link.receive(rest.take().unwrap()),
                other => panic!("{other:?}"),
            }
        }
        let accept = accept.unwrap();
        link.switch_protocols(&[
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", accept.as_bytes()),
        ])
        .unwrap();
        let mut link = link.replace(Peer::server(Limits::default()));
        if let Some(rest) = rest {
            link.receive(rest);
        }
        assert_eq!(
            link.poll_event(Instant::now()),
            Ok(Step::Event(PeerEvent::Text("early"))),
            "cut at {cut}"
        );
        assert_eq!(link.poll_event(Instant::now()), Ok(Step::Event(PeerEvent::Binary(b"too"))));
    }
    // Refused, the same bytes are no request, and no frames.
    let mut link = Link::new(Server::new(http1::Limits::default()));
    link.receive(&bytes);
    while !matches!(link.poll_event(Instant::now()), Ok(Step::Event(ServerEvent::End))) {}
    link.respond(403, "Forbidden", &[], BodyLength::None, false).unwrap();
    link.finish().unwrap();
    link.receive_eof();
    assert!(link.poll_event(Instant::now()).is_err());
    let sent: Vec<u8> = link.segments().flatten().copied().collect();
    assert!(sent.starts_with(b"HTTP/1.1 403 Forbidden\r\n"));
    // At most told that this is none.
    let answers: Vec<_> = sent.windows(10).filter(|window| window.starts_with(b"HTTP/1.1 ")).collect();
    assert!(answers.iter().all(|answer| answer[9] == b'4'), "{}", sent.escape_ascii());
}
