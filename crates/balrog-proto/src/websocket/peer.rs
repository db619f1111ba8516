use std::ops::Range;
use std::time::{Duration, Instant};

use crate::websocket::frame::{self, BINARY, CLOSE, CONTINUATION, Header, PING, PONG, TEXT};
use crate::websocket::utf8::Validator;
use crate::{Error, Inbox, Interest, Link, Machine, Misuse, Outbox, Phase, Step, Timer};

/// Unsent bytes from which on pings are not answered: the peer does not read anyway.
const PONG_BACKLOG: usize = 64 * 1024;

/// What a client may take of us. Sizes are in bytes; a time of `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// A message, all its fragments together (1009; 1 MiB).
    pub message: usize,
    /// Fragments of one message (1009; 4,096).
    pub fragments: usize,
    /// How often a silent client is pinged (25 s).
    pub ping_interval: Option<Duration>,
    /// How long a ping may stay unanswered (10 s).
    pub pong_time: Duration,
    /// How long the client has to answer a close (5 s).
    pub close_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 1 << 20,
            fragments: 4_096,
            ping_interval: Some(Duration::from_secs(25)),
            pong_time: Duration::from_secs(10),
            close_time: Duration::from_secs(5),
        }
    }
}

/// The server's side of an open WebSocket.
#[derive(Debug)]
pub struct Peer {
    limits: Limits,
    state: State,
    /// The frame whose payload is coming.
    frame: Option<Payload>,
    /// The fragments of a message that is not complete.
    message: Vec<u8>,
    fragments: usize,
    /// Opcode of the message that is coming.
    kind: Option<u8>,
    text: Validator,
    used: usize,
    /// When the client was heard last, and when the pending ping was sent.
    heard: Option<Instant>,
    pinged: Option<Instant>,
    closing_since: Option<Instant>,
    /// The message was reported from `message`, which can be emptied now.
    reported: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// We sent Close and wait for the client's.
    Closing,
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Payload {
    header: Header,
    length: usize,
    /// How much of it is unmasked (and, for text, checked) already.
    ready: usize,
}

/// What the client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent<'b> {
    /// A whole text message.
    Text(&'b str),
    /// A whole binary message.
    Binary(&'b [u8]),
    /// A ping; the pong is in the outbox.
    Ping(&'b [u8]),
    /// A pong.
    Pong(&'b [u8]),
    /// The client closes, or has answered our close. Nothing follows.
    Close {
        /// 1005 if the client gave none (RFC 6455 section 7.1.5).
        code: u16,
        /// May be empty.
        reason: &'b str,
    },
}

enum Found {
    Message(u8, Option<Range<usize>>),
    Control(u8, Range<usize>),
    Close(u16, Range<usize>),
    NeedInput,
    Closed,
}

impl Peer {
    /// A WebSocket whose handshake is done.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Open,
            frame: None,
            message: Vec::new(),
            fragments: 0,
            kind: None,
            text: Validator::default(),
            used: 0,
            heard: None,
            pinged: None,
            closing_since: None,
            reported: false,
        }
    }

    fn find(&mut self, now: Instant, inbox: &mut Inbox, outbox: &mut Outbox) -> Result<Found, Error> {
        inbox.discard(std::mem::take(&mut self.used));
        if std::mem::take(&mut self.reported) {
            self.message = Vec::new();
        }
        self.heard.get_or_insert(now);
        if self.state == State::Closing {
            self.closing_since.get_or_insert(now);
        }
        loop {
            if self.state == State::Closed {
                return Ok(Found::Closed);
            }
            let Some(payload) = self.payload(now, inbox)? else {
                return if inbox.is_eof() { Err(Error::Eof(Phase::Open)) } else { Ok(Found::NeedInput) };
            };
            let data = 0..payload.length;
            let header = payload.header;
            self.frame = None;
            self.used = payload.length;
            if header.is_control() {
                return self.control(header.opcode, data, inbox, outbox);
            }
            if let Some(found) = self.data(header, data, inbox)? {
                return Ok(found);
            }
            inbox.discard(std::mem::take(&mut self.used));
        }
    }

    /// The next frame, once its payload is complete; unmasked in place, checked as it comes.
    fn payload(&mut self, now: Instant, inbox: &mut Inbox) -> Result<Option<Payload>, Error> {
        if self.frame.is_none() {
            let Some((header, size)) = Header::parse(inbox.bytes())? else { return Ok(None) };
            let length = self.admit(&header)?;
            inbox.discard(size);
            (self.heard, self.pinged) = (Some(now), None);
            self.frame = Some(Payload { header, length, ready: 0 });
        }
        let text = self.kind == Some(TEXT);
        let Some(payload) = &mut self.frame else { return Ok(None) };
        let have = inbox.len().min(payload.length);
        let fresh = &mut inbox.bytes_mut()[payload.ready..have];
        frame::unmask(fresh, payload.header.mask, payload.ready);
        if text && !payload.header.is_control() && !self.text.feed(fresh) {
            return Err(Error::violation(1007, "a text message is not UTF-8", "RFC 6455 section 8.1"));
        }
        payload.ready = have;
        Ok(Some(*payload).filter(|payload| payload.ready == payload.length))
    }

    /// Whether this frame may come now, and with this length.
    fn admit(&mut self, header: &Header) -> Result<usize, Error> {
        const RULE: &str = "RFC 6455 section 5.4";
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if header.is_control() {
            return Ok(length);
        }
        match (header.opcode, self.kind) {
            (CONTINUATION, None) => return Err(Error::violation(1002, "a continuation of nothing", RULE)),
            (CONTINUATION, Some(_)) => {}
            (_, Some(_)) => return Err(Error::violation(1002, "a message inside another", RULE)),
            (opcode, None) => {
                self.kind = Some(opcode);
                self.text = Validator::default();
                self.fragments = 0;
            }
        }
        self.fragments += 1;
        if self.fragments > self.limits.fragments {
            return Err(Error::limit(1009, "fragments", self.limits.fragments as u64));
        }
        if self.message.len().saturating_add(length) > self.limits.message {
            return Err(Error::limit(1009, "message", self.limits.message as u64));
        }
        Ok(length)
    }

    fn data(&mut self, header: Header, data: Range<usize>, inbox: &Inbox) -> Result<Option<Found>, Error> {
        let whole = header.fin && self.message.is_empty() && header.opcode != CONTINUATION;
        if !whole {
            self.message.extend_from_slice(&inbox.bytes()[data.clone()]);
        }
        if !header.fin {
            return Ok(None);
        }
        let kind = self.kind.take().unwrap_or(BINARY);
        if kind == TEXT && !self.text.is_complete() {
            return Err(Error::violation(
                1007,
                "a text message ends inside a character",
                "RFC 6455 section 8.1",
            ));
        }
        self.reported = !whole;
        // After our close nobody wants messages any more.
        if self.state == State::Closing {
            self.message = Vec::new();
            return Ok(None);
        }
        Ok(Some(Found::Message(kind, whole.then_some(data))))
    }

    fn control(
        &mut self,
        opcode: u8,
        data: Range<usize>,
        inbox: &Inbox,
        outbox: &mut Outbox,
    ) -> Result<Found, Error> {
        let payload = &inbox.bytes()[data.clone()];
        if opcode != CLOSE {
            if opcode == PING && self.state == State::Open && outbox.len() < PONG_BACKLOG {
                frame::write(&mut outbox.tail(), PONG, payload);
            }
            return Ok(Found::Control(opcode, data));
        }
        const RULE: &str = "RFC 6455 section 7.4";
        let (code, reason) = match payload {
            [] => (1005, data.end..data.end),
            [_] => return Err(Error::violation(1002, "a close frame with half a code", RULE)),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !is_close_code(code) {
                    return Err(Error::violation(1002, "a close code that must not be sent", RULE));
                }
                if std::str::from_utf8(reason).is_err() {
                    return Err(Error::violation(
                        1007,
                        "a close reason that is not UTF-8",
                        "RFC 6455 section 8.1",
                    ));
                }
                (code, data.start + 2..data.end)
            }
        };
        if self.state == State::Open {
            frame::write(&mut outbox.tail(), CLOSE, &payload[..payload.len().min(2)]);
        }
        self.state = State::Closed;
        outbox.shutdown();
        Ok(Found::Close(code, reason))
    }

    fn fail(&mut self, error: Error, outbox: &mut Outbox) {
        if let (State::Open, Some(code)) = (self.state, error.code()) {
            write_close(outbox, code, "");
        }
        self.state = State::Closed;
        outbox.shutdown();
    }

    fn open(&self) -> Result<(), Misuse> {
        if self.state == State::Open { Ok(()) } else { Err(Misuse("the WebSocket is closed or closing")) }
    }
}

/// The codes that an endpoint may send (RFC 6455 section 7.4.2, and its registry).
const fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn write_close(outbox: &mut Outbox, code: u16, reason: &str) {
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    frame::write(&mut outbox.tail(), CLOSE, &payload);
}

impl Machine for Peer {
    type Event<'b> = PeerEvent<'b>;

    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<PeerEvent<'b>>, Error> {
        let found = match self.find(now, inbox, outbox) {
            Ok(found) => found,
            Err(error) => {
                self.fail(error, outbox);
                return Err(error);
            }
        };
        // Text was checked as it came; this only tells the compiler.
        let text = |bytes| simdutf8::basic::from_utf8(bytes).unwrap_or_default();
        let bytes = inbox.bytes();
        Ok(Step::Event(match found {
            Found::Message(kind, range) => {
                let message = range.map_or(&self.message[..], |range| &bytes[range]);
                if kind == TEXT { PeerEvent::Text(text(message)) } else { PeerEvent::Binary(message) }
            }
            Found::Control(PING, range) => PeerEvent::Ping(&bytes[range]),
            Found::Control(_, range) => PeerEvent::Pong(&bytes[range]),
            Found::Close(code, range) => PeerEvent::Close { code, reason: text(&bytes[range]) },
            Found::NeedInput => return Ok(Step::NeedInput),
            Found::Closed => return Ok(Step::Closed),
        }))
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Open => match self.pinged {
                Some(pinged) => Some(pinged + self.limits.pong_time),
                None => Some(self.heard? + self.limits.ping_interval?),
            },
            State::Closing => Some(self.closing_since? + self.limits.close_time),
            State::Closed => None,
        }
    }

    fn timeout(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Error> {
        if self.deadline().is_none_or(|at| at > now) {
            return Ok(());
        }
        if self.state == State::Open && self.pinged.is_none() {
            frame::write(&mut outbox.tail(), PING, b"");
            self.pinged = Some(now);
            return Ok(());
        }
        let timer = if self.state == State::Open { Timer::Pong } else { Timer::Close };
        self.fail(Error::Timeout(timer), outbox);
        Err(Error::Timeout(timer))
    }

    fn interest(&self) -> Interest {
        Interest::read_if(self.state != State::Closed)
    }
}

