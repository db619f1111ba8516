use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http1::encode::{reason, write_chunk, write_field, write_length, write_status};
use crate::http1::grammar::is_field_value;
use crate::http1::head::{Field, Parsed, Scan, index_fields, parse_request};
use crate::http1::{BodyDecoder, Framing, Limits, RequestHead, Version};
use crate::{Error, Inbox, Interest, Link, Machine, Misuse, Outbox, Phase, Step, Timer};

/// A body has to come this long before its rate counts.
const RATE_FROM: Duration = Duration::from_secs(10);
/// Room for so many fields is kept between two requests.
const KEEP_FIELDS: usize = 16;

/// The server's side of a connection: requests in, responses out, one after the other.
#[derive(Debug)]
pub struct Server {
    limits: Arc<Limits>,
    state: State,
    scan: Scan,
    fields: Vec<Field>,
    /// Bytes of the inbox that the last event borrowed.
    used: usize,
    body: BodyDecoder,
    request: Request,
    response: Response,
    /// When the idle time or the head's time began.
    since: Option<Instant>,
    /// Whether a byte of the next head has come.
    begun: bool,
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
        left: u64,
    },
    Closed,
}

/// What later steps need to know of the current request.
#[derive(Debug, Clone, Copy, Default)]
struct Request {
    head: bool,
    http10: bool,
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
    Request(std::ops::Range<usize>, Parsed),
    Body(std::ops::Range<usize>),
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
            state: State::Head,
            scan: Scan::default(),
            fields: Vec::new(),
            used: 0,
            body: BodyDecoder::length(0),
            request: Request::default(),
            response: Response::None,
            since: None,
            begun: false,
            waiting: None,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    fn head(&mut self, now: Instant, inbox: &Inbox) -> Result<Found, Error> {
        let Some(end) = self.scan.find(inbox.bytes(), &self.limits)? else {
            if inbox.is_eof() {
                return if inbox.is_empty() { Ok(Found::Closed) } else { Err(Error::Eof(Phase::Head)) };
            }
            // The first byte of a head ends the idle time and starts the head's own.
            if self.since.is_none() || (!self.begun && !inbox.is_empty()) {
                self.since = Some(now);
                self.begun = !inbox.is_empty();
            }
            return Ok(Found::NeedInput);
        };
        let start = self.scan.start;
        let head = &inbox.bytes()[start..end];
        index_fields(head, &mut self.fields, &self.limits, is_field_value)?;
        let parsed = parse_request(head, &self.fields)?;
        self.body = match parsed.framing {
            Framing::None => BodyDecoder::length(0),
            Framing::Length(length) => BodyDecoder::length(length),
            Framing::Chunked => BodyDecoder::chunked(&self.limits),
        };
        self.request = Request {
            head: parsed.is_head(head),
            http10: parsed.version == Version::Http10,
            close: !parsed.keep_alive,
            expects: parsed.expect_continue,
        };
        self.state = State::Body;
        self.used = end;
        self.scan = Scan::default();
        (self.since, self.begun) = (None, false);
        (self.waiting, self.waited, self.received) = (None, Duration::ZERO, 0);
        Ok(Found::Request(start..end, parsed))
    }

    fn body(&mut self, now: Instant, inbox: &Inbox) -> Result<Found, Error> {
        if !self.body.is_done() && !inbox.is_empty() {
            let decoded = self.body.decode(inbox.bytes())?;
            self.progress(now, decoded.used);
            self.used = decoded.used;
            if !decoded.data.is_empty() {
                return Ok(Found::Body(decoded.data));
            }
        }
        if self.body.is_done() {
            self.state = State::Respond;
            return Ok(Found::End);
        }
        if inbox.is_eof() {
            return Err(Error::Eof(Phase::Body));
        }
        self.waiting.get_or_insert(now);
        Ok(Found::NeedInput)
    }

    fn progress(&mut self, now: Instant, used: usize) {
        if let Some(since) = self.waiting.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.received += used as u64;
        self.request.expects = false;
    }

