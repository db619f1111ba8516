//! WebSocket peers, and an independent reading of what they send.

use std::time::Instant;

use balrog_proto::websocket::{Limits, Peer, PeerEvent};
use balrog_proto::{Link, Step};

use super::{Event, Seen, Subject};

/// A server's peer whose application sends every message back.
#[derive(Default)]
pub struct ServerPeer(pub Limits);

impl Subject for ServerPeer {
    type Machine = Peer;

    fn open(&self) -> Link<Peer> {
        Link::new(Peer::server(self.0.clone()))
    }

    fn turn(&self, link: &mut Link<Peer>, now: Instant, seen: &mut Seen) -> bool {
        let (text, binary) = match link.poll_event(now) {
            Ok(Step::Event(PeerEvent::Text(text))) => {
                seen.say(format!("text {text}"));
                (Some(text.to_owned()), None)
            }
            Ok(Step::Event(PeerEvent::Binary(data))) => {
                seen.say(format!("binary {}", data.escape_ascii()));
                (None, Some(data.to_vec()))
            }
            Ok(Step::Event(event)) => {
                seen.say(format!("{event:?}"));
                (None, None)
            }
            Ok(Step::NeedInput | Step::Paused) => return false,
            Ok(Step::Closed) => {
                seen.events.push(Event::Closed);
                return false;
            }
            Err(error) => {
                seen.events.push(Event::Failed(error));
                return false;
            }
        };
        if let Some(text) = text {
            link.send_text(&text).unwrap();
        }
        if let Some(data) = binary {
            link.send_binary(&data).unwrap();
        }
        true
    }

    fn room(&self) -> usize {
        self.0.message + 14
    }

    fn check(&self, seen: &Seen) {
        check_sent(seen, false);
    }
}

/// Frames, well-formed by RFC 6455 section 5, with one Close at most and nothing behind it.
pub fn check_sent(seen: &Seen, masked: bool) {
    let frames = frames(&seen.sent);
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(frame.masked, masked);
        assert!(matches!(frame.opcode, 0..=2 | 8..=10));
        assert!(frame.opcode < 8 || (frame.fin && frame.payload.len() <= 125));
        assert!(frame.opcode != 8 || index == frames.len() - 1, "frames behind a Close");
    }
    let close = frames.last().filter(|frame| frame.opcode == 8);
    if let Some(code) = seen.error().and_then(|error| error.code()) {
        let close = close.expect("an error is answered by a Close");
        assert_eq!(close.payload[..2], code.to_be_bytes());
    }
    if seen.is_over() {
        assert!(seen.shutdown);
    }
}

/// A frame as it was on the wire, unmasked.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub fin: bool,
    /// RSV1: the message is compressed.
    pub compressed: bool,
    pub opcode: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

/// Takes whole frames apart; panics if that is not what these are.
pub fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let [first, second, ..] = *bytes else { panic!("half a frame header") };
        let (length, mut at) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes[2..4].try_into().unwrap())), 4),
            127 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()), 10),
            short => (u64::from(short), 2),
        };
        let shortest = match length {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        assert_eq!(at, shortest, "a length is not in its shortest form");
        let masked = second & 0x80 != 0;
        let mut mask = [0; 4];
        if masked {
            mask = bytes[at..at + 4].try_into().unwrap();
            at += 4;
        }
        let end = at + usize::try_from(length).unwrap();
        let payload = bytes[at..end].iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        assert_eq!(first & 0x30, 0, "a reserved bit");
        let (fin, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
        found.push(Frame { fin, compressed, opcode: first & 0x0f, masked, payload });
        bytes = &bytes[end..];
    }
    found
}
