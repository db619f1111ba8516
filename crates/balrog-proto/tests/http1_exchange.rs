//! What the two sides can do besides a request and its response, against each other where both can.

use std::time::Instant;

use balrog_proto::http1::{
    BodyLength, Client, ClientEvent, Limits, Server, ServerEvent, Trailers, Tunnel, TunnelEvent,
};
use balrog_proto::{Error, Link, Phase, Step, Transmit};

fn server() -> Link<Server> {
    Link::new(Server::new(Limits::default()))
}

fn client() -> Link<Client> {
    Link::new(Client::new(Limits::default()))
}

/// Moves bytes from one link to another, `n` at most.
fn pump<A: balrog_proto::Machine, B: balrog_proto::Machine>(from: &mut Link<A>, to: &mut Link<B>, n: usize) {
    let bytes: Vec<u8> = from.segments().flatten().copied().take(n).collect();
    from.transmitted(bytes.len());
    to.receive(&bytes);
}

fn sent(link: &Link<Server>) -> String {
    String::from_utf8(link.segments().flatten().copied().collect()).unwrap()
}

/// Everything that happens on the server's side, as text.
fn told(link: &mut Link<Server>) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        seen.push(match link.poll_event(Instant::now()) {
            Ok(Step::Event(ServerEvent::Request(head))) => format!("{} {}", head.method, head.target),
            Ok(Step::Event(ServerEvent::Body(data))) => format!("body {}", data.escape_ascii()),
            Ok(Step::Event(ServerEvent::Extension(data))) => format!("extension {}", data.escape_ascii()),
            Ok(Step::Event(ServerEvent::Trailers(fields))) => {
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| format!("{name}={}", value.escape_ascii())).collect();
                format!("trailers {}", fields.join(" "))
            }
            Ok(Step::Event(ServerEvent::End)) => "end".into(),
            Ok(Step::NeedInput) => return seen,
            Ok(Step::Paused) => return seen,
            Ok(Step::Closed) => {
                seen.push("closed".into());
                return seen;
            }
            Err(error) => {
                seen.push(format!("error {error}"));
                return seen;
            }
        });
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn chunk_extensions_and_trailers_are_told_to_who_asks() {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        2;a=b;c=\"d;e\"\r\nhi\r\n0\r\nDigest: x\r\nOther: y\r\n\r\n";
    let expected = |machine: Server, expected: &[&str]| {
        let mut link = Link::new(machine);
        link.receive(bytes);
        assert_eq!(told(&mut link), expected);
    };
    let machine = || Server::new(Limits::default());
    expected(machine(), &["POST /", "body hi", "end"]);
    expected(
        machine().with_extensions().with_trailers(Trailers::Only(&["digest"])),
        &["POST /", "extension a=b;c=\\\"d;e\\\"", "body hi", "trailers Digest=x", "end"],
    );
    expected(
        machine().with_trailers(Trailers::All),
        &["POST /", "body hi", "trailers Digest=x Other=y", "end"],
    );
    expected(machine().with_trailers(Trailers::Only(&["none"])), &["POST /", "body hi", "end"]);
}

#[test]
fn trailers_go_both_ways() {
    let (mut client, mut server) = (
        Link::new(Client::new(Limits::default()).with_trailers(Trailers::All)),
        Link::new(Server::new(Limits::default()).with_trailers(Trailers::All)),
    );
    client.request("POST", "/", "a", &[], BodyLength::Unknown).unwrap();
    client.body(b"order").unwrap();
    assert!(client.finish_with(&[(b"Content-Length", b"1")]).is_err());
    assert!(client.finish_with(&[(b"X", b"a\r\nY: b")]).is_err());
    client.finish_with(&[(b"Sum", b"17")]).unwrap();
    pump(&mut client, &mut server, usize::MAX);
    assert_eq!(told(&mut server), ["POST /", "body order", "trailers Sum=17", "end"]);
    server.respond(200, "OK", &[], BodyLength::Unknown, false).unwrap();
    server.body(b"soup").unwrap();
    server.finish_with(&[(b"Sum", b"18")]).unwrap();
    pump(&mut server, &mut client, usize::MAX);
    let mut seen = Vec::new();
    while let Step::Event(event) = client.poll_event(Instant::now()).unwrap() {
        if let ClientEvent::Trailers(fields) = event {
            seen.push(fields.get("sum").unwrap().to_vec());
        }
    }
    assert_eq!(seen, [b"18"]);
}

