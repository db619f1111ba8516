use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::http1::encode::{write_chunk, write_field, write_length};
use crate::http1::grammar::{is_authority, is_field_value, is_token};
use crate::http1::head::{
    Field, Headers, Scan, content_length, index_fields, response_version, single_chunked,
};
use crate::http1::{BodyDecoder, BodyLength, Limits, Version};
use crate::{Error, Inbox, Interest, Link, Machine, Misuse, Outbox, Phase, Step};

/// Informational responses that one exchange may bring.
const INFORMATIONAL: usize = 16;

/// The client's side of a connection: one exchange after the other.
///
/// It has no deadlines of its own; its driver knows how long a caller is willing to wait.
#[derive(Debug)]
pub struct Client {
    limits: Arc<Limits>,
    state: State,
    request: Sending,
    scan: Scan,
    fields: Vec<Field>,
    used: usize,
    body: BodyDecoder,
    informational: usize,
    /// HEAD, whose response has no body whatever it says.
    head: bool,
    keep_alive: bool,
    /// The request said that it is the last.
    last: bool,
    /// The request asked for another protocol.
    upgrade: bool,
    /// Whether a byte of the current response has come.
    answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Head,
    Body,
    /// The server switched protocols.
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
    /// The server switched protocols (101), as the request asked. [`Link::replace`] the machine;
    /// what came behind the head travels on.
    Upgraded(ResponseHead<'b>),
    /// A piece of its body.
    Body(&'b [u8]),
    /// The response is complete.
    End {
        /// Whether the connection can take another request.
        reusable: bool,
    },
}

/// The head of a response that has passed every check.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'b> {
    /// 100 to 999.
    pub status: u16,
    /// May be empty, and may have bytes beyond ASCII.
    pub reason: &'b [u8],
    /// The version of the response.
    pub version: Version,
    /// The header fields.
    pub headers: Headers<'b>,
}

enum Found {
    Head(u16, Range<usize>, Version, Range<usize>),
    Body(Range<usize>),
    End(bool),
    NeedInput,
    Paused,
    Closed,
}

impl Client {
    /// A connection on which nothing has happened. Connections can share their limits.
    pub fn new(limits: impl Into<Arc<Limits>>) -> Self {
        Self {
            limits: limits.into(),
            state: State::Idle,
            request: Sending::Done,
            scan: Scan::default(),
            fields: Vec::new(),
            used: 0,
            body: BodyDecoder::length(0),
            informational: 0,
            head: false,
            keep_alive: true,
            last: false,
            upgrade: false,
            answered: false,
        }
    }

    fn head(&mut self, inbox: &Inbox) -> Result<Found, Error> {
        self.answered |= !inbox.is_empty();
        let Some(end) = self.scan.find(inbox.bytes(), &self.limits)? else {
            return match (inbox.is_eof(), inbox.is_empty()) {
                (true, true) => Err(Error::Eof(Phase::Idle)),
                (true, false) => Err(Error::Eof(Phase::Head)),
                _ => Ok(Found::NeedInput),
            };
        };
        let start = self.scan.start;
        self.scan = Scan::default();
        let head = &inbox.bytes()[start..end];
        let (version, status, reason) = status_line(head)?;
        index_fields(head, &mut self.fields, &self.limits, is_tolerable_value)?;
        let headers = Headers::new(head, &self.fields);
        self.used = end;
        if status < 200 {
            self.informational += 1;
            if status == 101 {
                // "A server MUST NOT switch to a protocol that was not indicated by the client".
                if !self.upgrade || self.request != Sending::Done {
                    return Err(bad(
                        "protocols were switched, which nobody asked for",
                        "RFC 9110 section 7.8",
                    ));
                }
                self.state = State::Upgraded;
            }
            if self.informational > INFORMATIONAL {
                return Err(Error::limit(0, "informational", INFORMATIONAL as u64));
            }
        } else {
            let body = self.framing(&headers, status)?;
            self.keep_alive = !self.last && keeps_alive(&headers, version);
            self.body = body;
            self.state = State::Body;
        }
        Ok(Found::Head(status, start..end, version, reason))
    }

