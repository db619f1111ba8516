use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::websocket::alive::Alive;
use crate::websocket::deflate::{Compressor, Decompressor};
use crate::websocket::frame::{self, BINARY, CLOSE, CONTINUATION, Header, PING, RSV1, TEXT};
use crate::websocket::incoming::{Incoming, Part, Place, not_text};
use crate::websocket::outgoing::{Outgoing, State};
use crate::websocket::{Deflate, Limits};
use crate::{Entropy, Error, Inbox, Interest, Machine, Outbox, Phase, Step, Timer};

/// One side of an open WebSocket.
#[derive(Debug)]
pub struct Peer {
    pub(crate) limits: Arc<Limits>,
    streaming: bool,
    /// The data frame whose payload is coming, if it is not whole in the inbox.
    frame: Option<Frame>,
    incoming: Incoming,
    pub(crate) outgoing: Outgoing,
    alive: Alive,
    /// Since when the peer has to close.
    closing_since: Option<Instant>,
    /// Bytes of the inbox that the last event lent.
    used: usize,
    /// Whether it lent something of `incoming`.
    lent: bool,
    /// A command found the outbox full, and its owner waits until it is not.
    pub(crate) congested: bool,
}

/// The payload of a data frame.
#[derive(Debug, Clone, Copy)]
struct Frame {
    header: Header,
    /// What has not been used up.
    left: u64,
    /// How much of that is in the inbox and unmasked.
    ready: usize,
    /// How much was used up, for the mask.
    done: usize,
}

/// Text or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    pub(crate) const fn opcode(self) -> u8 {
        match self {
            Self::Text => TEXT,
            Self::Binary => BINARY,
        }
    }
}

/// Who began to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// Our close was sent before the peer's came.
    Local,
    /// The peer's close came first.
    Remote,
}

