//! The client machine: what it takes for a response, in every split, and what it refuses.

use std::time::Instant;

use balrog_proto::http1::{BodyLength, Client, ClientEvent, Limits};
use balrog_proto::{Error, Link, Phase, Step};

#[derive(Debug, PartialEq, Default, Clone)]
struct Seen {
    informational: Vec<u16>,
    status: u16,
    body: Vec<u8>,
    reusable: Option<bool>,
    error: Option<Error>,
}

fn fetch(method: &str, pieces: &[&[u8]], eof: bool) -> Seen {
    let mut link = Link::new(Client::new(Limits::default()));
    link.request(method, "/", "conf.test", &[], BodyLength::None).unwrap();
    link.finish().unwrap();
    link.transmitted(link.unsent());
    let mut seen = Seen::default();
    for index in 0..=pieces.len() {
        match pieces.get(index) {
            Some(piece) => link.receive(piece),
            None if eof => link.receive_eof(),
            None => break,
        }
        loop {
            match link.poll_event(Instant::now()) {
                Ok(Step::Event(ClientEvent::Informational(head))) => seen.informational.push(head.status),
                Ok(Step::Event(ClientEvent::Response(head))) => seen.status = head.status,
                Ok(Step::Event(ClientEvent::Body(data))) => seen.body.extend_from_slice(data),
                Ok(Step::Event(ClientEvent::End { reusable })) => {
                    seen.reusable = Some(reusable);
                    return seen;
                }
                Ok(_) => break,
                Err(error) => {
                    seen.error = Some(error);
                    return seen;
                }
            }
        }
    }
    seen
}

fn whole(response: &str) -> Seen {
    fetch("GET", &[response.as_bytes()], true)
}

#[test]
fn every_split_gives_the_same_response() {
    let chunked = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\nT: 1\r\n\r\n";
    let expected = Seen {
        informational: vec![100, 103],
        status: 200,
        body: b"hello".to_vec(),
        reusable: Some(true),
        error: None,
    };
    for cut in 0..=chunked.len() {
        let (a, b) = chunked.as_bytes().split_at(cut);
        assert_eq!(fetch("GET", &[a, b], false), expected, "cut at {cut}");
    }
    let each: Vec<&[u8]> = chunked.as_bytes().chunks(1).collect();
    assert_eq!(fetch("GET", &each, false), expected);
}

