//! Frames, and both sides of a connection in virtual time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use balrog_proto::websocket::{Deflate, Limits, Peer, PeerEvent};
use balrog_proto::{Entropy, Error, Link, Step};

use crate::numbers::Numbers;

pub(crate) const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A frame as a client sends it.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(first, 0x80, payload.len());
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    out
}

/// A frame as a server sends it.
pub(crate) fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, 0, payload.len()), payload.to_vec()].concat()
}

fn header(first: u8, masked: u8, length: usize) -> Vec<u8> {
    let mut out = vec![first];
    match length {
        n @ 0..=125 => out.push(masked | n as u8),
        n @ 126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(masked | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out
}

/// Randomness that is the same in every run.
pub(crate) fn entropy(seed: u64) -> Box<dyn Entropy> {
    let mut numbers = Numbers::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Box::new(move |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte = numbers.next() as u8))
}

pub(crate) fn server(limits: Limits) -> Link<Peer> {
    Link::new(Peer::server(limits))
}

pub(crate) fn client(limits: Limits) -> Link<Peer> {
    Link::new(Peer::client(limits, entropy(1)))
}

/// The bytes that are to be sent.
pub(crate) fn sent(link: &mut Link<Peer>) -> Vec<u8> {
    let bytes = link.segments().flatten().copied().collect();
    link.transmitted(link.unsent());
    bytes
}

/// Everything that comes of these pieces: events, the error, what is sent.
pub(crate) fn receive(mut link: Link<Peer>, pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    let now = Instant::now();
    let mut seen = Vec::new();
    for piece in pieces {
        link.receive(piece);
        events(&mut link, now, &mut seen);
    }
    (seen, sent(&mut link))
}

/// Appends what happens now. An error is noted once, as its code and name.
pub(crate) fn events(link: &mut Link<Peer>, now: Instant, seen: &mut Vec<String>) {
    loop {
        match link.poll_event(now) {
            Ok(Step::Event(event)) => seen.push(format!("{event:?}")),
            Ok(Step::Closed) => {
                if seen.last().is_none_or(|last| last != "closed") {
                    seen.push("closed".to_owned());
                }
                return;
            }
            Ok(_) => return,
            Err(error) => {
                let failed = failure(error);
                if seen.last() != Some(&failed) {
                    seen.push(failed);
                }
                return;
            }
        }
    }
}

pub(crate) fn failure(error: Error) -> String {
    match error {
        Error::Limit(limit) => format!("{} {}", limit.code, limit.name),
        Error::Violation(violation) => violation.code.to_string(),
        error => format!("{error:?}"),
    }
}

/// A server and a client, with what is under way between them.
pub(crate) struct Pair {
    pub(crate) server: Side,
    pub(crate) client: Side,
    pub(crate) now: Instant,
    numbers: Numbers,
}

pub(crate) struct Side {
    pub(crate) link: Link<Peer>,
    pub(crate) seen: Vec<String>,
    /// Sent to this side, and not delivered yet.
    wire: VecDeque<u8>,
    /// Whether the other side has shut down behind that.
    ends: bool,
    pub(crate) over: bool,
}

impl Pair {
    pub(crate) fn new(limits: &Limits, deflate: Option<&Deflate>, seed: u64) -> Self {
        let side = |peer: Peer| Side {
            link: Link::new(match deflate {
                Some(deflate) => peer.deflate(deflate),
                None => peer,
            }),
            seen: Vec::new(),
            wire: VecDeque::new(),
            ends: false,
            over: false,
        };
        Self {
            server: side(Peer::server(limits.clone())),
            client: side(Peer::client(limits.clone(), entropy(seed))),
            now: Instant::now(),
            numbers: Numbers::new(seed),
        }
    }

    /// Moves bytes, in pieces of any size, until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        loop {
            let most = 1 + self.numbers.below(40);
            let there = self.client.transfer(&mut self.server, self.now, most);
            let back = self.server.transfer(&mut self.client, self.now, most);
            if !there && !back {
                return;
            }
        }
    }

    /// Time goes on, and each deadline that passes is kept.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            self.settle();
            let next =
                [&self.server, &self.client].into_iter().filter_map(|side| side.link.poll_timeout()).min();
            self.now = next.unwrap_or(end).clamp(self.now, end);
            let mut due = false;
            for side in [&mut self.server, &mut self.client] {
                due |= side.link.poll_timeout().is_some_and(|at| at <= self.now);
                if let Err(error) = side.link.handle_timeout(self.now) {
                    side.seen.push(failure(error));
                    side.over = true;
                }
            }
            if !due && self.now == end {
                return self.settle();
            }
        }
    }
}

impl Side {
    /// Delivers a piece of what was sent to `to`; whether something moved.
    fn transfer(&mut self, to: &mut Self, now: Instant, most: usize) -> bool {
        self.note(now);
        to.wire.extend(sent(&mut self.link));
        to.ends |= self.link.is_shutdown();
        let piece: Vec<u8> = to.wire.drain(..most.min(to.wire.len())).collect();
        let ended = to.wire.is_empty() && to.ends && !to.link.is_eof();
        if !piece.is_empty() {
            to.link.receive(&piece);
        }
        if ended {
            to.link.receive_eof();
        }
        to.note(now);
        !piece.is_empty() || ended || to.link.unsent() > 0
    }

    fn note(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let mut seen = Vec::new();
        events(&mut self.link, now, &mut seen);
        self.over = matches!(self.link.poll_event(now), Ok(Step::Closed) | Err(_));
        self.seen.extend(seen);
    }
}

/// Whole messages of `link`, text as bytes.
pub(crate) fn messages(link: &mut Link<Peer>, now: Instant) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = Vec::new();
    loop {
        match link.poll_event(now)? {
            Step::Event(PeerEvent::Text(text)) => found.push(text.as_bytes().to_vec()),
            Step::Event(PeerEvent::Binary(data)) => found.push(data.to_vec()),
            Step::Event(_) => {}
            _ => return Ok(found),
        }
    }
}
