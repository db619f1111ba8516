//! WebSocket: frames as they come, small ones beside tungstenite, large ones beside the mask; and
//! compression beside zlib alone.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Instant;

use balrog_proto::websocket::{Deflate, Limits, Peer, PeerEvent};
use balrog_proto::{Inbox, Link, Machine, Outbox, Step};
use tungstenite::protocol::{Role, WebSocket};
use zlib_rs::{DeflateConfig, DeflateFlush, Inflate, InflateFlush, Method, Strategy};

use crate::measure::{Path, Row};

const LARGE: usize = 64 * 1024;
/// What one read brings.
const READ: usize = 16 * 1024;
/// Frames that come at once, so that each side is between two of them and not at a beginning.
const BATCH: usize = 200;

pub fn rows() -> Vec<Row> {
    let text = json(LARGE);
    vec![
        Row {
            name: "ws-receive-32",
            limit: "tungstenite",
            bar: 0.4,
            stretch: 0.25,
            ours: receive(32),
            theirs: tungstenite(32),
        },
        Row {
            name: "ws-receive-1k",
            limit: "tungstenite",
            bar: 0.5,
            stretch: 0.4,
            ours: receive(1024),
            theirs: tungstenite(1024),
        },
        Row {
            name: "ws-receive-64k-binary",
            limit: "mask in place",
            bar: 1.5,
            stretch: 1.1,
            ours: large(0x82, text.as_bytes()),
            theirs: mask(text.as_bytes(), false),
        },
        Row {
            name: "ws-receive-64k-text",
            limit: "mask in place + simdutf8",
            bar: 1.5,
            stretch: 1.1,
            ours: large(0x81, text.as_bytes()),
            theirs: mask(text.as_bytes(), true),
        },
        Row {
            name: "ws-deflate-64k",
            limit: "zlib-rs alone",
            bar: 1.1,
            stretch: 1.05,
            ours: compress(text.clone()),
            theirs: zlib_compress(text.clone()),
        },
        Row {
            name: "ws-inflate-64k",
            limit: "zlib-rs alone",
            bar: 1.1,
            stretch: 1.05,
            ours: decompress(&text),
            theirs: zlib_decompress(&text),
        },
    ]
}

/// Orders, as a site would send them.
fn json(size: usize) -> String {
    let mut text = String::from("[");
    let mut number = 17_u32;
    while text.len() < size {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (id, price) = (number >> 8, number % 10_000);
        text.push_str(&format!(
            "{{\"id\": {id}, \"state\": \"delivered\", \"price\": {price}, \"note\": \"Knödel #{}\"}}, ",
            id % 97
        ));
    }
    while text.len() > size || !text.is_char_boundary(text.len()) {
        text.pop();
    }
    text
}

/// Masked with zeros, so that the same bytes can be unmasked again and again: the work is the same.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Small binary messages on a connection that stays.
fn receive(size: usize) -> Path {
    let frames = frame(0x82, &vec![7; size]).repeat(BATCH);
    let now = Instant::now();
    let mut link = Link::new(Peer::server(Limits::default()));
    Path::batch(BATCH, move || {
        let mut messages = 0;
        for read in black_box(&frames).chunks(READ) {
            link.receive(read);
            while let Ok(Step::Event(PeerEvent::Binary(data))) = link.poll_event(now) {
                black_box(data);
                messages += 1;
            }
        }
        assert_eq!(messages, BATCH);
    })
}

/// A peer in memory, that sends the same again and again.
struct Memory {
    frames: Vec<u8>,
    at: usize,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.frames.len() - self.at);
        buffer[..n].copy_from_slice(&self.frames[self.at..self.at + n]);
        self.at = (self.at + n) % self.frames.len();
        Ok(n)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite(size: usize) -> Path {
    let memory = Memory { frames: frame(0x82, &vec![7; size]).repeat(BATCH), at: 0 };
    let mut socket = WebSocket::from_raw_socket(memory, Role::Server, None);
    Path::batch(BATCH, move || {
        for _ in 0..BATCH {
            black_box(socket.read().unwrap());
        }
    })
}

/// A large message that lies in the inbox.
fn large(first: u8, payload: &[u8]) -> Path {
    let now = Instant::now();
    let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
    inbox.push(&frame(first, payload));
    Path::new(move || {
        let mut peer = Peer::server(Limits::default());
        match peer.advance(now, &mut inbox, &mut outbox) {
            Ok(Step::Event(PeerEvent::Text(text))) => drop(black_box(text)),
            Ok(Step::Event(PeerEvent::Binary(data))) => drop(black_box(data)),
            step => panic!("{step:?}"),
        }
    })
}

fn mask(payload: &[u8], text: bool) -> Path {
    let mut payload = payload.to_vec();
    let key = black_box(0_u64);
    Path::new(move || {
        let (words, rest) = payload.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        rest.iter_mut().for_each(|byte| *byte ^= key as u8);
        if text {
            black_box(simdutf8::basic::from_utf8(&payload).unwrap());
        } else {
            black_box(&payload);
        }
    })
}

fn settings() -> Deflate {
    Deflate { server_no_context_takeover: true, client_no_context_takeover: true, ..Deflate::default() }
}

fn compress(text: String) -> Path {
    let mut link = Link::new(Peer::server(Limits::default()).deflate(&settings()));
    Path::new(move || {
        link.send_text(black_box(&text)).unwrap();
        let sent = link.unsent();
        link.transmitted(sent);
    })
}

fn zlib() -> zlib_rs::Deflate {
    let settings = settings();
    zlib_rs::Deflate::new_with_config(DeflateConfig {
        level: settings.level.into(),
        method: Method::Deflated,
        window_bits: -i32::from(settings.server_max_window_bits),
        mem_level: settings.mem_level.into(),
        strategy: Strategy::Default,
    })
}

fn zlib_compress(text: String) -> Path {
    let mut zlib = zlib();
    let mut out = vec![0; LARGE];
    Path::new(move || {
        zlib.reset();
        zlib.compress(black_box(text.as_bytes()), &mut out, DeflateFlush::SyncFlush).unwrap();
        black_box(&out);
    })
}

/// The payload of a compressed message.
fn compressed(text: &str) -> Vec<u8> {
    let mut zlib = zlib();
    let mut out = vec![0; LARGE];
    zlib.compress(text.as_bytes(), &mut out, DeflateFlush::SyncFlush).unwrap();
    out.truncate(zlib.total_out() as usize - 4);
    out
}

fn decompress(text: &str) -> Path {
    let frame = frame(0xc2, &compressed(text));
    let now = Instant::now();
    // The context is taken over, as it is by default; this message refers to none.
    let mut link = Link::new(Peer::server(Limits::default()).deflate(&Deflate::default()));
    Path::new(move || {
        link.receive(black_box(&frame));
        let Ok(Step::Event(PeerEvent::Binary(data))) = link.poll_event(now) else { panic!("no message") };
        assert_eq!(black_box(data).len(), LARGE);
        assert!(matches!(link.poll_event(now), Ok(Step::NeedInput)));
    })
}

fn zlib_decompress(text: &str) -> Path {
    let payload = [&compressed(text)[..], &[0, 0, 0xff, 0xff]].concat();
    let mut zlib = Inflate::new(false, 12);
    let mut out = vec![0; LARGE + 1];
    Path::new(move || {
        let before = zlib.total_out();
        zlib.decompress(black_box(&payload), &mut out, InflateFlush::NoFlush).unwrap();
        assert_eq!(zlib.total_out() - before, LARGE as u64);
        black_box(&out);
    })
}
