//! What an owner can ask of an HTTP/1.1 machine, and when: what is refused changes nothing and
//! sends nothing.

use std::time::{Duration, Instant};

use balrog_proto::http1::{
    BodyLength, Client, ClientEvent, Limits, Server, ServerEvent, Trailers, Tunnel, TunnelEvent,
};
use balrog_proto::{Error, Link, Machine, Phase, Step, Transmit};

type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

fn client() -> Link<Client> {
    Link::new(Client::new(Limits::default()))
}

/// A server that has read this.
fn server(request: &str) -> Link<Server> {
    let mut link = Link::new(Server::new(Limits::default()).with_tunnels());
    link.receive(request.as_bytes());
    while matches!(link.poll_event(Instant::now()), Ok(Step::Event(_))) {}
    link
}

fn sent<M: Machine>(link: &mut Link<M>) -> String {
    let mut out = Vec::new();
    while let Some(transmit) = link.poll_transmit() {
        let n = match transmit {
            Transmit::Data(segments) => {
                let before = out.len();
                segments.for_each(|segment| out.extend_from_slice(segment));
                out.len() - before
            }
            Transmit::External(n) => {
                out.extend_from_slice(&b"#".repeat(n));
                n
            }
            Transmit::Shutdown => break,
        };
        link.transmitted(n);
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn what_a_request_must_not_be() {
    let mut link = client();
    let cases: &[(&str, &str, Fields<'_>, BodyLength)] = &[
        ("GET", "/", &[(b"Host", b"b"), (b"Host", b"b")], BodyLength::None),
        ("GET", "/", &[(b"Host", b"b@c")], BodyLength::None),
        ("GET", "/", &[(b"Host", b"")], BodyLength::None),
        ("POST", "/", &[(b"Expect", b"200-ok")], BodyLength::Length(1)),
        ("POST", "/", &[(b"expect", b"")], BodyLength::Length(1)),
        ("CONNECT", "a", &[], BodyLength::None),
        ("CONNECT", "/", &[], BodyLength::None),
        ("CONNECT", "a:80", &[], BodyLength::Length(1)),
        ("CONNECT", "a:80", &[], BodyLength::Unknown),
        ("GET", "/", &[(b"X Y", b"z")], BodyLength::None),
        ("GET", "/", &[(b"", b"z")], BodyLength::None),
        ("GET", "/", &[(b"X", b"y\0")], BodyLength::None),
        ("GET", "/#a", &[], BodyLength::None),
        ("GET", "/\u{e9}", &[], BodyLength::None),
        ("", "/", &[], BodyLength::None),
        ("G\r\n", "/", &[], BodyLength::None),
    ];
    for (method, target, headers, body) in cases {
        assert!(link.request(method, target, "a", headers, *body).is_err(), "{method} {target} {headers:?}");
        assert_eq!(sent(&mut link), "");
    }
    // Nothing was begun.
    assert!(!link.may_send_body());
    assert!(link.body(b"x").is_err() && link.body_external(1).is_err());
    link.finish().unwrap();
    let host: Fields<'_> = &[(b"hOST", b"b:81")];
    link.request("GET", "/", "a", host, BodyLength::None).unwrap();
    assert_eq!(sent(&mut link), "GET / HTTP/1.1\r\nhOST: b:81\r\n\r\n");
    assert!(link.request("GET", "/", "a", &[], BodyLength::None).is_err(), "in the middle of an exchange");
}

#[test]
fn bodies_of_requests_that_the_driver_sends() {
    let mut link = client();
    link.request("PUT", "/", "a", &[], BodyLength::Length(20)).unwrap();
    sent(&mut link);
    assert!(link.body_external(21).is_err());
    link.body_external(18).unwrap();
    link.body(b"ok").unwrap();
    link.finish().unwrap();
    assert_eq!(sent(&mut link), "##################ok");
    let mut link = client();
    link.request("PUT", "/", "a", &[], BodyLength::Unknown).unwrap();
    assert!(link.may_send_body());
    sent(&mut link);
    link.body_external(0).unwrap();
    link.body_external(18).unwrap();
    link.body(b"").unwrap();
    link.finish().unwrap();
    assert_eq!(sent(&mut link), "12\r\n##################\r\n0\r\n\r\n");
    assert!(!link.may_send_body());
}

#[test]
fn what_can_be_sent_again_and_when() {
    let mut link = client();
    assert!(link.is_unanswered());
    link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
    assert!(link.safe_to_retry());
    sent(&mut link);
    assert!(!link.safe_to_retry(), "it may have arrived");
    let mut link = client();
    link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
    link.receive(b"H");
    assert!(matches!(link.poll_event(Instant::now()), Ok(Step::NeedInput)));
    assert!(!link.safe_to_retry() && !link.is_unanswered(), "an answer has begun");
}

#[test]
fn an_idle_server_says_nothing_but_its_end() {
    let now = Instant::now();
    let mut link = client();
    assert!(matches!(link.poll_event(now), Ok(Step::Paused)));
    link.shrink();
    link.receive(b"HTTP/1.1 408 Request Timeout\r\n\r\n");
    assert!(matches!(link.poll_event(now), Ok(Step::Closed)));
    assert!(link.request("GET", "/", "a", &[], BodyLength::None).is_err());
    let mut link = client();
    link.receive_eof();
    assert!(matches!(link.poll_event(now), Ok(Step::Closed)));
    assert!(!link.interest().read);
}

#[test]
fn protocols_are_switched_behind_a_whole_request() {
    let now = Instant::now();
    let offer: Fields<'_> = &[(b"Upgrade", b"x"), (b"Connection", b"upgrade")];
    for (all, good) in [(true, true), (false, false)] {
        let mut link = client();
        link.request("POST", "/", "a", offer, BodyLength::Length(2)).unwrap();
        link.body(if all { b"ok" } else { b"o" }).unwrap();
        assert_eq!(link.finish().is_ok(), all);
        link.receive(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
        let outcome = link.poll_event(now);
        assert_eq!(matches!(outcome, Ok(Step::Event(ClientEvent::Upgraded(_)))), good, "{outcome:?}");
        assert_eq!(outcome.is_err(), !good);
    }
    // And a server does so when it has read it.
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(
        b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok",
    );
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Request(_)))));
    assert!(link.switch_protocols(&[]).is_err());
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Body(b"ok")))));
    link.switch_protocols(&[(b"Upgrade", b"x")]).unwrap();
    assert!(link.closes());
    assert_eq!(sent(&mut link), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
}