/// What the peer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent<'b> {
    /// A whole text message.
    Text(&'b str),
    /// A whole binary message.
    Binary(&'b [u8]),
    /// A part of a text message, as far as it came; of a [`Peer::streaming`] only.
    TextPart {
        /// Whole characters. May be empty if it is the last.
        text: &'b str,
        /// Whether the message ends with it.
        fin: bool,
    },
    /// A part of a binary message, as far as it came; of a [`Peer::streaming`] only.
    BinaryPart {
        /// May be empty if it is the last.
        data: &'b [u8],
        /// Whether the message ends with it.
        fin: bool,
    },
    /// A ping; it is answered already.
    Ping(&'b [u8]),
    /// A pong.
    Pong(&'b [u8]),
    /// The peer closes, or has answered our close. Nothing follows.
    Close {
        /// 1005 if the peer gave none (RFC 6455 section 7.1.5).
        code: u16,
        /// May be empty.
        reason: &'b str,
        /// Who began.
        initiator: Initiator,
    },
    /// A command had left the link congested, and it is not any more.
    Writable,
}

enum Found {
    Whole(Kind, Range<usize>),
    Gathered(Kind, Place),
    Part(Kind, Place, bool),
    Ping(Range<usize>),
    Pong(Range<usize>),
    Close(u16, Range<usize>, Initiator),
    Writable,
    NeedInput,
    Closed,
}

impl Peer {
    /// The server's side, once the handshake is done. Many can share the limits.
    pub fn server(limits: impl Into<Arc<Limits>>) -> Self {
        Self::new(limits.into(), None)
    }

    /// The client's side, once the handshake is done. Mask keys come from `entropy`.
    pub fn client(limits: impl Into<Arc<Limits>>, entropy: Box<dyn Entropy>) -> Self {
        Self::new(limits.into(), Some(entropy))
    }

    /// What it was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Messages are compressed, as it was agreed on in the handshake.
    #[must_use]
    pub fn deflate(mut self, agreed: &Deflate) -> Self {
        let server = (agreed.server_max_window_bits, !agreed.server_no_context_takeover);
        let client = (agreed.client_max_window_bits, !agreed.client_no_context_takeover);
        let (ours, theirs) = if self.outgoing.is_client() { (client, server) } else { (server, client) };
        self.outgoing.deflate = Some(Box::new(Compressor::new(agreed, ours.0, ours.1)));
        self.incoming.inflate = Some(Box::new(Decompressor::new(theirs.0, theirs.1)));
        self
    }

    /// Data is given on as it comes, in parts of messages ([`PeerEvent::TextPart`],
    /// [`PeerEvent::BinaryPart`]). The limits stay what they are.
    #[must_use]
    pub const fn streaming(mut self) -> Self {
        self.streaming = true;
        self
    }

    /// How long the last keepalive ping took to be answered.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.alive.round_trip()
    }

    fn new(limits: Arc<Limits>, entropy: Option<Box<dyn Entropy>>) -> Self {
        Self {
            limits,
            streaming: false,
            frame: None,
            incoming: Incoming::default(),
            outgoing: Outgoing::new(entropy),
            alive: Alive::default(),
            closing_since: None,
            used: 0,
            lent: false,
            congested: false,
        }
    }

    /// Gives memory back that the next message would only need again: what is kept for
    /// compression, up to the window of what came. Happens by itself when the peer is silent.
    pub fn release(&mut self) {
        self.outgoing.forget();
        if !self.lent {
            self.incoming.forget();
        }
    }

    #[inline]
    fn find(&mut self, now: Instant, inbox: &mut Inbox, outbox: &mut Outbox) -> Result<Found, Error> {
        inbox.discard(std::mem::take(&mut self.used));
        if std::mem::take(&mut self.lent) {
            self.incoming.give_back();
        }
        self.alive.begin(now);
        self.alive.answer(now, &self.limits, &mut self.outgoing, outbox);
        if self.congested && !outbox.is_full() {
            self.congested = false;
            return Ok(Found::Writable);
        }
        loop {
            if self.outgoing.state != State::Open
                && let Some(found) = self.ending(now, inbox, outbox)
            {
                return Ok(found);
            }
            if self.frame.is_some() {
                if let Some(found) = self.payload(now, inbox)? {
                    return Ok(found);
                }
                if self.frame.is_some() {
                    return starved(inbox);
                }
            }
            let reserved = if self.incoming.inflate.is_some() { RSV1 } else { 0 };
            let masked = !self.outgoing.is_client();
            let Some((header, size)) = Header::parse(inbox.bytes(), masked, reserved)? else {
                return starved(inbox);
            };
            let whole = (inbox.len() - size) as u64 >= header.length;
            if header.is_control() {
                // At most 125 bytes, so that it can wait in the inbox.
                if !whole {
                    return starved(inbox);
                }
                self.alive.heard(now);
                let payload = self.lend(&header, size, inbox);
                if let Some(found) = self.control(now, header, payload, inbox, outbox)? {
                    return Ok(found);
                }
                continue;
            }
            self.alive.heard(now);
            if self.outgoing.state == State::Open {
                let kind = self.incoming.begin(&header, &self.limits)?;
                let alone = header.fin && header.opcode != CONTINUATION && !header.compressed;
                if whole && alone && !self.streaming {
                    self.incoming.end();
                    return Ok(Found::Whole(kind, self.lend(&header, size, inbox)));
                }
            }
            inbox.discard(size);
            self.frame = Some(Frame { header, left: header.length, ready: 0, done: 0 });
        }
    }

    /// Unmasks the payload behind a header of `size`, to be lent from the inbox.
    #[inline(always)]
    fn lend(&mut self, header: &Header, size: usize, inbox: &mut Inbox) -> Range<usize> {
        let payload = size..size + header.length as usize;
        frame::apply_mask(&mut inbox.bytes_mut()[payload.clone()], header.mask, 0);
        self.used = payload.end;
        payload
    }

    /// More of a frame that is not lent whole.
    fn payload(&mut self, now: Instant, inbox: &mut Inbox) -> Result<Option<Found>, Error> {
        let Some(frame) = &mut self.frame else { return Ok(None) };
        let have = usize::try_from(frame.left).unwrap_or(usize::MAX).min(inbox.len());
        if have > frame.ready {
            let fresh = &mut inbox.bytes_mut()[frame.ready..have];
            frame::apply_mask(fresh, frame.header.mask, frame.done.wrapping_add(frame.ready));
            frame.ready = have;
            self.alive.heard(now);
        }
        let fin = frame.header.fin && have as u64 == frame.left;
        let piece = &inbox.bytes()[..have];
        // What comes behind our close is of no interest.
        let (used, found) = if self.outgoing.state != State::Open {
            (have, None)
        } else if self.streaming {
            let mut part = self.incoming.part(piece, fin, &self.limits)?;
            // It may end in the middle of a character, or with a final block.
            while !part.drained && part.found.is_none() {
                let more = self.incoming.part(&piece[part.used..], fin, &self.limits)?;
                part = Part { used: part.used + more.used, ..more };
            }
            if !part.drained {
                // It has more to give, even if nothing more comes.
                frame.used_up(part.used);
                inbox.discard(part.used);
                self.lent = part.found.is_some();
                return Ok(part.found.map(|place| Found::Part(part.kind, place, false)));
            }
            (part.used, part.found.map(|place| Found::Part(part.kind, place, part.fin)))
        } else {
            let kind = self.incoming.kind().unwrap_or(Kind::Binary);
            let place = self.incoming.append(piece, fin, &self.limits)?;
            (have, place.map(|place| Found::Gathered(kind, place)))
        };
        frame.used_up(used);
        if frame.left == 0 {
            self.frame = None;
        }
        if matches!(found, Some(Found::Part(_, Place::Inbox, _))) {
            self.used = used;
        } else {
            inbox.discard(used);
            self.lent = found.is_some();
        }
        Ok(found)
    }

    fn control(
        &mut self,
        now: Instant,
        header: Header,
        payload: Range<usize>,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Option<Found>, Error> {
        const RULE: &str = "RFC 6455 section 7.4";
        let bytes = &inbox.bytes()[payload.clone()];
        if header.opcode == PING {
            if self.outgoing.state == State::Open {
                self.alive.ping(now, bytes, &self.limits, &mut self.outgoing, outbox);
            }
            return Ok(Some(Found::Ping(payload)));
        }
        if header.opcode != CLOSE {
            self.alive.pong(now, bytes);
            return Ok(Some(Found::Pong(payload)));
        }
        let (code, reason) = match bytes {
            [] => (1005, payload.end..payload.end),
            // "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned
            // integer"
            [_] => return Err(Error::violation(1002, "a close frame with half a code", RULE)),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !frame::is_close_code(code) {
                    return Err(Error::violation(1002, "a close code that must not be sent", RULE));
                }
                if simdutf8::basic::from_utf8(reason).is_err() {
                    let rule = "RFC 6455 section 8.1";
                    return Err(Error::violation(1007, "a close reason that is not UTF-8", rule));
                }
                (code, payload.start + 2..payload.end)
            }
        };
        let ours = self.outgoing.state == State::Closing;
        let initiator = if ours { Initiator::Local } else { Initiator::Remote };
        self.outgoing.closed(bytes, outbox);
        self.closing_since = Some(now);
        Ok(Some(Found::Close(code, reason, initiator)))
    }

    /// What there is to do when a close was sent. `None`: go on reading.
    #[cold]
    fn ending(&mut self, now: Instant, inbox: &mut Inbox, outbox: &mut Outbox) -> Option<Found> {
        self.closing_since.get_or_insert(now);
        match self.outgoing.state {
            State::Open | State::Closing => None,
            State::Draining => {
                inbox.discard(inbox.len());
                if inbox.is_eof() {
                    self.outgoing.end(outbox);
                    return Some(Found::Closed);
                }
                Some(Found::NeedInput)
            }
            State::Closed => Some(Found::Closed),
        }
    }
}

impl Frame {
    fn used_up(&mut self, n: usize) {
        self.left -= n as u64;
        self.ready -= n;
        self.done = self.done.wrapping_add(n);
    }
}

fn starved(inbox: &Inbox) -> Result<Found, Error> {
    if inbox.is_eof() { Err(Error::Eof(Phase::Open)) } else { Ok(Found::NeedInput) }
}

impl Machine for Peer {
    type Event<'b> = PeerEvent<'b>;

    #[inline]
    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<PeerEvent<'b>>, Error> {
        let found = match self.find(now, inbox, outbox) {
            Ok(found) => found,
            Err(error) => {
                self.outgoing.fail(error, outbox);
                return Err(error);
            }
        };
        let bytes = inbox.bytes();
        if let Found::Whole(Kind::Binary, range) = found {
            return Ok(Step::Event(PeerEvent::Binary(&bytes[range])));
        }
        let Self { incoming, outgoing, .. } = self;
        // Here text becomes `&str`, and is checked for it, so that nothing can be wrong.
        let text = match &found {
            Found::Whole(Kind::Text, range) => {
                simdutf8::basic::from_utf8(&bytes[range.clone()]).map_err(|_| not_text())
            }
            Found::Gathered(Kind::Text, place) | Found::Part(Kind::Text, place, _) => incoming.text(*place),
            Found::Close(_, range, _) => {
                simdutf8::basic::from_utf8(&bytes[range.clone()]).map_err(|_| not_text())
            }
            _ => Ok(""),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                outgoing.fail(error, outbox);
                return Err(error);
            }
        };
        Ok(Step::Event(match found {
            Found::Whole(Kind::Binary, range) => PeerEvent::Binary(&bytes[range]),
            Found::Whole(Kind::Text, _) | Found::Gathered(Kind::Text, _) => PeerEvent::Text(text),
            Found::Gathered(Kind::Binary, place) => PeerEvent::Binary(incoming.bytes(place)),
            Found::Part(Kind::Text, _, fin) => PeerEvent::TextPart { text, fin },
            Found::Part(Kind::Binary, Place::Inbox, fin) => {
                PeerEvent::BinaryPart { data: &bytes[..self.used], fin }
            }
            Found::Part(Kind::Binary, place, fin) => {
                PeerEvent::BinaryPart { data: incoming.bytes(place), fin }
            }
            Found::Ping(range) => PeerEvent::Ping(&bytes[range]),
            Found::Pong(range) => PeerEvent::Pong(&bytes[range]),
            Found::Close(code, _, initiator) => PeerEvent::Close { code, reason: text, initiator },
            Found::Writable => PeerEvent::Writable,
            Found::NeedInput => return Ok(Step::NeedInput),
            Found::Closed => return Ok(Step::Closed),
        }))
    }

    fn deadline(&self) -> Option<Instant> {
        match self.outgoing.state {
            State::Open => {
                let alive = [
                    self.alive.ping_at(&self.limits),
                    self.alive.lost_at(&self.limits),
                    self.alive.answer_at(),
                ];
                alive.into_iter().flatten().min()
            }
            State::Closing | State::Draining => Some(self.closing_since? + self.limits.close_time),
            State::Closed => None,
        }
    }

    fn timeout(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Error> {
        if self.deadline().is_none_or(|at| at > now) {
            return Ok(());
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let timer = match self.outgoing.state {
            State::Open if due(self.alive.lost_at(&self.limits)) && self.alive.is_lost(now, outbox) => {
                Timer::Pong
            }
            State::Open => {
                self.alive.answer(now, &self.limits, &mut self.outgoing, outbox);
                if due(self.alive.ping_at(&self.limits)) {
                    self.alive.probe(now, &mut self.outgoing, outbox);
                    self.release();
                }
                return Ok(());
            }
            State::Closing => Timer::Close,
            // The handshake is done; a server that does not close then changes nothing.
            State::Draining | State::Closed => {
                self.outgoing.end(outbox);
                return Ok(());
            }
        };
        self.outgoing.fail(Error::Timeout(timer), outbox);
        Err(Error::Timeout(timer))
    }

    fn interest(&self) -> Interest {
        Interest::read_if(self.outgoing.state != State::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Link;
    use crate::websocket::frame::{FIN, write};

    /// Echoes some messages, and is then silent.
    fn used(peer: Peer) -> Link<Peer> {
        let mut link = Link::new(peer);
        let now = Instant::now();
        for size in [0, 10, 5_000, 100_000] {
            let mut bytes = Vec::new();
            write(&mut bytes, FIN | TEXT, &vec![b'a'; size], Some([1, 2, 3, 4]));
            for piece in bytes.chunks(4_000) {
                link.receive(piece);
                while let Ok(Step::Event(_)) = link.poll_event(now) {}
            }
            link.send_binary(&bytes).unwrap();
            link.transmitted(link.unsent());
        }
        assert_eq!(link.unread() + link.unsent(), 0);
        link
    }

    #[test]
    fn an_idle_link_costs_its_struct() {
        let mut link = used(Peer::server(Limits::default()));
        link.shrink();
        let message = link.machine.incoming.heap();
        let cost = size_of::<Link<Peer>>() + link.heap() + message;
        assert!(cost <= 512, "{cost} bytes");
        // Compression without takeover adds two structs.
        let settings = Deflate { server_no_context_takeover: true, ..Deflate::default() };
        let mut link = used(Peer::server(Limits::default()).deflate(&settings));
        link.shrink();
        let cost = size_of::<Link<Peer>>() + link.heap() + link.machine.incoming.heap();
        let deflate = link.machine.outgoing.deflate.as_ref().map_or(0, |deflate| deflate.heap());
        let structs = size_of::<Compressor>() + size_of::<Decompressor>();
        assert!(deflate == 0 && cost + structs <= 1024, "{cost} + {deflate} + {structs} bytes");
    }
}
