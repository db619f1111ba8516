//! Machines with an owner that reacts in one fixed way: what the tests here and the fuzz targets
//! in `fuzz/` drive, and what must hold whatever comes in.

#![allow(unreachable_pub, reason = "`fuzz/` makes a library of this")]

pub mod backend;
pub mod choices;
pub mod conversation;
pub mod differential;
pub mod exchange;
pub mod http;
pub mod numbers;
pub mod pair;
pub mod postgres;
pub mod server_model;
pub mod targets;
pub mod websocket;

use std::time::Instant;

use balrog_proto::{Error, Link, Machine, Step};

use numbers::Numbers;

/// Everything that happened on one connection.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Seen {
    /// What the machine told, in order; pieces of one payload are put together.
    pub events: Vec<Event>,
    /// What it sent.
    pub sent: Vec<u8>,
    /// Whether the sending side was shut down behind that.
    pub shutdown: bool,
}

/// One thing that a machine told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Said(String),
    Piece(&'static str, Vec<u8>),
    Failed(Error),
    /// Nothing follows.
    Closed,
}

impl Seen {
    pub fn say(&mut self, what: impl Into<String>) {
        self.events.push(Event::Said(what.into()));
    }

    /// The event of a step; notes the end of the connection if that is what came.
    pub fn event<E>(&mut self, step: Result<Step<E>, Error>) -> Option<E> {
        match step {
            Ok(Step::Event(event)) => return Some(event),
            Ok(Step::NeedInput | Step::Paused) => {}
            Ok(Step::Closed) => self.events.push(Event::Closed),
            Err(error) => self.events.push(Event::Failed(error)),
        }
        None
    }

    /// A piece of payload, of any size.
    pub fn piece(&mut self, of: &'static str, data: &[u8]) {
        match self.events.last_mut() {
            Some(Event::Piece(last, bytes)) if *last == of => bytes.extend_from_slice(data),
            _ => self.events.push(Event::Piece(of, data.to_vec())),
        }
    }

    pub fn error(&self) -> Option<Error> {
        match self.events.last() {
            Some(Event::Failed(error)) => Some(*error),
            _ => None,
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.events.last(), Some(Event::Failed(_) | Event::Closed))
    }

    /// What was said, without the payload.
    pub fn said(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Said(what) => Some(what.as_str()),
            _ => None,
        })
    }

    fn take_output<M: Machine>(&mut self, link: &mut Link<M>) {
        while let Some(bytes) = link.transmit() {
            self.sent.extend_from_slice(bytes);
            let n = bytes.len();
            link.transmitted(n);
        }
        self.shutdown = link.is_shutdown();
    }
}

/// A machine in one role, with its owner.
pub trait Subject {
    type Machine: Machine;

    /// A connection on which nothing has come in.
    fn open(&self) -> Link<Self::Machine>;

    /// Asks for one event, notes it, and reacts. Whether there was one.
    fn turn(&self, link: &mut Link<Self::Machine>, now: Instant, seen: &mut Seen) -> bool;

    /// More bytes than this never wait in the inbox of a machine that wants more.
    fn room(&self) -> usize;

    /// Whether what was sent is sound by the protocol's rules, whatever came in.
    fn check(&self, seen: &Seen);
}

/// Feeds the pieces, then the end of the stream, and tells everything that happened.
pub fn feed<'a, S: Subject>(subject: &S, pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let now = Instant::now();
    let mut link = subject.open();
    let mut seen = Seen::default();
    let mut pieces = pieces.into_iter();
    let (mut turns, mut fed) = (0, 0);
    // A request is out before anything comes back.
    seen.take_output(&mut link);
    loop {
        let piece = pieces.next();
        match piece {
            Some(piece) => link.receive(piece),
            None => link.receive_eof(),
        }
        fed += piece.map_or(0, <[u8]>::len);
        while !seen.is_over() && subject.turn(&mut link, now, &mut seen) {
            turns += 1;
            // Whether a pong is sent at once may depend on what waits to be sent.
            seen.take_output(&mut link);
            assert!(turns <= 4 * fed + 64, "more events than bytes: this does not end");
        }
        seen.take_output(&mut link);
        if seen.is_over() || piece.is_none() {
            break;
        }
        if link.interest().read {
            assert!(link.unread() <= subject.room(), "{} bytes wait in the inbox", link.unread());
        }
    }
    if let Some(error) = seen.error() {
        // The first error is final, and nothing follows what answered it.
        assert_eq!(link.poll_event(now).err(), Some(error));
        assert_eq!(link.unsent(), 0);
        assert!(!link.interest().read);
        assert_eq!(link.poll_timeout(), None);
    }
    subject.check(&seen);
    seen
}

/// The same through a driver that reads into the inbox itself, and past it where the machine says
/// that nothing but payload comes.
pub fn feed_past_the_inbox<S: Subject>(subject: &S, bytes: &[u8]) -> Seen {
    let now = Instant::now();
    let mut link = subject.open();
    let mut seen = Seen::default();
    let mut numbers = Numbers::of(bytes);
    let mut rest = bytes;
    seen.take_output(&mut link);
    loop {
        let n = (1 + numbers.below(64)).min(rest.len());
        if rest.is_empty() {
            link.receive_eof();
        } else if let Some(bulk) = link.bulk() {
            let n = usize::try_from(bulk).unwrap_or(usize::MAX).min(n);
            seen.piece("body", &rest[..n]);
            rest = &rest[n..];
            let position = link.position();
            link.bulk_received(now, n);
            assert_eq!(link.position(), position + n as u64);
        } else {
            link.recv_space(64)[..n].copy_from_slice(&rest[..n]);
            link.received(n);
            rest = &rest[n..];
        }
        while !seen.is_over() && subject.turn(&mut link, now, &mut seen) {
            seen.take_output(&mut link);
        }
        seen.take_output(&mut link);
        if seen.is_over() || link.is_eof() {
            return seen;
        }
    }
}

/// Cuts anywhere, by the bytes themselves: any change of them changes the cuts.
pub fn random_pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut numbers = Numbers::of(bytes);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        // Mostly short ones, so that many boundaries are tried.
        let most = if numbers.below(4) == 0 { rest.len() } else { rest.len().min(24) };
        let (piece, tail) = rest.split_at(1 + numbers.below(most));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// The same bytes whole, byte by byte and in random pieces give the same.
pub fn check_pieces<S: Subject>(subject: &S, bytes: &[u8]) {
    let whole = feed(subject, [bytes]);
    assert_eq!(feed(subject, random_pieces(bytes)), whole, "in random pieces");
    assert_eq!(feed(subject, bytes.chunks(1)), whole, "byte by byte");
    assert_eq!(feed_past_the_inbox(subject, bytes), whole, "past the inbox");
}
