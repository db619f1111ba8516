//! What tungstenite makes of the same frames, uncompressed.

use std::io::{self, Cursor, Read, Write};

use balrog_proto::websocket::{Kind, Limits, PeerEvent};
use balrog_proto::{Error, Step, Violation};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Message, error::Error as Theirs};

use crate::numbers::Numbers;
use crate::support::{self, frame, sent};

/// A connection on which everything has arrived.
struct Wire(Cursor<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Messages, and whether the protocol was broken.
#[derive(Debug, PartialEq)]
struct Reading {
    messages: Vec<String>,
    broken: bool,
}

fn theirs(bytes: &[u8], role: Role) -> Reading {
    let config = WebSocketConfig::default().max_message_size(Some(1 << 20)).max_frame_size(Some(1 << 20));
    let mut socket = WebSocket::from_raw_socket(Wire(Cursor::new(bytes.to_vec())), role, Some(config));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => messages.push(format!("text {text}")),
            Ok(Message::Binary(data)) => messages.push(format!("binary {data:?}")),
            Ok(Message::Ping(data)) => messages.push(format!("ping {data:?}")),
            Ok(Message::Pong(data)) => messages.push(format!("pong {data:?}")),
            Ok(Message::Close(close)) => {
                let code = close.as_ref().map_or(1005, |close| close.code.into());
                messages.push(format!(
                    "close {code} {}",
                    close.map_or(String::new(), |close| close.reason.to_string())
                ));
                return Reading { messages, broken: false };
            }
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(Theirs::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return Reading { messages, broken: false };
            }
            Err(Theirs::Protocol(_) | Theirs::Utf8(_) | Theirs::Capacity(_)) => {
                return Reading { messages, broken: true };
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn ours(bytes: &[u8], role: Role) -> (Reading, Option<Error>) {
    let mut link = match role {
        Role::Server => support::server(Limits::default()),
        Role::Client => support::client(Limits::default()),
    };
    let mut messages = Vec::new();
    link.receive(bytes);
    loop {
        match link.poll_event(std::time::Instant::now()) {
            Ok(Step::Event(event)) => messages.push(match event {
                PeerEvent::Text(text) => format!("text {text}"),
                PeerEvent::Binary(data) => format!("binary {:?}", tungstenite::Bytes::copy_from_slice(data)),
                PeerEvent::Ping(data) => format!("ping {:?}", tungstenite::Bytes::copy_from_slice(data)),
                PeerEvent::Pong(data) => format!("pong {:?}", tungstenite::Bytes::copy_from_slice(data)),
                PeerEvent::Close { code, reason, .. } => {
                    messages.push(format!("close {code} {reason}"));
                    return (Reading { messages, broken: false }, None);
                }
                other => panic!("{other:?}"),
            }),
            Ok(_) => return (Reading { messages, broken: false }, None),
            Err(error) => return (Reading { messages, broken: true }, Some(error)),
        }
    }
}

/// Frames, most of them in good order.
fn stream(numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut open = false;
    for _ in 0..1 + numbers.below(8) {
        let wrong = numbers.below(25);
        // Long ones are few: this reads byte by byte.
        let sizes = if numbers.below(10) == 0 { 8 } else { 6 };
        let size = [0, 1, 5, 125, 126, 300, 0xffff, 0x1_0000][numbers.below(sizes)];
        let mut payload: Vec<u8> = "aé🦀".bytes().cycle().take(size).collect();
        while std::str::from_utf8(&payload).is_err() {
            payload.pop();
        }
        let (mut opcode, mut fin) = match (numbers.below(6), open) {
            (0, _) => (9, true),
            (1, _) => (10, true),
            (2 | 3, false) => (1, numbers.below(2) == 0),
            (_, false) => (2, numbers.below(2) == 0),
            (_, true) => (0, numbers.below(2) == 0),
        };
        if numbers.below(12) == 0 {
            opcode = 8;
            fin = true;
            let code =
                [1000_u16, 1001, 1004, 1005, 1006, 1011, 1015, 2999, 3000, 4999, 5000][numbers.below(11)];
            payload.truncate(60);
            while std::str::from_utf8(&payload).is_err() {
                payload.pop();
            }
            payload = [&code.to_be_bytes()[..], &payload].concat();
            if numbers.below(3) == 0 {
                payload.truncate(numbers.below(2));
            }
        } else if opcode > 7 && wrong != 1 {
            payload.truncate(125);
        }
        match wrong {
            0 => opcode = numbers.below(16) as u8,
            2 => fin = !fin,
            3 => payload.push(0xff),
            4 => payload.push(0xc3),
            _ => {}
        }
        if opcode < 3 {
            open = !fin;
        }
        let reserved = if wrong == 5 { 1 << (4 + numbers.below(3)) } else { 0 };
        let first = if fin { 0x80 } else { 0 } | reserved | opcode;
        bytes.extend(if wrong == 6 { support::plain(first, &payload) } else { frame(first, &payload) });
    }
    bytes
}

#[test]
fn the_same_frames_mean_the_same() {
    let mut numbers = Numbers::new(0x7157);
    let (mut broken, mut events) = (0, 0);
    for round in 0..3_000 {
        let bytes = stream(&mut numbers);
        let (ours, error) = ours(&bytes, Role::Server);
        let theirs = theirs(&bytes, Role::Server);
        broken += usize::from(ours.broken);
        events += ours.messages.len();
        if ours == theirs {
            continue;
        }
        // It hands a close on whose code must not be sent, or that has half a code.
        let close =
            matches!(error, Some(Error::Violation(Violation { reason, .. })) if reason.contains("close"));
        assert!(close && !theirs.broken, "round {round}:\n{ours:?}\n{theirs:?}\n{error:?}\n{bytes:x?}");
    }
    assert!(broken > 500 && events > 3_000, "{broken} broken, {events} events: too few to tell");
}

#[test]
fn what_we_send_is_what_it_reads() {
    let mut numbers = Numbers::new(0x5e4d);
    for round in 0..300 {
        for role in [Role::Server, Role::Client] {
            // It reads in the other role.
            let mut link = match role {
                Role::Server => support::client(Limits::default()),
                Role::Client => support::server(Limits::default()),
            };
            let mut expected = Vec::new();
            for _ in 0..numbers.below(6) {
                let size = [0, 3, 125, 126, 65_535, 65_536][numbers.below(6)];
                let text = "x".repeat(size);
                match numbers.below(3) {
                    0 => {
                        link.send_text(&text).unwrap();
                        expected.push(format!("text {text}"));
                    }
                    1 => {
                        link.send_fragment(Kind::Text, &text.as_bytes()[..size / 2], false).unwrap();
                        link.ping(b"p").unwrap();
                        link.send_fragment(Kind::Text, &text.as_bytes()[size / 2..], true).unwrap();
                        expected.extend(["ping b\"p\"".to_owned(), format!("text {text}")]);
                    }
                    _ => {
                        link.send_binary(b"\0\xff").unwrap();
                        expected.push("binary b\"\\0\\xff\"".to_owned());
                    }
                }
            }
            link.close(3000, "end").unwrap();
            expected.push("close 3000 end".to_owned());
            let read = theirs(&sent(&mut link), role);
            assert_eq!(read, Reading { messages: expected, broken: false }, "round {round}");
        }
    }
}