#[test]
fn what_a_response_must_not_be() {
    let mut link = server("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for (status, reason) in [(0, ""), (99, ""), (1000, ""), (200, "a\r\nX: y"), (200, "\0"), (200, "a\u{7f}")]
    {
        assert!(link.respond(status, reason, &[], BodyLength::None, false).is_err(), "{status} {reason:?}");
    }
    assert!(link.accept_tunnel(&[]).is_err(), "no CONNECT");
    assert_eq!(sent(&mut link), "");
    assert!(!link.closes() && !link.response_started());
    link.respond(200, "caf\u{e9}", &[], BodyLength::Unknown, false).unwrap();
    assert!(link.respond(200, "OK", &[], BodyLength::None, false).is_err(), "twice");
    let forbidden: Fields<'_> = &[(b"Content-Length", b"1")];
    assert!(link.finish_with(forbidden).is_err());
    let trailers: Fields<'_> = &[(b"X", b"y")];
    link.finish_with(trailers).unwrap();
    let all = sent(&mut link);
    assert!(
        all.starts_with("HTTP/1.1 200 caf\u{e9}\r\n") && all.ends_with("\r\n\r\n0\r\nX: y\r\n\r\n"),
        "{all}"
    );

    let mut link = server("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n");
    for name in [&b"Content-Length"[..], b"transfer-encoding", b"Connection"] {
        assert!(link.accept_tunnel(&[(name, b"1")]).is_err(), "{}", name.escape_ascii());
    }
    assert!(link.accept_tunnel(&[(b"X", b"\n")]).is_err());
    assert_eq!(sent(&mut link), "");
    link.accept_tunnel(&[(b"X", b"y")]).unwrap();
    assert_eq!(sent(&mut link), "HTTP/1.1 200 OK\r\nX: y\r\n\r\n");
}

#[test]
fn the_last_request_may_be_on_its_way() {
    let now = Instant::now();
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(b"GET / HTTP/1.1\r\n");
    assert!(matches!(link.poll_event(now), Ok(Step::NeedInput)));
    link.close_soon();
    link.receive(b"Host: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Request(_)))));
    assert!(link.closes());
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::End))));
    link.respond(204, "", &[], BodyLength::None, false).unwrap();
    link.finish().unwrap();
    assert!(matches!(link.poll_event(now), Ok(Step::Closed)));
    assert_eq!(sent(&mut link), "HTTP/1.1 204 \r\nConnection: close\r\n\r\n");
}