    /// How the body ends (RFC 9112 section 6.3); a response that says it twice is refused.
    fn framing(&self, headers: &Headers<'_>, status: u16) -> Result<BodyDecoder, Error> {
        let length = content_length(headers)?;
        let coded = headers.get("transfer-encoding").is_some();
        if self.head || matches!(status, 204 | 304) {
            return Ok(BodyDecoder::length(0));
        }
        if coded {
            if length.is_some() {
                return Err(bad("both Transfer-Encoding and Content-Length", "RFC 9112 section 6.3"));
            }
            single_chunked(headers)?;
            return Ok(BodyDecoder::chunked(&self.limits));
        }
        Ok(length.map_or_else(BodyDecoder::until_eof, BodyDecoder::length))
    }

    fn body(&mut self, inbox: &Inbox) -> Result<Found, Error> {
        if !self.body.is_done() && !inbox.is_empty() {
            let decoded = self.body.decode(inbox.bytes())?;
            self.used = decoded.used;
            if !decoded.data.is_empty() {
                return Ok(Found::Body(decoded.data));
            }
        }
        if !self.body.is_done() && inbox.is_eof() {
            self.body.eof()?;
            self.keep_alive = false;
        }
        if !self.body.is_done() {
            return Ok(Found::NeedInput);
        }
        // Bytes behind the response are of no request; and a request that was not sent whole
        // would be the beginning of the next.
        let clean = inbox.len() == self.used && !inbox.is_eof() && self.request == Sending::Done;
        let reusable = self.keep_alive && clean;
        self.state = if reusable { State::Idle } else { State::Closed };
        Ok(Found::End(reusable))
    }

    fn find(&mut self, inbox: &mut Inbox) -> Result<Found, Error> {
        inbox.discard(std::mem::take(&mut self.used));
        match self.state {
            // An idle server sends nothing but its close.
            State::Idle if inbox.is_empty() && !inbox.is_eof() => Ok(Found::Paused),
            // What came belongs to the other protocol.
            State::Upgraded => Ok(Found::Paused),
            State::Idle | State::Closed => {
                self.state = State::Closed;
                Ok(Found::Closed)
            }
            State::Head => self.head(inbox),
            State::Body => self.body(inbox),
        }
    }
}

fn bad(reason: &'static str, rule: &'static str) -> Error {
    Error::violation(0, reason, rule)
}

/// `HTTP-version SP status-code SP [ reason-phrase ]`; the last SP may be missing with it.
fn status_line(head: &[u8]) -> Result<(Version, u16, Range<usize>), Error> {
    const RULE: &str = "RFC 9112 section 4";
    let end = head.iter().position(|&byte| byte == b'\r').unwrap_or(head.len());
    let line = &head[..end];
    let version =
        response_version(line.get(..8).unwrap_or_default()).ok_or(bad("this is no HTTP/1 response", RULE))?;
    let (Some(b' '), Some(&[a, b, c])) =
        (line.get(8), line.get(9..12).and_then(|code| code.first_chunk::<3>()))
    else {
        return Err(bad("the status line is malformed", RULE));
    };
    if ![a, b, c].iter().all(u8::is_ascii_digit) || a == b'0' || !matches!(line.get(12), None | Some(b' ')) {
        return Err(bad("the status code is not three digits", RULE));
    }
    let status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    let reason = 13.min(end)..end;
    if !is_field_value(&head[reason.clone()]) {
        return Err(bad("the reason phrase has a control character", RULE));
    }
    Ok((version, status, reason))
}

/// "Field values containing other CTL characters are also invalid; however, recipients MAY retain
/// such characters." (RFC 9110 section 5.5) Servers do send them, in cookies for example.
fn is_tolerable_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'))
}

fn keeps_alive(headers: &Headers<'_>, version: Version) -> bool {
    !headers.lists("connection", "close")
        && (version == Version::Http11 || headers.lists("connection", "keep-alive"))
}

impl Machine for Client {
    type Event<'b> = ClientEvent<'b>;

    fn advance<'b>(
        &'b mut self,
        _now: Instant,
        inbox: &'b mut Inbox,
        _outbox: &mut Outbox,
    ) -> Result<Step<ClientEvent<'b>>, Error> {
        let found = self.find(inbox).inspect_err(|_| self.state = State::Closed)?;
        let bytes = inbox.bytes();
        Ok(match found {
            Found::Head(status, head, version, reason) => {
                let head = &bytes[head];
                let headers = Headers::new(head, &self.fields);
                let head = ResponseHead { status, reason: &head[reason], version, headers };
                Step::Event(match status {
                    101 => ClientEvent::Upgraded(head),
                    100..200 => ClientEvent::Informational(head),
                    _ => ClientEvent::Response(head),
                })
            }
            Found::Body(data) => Step::Event(ClientEvent::Body(&bytes[data])),
            Found::End(reusable) => Step::Event(ClientEvent::End { reusable }),
            Found::NeedInput => Step::NeedInput,
            Found::Paused => Step::Paused,
            Found::Closed => Step::Closed,
        })
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn timeout(&mut self, _now: Instant, _outbox: &mut Outbox) -> Result<(), Error> {
        Ok(())
    }

    fn interest(&self) -> Interest {
        Interest::read_if(!matches!(self.state, State::Closed | State::Upgraded))
    }

    fn hand_over(&mut self, inbox: &mut Inbox) {
        inbox.discard(std::mem::take(&mut self.used));
    }
}

