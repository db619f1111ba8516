use memchr::memchr;

use crate::Error;
use crate::http1::fields::{Field, Headers, Span, text};
use crate::http1::grammar::{is_authority, is_tunnel_target, list, number};
use crate::http1::limits::Limits;
use crate::http1::parse::{Caps, LONGEST, Section, bad};
use crate::http1::scan::{target_end, token_end};

/// The HTTP version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// How a body is delimited (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By `Content-Length`.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
}

/// The head of a request that has passed every check.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'b> {
    /// A token, case-sensitive.
    pub method: &'b str,
    /// The request target as it was sent.
    pub target: &'b str,
    /// The path, still percent-encoded: begins with `/`, or is `*`; empty for CONNECT.
    pub path: &'b str,
    /// What follows the first `?`, or nothing.
    pub query: &'b str,
    /// Host and port of an absolute-form target, where they go before the Host field, or of a
    /// CONNECT.
    pub authority: Option<&'b str>,
    /// The version of the request.
    pub version: Version,
    /// The header fields.
    pub headers: Headers<'b>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client would have the connection go on after the response.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Whether the client offers another protocol (`Upgrade`, listed in `Connection`).
    pub upgrade: bool,
    /// The head as it came, its empty line included.
    pub raw: &'b [u8],
}

/// What is noted of a request while its head is read: by positions, so that it can be kept
/// while the bytes are borrowed. Whatever two readers could take in two ways is refused.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request {
    method: Span,
    target: Span,
    path: Span,
    query: Span,
    authority: Span,
    pub(crate) version: Version,
    length: Option<u64>,
    pub(crate) head: bool,
    pub(crate) connect: bool,
    /// Whether CONNECT is taken.
    pub(crate) tunnels: bool,
    chunked: bool,
    host: bool,
    content_type: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    expect: bool,
}

const LINE: &str = "RFC 9112 section 3";
const TARGET: &str = "RFC 9112 section 3.2";
const FRAMING: &str = "RFC 9112 section 6.3";

impl Section for Request {
    const FIRST_LINE: bool = true;
    const ANY_CONTROL: bool = false;

    /// `request-line = method SP request-target SP HTTP-version`, with exactly these spaces.
    #[inline]
    fn first_line(&mut self, bytes: &[u8], at: usize) -> Result<usize, Error> {
        let line = bytes.get(at..).unwrap_or_default();
        // What nearly all begin with needs no look at every character.
        let method_end = at + if line.starts_with(b"GET ") { 3 } else { token_end(line) };
        if method_end == at || bytes.get(method_end) != Some(&b' ') {
            return Err(bad("the method is not a token", LINE));
        }
        let start = method_end + 1;
        let end = start + target_end(&bytes[start..]);
        if bytes.get(end) != Some(&b' ') || end == start {
            return Err(broken_target(bytes, end));
        }
        self.version = version(bytes, end + 1)?;
        // Behind the end of `bytes` there may be more of a line that will turn out too long.
        if end < LONGEST {
            let method = &bytes[at..method_end];
            (self.method, self.target) = (Span::new(at, method_end), Span::new(start, end));
            (self.head, self.connect) = (method == b"HEAD", method == b"CONNECT");
            self.split_target(bytes, start, end)?;
        }
        Ok(end + 9)
    }

    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Error> {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"host") => self.host(value)?,
            6 if is(b"expect") => self.expect(value)?,
            7 if is(b"upgrade") => self.upgrade = true,
            10 if is(b"connection") => self.connection(value),
            12 if is(b"content-type") => self.content_type()?,
            14 if is(b"content-length") => self.content_length(value)?,
            17 if is(b"transfer-encoding") => self.transfer_encoding(value)?,
            _ => {}
        }
        Ok(true)
    }

    fn caps(limits: &Limits) -> Caps {
        Caps::of_head(limits)
    }
}

