//! HTTP/1.1: the head, the round, the slow peer, the chunks.

use std::convert::Infallible;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use balrog_proto::http1::{BodyLength, Limits, Server, ServerEvent};
use balrog_proto::{Inbox, Link, Machine, Outbox, Step};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use crate::measure::{Path, Row};

const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";
/// What a browser sends: 713 bytes, 15 fields.
const BROWSER: &[u8] = include_bytes!("../../browser.http");
const BODY: &[u8] = b"Hello, World!";
/// Payload of a chunked body, whatever the size of its chunks.
const PAYLOAD: usize = 256 * 1024;
/// What one read brings.
const READ: usize = 64 * 1024;

pub fn rows() -> Vec<Row> {
    assert_eq!(BROWSER.len(), 713);
    let mut rows = vec![
        Row {
            name: "http1-head",
            limit: "httparse",
            bar: 1.6,
            stretch: 0.7,
            ours: head(BROWSER),
            theirs: httparse_head(BROWSER),
        },
        Row {
            name: "http1-round-small",
            limit: "hyper in memory",
            bar: 0.25,
            stretch: 0.125,
            ours: round(SMALL),
            theirs: hyper_round(SMALL),
        },
        Row {
            name: "http1-round-browser",
            limit: "hyper in memory",
            bar: 0.3,
            stretch: 0.2,
            ours: round(BROWSER),
            theirs: hyper_round(BROWSER),
        },
        Row {
            name: "http1-byte-by-byte",
            limit: "the same head whole",
            bar: 6.0,
            stretch: 3.0,
            ours: pieces(BROWSER, 1),
            theirs: pieces(BROWSER, BROWSER.len()),
        },
    ];
    for (name, size) in [("http1-chunks-64", 64), ("http1-chunks-1k", 1024), ("http1-chunks-16k", 16 * 1024)]
    {
        let body = chunked(size);
        rows.push(Row {
            name,
            limit: "hand-written + memcpy",
            bar: 1.3,
            stretch: 1.1,
            ours: chunks(body.clone()),
            theirs: chunks_by_hand(body),
        });
    }
    let body = chunked(1024);
    rows.push(Row {
        name: "http1-chunks-1k-httparse",
        limit: "httparse in a loop",
        bar: 1.0,
        stretch: 0.714,
        ours: chunks(body.clone()),
        theirs: chunks_by_httparse(body),
    });
    rows
}

/// A head that lies in the inbox, up to its event: strictness, framing and all.
fn head(head: &'static [u8]) -> Path {
    let (now, limits) = (Instant::now(), Arc::new(Limits::default()));
    let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
    inbox.push(head);
    Path::new(move || {
        let mut server = Server::new(Arc::clone(&limits));
        let step = server.advance(now, &mut inbox, &mut outbox);
        let Ok(Step::Event(ServerEvent::Request(request))) = step else { panic!("no request") };
        black_box(request.headers.len());
    })
}

fn httparse_head(head: &'static [u8]) -> Path {
    Path::new(move || {
        let mut headers = [MaybeUninit::uninit(); 100];
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(black_box(head), &mut headers).unwrap();
        assert!(status.is_complete());
        black_box(request.headers.len());
    })
}

/// A request in and its response out, on a connection that stays.
fn round(request: &'static [u8]) -> Path {
    let now = Instant::now();
    let mut link = Link::new(Server::new(Limits::default()));
    Path::new(move || {
        link.receive(black_box(request));
        loop {
            match link.poll_event(now).unwrap() {
                Step::Event(ServerEvent::Request(head)) => {
                    black_box(head.path);
                }
                Step::Event(ServerEvent::End) => break,
                step => panic!("{step:?}"),
            }
        }
        let headers: [(&[u8], &[u8]); 2] =
            [(b"Content-Type", b"text/plain"), (b"Date", b"Thu, 26 Nov 2026 00:00:00 GMT")];
        link.respond(200, "OK", &headers, BodyLength::Length(BODY.len() as u64), false).unwrap();
        link.body(BODY).unwrap();
        link.finish().unwrap();
        assert!(matches!(link.poll_event(now), Ok(Step::NeedInput)));
        let sent = black_box(link.transmit().unwrap()).len();
        link.transmitted(sent);
    })
}