#[test]
fn reuse_is_told() {
    let reusable = |response: &str| fetch("GET", &[response.as_bytes()], false).reusable;
    assert_eq!(reusable("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Some(true));
    assert_eq!(reusable("HTTP/1.1 204 No Content\r\n\r\n"), Some(true));
    assert_eq!(reusable("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"), Some(false));
    assert_eq!(reusable("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), Some(false));
    assert_eq!(
        reusable("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
        Some(true)
    );
    // More than was announced belongs to nobody.
    assert_eq!(reusable("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"), Some(false));
    assert_eq!(fetch("HEAD", &[b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"], false).reusable, Some(true));
    assert_eq!(
        fetch("HEAD", &[b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"], false).reusable,
        Some(false)
    );
}

#[test]
fn fields_whose_names_are_as_long_as_those_that_frame_mean_nothing() {
    for field in ["X-Ten-Long: close", "X-Fourteen-By: 5", "X-Seventeen-Bytes: chunked"] {
        let response = format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 2\r\n\r\nok");
        let seen = fetch("GET", &[response.as_bytes()], false);
        assert_eq!((seen.body.as_slice(), seen.reusable), (&b"ok"[..], Some(true)), "{field}");
    }
    // One option says so, whatever stands beside it.
    for options in ["keep-alive", "keep-alive, x", "x, keep-alive"] {
        let response = format!("HTTP/1.0 200 OK\r\nConnection: {options}\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(fetch("GET", &[response.as_bytes()], false).reusable, Some(true), "{options}");
    }
}

#[test]
fn errors_of_the_framing_say_what_stands_twice() {
    let reason = |fields: &str| match whole(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).error {
        Some(Error::Violation(violation)) => violation.reason,
        other => panic!("{fields:?}: {other:?}"),
    };
    let (length, coding) = ("Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n");
    assert_eq!(reason(&length.repeat(2)), "two Content-Length fields");
    assert_eq!(reason(&coding.repeat(2)), "two Transfer-Encoding fields");
    assert_eq!(reason(&[length, coding].concat()), "both Transfer-Encoding and Content-Length");
}

#[test]
fn the_reason_phrase_is_what_stands_behind_the_status() {
    for (lines, reason) in [
        ("HTTP/1.1 200 OK\r\n", "OK"),
        ("HTTP/1.1 404 Not Found here\r\n", "Not Found here"),
        ("\r\nHTTP/1.1 200 OK\r\n", "OK"),
        ("HTTP/1.1 200 \r\n", ""),
        ("HTTP/1.1 200\r\n", ""),
    ] {
        let mut link = Link::new(Client::new(Limits::default()));
        link.request("GET", "/", "conf.test", &[], BodyLength::None).unwrap();
        link.transmitted(link.unsent());
        link.receive(format!("{lines}Content-Length: 0\r\n\r\n").as_bytes());
        match link.poll_event(Instant::now()) {
            Ok(Step::Event(ClientEvent::Response(head))) => {
                assert_eq!(head.reason, reason.as_bytes(), "{lines:?}");
            }
            other => panic!("{lines:?}: {other:?}"),
        }
    }
}

#[test]
fn a_size_with_an_extension_is_as_good_as_one_without() {
    let data = "x".repeat(0x1a7);
    let response = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1a7;a=b\r\n{data}\r\n01A7\r\n{data}\r\n0;c\r\n\r\n"
    );
    let seen = fetch("GET", &[response.as_bytes()], false);
    assert_eq!((seen.body.len(), seen.reusable), (2 * data.len(), Some(true)));
}

#[test]
fn a_body_may_end_with_the_connection_only_if_nothing_else_ends_it() {
    let open = whole("HTTP/1.0 200 OK\r\n\r\nto the end");
    assert_eq!((open.body.as_slice(), open.reusable), (&b"to the end"[..], Some(false)));
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        assert_eq!(whole(cut).error, Some(Error::Eof(Phase::Body)), "{cut:?}");
    }
    assert_eq!(whole("").error, Some(Error::Eof(Phase::Idle)));
    assert_eq!(whole("HTTP/1.1 200 OK\r\nX: 1\r\n").error, Some(Error::Eof(Phase::Head)));
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for bad in [
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 020 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 O\u{1}K\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: upgrade\r\n\r\nevil",
    ] {
        let seen = whole(bad);
        assert!(matches!(seen.error, Some(Error::Violation(_))), "{bad:?}: {seen:?}");
    }
    let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(17);
    assert!(matches!(whole(&many).error, Some(Error::Limit(_))));
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: 1\r\n".repeat(100_000));
    assert!(matches!(whole(&endless).error, Some(Error::Limit(_))));
}

#[test]
fn an_unsound_request_is_not_sent() {
    let mut link = Link::new(Client::new(Limits::default()));
    let none = BodyLength::None;
    for (method, target, host) in [
        ("GE T", "/", "a"),
        ("GET", "/a b", "a"),
        ("GET", "", "a"),
        ("GET", "/\r\n", "a"),
        ("GET", "/", "a@b"),
    ] {
        assert!(link.request(method, target, host, &[], none).is_err());
    }
    for (name, value) in
        [("X", "a\r\nY: b"), ("X\n", "a"), ("Content-Length", "3"), ("transfer-encoding", "chunked")]
    {
        assert!(link.request("GET", "/", "a", &[(name.as_bytes(), value.as_bytes())], none).is_err());
    }
    assert_eq!(link.transmit(), None);
    link.request("POST", "/x?y", "a:8080", &[(b"A", b"b")], BodyLength::Length(2)).unwrap();
    assert!(link.body(b"long").is_err());
    assert!(link.finish().is_err());
    link.body(b"ok").unwrap();
    link.finish().unwrap();
    assert_eq!(
        link.transmit(),
        Some(&b"POST /x?y HTTP/1.1\r\nHost: a:8080\r\nA: b\r\nContent-Length: 2\r\n\r\nok"[..])
    );
}

#[test]
fn protocols_are_switched_only_if_asked() {
    let response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nleft over";
    for cut in 0..=response.len() {
        let mut link = Link::new(Client::new(Limits::default()));
        let fields: [(&[u8], &[u8]); 2] = [(b"Upgrade", b"x"), (b"Connection", b"Upgrade")];
        link.request("GET", "/", "conf.test", &fields, BodyLength::None).unwrap();
        let mut upgraded = false;
        for piece in [&response[..cut], &response[cut..]] {
            link.receive(piece);
            if !upgraded && let Step::Event(event) = link.poll_event(Instant::now()).unwrap() {
                assert!(matches!(event, ClientEvent::Upgraded(head) if head.status == 101));
                upgraded = true;
            }
        }
        assert!(upgraded);
        // Whether the event was the last thing that anybody asked for or not.
        if cut % 2 == 0 {
            assert!(matches!(link.poll_event(Instant::now()), Ok(Step::Paused)));
            assert!(!link.wants_input());
        }
        assert_eq!(link.replace(Client::new(Limits::default())).unread(), "left over".len(), "cut at {cut}");
    }
    let seen = fetch("GET", &[response], true);
    assert_eq!(seen.error.and_then(|error| error.code()), None);
    assert!(matches!(seen.error, Some(Error::Violation(_))));
}

#[test]
fn a_field_is_known_by_all_of_its_name() {
    // Of the lengths of Connection, Content-Length and Transfer-Encoding.
    let others = ["noitcennoc: close", "htgnel-tnetnoc: x", "gnidocne-refsnart: x"].join("\r\n");
    let seen = whole(&format!("HTTP/1.1 200 OK\r\n{others}\r\nContent-Length: 2\r\n\r\nok"));
    assert_eq!((seen.body, seen.reusable, seen.error), (b"ok".to_vec(), Some(true), None));
}