impl Request {
    /// What can be judged only when every field is known.
    #[inline]
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if !self.host && self.version == Version::Http11 {
            return Err(bad("the Host field is missing", TARGET));
        }
        Ok(())
    }

    pub(crate) const fn framing(&self) -> Framing {
        match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        }
    }

    /// "If the 'close' connection option is present, the connection will not persist"
    pub(crate) const fn keeps_alive(&self) -> bool {
        !self.close && (self.keep_alive || matches!(self.version, Version::Http11))
    }

    /// "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request."
    pub(crate) const fn upgrades(&self) -> bool {
        self.upgrade && self.connection_upgrade && matches!(self.version, Version::Http11)
    }

    /// Ignored in HTTP/1.0, and where there is no body to wait with.
    pub(crate) const fn expects_continue(&self) -> bool {
        self.expect
            && matches!(self.version, Version::Http11)
            && !matches!(self.framing(), Framing::None | Framing::Length(0))
    }

    #[inline]
    pub(crate) fn view<'b>(&self, bytes: &'b [u8], start: usize, fields: &'b [Field]) -> RequestHead<'b> {
        let target = text(self.target.of(bytes));
        // Parts of the target, which is ASCII.
        let part = |span: Span| {
            if span.is_empty() {
                return "";
            }
            let start = span.start().saturating_sub(self.target.start());
            target.get(start..start + span.len()).unwrap_or_default()
        };
        RequestHead {
            method: method(self.method.of(bytes)),
            target,
            // An empty path of an absolute-form stands for "/".
            path: if self.path.is_empty() && !self.connect { "/" } else { part(self.path) },
            query: part(self.query),
            authority: Some(part(self.authority)).filter(|authority| !authority.is_empty()),
            version: self.version,
            headers: Headers::new(bytes, fields),
            framing: self.framing(),
            keep_alive: self.keeps_alive(),
            expect_continue: self.expects_continue(),
            upgrade: self.upgrades(),
            raw: bytes.get(start..).unwrap_or_default(),
        }
    }

    /// Path, query, and the authority of an absolute-form or a CONNECT.
    fn split_target(&mut self, bytes: &[u8], start: usize, end: usize) -> Result<(), Error> {
        let target = &bytes[start..end];
        (self.path, self.query, self.authority) = Default::default();
        let path_at = if self.connect {
            if !self.tunnels {
                return Err(Error::violation(501, "no tunnels here", "RFC 9110 section 9.3.6"));
            }
            // "A server MUST reject a CONNECT request that targets an empty or invalid port"
            if !is_tunnel_target(target) {
                return Err(bad("the target of CONNECT is not host and port", "RFC 9110 section 9.3.6"));
            }
            self.authority = self.target;
            return Ok(());
        } else if target[0] == b'/' {
            start
        } else if target == b"*" {
            // "asterisk-form [...] is only used for a server-wide OPTIONS request"
            if &bytes[self.method.start()..self.method.end()] != b"OPTIONS" {
                return Err(bad("the target * is for OPTIONS", "RFC 9112 section 3.2.4"));
            }
            start
        } else {
            let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
                target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
            });
            let Some(scheme) = scheme else {
                return Err(bad("the request target is neither a path nor an http URI", TARGET));
            };
            let from = start + scheme.len();
            let path_at = bytes[from..end].iter().position(|byte| matches!(byte, b'/' | b'?'));
            let path_at = path_at.map_or(end, |at| from + at);
            // "A recipient of an http URI reference with a userinfo subcomponent SHOULD parse
            // for it and treat its presence as an error" (RFC 9110 section 4.2.4)
            if !is_authority(&bytes[from..path_at]) {
                return Err(bad("the host of the request target is malformed", TARGET));
            }
            self.authority = Span::new(from, path_at);
            path_at
        };
        let query = memchr(b'?', &bytes[path_at..end]).map_or(end, |at| path_at + at);
        self.path = Span::new(path_at, query);
        self.query = Span::new((query + 1).min(end), end);
        Ok(())
    }

    /// "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request
    /// message that lacks a Host header field and to any request message that contains more than
    /// one Host header field line or a Host header field with an invalid field value."
    fn host(&mut self, value: &[u8]) -> Result<(), Error> {
        if std::mem::replace(&mut self.host, true) {
            return Err(bad("two Host fields", TARGET));
        }
        if !is_authority(value) {
            return Err(bad("the Host field is malformed", TARGET));
        }
        Ok(())
    }

    fn content_type(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.content_type, true) {
            return Err(bad("two Content-Type fields", "RFC 9110 section 5.3"));
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Error> {
        if value.eq_ignore_ascii_case(b"100-continue") {
            self.expect = true;
            return Ok(());
        }
        // "A server that receives an HTTP/1.0 request MUST ignore the expectation", and "MAY
        // respond with a 417 (Expectation Failed)" to one it does not know.
        if self.version == Version::Http10 {
            return Ok(());
        }
        Err(Error::violation(417, "an expectation that is not 100-continue", "RFC 9110 section 10.1.1"))
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Error> {
        if self.length.is_some() {
            return Err(bad("two Content-Length fields", FRAMING));
        }
        self.length = Some(content_length(value)?);
        self.unambiguous()
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Error> {
        // "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding
        // header field MUST treat the message as if the framing is faulty"
        if self.version == Version::Http10 {
            return Err(bad("Transfer-Encoding in an HTTP/1.0 message", "RFC 9112 section 6.1"));
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Err(bad("two Transfer-Encoding fields", FRAMING));
        }
        only_chunked(value)?;
        self.unambiguous()
    }

    /// "A server MAY reject a request that contains both Content-Length and Transfer-Encoding"
    fn unambiguous(&self) -> Result<(), Error> {
        // "A CONNECT request message does not have content."
        if self.connect {
            return Err(bad("a CONNECT with a body", "RFC 9110 section 9.3.6"));
        }
        if self.chunked && self.length.is_some() {
            return Err(bad("both Transfer-Encoding and Content-Length", FRAMING));
        }
        Ok(())
    }
}

/// A token as text; the frequent ones are known to be.
#[inline]
fn method(bytes: &[u8]) -> &str {
    match bytes {
        b"GET" => "GET",
        b"POST" => "POST",
        _ => text(bytes),
    }
}

/// `HTTP-version = HTTP-name "/" DIGIT "." DIGIT`
#[inline]
fn version(bytes: &[u8], at: usize) -> Result<Version, Error> {
    match bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        Some(b"HTTP/1.1") => Ok(Version::Http11),
        Some(b"HTTP/1.0") => Ok(Version::Http10),
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
            if matches!(bytes.get(at + 8), None | Some(b'\r')) =>
        {
            Err(Error::violation(505, "only versions 1.0 and 1.1 are spoken here", LINE))
        }
        _ => Err(bad("the HTTP version is malformed", LINE)),
    }
}

#[cold]
fn broken_target(bytes: &[u8], end: usize) -> Error {
    match bytes.get(end) {
        None | Some(b'\r' | b'\n' | b' ') => bad("the request line is not method, target and version", LINE),
        Some(_) => bad("the request target has a character that no URI has", TARGET),
    }
}

/// The value of `Content-Length`: digits and nothing else, not even a list of equal ones.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, Error> {
    number(value).ok_or_else(|| bad("Content-Length is not a number", "RFC 9110 section 8.6"))
}

/// The value of `Transfer-Encoding`: the one coding that is not deprecated, alone. A list with
/// empty elements has been read in two ways.
pub(crate) fn only_chunked(value: &[u8]) -> Result<(), Error> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    // "A server that receives a request message with a transfer coding it does not understand
    // SHOULD respond with 501 (Not Implemented)."
    let known = list(value).all(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    Err(Error::violation(if known { 400 } else { 501 }, "the transfer coding is not chunked", FRAMING))
}