#[test]
fn informational_responses_come_before_the_final_one() {
    let mut link = server();
    assert!(link.inform(103, &[]).is_err(), "nobody has asked");
    link.receive(GET);
    told(&mut link);
    for status in [101, 200, 99] {
        assert!(link.inform(status, &[]).is_err());
    }
    assert!(link.inform(103, &[(b"Content-Length", b"1")]).is_err());
    assert!(link.inform(103, &[(b"Link", b"</a>\r\n")]).is_err());
    assert_eq!(sent(&link), "");
    link.inform(103, &[(b"Link", b"</a>")]).unwrap();
    link.inform(102, &[]).unwrap();
    link.respond(204, "No Content", &[], BodyLength::None, false).unwrap();
    assert!(link.inform(103, &[]).is_err());
    assert_eq!(
        sent(&link),
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    );
    let mut link = server();
    link.receive(b"GET / HTTP/1.0\r\n\r\n");
    told(&mut link);
    link.inform(103, &[]).unwrap();
    assert_eq!(sent(&link), "", "HTTP/1.0 knows no such responses");
}

#[test]
fn pipelined_requests_wait_unread() {
    let mut link = server();
    link.receive(&[GET, GET, GET].concat());
    for left in (0..3).rev() {
        assert_eq!(told(&mut link), ["GET /", "end"]);
        assert!(!link.wants_input(), "nothing more is read while a response is under way");
        assert_eq!(link.unread(), left * GET.len());
        link.respond(204, "No Content", &[], BodyLength::None, false).unwrap();
        link.finish().unwrap();
    }
    assert_eq!(told(&mut link), [""; 0]);
    assert!(link.wants_input() && link.is_idle());
}

