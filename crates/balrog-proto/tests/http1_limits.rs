//! Every limit of HTTP/1.1: one below it, at it, and one over it, in one piece and byte by byte.

use std::time::{Duration, Instant};

use balrog_proto::http1::{BodyLength, Client, Limits, Server, ServerEvent};
use balrog_proto::{Error, Limit, Link, Step, Timer};

const SECOND: Duration = Duration::from_secs(1);

/// The error that a server ends with, or `None` if it is content. The same in any pieces.
fn serve(bytes: &[u8]) -> Option<Error> {
    let run = |size: usize| {
        let now = Instant::now();
        let mut link = Link::new(Server::new(Limits::default()));
        for piece in bytes.chunks(size) {
            link.receive(piece);
            loop {
                match link.poll_event(now) {
                    Ok(Step::Event(_)) => {}
                    Ok(_) => break,
                    Err(error) => {
                        let answer: Vec<u8> = link.segments().flatten().copied().collect();
                        let status = format!("HTTP/1.1 {} ", error.code().unwrap());
                        assert!(answer.starts_with(status.as_bytes()), "{}", answer.escape_ascii());
                        return Some(error);
                    }
                }
            }
        }
        None
    };
    let whole = run(bytes.len());
    assert_eq!(run(1), whole);
    whole
}

fn over(name: &'static str, value: usize, code: u16) -> Option<Error> {
    Some(Error::Limit(Limit { name, value: value as u32, code }))
}

/// `make` gives something that takes so much of a limit.
fn exactly(name: &'static str, limit: usize, code: u16, make: impl Fn(usize) -> String) {
    assert_eq!(serve(make(limit - 1).as_bytes()), None, "{name} - 1");
    assert_eq!(serve(make(limit).as_bytes()), None, "{name}");
    assert_eq!(serve(make(limit + 1).as_bytes()), over(name, limit, code), "{name} + 1");
}

/// The error that a client ends with, or `None` if it is content.
fn fetch(bytes: &[u8]) -> Option<Error> {
    let run = |size: usize| {
        let mut link = Link::new(Client::new(Limits::default()));
        link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
        link.transmitted(link.unsent());
        for piece in bytes.chunks(size) {
            link.receive(piece);
            loop {
                match link.poll_event(Instant::now()) {
                    Ok(Step::Event(_)) => {}
                    Ok(_) => break,
                    Err(error) => {
                        assert_eq!(link.unsent(), 0, "nothing answers a response");
                        return Some(error);
                    }
                }
            }
        }
        None
    };
    let whole = run(bytes.len());
    assert_eq!(run(1), whole);
    whole
}

#[test]
fn sizes_of_a_response() {
    let limits = Limits::default();
    let exactly = |name: &'static str, limit: usize, code: u16, make: &dyn Fn(usize) -> String| {
        assert_eq!(fetch(make(limit - 1).as_bytes()), None, "{name} - 1");
        assert_eq!(fetch(make(limit).as_bytes()), None, "{name}");
        assert_eq!(fetch(make(limit + 1).as_bytes()), over(name, limit, code), "{name} + 1");
    };
    let head = |line: &str, fields: &str| format!("HTTP/1.1 200 {line}\r\n{fields}\r\n");
    let frame = "HTTP/1.1 200 ".len();
    exactly("start_line", limits.start_line, 414, &|n| head(&"O".repeat(n - frame), ""));
    exactly("header_line", limits.header_line, 431, &|n| {
        head("OK", &format!("X: {}\r\n", "v".repeat(n - 3)))
    });
    let frame = head("OK", "").len();
    exactly("head", limits.head, 431, &|n| {
        let full = format!("X: {}\r\n", "v".repeat(8_000));
        let rest = n - frame - 4 * full.len();
        head("OK", &format!("{}Y: {}\r\n", full.repeat(4), "v".repeat(rest - 5)))
    });
    exactly("fields", limits.fields, 431, &|n| head("OK", &"X: 1\r\n".repeat(n)));
    let chunked = |body: String| head("OK", "Transfer-Encoding: chunked\r\n") + &body;
    exactly("chunk_extensions", limits.chunk_extensions, 400, &|n| {
        chunked(format!("1;{}\r\nx\r\n0;b\r\n\r\n", "a".repeat(n - 3)))
    });
    exactly("trailers", limits.trailers, 431, &|n| {
        chunked(format!("0\r\nX: {}\r\nY: {}\r\n\r\n", "v".repeat(4_000), "v".repeat(n - 4_012)))
    });
    exactly("trailer_fields", limits.trailer_fields, 431, &|n| {
        chunked(format!("0\r\n{}\r\n", "X: 1\r\n".repeat(n)))
    });
    let size = |digits: usize| chunked(format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(digits - 1)));
    assert_eq!((fetch(size(15).as_bytes()), fetch(size(16).as_bytes())), (None, None));
    assert!(matches!(fetch(size(17).as_bytes()), Some(Error::Violation(_))));
}