#[test]
fn expectations_of_http_1_0_are_ignored() {
    let now = Instant::now();
    for expectation in ["100-continue", "200-ok", ""] {
        let mut link = Link::new(Server::new(Limits::default()));
        link.receive(
            format!("POST / HTTP/1.0\r\nExpect: {expectation}\r\nContent-Length: 1\r\n\r\n").as_bytes(),
        );
        assert!(
            matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Request(head))) if !head.expect_continue)
        );
        assert!(!link.wants_continue());
    }
}

#[test]
fn fields_are_counted() {
    let now = Instant::now();
    let mut link = Link::new(Server::new(Limits::default()).with_trailers(Trailers::All));
    link.receive(b"POST / HTTP/1.0\r\n\r\n");
    let Ok(Step::Event(ServerEvent::Request(head))) = link.poll_event(now) else { panic!("no request") };
    assert!(head.headers.is_empty());
    assert_eq!(head.headers.len(), 0);
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: b\r\nX-Request-Id: c\r\n\r\n");
    let Ok(Step::Event(ServerEvent::Request(head))) = link.poll_event(now) else { panic!("no request") };
    assert!(!head.headers.is_empty());
    assert_eq!((head.headers.len(), head.headers.all("x-request-id").count()), (3, 2));
}

#[test]
fn a_tunnel_ends_in_each_direction_by_itself() {
    let now = Instant::now();
    let mut link = Link::new(Tunnel::default());
    assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
    assert!(link.interest().read && link.bulk() == Some(u64::MAX));
    assert_eq!((link.poll_timeout(), link.handle_timeout(now + Duration::from_secs(3_600))), (None, Ok(())));
    link.receive(b"ab");
    assert_eq!(link.bulk(), None, "what is here comes first");
    assert_eq!(link.poll_event(now), Ok(Step::Event(TunnelEvent::Data(b"ab"))));
    assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
    // Past the inbox, too.
    link.bulk_received(now, 5);
    assert_eq!(link.position(), 7);
    link.receive_eof();
    assert_eq!(link.poll_event(now), Ok(Step::Event(TunnelEvent::End)));
    assert_eq!(link.poll_event(now), Ok(Step::Paused));
    assert_eq!(link.bulk(), None);
    assert!(!link.interest().read);
    link.send(b"the last word").unwrap();
    link.shut();
    assert_eq!(sent(&mut link), "the last word");
    assert_eq!(link.poll_event(now), Ok(Step::Closed));
}

#[test]
fn an_end_tells_how_far_it_came() {
    for (bytes, phase) in [
        ("", Phase::Idle),
        ("HTTP/1.1 2", Phase::Head),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", Phase::Body),
    ] {
        let mut link = client();
        link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
        sent(&mut link);
        link.receive(bytes.as_bytes());
        link.receive_eof();
        let end = loop {
            match link.poll_event(Instant::now()) {
                Ok(Step::Event(_)) => {}
                other => break other.err(),
            }
        };
        assert_eq!(end, Some(Error::Eof(phase)), "{bytes}");
    }
}
