use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::http1::body::{Body, Piece, Wanted};
use crate::http1::grammar::list;
use crate::http1::parse::Parser;
use crate::http1::response::{Response, ResponseHead, bad};
use crate::http1::{Framing, Headers, Limits, Trailers};
use crate::{Error, Inbox, Interest, Machine, Outbox, Phase, Step};

mod commands;

/// The client's side of a connection: one exchange after the other.
///
/// ```text
///                     1xx: Informational event
///                        +------+
///          request       |      v    final head             body complete
///   Idle ------------->  Head ----------------> Body ----------------------> Idle
///    |                    |      Response event  |   End event (reusable)     |
///    |                    |                      |                            |
///    |                    | 101, or 2xx to CONNECT: Upgraded event            |
///    +-- bytes nobody ----+--- violation, limit, end of file, not reusable ---+
///        asked for        v
///                       Closed
/// ```
///
/// Its only deadline is the one for `100 Continue`, which ends nothing: the body may be sent
/// then. How long a caller is willing to wait is its driver's to know.
#[derive(Debug)]
pub struct Client {
    limits: Arc<Limits>,
    wanted: Wanted,
    state: State,
    request: Sending,
    parser: Parser,
    response: Response,
    /// The parser holds a head that was reported.
    reported: bool,
    used: usize,
    body: Body,
    informational: u32,
    asked: Asked,
    keep_alive: bool,
    /// Whether a byte of the current response has come.
    answered: bool,
    /// Where in the stream to the server the current request begins.
    begins: u64,
    /// Whether the body waits for `100 Continue`, and since when.
    waits: bool,
    since: Option<Instant>,
}

/// What the request asked for that changes how the response is to be read.
#[derive(Debug, Default)]
struct Asked {
    /// HEAD, whose response has no body whatever it says.
    head: bool,
    connect: bool,
    /// The request said that it is the last.
    last: bool,
    /// The protocols of its `Upgrade` field.
    upgrade: Option<Box<[u8]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Head,
    Body,
    /// The server has switched: what comes belongs to the other protocol.
    Upgraded,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Length(u64),
    Chunked,
    Done,
}

