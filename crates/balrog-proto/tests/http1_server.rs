//! The server machine: what it accepts, what it refuses, and that the pieces never matter.

use std::time::{Duration, Instant};

use balrog_proto::http1::{BodyLength, Framing, Limits, Server, ServerEvent};
use balrog_proto::{Error, Link, Step, Timer};

#[derive(Debug, PartialEq, Clone)]
enum Seen {
    Request { method: String, path: String, query: String, headers: Vec<(String, Vec<u8>)> },
    Body(Vec<u8>),
    End,
    Failed(Option<u16>),
}

/// Feeds the pieces, answers every complete request, and tells what was seen and sent.
fn serve(pieces: &[&[u8]], eof: bool) -> (Vec<Seen>, String) {
    let now = Instant::now();
    let mut link = Link::new(Server::new(Limits::default()));
    let mut seen: Vec<Seen> = Vec::new();
    let mut sent = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        link.receive(piece);
        if eof && index == pieces.len() - 1 {
            link.receive_eof();
        }
        loop {
            match link.poll_event(now) {
                Ok(Step::Event(ServerEvent::Request(head))) => seen.push(Seen::Request {
                    method: head.method.into(),
                    path: head.path.into(),
                    query: head.query.into(),
                    headers: head.headers.iter().map(|(name, value)| (name.into(), value.into())).collect(),
                }),
                Ok(Step::Event(ServerEvent::Body(data))) => match seen.last_mut() {
                    Some(Seen::Body(body)) => body.extend_from_slice(data),
                    _ => seen.push(Seen::Body(data.to_vec())),
                },
                Ok(Step::Event(ServerEvent::End)) => {
                    seen.push(Seen::End);
                    link.respond(200, "OK", &[], BodyLength::Length(2), false).unwrap();
                    link.body(b"ok").unwrap();
                    link.finish().unwrap();
                }
                Ok(_) => break,
                Err(error) => {
                    if !matches!(seen.last(), Some(Seen::Failed(_))) {
                        seen.push(Seen::Failed(error.code()));
                    }
                    break;
                }
            }
            while let Some(bytes) = link.transmit() {
                sent.extend_from_slice(bytes);
                let n = bytes.len();
                link.transmitted(n);
            }
        }
        while let Some(bytes) = link.transmit() {
            sent.extend_from_slice(bytes);
            let n = bytes.len();
            link.transmitted(n);
        }
    }
    (seen, String::from_utf8_lossy(&sent).into_owned())
}