impl Link<Client> {
    /// Begins a request. `Host` comes from `authority`; framing fields are added here and
    /// refused among `headers`.
    ///
    /// # Errors
    ///
    /// `Misuse`, and nothing is sent, for an unsound part or in the middle of an exchange.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        authority: &str,
        headers: &[(&[u8], &[u8])],
        body: BodyLength,
    ) -> Result<(), Misuse> {
        let client = &mut self.machine;
        if client.state != State::Idle || client.request != Sending::Done {
            return Err(Misuse("the connection is in the middle of an exchange"));
        }
        if !is_token(method.as_bytes()) {
            return Err(Misuse("the method is not a token"));
        }
        if target.is_empty() || !target.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'#') {
            return Err(Misuse("the request target has a character that no URI has"));
        }
        if !is_authority(authority.as_bytes()) {
            return Err(Misuse("the host is malformed"));
        }
        let framing = |name: &[u8]| {
            [&b"content-length"[..], b"transfer-encoding"].iter().any(|own| name.eq_ignore_ascii_case(own))
        };
        if headers.iter().any(|(name, _)| framing(name)) {
            return Err(Misuse("the framing of a request is not for its headers to say"));
        }
        let host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"host"));
        let mut tail = self.outbox.tail();
        let before = tail.len();
        tail.extend_from_slice(method.as_bytes());
        tail.push(b' ');
        tail.extend_from_slice(target.as_bytes());
        tail.extend_from_slice(b" HTTP/1.1\r\n");
        if !host {
            tail.extend_from_slice(b"Host: ");
            tail.extend_from_slice(authority.as_bytes());
            tail.extend_from_slice(b"\r\n");
        }
        let written = headers.iter().try_for_each(|(name, value)| write_field(&mut tail, name, value));
        if written.is_err() {
            tail.truncate(before);
            return written;
        }
        client.request = match body {
            BodyLength::None => Sending::Done,
            BodyLength::Length(length) => {
                write_length(&mut tail, length);
                Sending::Length(length)
            }
            BodyLength::Unknown => {
                tail.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Sending::Chunked
            }
        };
        tail.extend_from_slice(b"\r\n");
        client.head = method == "HEAD";
        client.last = headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(b"connection")
                && value.split(|&byte| byte == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(b"close"))
        });
        client.upgrade = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"upgrade"));
        client.state = State::Head;
        (client.informational, client.answered) = (0, false);
        Ok(())
    }

    /// Sends a piece of the request's body.
    ///
    /// # Errors
    ///
    /// `Misuse` without a request that has one, or for more bytes than its `Content-Length`.
    pub fn body(&mut self, data: &[u8]) -> Result<(), Misuse> {
        match &mut self.machine.request {
            Sending::Done => return Err(Misuse("there is no request body to add to")),
            Sending::Chunked => write_chunk(&mut self.outbox.tail(), data),
            Sending::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(Misuse("the body is longer than its Content-Length"))?;
                self.outbox.push(data);
            }
        }
        Ok(())
    }

    /// The request is complete.
    ///
    /// # Errors
    ///
    /// `Misuse` if its body is shorter than its `Content-Length`.
    pub fn finish(&mut self) -> Result<(), Misuse> {
        match self.machine.request {
            Sending::Length(1..) => return Err(Misuse("the body is shorter than its Content-Length")),
            Sending::Chunked => self.outbox.push(b"0\r\n\r\n"),
            _ => {}
        }
        self.machine.request = Sending::Done;
        Ok(())
    }

    /// Whether not a byte of the current response has come. On a connection that was used
    /// before, the server then closed it without having seen the request, in all likelihood.
    pub fn is_unanswered(&self) -> bool {
        !self.machine.answered
    }
}