/// What a server did.
#[derive(Debug, Clone, Copy)]
pub enum ClientEvent<'b> {
    /// An informational response (1xx but 101); another follows.
    Informational(ResponseHead<'b>),
    /// The head of the response.
    Response(ResponseHead<'b>),
    /// The server has switched to a protocol that the request offered, or the tunnel that it
    /// asked for is open: [`Link::replace`](crate::Link::replace) the machine. What came behind
    /// the head travels on.
    Upgraded(ResponseHead<'b>),
    /// A piece of its body.
    Body(&'b [u8]),
    /// The extensions of the chunk that comes next, as `name=value;name="value"`. Only with
    /// [`Client::with_extensions`].
    Extension(&'b [u8]),
    /// The trailer fields that are wanted. Only with [`Client::with_trailers`].
    Trailers(Headers<'b>),
    /// The response is complete.
    End {
        /// Whether the connection can take another request.
        reusable: bool,
    },
}

enum Found {
    Head(Kind, Range<usize>),
    Body(Range<usize>),
    Extension(Range<usize>),
    Trailers,
    End(bool),
    NeedInput,
    Paused,
    Closed,
}

#[derive(Clone, Copy)]
enum Kind {
    Informational,
    Final,
    Upgraded,
}

impl Client {
    /// A connection on which nothing has happened. Connections can share their limits.
    pub fn new(limits: impl Into<Arc<Limits>>) -> Self {
        Self {
            limits: limits.into(),
            wanted: Wanted::default(),
            state: State::Idle,
            request: Sending::Done,
            parser: Parser::default(),
            response: Response::default(),
            reported: false,
            used: 0,
            body: Body::default(),
            informational: 0,
            asked: Asked::default(),
            keep_alive: true,
            answered: false,
            begins: 0,
            waits: false,
            since: None,
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

    fn head(&mut self, now: Instant, inbox: &Inbox, outbox: &Outbox) -> Result<Found, Error> {
        if std::mem::take(&mut self.reported) {
            self.parser.reset();
            self.response = Response::default();
        }
        self.answered |= !inbox.is_empty();
        let Some(end) = self.parser.advance(&mut self.response, inbox.bytes(), &self.limits)? else {
            if inbox.is_eof() {
                return Err(Error::Eof(match (self.answered, outbox.position() <= self.begins) {
                    (false, true) => Phase::Unsent,
                    (false, false) => Phase::Idle,
                    _ if inbox.is_empty() => Phase::Idle,
                    _ => Phase::Head,
                }));
            }
            if self.waits {
                self.since.get_or_insert(now);
            }
            return Ok(Found::NeedInput);
        };
        self.reported = true;
        self.used = end;
        let kind = self.judge(&inbox.bytes()[..end])?;
        Ok(Found::Head(kind, self.parser.start()..end))
    }

    /// What a complete head means for the exchange.
    fn judge(&mut self, head: &[u8]) -> Result<Kind, Error> {
        match self.response.status {
            101 => {
                self.check_switch(head)?;
                self.state = State::Upgraded;
                Ok(Kind::Upgraded)
            }
            100..200 => {
                self.informational += 1;
                if self.informational > self.limits.informational {
                    return Err(Error::limit(0, "informational", u64::from(self.limits.informational)));
                }
                // "the client ought to proceed to send the request and discard the 100 response"
                self.waits &= self.response.status != 100;
                Ok(Kind::Informational)
            }
            // "Any 2xx (Successful) response indicates that the sender [...] will switch to
            // tunnel mode immediately after the response header section", and "A client MUST
            // ignore any Content-Length or Transfer-Encoding header fields" of it.
            200..300 if self.asked.connect => {
                self.state = State::Upgraded;
                Ok(Kind::Upgraded)
            }
            _ => {
                self.body = self.body_of_response()?;
                self.keep_alive = !self.asked.last && self.response.keeps_alive();
                self.waits = false;
                self.state = State::Body;
                Ok(Kind::Final)
            }
        }
    }

    /// "A server MUST NOT switch to a protocol that was not indicated by the client in the
    /// corresponding request's Upgrade header field."
    fn check_switch(&self, head: &[u8]) -> Result<(), Error> {
        const RULE: &str = "RFC 9110 section 7.8";
        let Some(offered) = &self.asked.upgrade else {
            return Err(bad("protocols were switched, which nobody asked for", RULE));
        };
        let headers = Headers::new(head, self.parser.fields());
        let mut chosen = headers.all("upgrade").flat_map(list).peekable();
        if chosen.peek().is_none() || !self.response.connection_upgrade {
            return Err(bad("protocols were switched without a word to which", RULE));
        }
        if !chosen.all(|one| list(offered).any(|other| other.eq_ignore_ascii_case(one))) {
            return Err(bad("protocols were switched to one that was not offered", RULE));
        }
        if self.request != Sending::Done {
            return Err(bad("protocols were switched in the middle of the request", RULE));
        }
        Ok(())
    }

    /// How the body ends (RFC 9112 section 6.3).
    fn body_of_response(&self) -> Result<Body, Error> {
        let response = &self.response;
        response.check_framing()?;
        Ok(match response.length {
            _ if self.asked.head || matches!(response.status, 204 | 304) => Body::new(Framing::None),
            _ if response.is_chunked() => Body::new(Framing::Chunked),
            Some(length) => Body::new(Framing::Length(length)),
            None => Body::until_eof(),
        })
    }

    fn body(&mut self, inbox: &mut Inbox) -> Result<Found, Error> {
        loop {
            let (used, piece) =
                self.body.next(inbox.bytes_mut(), &mut self.parser, self.wanted, &self.limits)?;
            self.used = used;
            match piece {
                Piece::Data(range) => return Ok(Found::Body(range)),
                Piece::Extension(range) => return Ok(Found::Extension(range)),
                Piece::Trailers => return Ok(Found::Trailers),
                Piece::Done => return Ok(self.end(inbox)),
                Piece::More => {
                    inbox.discard(std::mem::take(&mut self.used));
                    if used > 0 && !inbox.is_empty() {
                        continue;
                    }
                    if !inbox.is_eof() {
                        return Ok(Found::NeedInput);
                    }
                    self.body.eof()?;
                }
            }
        }
    }

    fn end(&mut self, inbox: &Inbox) -> Found {
        // Bytes behind the response are of no request; and a request that was not sent whole
        // would be the beginning of the next.
        let clean = inbox.len() == self.used && !inbox.is_eof() && self.request == Sending::Done;
        let reusable = self.keep_alive && clean;
        self.state = if reusable { State::Idle } else { State::Closed };
        Found::End(reusable)
    }

    fn find(&mut self, now: Instant, inbox: &mut Inbox, outbox: &Outbox) -> Result<Found, Error> {
        inbox.discard(std::mem::take(&mut self.used));
        match self.state {
            // An idle server sends nothing but its close.
            State::Idle if inbox.is_empty() && !inbox.is_eof() => Ok(Found::Paused),
            State::Upgraded => Ok(Found::Paused),
            State::Idle | State::Closed => {
                self.state = State::Closed;
                Ok(Found::Closed)
            }
            State::Head => self.head(now, inbox, outbox),
            State::Body => self.body(inbox),
        }
    }
}

impl Machine for Client {
    type Event<'b> = ClientEvent<'b>;

    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<ClientEvent<'b>>, Error> {
        let found = self.find(now, inbox, outbox).inspect_err(|_| self.state = State::Closed)?;
        let bytes = inbox.bytes();
        Ok(Step::Event(match found {
            Found::Head(kind, range) => {
                let head = self.response.view(bytes, range, self.parser.fields());
                match kind {
                    Kind::Informational => ClientEvent::Informational(head),
                    Kind::Final => ClientEvent::Response(head),
                    Kind::Upgraded => ClientEvent::Upgraded(head),
                }
            }
            Found::Body(data) => ClientEvent::Body(&bytes[data]),
            Found::Extension(data) => ClientEvent::Extension(&bytes[data]),
            Found::Trailers => ClientEvent::Trailers(Headers::new(bytes, self.parser.fields())),
            Found::End(reusable) => ClientEvent::End { reusable },
            Found::NeedInput => return Ok(Step::NeedInput),
            Found::Paused => return Ok(Step::Paused),
            Found::Closed => return Ok(Step::Closed),
        }))
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.since.filter(|_| self.waits && self.state == State::Head)? + self.limits.continue_time)
    }

    /// "a client that sends a 100-continue expectation [...] SHOULD NOT wait for an indefinite
    /// period before sending the content."
    fn timeout(&mut self, now: Instant, _outbox: &mut Outbox) -> Result<(), Error> {
        self.waits &= self.deadline().is_none_or(|at| at > now);
        Ok(())
    }

    fn interest(&self) -> Interest {
        Interest::read_if(!matches!(self.state, State::Upgraded | State::Closed))
    }

    fn bulk(&self) -> Option<u64> {
        self.body.bulk().filter(|_| self.state == State::Body)
    }

    fn bulk_received(&mut self, _now: Instant, n: u64) {
        self.body.bulk_received(n);
    }

    fn shrink(&mut self) {
        self.parser.shrink();
    }

    fn borrowed(&self) -> usize {
        self.used
    }
}