/// Whatever is allowed, a head ends below 64 KiB: places in it are kept in 16 bits.
#[test]
fn no_head_is_longer_than_65_000() {
    let mut limits = Limits::default();
    (limits.start_line, limits.header_line, limits.head) = (usize::MAX / 2, usize::MAX / 2, usize::MAX / 2);
    limits.trailers = usize::MAX / 2;
    let outcome = |bytes: &[u8]| {
        let mut link = Link::new(Server::new(limits.clone()));
        link.receive(bytes);
        loop {
            match link.poll_event(Instant::now()) {
                Ok(Step::Event(_)) => {}
                Ok(_) => return None,
                Err(error) => return Some(error),
            }
        }
    };
    let get = |target: usize, value: usize| {
        format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(target), "v".repeat(value))
    };
    let frame = get(0, 0).len();
    let post = |value: usize| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        format!("{head}X: {}\r\n\r\n", "v".repeat(value - 7))
    };
    for (n, error) in [(64_999, None), (65_000, None), (65_001, over("head", 65_000, 431))] {
        assert_eq!(outcome(get(n - frame, 0).as_bytes()), error, "{n}");
        assert_eq!(outcome(get(0, n - frame).as_bytes()), error, "{n}");
        let error = error.and(over("trailers", 65_000, 431));
        assert_eq!(outcome(post(n).as_bytes()), error, "{n}");
    }
    // And one that never ends is not collected.
    assert_eq!(outcome(&[b"GET /", &[b'a'; 70_000][..]].concat()), over("head", 65_000, 431));
}

#[test]
fn sizes_of_a_head() {
    let limits = Limits::default();
    let get = |target: &str, fields: &str| format!("GET /{target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let frame = "GET / HTTP/1.1".len();
    exactly("start_line", limits.start_line, 414, |n| get(&"a".repeat(n - frame), ""));
    exactly("header_line", limits.header_line, 431, |n| get("", &format!("X: {}\r\n", "v".repeat(n - 3))));
    // The name alone can be too long, too.
    exactly("header_line", limits.header_line, 431, |n| get("", &format!("{}:\r\n", "n".repeat(n - 1))));
    let frame = get("", "").len();
    exactly("head", limits.head, 431, |n| {
        let full = format!("X: {}\r\n", "v".repeat(8_000));
        let rest = n - frame - 4 * full.len();
        get("", &format!("{}Y: {}\r\n", full.repeat(4), "v".repeat(rest - 5)))
    });
    exactly("fields", limits.fields, 431, |n| get("", &"X: 1\r\n".repeat(n - 1)));
}

#[test]
fn sizes_of_a_chunked_body() {
    let limits = Limits::default();
    let post = |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    exactly("chunk_extensions", limits.chunk_extensions, 400, |n| {
        post(&format!("1;{}\r\nx\r\n0;b\r\n\r\n", "a".repeat(n - 3)))
    });
    exactly("trailers", limits.trailers, 431, |n| {
        post(&format!("0\r\nX: {}\r\nY: {}\r\n\r\n", "v".repeat(4_000), "v".repeat(n - 4_012)))
    });
    exactly("trailer_fields", limits.trailer_fields, 431, |n| {
        post(&format!("0\r\n{}\r\n", "X: 1\r\n".repeat(n)))
    });
    let size = |digits: usize| post(&format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(digits - 1)));
    assert_eq!((serve(size(15).as_bytes()), serve(size(16).as_bytes())), (None, None));
    assert!(matches!(serve(size(17).as_bytes()), Some(Error::Violation(_))));
}

