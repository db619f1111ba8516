//! Bytes that come one by one make work in proportion to how many they are: nothing is looked at
//! again from its beginning. Otherwise four times as many would take sixteen times as long.

use balrog_proto::http1::Limits;
use rustix::time::{ClockId, clock_gettime};

use crate::harness::http::{ClientSide, ServerSide};
use crate::harness::postgres::Session;
use crate::harness::websocket::PeerSide;
use crate::harness::{Subject, feed};

/// Nanoseconds of this thread on a processor, so that it does not count what else runs. The least
/// of a few: caches and interrupts only add to it.
fn time<S: Subject>(subject: &S, bytes: &[u8]) -> i64 {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    };
    let run = || {
        let begun = now();
        feed(subject, bytes.chunks(1));
        now() - begun
    };
    (0..5).map(|_| run()).min().unwrap()
}

/// Compares an input with one that is four times as long.
fn is_linear<S: Subject>(what: &str, subject: &S, make: impl Fn(usize) -> Vec<u8>, n: usize) {
    let (short, long) = (make(n), make(4 * n));
    assert!(long.len() > 3 * short.len());
    let (one, four) = (time(subject, &short), time(subject, &long));
    assert!(four < 8 * one, "{what}: {one} ns, and {four} ns for four times the bytes");
}

fn wide() -> Limits {
    let mut limits = Limits::default();
    limits.start_line = 65_000;
    limits.header_line = 65_000;
    limits.head = 65_000;
    limits.fields = 10_000;
    limits.chunk_extensions = 65_000;
    limits.trailers = 65_000;
    limits.trailer_fields = 10_000;
    limits
}

#[test]
fn heads() {
    let server = ServerSide { limits: wide(), tells_all: true };
    let head = |fields: String| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    is_linear("a long field", &server, |n| head(format!("X: {}\r\n", "v".repeat(n))), 15_000);
    is_linear("many fields", &server, |n| head("X: v\r\n".repeat(n)), 2_000);
    is_linear("a long target", &server, |n| format!("GET /{} HTTP/1.1\r\n", "a".repeat(n)).into(), 15_000);
    let client = ClientSide { limits: wide(), ..ClientSide::telling_all("GET") };
    is_linear(
        "a response",
        &client,
        |n| format!("HTTP/1.1 200 OK\r\n{}", "X: v\r\n".repeat(n)).into(),
        2_000,
    );
}

#[test]
fn bodies() {
    let server = ServerSide { limits: wide(), tells_all: true };
    let body = |body: String| {
        format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
    };
    is_linear("small chunks", &server, |n| body("1\r\nx\r\n".repeat(n)), 2_000);
    is_linear(
        "extensions",
        &ServerSide { limits: wide(), tells_all: false },
        |n| body(format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(n))),
        12_000,
    );
    is_linear("trailers", &server, |n| body(format!("0\r\n{}\r\n", "X: v\r\n".repeat(n))), 2_000);
}

#[test]
fn frames() {
    let frame = |n: usize| {
        let mut frame = vec![0x82, 0xff];
        frame.extend_from_slice(&(n as u64).to_be_bytes());
        frame.resize(frame.len() + 4 + n, 0);
        frame
    };
    is_linear("a frame", &PeerSide::server(), frame, 70_000);
    is_linear("text", &PeerSide::server(), |n| [vec![0x81], frame(n).split_off(1)].concat(), 70_000);
    is_linear("parts", &PeerSide::server().streaming(), frame, 70_000);
    let fragments = |n: usize| [&[2, 0x80, 0, 0, 0, 0][..], &[0, 0x81, 0, 0, 0, 0, 9].repeat(n)].concat();
    is_linear("fragments", &PeerSide::server(), fragments, 900);
}

#[test]
fn messages() {
    let session =
        |rest: Vec<u8>| [&b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"[..], b"T\0\0\0\x06\0\0", &rest].concat();
    // Far more than is collected whole.
    let row = |n: usize| {
        let mut row = vec![b'D'];
        row.extend_from_slice(&(n as u32 + 6).to_be_bytes());
        row.resize(row.len() + 2 + n, 0);
        session(row)
    };
    is_linear("a row", &Session(0), row, 3_000);
    is_linear("notices", &Session(0), |n| session(b"N\0\0\0\x05\0".repeat(n)), 1_000);
}
