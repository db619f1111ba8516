use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http1::body::{Body, Piece, Wanted};
use crate::http1::encode::{reason, write_length, write_status};
use crate::http1::parse::Parser;
use crate::http1::request::Request;
use crate::http1::{Headers, Limits, RequestHead, Trailers};
use crate::{Error, Inbox, Interest, Machine, Outbox, Phase, Step, Timer};

mod commands;

/// A body has to come this long before its rate counts.
const RATE_FROM: Duration = Duration::from_secs(10);

/// The server's side of a connection: requests in, responses out, one after the other.
///
/// ```text
///           head complete             body complete              finish
///   Head ------------------> Body ---------------------> Respond --------> Head
///    |    Request event       |          End event                         ^
///    |                        | finish, without the body                   |
///    |                        v                                 body over  |
///    |                      Drain -----------------------------------------+
///    |                        | over `drain` or `drain_time`
///    +--- violation, limit, --+--- end of file, time-out, `Connection: close`
///                             v
///                           Closed
/// ```
///
/// The response has a state of its own beside this one. It may begin as soon as the head is
/// there, and may be finished before the body is.
#[derive(Debug)]
pub struct Server {
    limits: Arc<Limits>,
    wanted: Wanted,
    tunnels: bool,
    state: State,
    parser: Parser,
    /// Bytes of the inbox that the last event borrowed.
    used: usize,
    body: Body,
    request: Request,
    exchange: Exchange,
    response: Response,
    /// When the idle time, the head's time or the drain's time began.
    since: Option<Instant>,
    /// Whether a byte of the next head has come.
    begun: bool,
    /// Whether a request has come before.
    again: bool,
    /// Whether the owner wants no further request.
    closing: bool,
    /// When input was found missing in the middle of a body.
    waiting: Option<Instant>,
    /// How long input was missing before, and how much of the body has come.
    waited: Duration,
    received: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body,
    /// The request is complete; the response is not.
    Respond,
    /// The response is complete; what is left of the request's body is read and dropped.
    Drain {
        /// Where in the body patience ends.
        until: u64,
    },
    Closed,
}

/// What is decided about the current exchange, at first by its head.
#[derive(Debug, Clone, Copy, Default)]
struct Exchange {
    close: bool,
    /// The client waits for `100 Continue`.
    expects: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    None,
    /// Its body: what is left of a declared length, or chunked, or until the connection ends.
    Length(u64),
    Chunked,
    UntilClose,
    /// HEAD, 204, 304: whatever the body is, it is not sent.
    Nothing,
    Done,
}