#[test]
fn a_tunnel_takes_over_with_what_came_behind_it() {
    let connect = b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n";
    let mut refusing = server();
    refusing.receive(connect);
    assert!(told(&mut refusing)[0].starts_with("error no tunnels here"));

    let with_tunnels = || Link::new(Server::new(Limits::default()).with_tunnels());
    for cut in 0..=connect.len() {
        let (mut client, mut server) = (client(), with_tunnels());
        let header: [(&[u8], &[u8]); 0] = [];
        client.request("CONNECT", "db.example:5432", "db.example:5432", &header, BodyLength::None).unwrap();
        pump(&mut client, &mut server, cut);
        told(&mut server);
        pump(&mut client, &mut server, usize::MAX);
        server.receive(b"early");
        told(&mut server);
        assert!(server.respond(200, "OK", &[], BodyLength::None, false).is_err());
        server.accept_tunnel(&[]).unwrap();
        let mut server = server.replace(Tunnel::default());
        server.send(b"hello").unwrap();
        pump(&mut server, &mut client, usize::MAX);
        let now = Instant::now();
        assert!(
            matches!(client.poll_event(now), Ok(Step::Event(ClientEvent::Upgraded(head))) if head.status == 200)
        );
        let mut client = client.replace(Tunnel::default());
        assert_eq!(client.poll_event(now), Ok(Step::Event(TunnelEvent::Data(b"hello"))));
        assert_eq!(server.poll_event(now), Ok(Step::Event(TunnelEvent::Data(b"early"))));
        client.shut();
        assert!(client.send(b"x").is_err());
        server.receive_eof();
        assert_eq!(server.poll_event(now), Ok(Step::Event(TunnelEvent::End)));
        assert_eq!(server.poll_event(now), Ok(Step::Paused), "the other way is still open");
        server.shut();
        assert_eq!(server.poll_event(now), Ok(Step::Closed));
    }

    // Behind a refused one there may be what was meant for the tunnel: it is never read.
    let mut link = with_tunnels();
    link.receive(&[&connect[..], GET].concat());
    assert_eq!(told(&mut link)[0], "CONNECT db.example:5432");
    link.respond(403, "Forbidden", &[], BodyLength::None, false).unwrap();
    link.finish().unwrap();
    assert_eq!(told(&mut link), ["closed"]);
    assert!(sent(&link).contains("Connection: close\r\n"));
    for bad in ["db.example", "db.example:", ":80", "http://a:80/", "/", "u@a:80"] {
        let mut link = with_tunnels();
        link.receive(format!("CONNECT {bad} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(told(&mut link)[0].starts_with("error"), "{bad}");
    }
    let mut link = with_tunnels();
    link.receive(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(told(&mut link)[0].starts_with("error"));
}

#[test]
fn protocols_are_switched_only_to_what_was_offered() {
    let mut link = server();
    link.receive(GET);
    told(&mut link);
    assert!(link.switch_protocols(&[(b"Upgrade", b"x")]).is_err(), "nobody offered");
    for (response, good) in [
        ("Upgrade: x\r\nConnection: upgrade\r\n", true),
        ("Upgrade: X\r\nConnection: keep-alive, Upgrade\r\n", true),
        ("Upgrade: y\r\nConnection: upgrade\r\n", false),
        ("Upgrade: x, y\r\nConnection: upgrade\r\n", false),
        ("Upgrade: x\r\n", false),
        ("Connection: upgrade\r\n", false),
    ] {
        let mut link = client();
        let offer: [(&[u8], &[u8]); 2] = [(b"Upgrade", b"x, z"), (b"Connection", b"upgrade")];
        link.request("GET", "/", "a", &offer, BodyLength::None).unwrap();
        link.receive(format!("HTTP/1.1 101 Switching Protocols\r\n{response}\r\n").as_bytes());
        assert_eq!(link.poll_event(Instant::now()).is_ok(), good, "{response:?}");
    }
}

#[test]
fn bodies_pass_by_the_buffers() {
    // Out: the driver is told where its own bytes go.
    let mut link = server();
    link.receive(GET);
    told(&mut link);
    link.respond(200, "OK", &[], BodyLength::Unknown, false).unwrap();
    link.body_external(0).unwrap();
    link.body_external(300).unwrap();
    link.finish().unwrap();
    let mut out = Vec::new();
    while let Some(transmit) = link.poll_transmit() {
        let n = match transmit {
            Transmit::Data(segments) => {
                let bytes: Vec<u8> = segments.flatten().copied().collect();
                out.extend_from_slice(&bytes);
                bytes.len()
            }
            Transmit::External(n) => {
                out.push(b'#');
                n.min(100)
            }
            Transmit::Shutdown => unreachable!("the connection stays"),
        };
        link.transmitted(n);
    }
    assert!(out.ends_with(b"\r\n\r\n12c\r\n###\r\n0\r\n\r\n"), "{}", out.escape_ascii());
    let mut link = server();
    link.receive(GET);
    told(&mut link);
    link.respond(200, "OK", &[], BodyLength::Length(5), false).unwrap();
    assert!(link.body_external(6).is_err());
    link.body_owned(b"owned".to_vec()).unwrap();
    link.finish().unwrap();

    // In: what is payload and nothing else need not come through the inbox.
    let now = Instant::now();
    let mut link = server();
    assert_eq!(link.bulk(), None);
    link.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab");
    assert!(matches!(link.poll_event(now), Ok(Step::Event(_))));
    assert_eq!(link.bulk(), None, "two bytes are in the inbox");
    assert_eq!(told(&mut link), ["body ab"]);
    assert_eq!(link.bulk(), Some(8));
    link.bulk_received(now, 5);
    assert_eq!((link.bulk(), link.position()), (Some(3), 55));
    link.bulk_received(now, 3);
    link.receive(GET);
    assert_eq!(told(&mut link), ["end"]);
    assert_eq!(link.unread(), GET.len());

    let mut link = client();
    link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
    link.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n");
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ClientEvent::Response(_)))));
    assert!(matches!(link.poll_event(now), Ok(Step::NeedInput)));
    assert_eq!(link.bulk(), Some(6));
    link.bulk_received(now, 6);
    assert_eq!(link.bulk(), None);
    link.receive(b"\r\n0\r\n\r\n");
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ClientEvent::End { reusable: true }))));
}