    /// Reads the rest of a body that nobody wanted. `None`: the next request may come.
    fn drain(&mut self, now: Instant, inbox: &mut Inbox, mut left: u64) -> Result<Option<Found>, Error> {
        while !self.body.is_done() {
            if inbox.is_empty() {
                if inbox.is_eof() {
                    return Ok(Some(Found::Closed));
                }
                self.waiting.get_or_insert(now);
                self.state = State::Drain { left };
                return Ok(Some(Found::NeedInput));
            }
            let used = self.body.decode(inbox.bytes())?.used;
            self.progress(now, used);
            inbox.discard(used);
            match left.checked_sub(used as u64) {
                Some(rest) => left = rest,
                None => return Ok(Some(Found::Closed)),
            }
        }
        self.next_request();
        Ok(None)
    }

    fn find(&mut self, now: Instant, inbox: &mut Inbox) -> Result<Found, Error> {
        inbox.discard(std::mem::take(&mut self.used));
        if let State::Drain { left } = self.state
            && let Some(found) = self.drain(now, inbox, left)?
        {
            return Ok(found);
        }
        match self.state {
            State::Head => self.head(now, inbox),
            State::Body => self.body(now, inbox),
            State::Respond => Ok(Found::Paused),
            State::Drain { .. } | State::Closed => Ok(Found::Closed),
        }
    }

    fn next_request(&mut self) {
        self.state = State::Head;
        self.request = Request::default();
        self.response = Response::None;
        (self.since, self.begun, self.waiting) = (None, false, None);
        // A connection may rest for long now.
        if self.fields.capacity() > KEEP_FIELDS {
            self.fields = Vec::new();
        }
    }

    /// Heap storage that the machine itself holds.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        self.fields.capacity() * size_of::<Field>()
    }

    /// Ends the connection with an answer to `error`, if one can be given and none has begun.
    fn refuse(&mut self, error: Error, outbox: &mut Outbox) {
        let code = match error {
            Error::Timeout(Timer::Head | Timer::Body) => Some(408),
            error => error.code(),
        };
        if let Some(code) = code.filter(|_| self.response == Response::None && self.state != State::Closed) {
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
        outbox.shutdown();
    }

    /// What is left of a body too long, or not even begun, is not worth the connection.
    fn must_close(&self) -> bool {
        self.request.close
            || self.request.expects
            || self.body.remaining().is_some_and(|left| left > self.limits.drain)
    }
}

