//! WebSocket peers, and an independent reading of what they send.

use std::time::Instant;

use balrog_proto::websocket::{Deflate, Limits, Peer, PeerEvent};
use balrog_proto::{Link, Step};

use super::{Event, Seen, Subject};

/// A peer whose application sends every message back.
#[derive(Debug, Clone, Default)]
pub struct PeerSide {
    pub client: bool,
    /// Takes messages part by part, and sends nothing.
    pub streaming: bool,
    pub deflate: Option<Deflate>,
    pub limits: Limits,
}

impl PeerSide {
    pub fn server() -> Self {
        Self::default()
    }

    pub fn client() -> Self {
        Self { client: true, ..Self::default() }
    }

    pub fn streaming(self) -> Self {
        Self { streaming: true, ..self }
    }

    /// With compression, its parameters from one byte.
    pub fn deflating(choice: u8) -> Self {
        let bit = |n: u8| choice >> n & 1 == 1;
        let deflate = Deflate {
            server_no_context_takeover: bit(2),
            client_no_context_takeover: bit(3),
            server_max_window_bits: [8, 9, 12, 15][usize::from(choice >> 4 & 3)],
            client_max_window_bits: [15, 12, 9, 8][usize::from(choice >> 6 & 3)],
            min_size: 4,
            ..Deflate::default()
        };
        Self { client: bit(0), streaming: bit(1), deflate: Some(deflate), ..Self::default() }
    }

    pub fn peer(&self) -> Peer {
        let limits = self.limits.clone();
        let mut peer = if self.client {
            let mut number = 0_u8;
            let entropy = move |bytes: &mut [u8]| {
                number = number.wrapping_add(1);
                bytes.fill(number);
            };
            Peer::client(limits, Box::new(entropy))
        } else {
            Peer::server(limits)
        };
        if let Some(deflate) = &self.deflate {
            peer = peer.deflate(deflate);
        }
        if self.streaming { peer.streaming() } else { peer }
    }
}

impl Subject for PeerSide {
    type Machine = Peer;

    fn open(&self) -> Link<Peer> {
        Link::new(self.peer())
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
            Ok(Step::Event(PeerEvent::TextPart { text, fin })) => {
                assert!(fin || !text.is_empty());
                seen.piece("text", text.as_bytes());
                if fin {
                    seen.say("fin");
                }
                (None, None)
            }
            Ok(Step::Event(PeerEvent::BinaryPart { data, fin })) => {
                assert!(fin || !data.is_empty());
                seen.piece("binary", data);
                if fin {
                    seen.say("fin");
                }
                (None, None)
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
                // How much of a message was given on before it turned out to be wrong is a
                // matter of its pieces.
                while matches!(seen.events.last(), Some(Event::Piece(..))) {
                    seen.events.pop();
                }
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
        self.limits.frame + 14
    }

    fn check(&self, seen: &Seen) {
        check_sent(seen, self.client);
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