#[test]
fn what_was_never_sent_can_be_sent_again() {
    let close = |sent: usize, received: &[u8]| {
        let mut link = client();
        link.request("POST", "/", "a", &[], BodyLength::None).unwrap();
        link.transmitted(sent);
        link.receive(received);
        link.receive_eof();
        let safe = link.safe_to_retry();
        let error = link.poll_event(Instant::now()).unwrap_err();
        assert_eq!(error.safe_to_retry(), safe);
        error
    };
    assert_eq!(close(0, b""), Error::Eof(Phase::Unsent));
    assert_eq!(close(1, b""), Error::Eof(Phase::Idle));
    assert_eq!(close(100, b""), Error::Eof(Phase::Idle));
    assert_eq!(close(100, b"HTTP"), Error::Eof(Phase::Head));
    // Also the second request on a connection.
    let mut link = client();
    link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
    link.transmitted(link.unsent());
    link.receive(b"HTTP/1.1 204 No Content\r\n\r\n");
    while let Step::Event(_) = link.poll_event(Instant::now()).unwrap() {}
    link.request("POST", "/", "a", &[], BodyLength::None).unwrap();
    assert!(link.safe_to_retry() && link.is_unanswered());
    link.receive_eof();
    assert_eq!(link.poll_event(Instant::now()).unwrap_err(), Error::Eof(Phase::Unsent));
}

#[test]
fn a_connection_that_is_to_close_takes_no_further_request() {
    let mut link = server();
    link.receive(GET);
    told(&mut link);
    link.close_soon();
    link.respond(204, "No Content", &[], BodyLength::None, false).unwrap();
    assert!(link.closes() && sent(&link).contains("Connection: close\r\n"));
    link.finish().unwrap();
    link.receive(GET);
    assert_eq!(told(&mut link), ["closed"]);
    // Right behind a response, before anybody has asked what else came.
    let mut link = server();
    link.receive(GET);
    told(&mut link);
    link.respond(204, "No Content", &[], BodyLength::None, false).unwrap();
    link.finish().unwrap();
    link.close_soon();
    assert!(link.is_shutdown());
}

#[test]
fn a_205_has_no_content() {
    let mut link = server();
    link.receive(GET);
    told(&mut link);
    link.respond(205, "Reset Content", &[], BodyLength::Unknown, false).unwrap();
    assert_eq!(sent(&link), "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n");
    assert!(link.body(b"x").is_err());
}

#[test]
fn the_head_is_kept_as_it_came() {
    let mut link = server();
    let raw = b"GET / HTTP/1.1\r\nhOsT:a\r\nX-B:  2 \r\nx-a: 1\r\n\r\n";
    link.receive(b"\r\n");
    link.receive(raw);
    let Ok(Step::Event(ServerEvent::Request(head))) = link.poll_event(Instant::now()) else { panic!() };
    assert_eq!(head.raw, raw);
    let names: Vec<&str> = head.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["hOsT", "X-B", "x-a"]);
    assert_eq!(head.headers.get("x-b"), Some(&b"2"[..]));
}