impl Machine for Server {
    type Event<'b> = ServerEvent<'b>;

    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<ServerEvent<'b>>, Error> {
        // Found by position first, and borrowed only when nothing can fail any more.
        match self.find(now, inbox) {
            Ok(Found::Request(head, parsed)) => {
                Ok(Step::Event(ServerEvent::Request(parsed.view(&inbox.bytes()[head], &self.fields))))
            }
            Ok(Found::Body(data)) => Ok(Step::Event(ServerEvent::Body(&inbox.bytes()[data]))),
            Ok(Found::End) => Ok(Step::Event(ServerEvent::End)),
            Ok(Found::NeedInput) => Ok(Step::NeedInput),
            Ok(Found::Paused) => Ok(Step::Paused),
            Ok(Found::Closed) => {
                self.state = State::Closed;
                outbox.shutdown();
                Ok(Step::Closed)
            }
            Err(error) => {
                self.refuse(error, outbox);
                Err(error)
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let after = |since: Option<Instant>, time: Option<Duration>| Some(since? + time?);
        match self.state {
            State::Head if self.begun => after(self.since, self.limits.head_time),
            State::Head => after(self.since, self.limits.idle_time),
            State::Body | State::Drain { .. } => {
                let idle = after(self.waiting, self.limits.body_idle_time);
                let rate = self.waiting.filter(|_| self.limits.body_rate > 0).map(|since| {
                    let earned = Duration::from_secs(self.received / u64::from(self.limits.body_rate));
                    since + earned.max(RATE_FROM).saturating_sub(self.waited)
                });
                [idle, rate].into_iter().flatten().min()
            }
            State::Respond | State::Closed => None,
        }
    }

    fn timeout(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Error> {
        if self.deadline().is_none_or(|at| at > now) {
            return Ok(());
        }
        let error = Error::Timeout(match self.state {
            State::Head if self.begun => Timer::Head,
            State::Head => Timer::Idle,
            _ => Timer::Body,
        });
        self.refuse(error, outbox);
        Err(error)
    }

    fn interest(&self) -> Interest {
        Interest::read_if(!matches!(self.state, State::Respond | State::Closed))
    }
}

impl Link<Server> {
    /// Sends an informational response: 100 when the client waits for it, 103 at any time
    /// before the final one. HTTP/1.0 clients get none.
    ///
    /// # Errors
    ///
    /// `Misuse` for another status, an unsound header, or after the response has begun.
    pub fn inform(&mut self, status: u16, headers: &[(&[u8], &[u8])]) -> Result<(), Misuse> {
        let server = &mut self.machine;
        if !(100..200).contains(&status) || status == 101 {
            return Err(Misuse("an informational status is 100 or 102 to 199"));
        }
        if server.response != Response::None || !matches!(server.state, State::Body | State::Respond) {
            return Err(Misuse("there is no request that waits for a response"));
        }
        if server.request.http10 {
            return Ok(());
        }
        write_head(&mut self.outbox, status, reason(status), headers, |_| {})?;
        if status == 100 {
            server.request.expects = false;
        }
        Ok(())
    }

    /// Sends the head of the response. Its framing fields are added here and refused among
    /// `headers`. `close` ends the connection after this response.
    ///
    /// # Errors
    ///
    /// `Misuse`, and nothing is sent, for an unsound header (response splitting stops here) or
    /// when no request waits for a response.
    pub fn respond(
        &mut self,
        status: u16,
        reason: &str,
        headers: &[(&[u8], &[u8])],
        body: BodyLength,
        close: bool,
    ) -> Result<(), Misuse> {
        let server = &mut self.machine;
        if server.response != Response::None || !matches!(server.state, State::Body | State::Respond) {
            return Err(Misuse("there is no request that waits for a response"));
        }
        if status < 200 {
            return Err(Misuse("a final response has a status of 200 or more"));
        }
        let hop = |name: &[u8]| {
            [&b"content-length"[..], b"transfer-encoding", b"connection"]
                .iter()
                .any(|own| name.eq_ignore_ascii_case(own))
        };
        if headers.iter().any(|(name, _)| hop(name)) {
            return Err(Misuse("the framing of a response is not for its headers to say"));
        }
        // "A server MUST NOT send a Content-Length header field in any response with a status
        // code of 1xx (Informational) or 204 (No Content)."
        let bodiless = matches!(status, 204 | 304);
        let response = match body {
            _ if bodiless || server.request.head => Response::Nothing,
            BodyLength::None => Response::Length(0),
            BodyLength::Length(length) => Response::Length(length),
            BodyLength::Unknown if server.request.http10 => Response::UntilClose,
            BodyLength::Unknown => Response::Chunked,
        };
        let close = close || server.must_close() || response == Response::UntilClose;
        let keep = server.request.http10 && !close;
        write_head(&mut self.outbox, status, reason, headers, |out| {
            match body {
                _ if bodiless => {}
                BodyLength::None => write_length(out, 0),
                BodyLength::Length(length) => write_length(out, length),
                BodyLength::Unknown if server.request.http10 => {}
                BodyLength::Unknown => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            }
            if close {
                out.extend_from_slice(b"Connection: close\r\n");
            } else if keep {
                out.extend_from_slice(b"Connection: keep-alive\r\n");
            }
        })?;
        server.request.close = close;
        server.response = response;
        Ok(())
    }

    /// Sends a piece of the response's body. It is dropped if the response has none (HEAD).
    ///
    /// # Errors
    ///
    /// `Misuse` before [`Link::respond`], or for more bytes than its `Content-Length`.
    pub fn body(&mut self, data: &[u8]) -> Result<(), Misuse> {
        match &mut self.machine.response {
            Response::None | Response::Done => return Err(Misuse("there is no response to add to")),
            Response::Nothing => {}
            Response::UntilClose => self.outbox.push(data),
            Response::Chunked => write_chunk(&mut self.outbox.tail(), data),
            Response::Length(left) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or(Misuse("the body is longer than its Content-Length"))?;
                self.outbox.push(data);
            }
        }
        Ok(())
    }

    /// The response is complete. What the client still sends of this request's body is read
    /// and dropped, within limits; then the next request may come.
    ///
    /// # Errors
    ///
    /// `Misuse` if the body is shorter than its `Content-Length`: the connection is cut, since
    /// nothing else tells the client.
    pub fn finish(&mut self) -> Result<(), Misuse> {
        let server = &mut self.machine;
        match server.response {
            Response::None | Response::Done => return Err(Misuse("there is no response to finish")),
            Response::Length(1..) => {
                self.abort();
                return Err(Misuse("the body is shorter than its Content-Length"));
            }
            Response::Chunked => self.outbox.push(b"0\r\n\r\n"),
            Response::Length(0) | Response::UntilClose | Response::Nothing => {}
        }
        server.response = Response::Done;
        if server.request.close {
            server.state = State::Closed;
            self.outbox.shutdown();
        } else if server.state == State::Respond {
            server.next_request();
        } else {
            server.state = State::Drain { left: server.limits.drain };
        }
        Ok(())
    }

    /// Cuts the response: the client sees that it is incomplete.
    pub fn abort(&mut self) {
        self.machine.state = State::Closed;
        self.machine.response = Response::Done;
        self.outbox.shutdown();
    }

    /// Answers `101 Switching Protocols`. Then [`Link::replace`] the machine.
    ///
    /// # Errors
    ///
    /// `Misuse` when no complete request waits for a response, or for an unsound header.
    pub fn switch_protocols(&mut self, headers: &[(&[u8], &[u8])]) -> Result<(), Misuse> {
        let server = &mut self.machine;
        if server.response != Response::None || !matches!(server.state, State::Body | State::Respond) {
            return Err(Misuse("there is no request that waits for a response"));
        }
        if !server.body.is_done() {
            return Err(Misuse("the request's body has to be read before protocols are switched"));
        }
        write_head(&mut self.outbox, 101, reason(101), headers, |_| {})?;
        self.inbox.discard(std::mem::take(&mut server.used));
        server.response = Response::Done;
        server.state = State::Closed;
        Ok(())
    }

    /// Ends the connection after the current response, or now if there is none.
    pub fn close_soon(&mut self) {
        self.machine.request.close = true;
        if self.is_idle() {
            self.abort();
        }
    }

    /// Whether the response's head was sent.
    pub fn response_started(&self) -> bool {
        self.machine.response != Response::None
    }

    /// Whether nothing is going on: no request, and not a byte of one.
    pub fn is_idle(&self) -> bool {
        self.machine.state == State::Head && self.inbox.is_empty()
    }

    /// Whether the client waits for `100 Continue` before it sends its body.
    pub fn wants_continue(&self) -> bool {
        self.machine.request.expects
    }

    /// Whether the connection ends after the current response.
    pub fn closes(&self) -> bool {
        self.machine.request.close || self.machine.state == State::Closed
    }
}

/// Writes a whole head or nothing.
fn write_head(
    outbox: &mut Outbox,
    status: u16,
    reason: &str,
    headers: &[(&[u8], &[u8])],
    framing: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Misuse> {
    let mut tail = outbox.tail();
    let before = tail.len();
    let written = write_status(&mut tail, status, reason)
        .and_then(|()| headers.iter().try_for_each(|(name, value)| write_field(&mut tail, name, value)));
    match written {
        Ok(()) => {
            framing(&mut tail);
            tail.extend_from_slice(b"\r\n");
        }
        Err(_) => tail.truncate(before),
    }
    written
}