#[test]
fn empty_lines_before_a_request() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(serve(get.as_bytes()), None);
    assert_eq!(serve(format!("\r\n{get}").as_bytes()), None);
    assert!(matches!(serve(format!("\r\n\r\n{get}").as_bytes()), Some(Error::Violation(_))));
}

#[test]
fn informational_responses() {
    let limit = Limits::default().informational as usize;
    let receive = |n: usize| {
        let mut link = Link::new(Client::new(Limits::default()));
        link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
        link.receive("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(n).as_bytes());
        link.receive(b"HTTP/1.1 204 No Content\r\n\r\n");
        let mut seen = 0;
        loop {
            match link.poll_event(Instant::now()) {
                Ok(Step::Event(_)) => seen += 1,
                Ok(_) => return Ok(seen),
                Err(error) => return Err(error),
            }
        }
    };
    // With the response and its end.
    assert_eq!(receive(limit - 1), Ok(limit + 1));
    assert_eq!(receive(limit), Ok(limit + 2));
    assert_eq!(receive(limit + 1), Err(over("informational", limit, 0).unwrap()));
}

/// A server that has answered a request without its body.
fn early(body: &str) -> Link<Server> {
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}\r\n\r\n").as_bytes());
    assert!(matches!(link.poll_event(Instant::now()), Ok(Step::Event(ServerEvent::Request(_)))));
    link.respond(413, "Content Too Large", &[], BodyLength::None, false).unwrap();
    link
}

#[test]
fn what_is_drained() {
    let drain = Limits::default().drain as usize;
    let goes_on = |length: usize| {
        let mut link = early(&format!("Content-Length: {length}"));
        link.finish().unwrap();
        // What is known to be too long ends the connection at once.
        let closes = link.is_shutdown();
        assert_eq!(closes, length > drain);
        assert_eq!(
            link.segments().flatten().copied().collect::<Vec<_>>().ends_with(b"close\r\n\r\n"),
            closes
        );
        link.receive(&vec![b'x'; length]);
        link.receive(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        matches!(link.poll_event(Instant::now()), Ok(Step::Event(ServerEvent::Request(_))))
    };
    assert!(goes_on(drain - 1) && goes_on(drain) && !goes_on(drain + 1));
    // What was read before the answer does not count.
    let mut link = Link::new(Server::new(Limits::default()));
    link.receive(
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n12345", drain + 5).as_bytes(),
    );
    while matches!(link.poll_event(Instant::now()), Ok(Step::Event(_))) {}
    link.respond(413, "Content Too Large", &[], BodyLength::None, false).unwrap();
    link.finish().unwrap();
    assert!(!link.is_shutdown());
    // In chunks nobody knows how much there will be: it is counted, framing and all.
    let goes_on = |size: usize| {
        let mut link = early("Transfer-Encoding: chunked");
        link.finish().unwrap();
        assert!(!link.is_shutdown());
        link.receive(format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size)).as_bytes());
        link.receive(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        matches!(link.poll_event(Instant::now()), Ok(Step::Event(ServerEvent::Request(_))))
    };
    let frame = "3ffff\r\n\r\n0\r\n\r\n".len();
    assert!(goes_on(drain - frame - 1) && goes_on(drain - frame) && !goes_on(drain - frame + 1));
}

/// The deadline comes `after` and not before, and ends with this.
fn times_out(link: &mut Link<Server>, start: Instant, after: Duration, timer: Timer) {
    assert_eq!(link.poll_timeout(), Some(start + after), "{timer:?}");
    assert_eq!(link.handle_timeout(start + after - Duration::from_nanos(1)), Ok(()));
    assert_eq!(link.handle_timeout(start + after), Err(Error::Timeout(timer)));
    assert_eq!(link.poll_event(start).err(), Some(Error::Timeout(timer)), "the first error stays");
    assert_eq!(link.poll_timeout(), None);
    assert!(link.is_shutdown());
    let answered = link.transmit().is_some_and(|answer| answer.starts_with(b"HTTP/1.1 408 "));
    assert_eq!(answered, matches!(timer, Timer::Head | Timer::Body));
}

fn open(start: Instant) -> Link<Server> {
    let mut link = Link::new(Server::new(Limits::default()));
    assert!(matches!(link.poll_event(start), Ok(Step::NeedInput)));
    link
}