impl Link<Peer> {
    /// Sends a text message.
    ///
    /// # Errors
    ///
    /// `Misuse` once the WebSocket is closed or closing.
    pub fn send_text(&mut self, text: &str) -> Result<(), Misuse> {
        self.send(TEXT, text.as_bytes())
    }

    /// Sends a binary message.
    ///
    /// # Errors
    ///
    /// `Misuse` once the WebSocket is closed or closing.
    pub fn send_binary(&mut self, data: &[u8]) -> Result<(), Misuse> {
        self.send(BINARY, data)
    }

    /// Sends a ping with at most 125 bytes.
    ///
    /// # Errors
    ///
    /// `Misuse` for more, or once the WebSocket is closed or closing.
    pub fn ping(&mut self, data: &[u8]) -> Result<(), Misuse> {
        if data.len() > 125 {
            return Err(Misuse("a ping carries at most 125 bytes"));
        }
        self.send(PING, data)
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Misuse> {
        self.machine.open()?;
        frame::write(&mut self.outbox.tail(), opcode, payload);
        Ok(())
    }

    /// Begins to close; the client's answer ends it. A second call does nothing.
    ///
    /// # Errors
    ///
    /// `Misuse` for a code that must not be sent, or a reason of over 123 bytes.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), Misuse> {
        if !is_close_code(code) {
            return Err(Misuse("this close code must not be sent"));
        }
        if reason.len() > 123 {
            return Err(Misuse("a close reason has at most 123 bytes"));
        }
        if self.machine.state == State::Open {
            write_close(&mut self.outbox, code, reason);
            self.machine.state = State::Closing;
        }
        Ok(())
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.machine.state == State::Open
    }
}