/// Rounds in a batch, so that opening a connection does not count.
const BATCH: usize = 200;

fn hyper_round(request: &'static [u8]) -> Path {
    Path::batch(BATCH, move || {
        let io = Memory { request, left: BATCH };
        let answer = service_fn(|request: Request<Incoming>| async move {
            black_box(request.uri().path().len());
            let response = Response::builder()
                .header("Content-Type", "text/plain")
                .header("Date", "Thu, 26 Nov 2026 00:00:00 GMT")
                .body(Full::new(Bytes::from_static(BODY)));
            Ok::<_, Infallible>(response.unwrap())
        });
        let mut connection = pin!(http1::Builder::new().serve_connection(io, answer));
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Pending = connection.as_mut().poll(&mut context) {}
    })
}

/// A peer in memory: a request at every read, whatever is written is taken.
struct Memory {
    request: &'static [u8],
    left: usize,
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.left > 0 {
            self.left -= 1;
            buffer.put_slice(self.request);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A head in pieces of `size`, on a new connection.
fn pieces(head: &'static [u8], size: usize) -> Path {
    let (now, limits) = (Instant::now(), Arc::new(Limits::default()));
    Path::new(move || {
        let mut link = Link::new(Server::new(Arc::clone(&limits)));
        let mut found = false;
        for piece in black_box(head).chunks(size) {
            link.receive(piece);
            found = matches!(link.poll_event(now), Ok(Step::Event(_)));
        }
        assert!(found);
    })
}

fn chunked(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..PAYLOAD / size {
        body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        body.resize(body.len() + size, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// A chunked body as it is read, to its payload in one piece.
fn chunks(body: Vec<u8>) -> Path {
    let (now, limits) = (Instant::now(), Arc::new(Limits::default()));
    let mut payload = Vec::with_capacity(PAYLOAD);
    Path::new(move || {
        payload.clear();
        let mut link = Link::new(Server::new(Arc::clone(&limits)));
        link.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Request(_)))));
        for read in black_box(&body).chunks(READ) {
            link.receive(read);
            while let Step::Event(event) = link.poll_event(now).unwrap() {
                if let ServerEvent::Body(data) = event {
                    payload.extend_from_slice(data);
                }
            }
        }
        assert_eq!(payload.len(), PAYLOAD);
    })
}

/// The same with nothing but what it takes: a size line, a copy, a line end; and no check that
/// would not keep it from going wrong at once.
fn chunks_by_hand(body: Vec<u8>) -> Path {
    decoded(body, |mut input, payload| {
        let before = input.len();
        loop {
            let (mut size, mut at) = (0_usize, 0);
            while let Some(digit) = input.get(at).and_then(|&byte| (byte as char).to_digit(16)) {
                size = size << 4 | digit as usize;
                at += 1;
            }
            let Some(data) = input.get(at + 2..at + 2 + size) else { break };
            let Some(b"\r\n") = input.get(at + 2 + size..at + 4 + size) else { break };
            payload.extend_from_slice(data);
            input = &input[at + size + 4..];
        }
        before - input.len()
    })
}

fn chunks_by_httparse(body: Vec<u8>) -> Path {
    decoded(body, |mut input, payload| {
        let before = input.len();
        while let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(input) {
            let size = size as usize;
            let Some(data) = input.get(at..at + size) else { break };
            let Some(b"\r\n") = input.get(at + size..at + size + 2) else { break };
            payload.extend_from_slice(data);
            input = &input[at + size + 2..];
        }
        before - input.len()
    })
}

/// Reads into a buffer, lets `decode` take whole chunks out of it, and keeps the rest in front.
fn decoded(body: Vec<u8>, mut decode: impl FnMut(&[u8], &mut Vec<u8>) -> usize + 'static) -> Path {
    let mut payload = Vec::with_capacity(PAYLOAD);
    Path::new(move || {
        payload.clear();
        let mut buffer = Vec::new();
        for read in black_box(&body).chunks(READ) {
            buffer.extend_from_slice(read);
            let used = decode(&buffer, &mut payload);
            buffer.drain(..used);
        }
        assert_eq!(payload.len(), PAYLOAD);
    })
}