#[test]
fn times() {
    let start = Instant::now();
    times_out(&mut open(start), start, 30 * SECOND, Timer::Idle);

    // From the first byte on; more of them change nothing.
    let mut link = open(start);
    for (at, piece) in [(20, &b"G"[..]), (21, b"ET / HT"), (29, b"TP/1.1\r\nHo")] {
        link.receive(piece);
        assert!(matches!(link.poll_event(start + at * SECOND), Ok(Step::NeedInput)));
    }
    times_out(&mut link, start + 20 * SECOND, 10 * SECOND, Timer::Head);

    let answered = || {
        let mut link = open(start);
        link.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        while let Ok(Step::Event(_)) = link.poll_event(start) {}
        assert_eq!(link.poll_timeout(), None, "the client waits for us");
        link.respond(204, "No Content", &[], BodyLength::None, false).unwrap();
        link.finish().unwrap();
        link.transmitted(link.unsent());
        assert!(matches!(link.poll_event(start + SECOND), Ok(Step::NeedInput)));
        link
    };
    times_out(&mut answered(), start + SECOND, 65 * SECOND, Timer::Idle);

    let posting = || {
        let mut link = open(start);
        link.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
        assert!(matches!(link.poll_event(start), Ok(Step::Event(_))));
        assert!(matches!(link.poll_event(start), Ok(Step::NeedInput)));
        link
    };
    // Nothing at all for as long as the rate is not looked at.
    times_out(&mut posting(), start, 10 * SECOND, Timer::Body);
    // Much at once, then nothing.
    let mut link = posting();
    link.receive(&vec![b'x'; 500_000]);
    while let Ok(Step::Event(_)) = link.poll_event(start) {}
    times_out(&mut link, start, 30 * SECOND, Timer::Body);
    // 500 bytes a second are enough, fewer are not, in the long run.
    for (rate, enough) in [(499, false), (500, true), (501, true)] {
        let mut link = posting();
        link.receive(&vec![b'x'; rate]);
        while let Ok(Step::Event(_)) = link.poll_event(start) {}
        let late = (1..=600).any(|second| {
            let now = start + second * SECOND;
            if link.handle_timeout(now - Duration::from_nanos(1)).is_err() {
                return true;
            }
            link.receive(&vec![b'x'; rate]);
            while let Ok(Step::Event(_)) = link.poll_event(now) {}
            false
        });
        assert_eq!(late, !enough, "{rate} bytes a second");
    }

    let mut link = early("Content-Length: 1000");
    link.transmitted(link.unsent());
    link.finish().unwrap();
    assert!(matches!(link.poll_event(start), Ok(Step::NeedInput)));
    link.receive(b"slow");
    assert!(matches!(link.poll_event(start + 4 * SECOND), Ok(Step::NeedInput)));
    times_out(&mut link, start, 5 * SECOND, Timer::Drain);
}

#[test]
fn the_wait_for_100_continue() {
    let start = Instant::now();
    let ask = || {
        let mut link = Link::new(Client::new(Limits::default()));
        link.request("POST", "/", "a", &[(b"Expect", b"100-continue")], BodyLength::Length(4)).unwrap();
        assert!(matches!(link.poll_event(start), Ok(Step::NeedInput)));
        assert!(!link.may_send_body());
        assert_eq!(link.poll_timeout(), Some(start + SECOND));
        link
    };
    let mut link = ask();
    link.handle_timeout(start + SECOND - Duration::from_nanos(1)).unwrap();
    assert!(!link.may_send_body());
    link.handle_timeout(start + SECOND).unwrap();
    assert!(link.may_send_body());
    assert_eq!(link.poll_timeout(), None);

    let mut link = ask();
    link.receive(b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(matches!(link.poll_event(start), Ok(Step::Event(_))));
    assert!(link.may_send_body());

    // A final response instead: the body is not wanted, and the connection is of no more use.
    let mut link = ask();
    link.receive(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(link.poll_event(start), Ok(Step::Event(_))));
    assert!(!link.may_send_body());
    assert_eq!(link.poll_timeout(), None);
    let end = link.poll_event(start).unwrap();
    assert!(matches!(end, Step::Event(balrog_proto::http1::ClientEvent::End { reusable: false })));
}