fn status(request: &str) -> u16 {
    let (_, sent) = serve(&[request.as_bytes()], false);
    sent.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

const STREAM: &str = "GET /a?x=1 HTTP/1.1\r\nHost: conf.test\r\nX-A:  b \r\n\r\n\
    POST /b HTTP/1.1\r\nHost: conf.test\r\nContent-Length: 5\r\n\r\nhello\
    \r\nPOST /c HTTP/1.1\r\nHost: conf.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n\
    GET http://other.test HTTP/1.1\r\nHost: conf.test\r\n\r\n\
    OPTIONS * HTTP/1.1\r\nHost: conf.test\r\nConnection: Close\r\n\r\n";

#[test]
fn every_split_gives_the_same_events_and_answers() {
    let whole = serve(&[STREAM.as_bytes()], false);
    assert_eq!(whole.0.iter().filter(|seen| **seen == Seen::End).count(), 5);
    assert_eq!(whole.1.matches("HTTP/1.1 200 OK").count(), 5);
    assert!(whole.1.contains("Connection: close"));
    for cut in 0..=STREAM.len() {
        let (a, b) = STREAM.as_bytes().split_at(cut);
        assert_eq!(serve(&[a, b], false), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = STREAM.as_bytes().chunks(1).collect();
    assert_eq!(serve(&bytes, false), whole);
}

#[test]
fn refused_requests_are_answered_and_nothing_after_them_is_read() {
    let host = "Host: conf.test\r\n";
    let cases: &[(u16, String)] = &[
        (400, format!("GET /a HTTP/1.1\n{host}\r\n")),
        (400, "GET /a HTTP/1.1\r\n\r\n".into()),
        (400, format!("GET /a HTTP/1.1\r\n{host}{host}\r\n")),
        (400, format!("GET /a HTTP/1.0\r\n{host}{host}\r\n")),
        (400, "GET /a HTTP/1.1\r\nHost : a\r\n\r\n".into()),
        (400, format!("GET  /a HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET a HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET * HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /a\u{1} HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /a#b HTTP/1.1\r\n{host}\r\n")),
        (501, format!("CONNECT a:80 HTTP/1.1\r\n{host}\r\n")),
        (505, format!("GET /a HTTP/2.0\r\n{host}\r\n")),
        (400, format!("GET /a HTTP/1.10\r\n{host}\r\n")),
        (400, format!("GET /a HTTP/1.1\r\n{host}X-A: a\r\n b\r\n\r\n")),
        (400, format!("GET /a HTTP/1.1\r\n{host}X-A: a\u{0}b\r\n\r\n")),
        (400, format!("GET /a HTTP/1.1\r\n{host}X-A: a\rb\r\n\r\n")),
        (400, format!("GET /a HTTP/1.1\r\n{host}: b\r\n\r\n")),
        (400, format!("POST /a HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc")),
        (400, format!("POST /a HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc")),
        (400, format!("POST /a HTTP/1.1\r\n{host}Content-Length: 3, 3\r\n\r\nabc")),
        (400, format!("POST /a HTTP/1.1\r\n{host}Content-Length: 18446744073709551616\r\n\r\nabc")),
        (
            400,
            format!(
                "POST /a HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (400, format!("POST /a HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        (501, format!("POST /a HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        (400, format!("POST /a HTTP/1.1\r\n{host}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n")),
        (417, format!("POST /a HTTP/1.1\r\n{host}Expect: x\r\nContent-Length: 1\r\n\r\na")),
        (414, format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(9000))),
        (431, format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "a".repeat(9000))),
        (431, format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: 1\r\n".repeat(100))),
    ];
    for (expected, request) in cases {
        let smuggled = format!("{request}GET /smuggled HTTP/1.1\r\n{host}\r\n");
        let (seen, sent) = serve(&[smuggled.as_bytes()], false);
        assert_eq!(status(&smuggled), *expected, "{request:?}");
        assert!(sent.contains("Connection: close"), "{request:?}");
        assert!(
            !seen.iter().any(|seen| matches!(seen, Seen::Request { path, .. } if path == "/smuggled")),
            "{request:?}"
        );
        assert_eq!(sent.matches("HTTP/1.1 ").count(), 1, "{request:?}");
    }
}

#[test]
fn size_limits_are_exact() {
    let line =
        |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(n - "GET / HTTP/1.1".len()));
    assert_eq!([8_191, 8_192, 8_193].map(|n| status(&line(n))), [200, 200, 414]);
    let header = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(n - 3));
    assert_eq!([8_191, 8_192, 8_193].map(|n| status(&header(n))), [200, 200, 431]);
    let fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(n - 1));
    assert_eq!([99, 100, 101].map(|n| status(&fields(n))), [200, 200, 431]);
    let head = |n: usize| {
        let mut head =
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}", format!("X: {}\r\n", "a".repeat(8_000)).repeat(4));
        let rest = n - head.len() - "Y: \r\n\r\n".len();
        head.push_str(&format!("Y: {}\r\n\r\n", "b".repeat(rest)));
        assert_eq!(head.len(), n);
        head
    };
    assert_eq!([32_767, 32_768, 32_769].map(|n| status(&head(n))), [200, 200, 431]);
}

#[test]
fn a_cut_message_is_an_error() {
    for cut in 1..STREAM.len() - 1 {
        let (seen, _) = serve(&[&STREAM.as_bytes()[..cut]], true);
        let whole = seen.iter().filter(|seen| **seen == Seen::End).count();
        let begun = seen.iter().filter(|seen| matches!(seen, Seen::Request { .. })).count();
        if begun > whole {
            assert_eq!(seen.last(), Some(&Seen::Failed(None)), "cut at {cut}");
        }
    }
}

#[test]
fn response_splitting_is_refused_whole() {
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while let Ok(Step::Event(_)) = link.poll_event(Instant::now()) {}
    for (name, value) in [
        ("X", "a\r\nY: b"),
        ("X", "a\n"),
        ("X\r\n", "a"),
        ("X ", "a"),
        ("", "a"),
        ("X", "\0"),
        ("Content-Length", "1"),
    ] {
        let headers = [(name.as_bytes(), value.as_bytes())];
        assert!(link.respond(200, "OK", &headers, BodyLength::None, false).is_err(), "{name:?}: {value:?}");
        assert_eq!(link.transmit(), None);
    }
    assert!(link.respond(200, "O\r\nK", &[], BodyLength::None, false).is_err());
    assert!(link.respond(204, "No Content", &[], BodyLength::None, false).is_ok());
    assert_eq!(link.transmit(), Some(&b"HTTP/1.1 204 No Content\r\n\r\n"[..]));
}

#[test]
fn a_body_of_the_wrong_length_cuts_the_connection() {
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while let Ok(Step::Event(_)) = link.poll_event(Instant::now()) {}
    link.respond(200, "OK", &[], BodyLength::Length(3), false).unwrap();
    assert!(link.body(b"four").is_err());
    link.body(b"ab").unwrap();
    assert!(link.finish().is_err());
    assert!(link.is_shutdown());
}

#[test]
fn an_unread_body_is_drained_or_ends_the_connection() {
    let early = |length: usize, sent: usize| {
        let mut link = Link::new(Server::new(Limits::default()));
        let now = Instant::now();
        link.receive(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Request(_)))));
        link.respond(413, "Content Too Large", &[], BodyLength::None, false).unwrap();
        link.finish().unwrap();
        link.receive(&vec![b'x'; sent]);
        link.receive(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Request(_))))
    };
    assert!(early(1000, 1000));
    assert!(!early(1_000_000, 1_000_000));
}