/// What a client did.
#[derive(Debug, Clone, Copy)]
pub enum ServerEvent<'b> {
    /// A request's head is complete.
    Request(RequestHead<'b>),
    /// A piece of its body.
    Body(&'b [u8]),
    /// The extensions of the chunk that comes next, as `name=value;name="value"`. Only with
    /// [`Server::with_extensions`].
    Extension(&'b [u8]),
    /// The trailer fields that are wanted. Only with [`Server::with_trailers`].
    Trailers(Headers<'b>),
    /// The request is complete.
    End,
}

/// How a response's body is to be delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// No body, and no field about it.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Unknown: chunked, or for HTTP/1.0 until the connection closes.
    Unknown,
}

/// An event by positions in the inbox.
enum Found {
    Request(Range<usize>),
    Body(Range<usize>),
    Extension(Range<usize>),
    Trailers,
    End,
    NeedInput,
    Paused,
    Closed,
}

impl Server {
    /// A connection on which nothing has happened. Connections can share their limits.
    pub fn new(limits: impl Into<Arc<Limits>>) -> Self {
        Self {
            limits: limits.into(),
            wanted: Wanted::default(),
            tunnels: false,
            state: State::Head,
            parser: Parser::default(),
            used: 0,
            body: Body::default(),
            request: Request::default(),
            exchange: Exchange::default(),
            response: Response::None,
            since: None,
            begun: false,
            again: false,
            closing: false,
            waiting: None,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// Reports trailer fields; by default all are checked and dropped.
    #[must_use]
    pub const fn with_trailers(mut self, trailers: Trailers) -> Self {
        self.wanted.trailers = trailers;
        self
    }

    /// Reports chunk extensions; by default they are checked and dropped.
    #[must_use]
    pub const fn with_extensions(mut self) -> Self {
        self.wanted.extensions = true;
        self
    }

    /// Takes CONNECT, to be answered by [`Link::accept_tunnel`](crate::Link::accept_tunnel) or
    /// a refusal; by default it is answered with 501.
    #[must_use]
    pub const fn with_tunnels(mut self) -> Self {
        self.tunnels = true;
        self
    }

    fn head(&mut self, now: Instant, inbox: &Inbox) -> Result<Found, Error> {
        self.request.tunnels = self.tunnels;
        let Some(end) = self.parser.advance(&mut self.request, inbox.bytes(), &self.limits)? else {
            if self.begun && !inbox.is_eof() {
                return Ok(Found::NeedInput);
            }
            return self.head_is_missing(now, inbox);
        };
        self.request.finish()?;
        self.body = Body::new(self.request.framing());
        self.exchange = Exchange {
            close: self.closing || !self.request.keeps_alive(),
            expects: self.request.expects_continue(),
        };
        self.state = State::Body;
        self.used = end;
        (self.since, self.begun, self.again) = (None, false, true);
        (self.waiting, self.waited, self.received) = (None, Duration::ZERO, 0);
        Ok(Found::Request(self.parser.start()..end))
    }

    fn head_is_missing(&mut self, now: Instant, inbox: &Inbox) -> Result<Found, Error> {
        if inbox.is_eof() {
            return if inbox.is_empty() { Ok(Found::Closed) } else { Err(Error::Eof(Phase::Head)) };
        }
        // The first byte of a head ends the idle time and starts the head's own.
        if self.since.is_none() || !inbox.is_empty() {
            self.since = Some(now);
            self.begun = !inbox.is_empty();
        }
        Ok(Found::NeedInput)
    }

    /// The next piece of the body. `Piece::More` means that input is missing.
    #[inline]
    fn piece(&mut self, now: Instant, inbox: &mut Inbox) -> Result<Piece, Error> {
        loop {
            let (used, piece) =
                self.body.next(inbox.bytes_mut(), &mut self.parser, self.wanted, &self.limits)?;
            if used > 0 {
                self.progress(now, used as u64);
            }
            if piece != Piece::More {
                self.used = used;
                return Ok(piece);
            }
            inbox.discard(used);
            if used > 0 && !inbox.is_empty() {
                continue;
            }
            if inbox.is_eof() {
                return Err(Error::Eof(Phase::Body));
            }
            self.waiting.get_or_insert(now);
            return Ok(piece);
        }
    }

    #[inline]
    fn body(&mut self, now: Instant, inbox: &mut Inbox) -> Result<Found, Error> {
        Ok(match self.piece(now, inbox)? {
            Piece::Data(range) => Found::Body(range),
            Piece::Extension(range) => Found::Extension(range),
            Piece::Trailers => Found::Trailers,
            Piece::More => Found::NeedInput,
            Piece::Done => {
                self.state = State::Respond;
                Found::End
            }
        })
    }

    fn progress(&mut self, now: Instant, used: u64) {
        if let Some(since) = self.waiting.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.received += used;
        self.exchange.expects = false;
    }

    /// Reads the rest of a body that nobody wanted. `None`: the next request may come.
    fn drain(&mut self, now: Instant, inbox: &mut Inbox, until: u64) -> Result<Option<Found>, Error> {
        self.since.get_or_insert(now);
        loop {
            let piece = match self.piece(now, inbox) {
                // The response is out; that the rest never came is nobody's concern.
                Err(Error::Eof(_)) => return Ok(Some(Found::Closed)),
                piece => piece?,
            };
            inbox.discard(std::mem::take(&mut self.used));
            if self.received > until {
                return Ok(Some(Found::Closed));
            }
            match piece {
                Piece::Done => break,
                Piece::More => return Ok(Some(Found::NeedInput)),
                _ => {}
            }
        }
        self.next_request();
        Ok(None)
    }

    #[inline]
    fn find(&mut self, now: Instant, inbox: &mut Inbox) -> Result<Found, Error> {
        if self.used > 0 {
            inbox.discard(std::mem::take(&mut self.used));
        }
        match self.state {
            State::Head => self.head(now, inbox),
            State::Body => self.body(now, inbox),
            State::Respond => Ok(Found::Paused),
            State::Drain { until } => match self.drain(now, inbox, until)? {
                Some(found) => Ok(found),
                None => self.head(now, inbox),
            },
            State::Closed => Ok(Found::Closed),
        }
    }

    fn next_request(&mut self) {
        self.state = State::Head;
        self.request = Request::default();
        self.exchange = Exchange::default();
        self.response = Response::None;
        self.parser.reset();
        (self.since, self.begun, self.waiting) = (None, false, None);
    }

    /// Ends the connection with an answer to `error`, if one can be given and none has begun.
    #[cold]
    fn refuse(&mut self, error: Error, outbox: &mut Outbox) {
        let can_answer = self.response == Response::None && self.state != State::Closed;
        if let Some(code) = error.status().filter(|_| can_answer) {
            let text = format!("{error}\n");
            let mut tail = outbox.tail();
            // Both are ours and sound.
            let _ = write_status(&mut tail, code, reason(code));
            tail.extend_from_slice(b"Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n");
            write_length(&mut tail, text.len() as u64);
            tail.extend_from_slice(b"\r\n");
            if !self.request.head {
                tail.extend_from_slice(text.as_bytes());
            }
        }
        self.response = Response::Done;
        self.state = State::Closed;
        self.parser.reset();
        outbox.shutdown();
    }

    /// What is left of a body too long, or not even begun, is not worth the connection.
    fn must_close(&self) -> bool {
        self.exchange.close
            || self.exchange.expects
            || self.body.remaining().is_some_and(|left| left > self.limits.drain)
    }

    /// The nearest deadline, and whose it is.
    fn timer(&self) -> Option<(Instant, Timer)> {
        let after = |since: Option<Instant>, time: Option<Duration>| Some(since? + time?);
        let body = || {
            let idle = after(self.waiting, self.limits.body_idle_time);
            let rate = self.waiting.filter(|_| self.limits.body_rate > 0).map(|since| {
                let earned = Duration::from_secs(self.received / u64::from(self.limits.body_rate));
                since + earned.max(RATE_FROM).saturating_sub(self.waited)
            });
            [idle, rate].into_iter().flatten().min()
        };
        match self.state {
            State::Head if self.begun => Some((after(self.since, self.limits.head_time)?, Timer::Head)),
            State::Head => {
                let time = if self.again { self.limits.idle_time } else { self.limits.first_time };
                Some((after(self.since, time)?, Timer::Idle))
            }
            State::Body => Some((body()?, Timer::Body)),
            State::Drain { .. } => {
                let drain = after(self.since, self.limits.drain_time);
                Some(([drain, body()].into_iter().flatten().min()?, Timer::Drain))
            }
            State::Respond | State::Closed => None,
        }
    }

    /// Heap storage that the machine itself holds.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        self.parser.heap()
    }
}

impl Machine for Server {
    type Event<'b> = ServerEvent<'b>;

    #[inline]
    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<ServerEvent<'b>>, Error> {
        // Found by position first, and borrowed only when nothing can fail any more.
        let found = match self.find(now, inbox) {
            Ok(found) => found,
            Err(error) => {
                self.refuse(error, outbox);
                return Err(error);
            }
        };
        let bytes = inbox.bytes();
        Ok(Step::Event(match found {
            Found::NeedInput => return Ok(Step::NeedInput),
            Found::Request(head) => {
                ServerEvent::Request(self.request.view(&bytes[..head.end], head.start, self.parser.fields()))
            }
            Found::Body(data) => ServerEvent::Body(&bytes[data]),
            Found::Extension(data) => ServerEvent::Extension(&bytes[data]),
            Found::Trailers => ServerEvent::Trailers(Headers::new(bytes, self.parser.fields())),
            Found::End => ServerEvent::End,
            Found::Paused => return Ok(Step::Paused),
            Found::Closed => {
                self.state = State::Closed;
                outbox.shutdown();
                return Ok(Step::Closed);
            }
        }))
    }

    #[inline]
    fn glance(&mut self, now: Instant, inbox: &Inbox) -> bool {
        // The parser says yes in the middle of a head only, whose clock runs by then.
        if self.parser.glance(inbox.len(), inbox.alone()) {
            return true;
        }
        let idle = self.state == State::Head && self.used == 0 && inbox.is_empty() && !inbox.is_eof();
        if idle {
            self.since.get_or_insert(now);
        }
        idle
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.timer()?.0)
    }

    fn timeout(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Error> {
        let Some((_, timer)) = self.timer().filter(|(at, _)| *at <= now) else { return Ok(()) };
        let error = Error::Timeout(timer);
        self.refuse(error, outbox);
        Err(error)
    }

    fn interest(&self) -> Interest {
        Interest::read_if(!matches!(self.state, State::Respond | State::Closed))
    }

    fn bulk(&self) -> Option<u64> {
        self.body.bulk().filter(|_| self.state == State::Body)
    }

    fn bulk_received(&mut self, now: Instant, n: u64) {
        self.body.bulk_received(n);
        self.progress(now, n);
    }

    fn shrink(&mut self) {
        self.parser.shrink();
    }

    fn borrowed(&self) -> usize {
        self.used
    }
}