#[test]
fn clocks_run_only_while_the_client_is_awaited() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let mut link = Link::new(Server::new(Limits::default()));
    assert!(matches!(link.poll_event(start), Ok(Step::NeedInput)));
    assert_eq!(link.poll_timeout(), Some(start + 30 * second));
    link.receive(b"POST / HTTP/1.1\r\n");
    assert!(matches!(link.poll_event(start + second), Ok(Step::NeedInput)));
    assert_eq!(link.poll_timeout(), Some(start + 11 * second));
    link.receive(b"Host: a\r\nContent-Length: 5\r\n\r\n");
    assert!(matches!(link.poll_event(start + second), Ok(Step::Event(_))));
    assert_eq!(link.poll_timeout(), None);
    assert!(matches!(link.poll_event(start + 100 * second), Ok(Step::NeedInput)));
    assert_eq!(link.poll_timeout(), Some(start + 110 * second));
    assert_eq!(link.handle_timeout(start + 109 * second), Ok(()));
    assert_eq!(link.handle_timeout(start + 110 * second), Err(Error::Timeout(Timer::Body)));
    assert!(link.transmit().is_some_and(|answer| answer.starts_with(b"HTTP/1.1 408 ")));
}

#[test]
fn an_idle_connection_costs_little() {
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(STREAM.split_inclusive("\r\n\r\n").next().unwrap().as_bytes());
    while let Ok(Step::Event(_)) = link.poll_event(Instant::now()) {}
    assert!(size_of_val(&link) <= 512, "{} bytes", size_of_val(&link));
}

/// RFC 9110 section 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
#[test]
fn an_upgrade_field_is_named_by_the_connection() {
    let now = Instant::now();
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(b"GET / HTTP/1.1\r\nHost: conf.test\r\n\r\n");
    while !matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::End))) {}
    link.respond(426, "Upgrade Required", &[(b"Upgrade", b"websocket")], BodyLength::None, false).unwrap();
    link.finish().unwrap();
    let sent = String::from_utf8_lossy(link.transmit().unwrap()).into_owned();
    assert!(
        sent.contains("\r\nUpgrade: websocket\r\n") && sent.contains("\r\nConnection: upgrade\r\n"),
        "{sent}"
    );
}

#[test]
fn a_field_is_known_by_all_of_its_name() {
    // Of the lengths of Host, Expect, Upgrade, Connection, Content-Type, Content-Length and
    // Transfer-Encoding.
    let others =
        ["tsoh", "tcepxe", "edargpu", "noitcennoc", "epyt-tnetnoc", "htgnel-tnetnoc", "gnidocne-refsnart"];
    let fields: String = others.iter().map(|name| format!("{name}: close, upgrade\r\n")).collect();
    for connection in ["", "Connection: upgrade\r\n"] {
        let mut link = Link::new(Server::new(Limits::default()));
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{connection}{}{}\r\n", fields, fields);
        link.receive(head.as_bytes());
        let Ok(Step::Event(ServerEvent::Request(head))) = link.poll_event(Instant::now()) else {
            panic!("{head} is a request");
        };
        assert!(head.keep_alive && !head.upgrade && !head.expect_continue);
        assert_eq!(head.framing, Framing::None);
    }
}

#[test]
fn the_parts_of_a_target() {
    for (line, path, query, authority) in [
        ("GET /a?b=c?d", "/a", "b=c?d", None),
        ("GET /?", "/", "", None),
        ("OPTIONS *", "*", "", None),
        ("GET http://b.test:80/a?b", "/a", "b", Some("b.test:80")),
        // "if the URI's path component is empty, [...] the client MUST send '/'"; so it is taken.
        ("GET http://b.test", "/", "", Some("b.test")),
        ("GET https://b.test?b", "/", "b", Some("b.test")),
        ("CONNECT b.test:80", "", "", Some("b.test:80")),
    ] {
        let mut link = Link::new(Server::new(Limits::default()).with_tunnels());
        link.receive(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let Ok(Step::Event(ServerEvent::Request(head))) = link.poll_event(Instant::now()) else {
            panic!("{line} is a request");
        };
        assert_eq!((head.path, head.query, head.authority), (path, query, authority), "{line}");
    }
}

#[test]
fn who_wants_the_connection_to_go_on() {
    for (version, connection, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Close, keep-alive\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: close\r\n", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: x, keep-alive, y\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
    ] {
        let (seen, sent) =
            serve(&[format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n").as_bytes()], false);
        assert_eq!(seen.len(), 2, "{version} {connection}");
        assert_eq!(!sent.contains("Connection: close\r\n"), keep_alive, "{version} {connection}");
        assert_eq!(sent.contains("keep-alive"), keep_alive && version == "1.0", "{version} {connection}");
    }
}

#[test]
fn versions_that_are_not_spoken() {
    for (code, version) in [
        (200, "HTTP/1.0"),
        (200, "HTTP/1.1"),
        (505, "HTTP/2.0"),
        (505, "HTTP/1.2"),
        (505, "HTTP/0.9"),
        (505, "HTTP/9.9"),
        (400, "HTTP/2.0x"),
        (400, "HTTP/2"),
        (400, "HTTP/11.1"),
        (400, "HTTP/1.10"),
        (400, "http/1.1"),
        (400, "HTTP/1.x"),
        (400, "HTTP-1.1"),
    ] {
        assert_eq!(status(&format!("GET / {version}\r\nHost: a\r\n\r\n")), code, "{version}");
    }
}

#[test]
fn the_payload_behind_an_extension_is_that_of_its_chunk_alone() {
    let mut link = Link::new(Server::new(Limits::default()).with_extensions());
    let body = "3;a=b\r\nabc\r\n2\r\nde\r\n1\r\nf\r\n2;c\r\ngh\r\n0\r\n\r\n";
    link.receive(
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").as_bytes(),
    );
    let mut seen = Vec::new();
    while let Ok(Step::Event(event)) = link.poll_event(Instant::now()) {
        match event {
            ServerEvent::Extension(text) => seen.push(format!(";{}", text.escape_ascii())),
            ServerEvent::Body(data) => seen.push(data.escape_ascii().to_string()),
            _ => {}
        }
    }
    assert_eq!(seen, [";a=b", "abc", "de", "f", ";c", "gh"]);
}
