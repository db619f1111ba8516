use memchr::memchr;

use crate::Error;
use crate::http1::Limits;
use crate::http1::grammar::{is_authority, is_token, list, number, trim};

/// The HTTP version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
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

/// Where a field stands in the bytes of a head.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    name: (u16, u16),
    value: (u16, u16),
}

/// The header fields of a head, in order, as they were sent.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'b> {
    bytes: &'b [u8],
    fields: &'b [Field],
}

impl<'b> Headers<'b> {
    pub(crate) const fn new(bytes: &'b [u8], fields: &'b [Field]) -> Self {
        Self { bytes, fields }
    }

    /// Each name in its original case, and its value without surrounding whitespace.
    pub fn iter(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'b> {
        let bytes = self.bytes;
        self.fields.iter().map(move |field| (text(slice(bytes, field.name)), slice(bytes, field.value)))
    }

    /// The values of every field of this name, in any case.
    pub fn all<'a>(&self, name: &'a str) -> impl Iterator<Item = &'b [u8]> + use<'a, 'b> {
        self.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// How many fields there are.
    pub const fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether a list-valued field has this element, in any case.
    pub(crate) fn lists(&self, name: &str, element: &str) -> bool {
        self.all(name).any(|value| list(value).any(|other| other.eq_ignore_ascii_case(element.as_bytes())))
    }
}

/// The head of a request that has passed every check.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'b> {
    /// A token, case-sensitive.
    pub method: &'b str,
    /// The request target as it was sent.
    pub target: &'b str,
    /// The path, still percent-encoded: begins with `/`, or is `*`.
    pub path: &'b str,
    /// What follows the first `?`, or nothing.
    pub query: &'b str,
    /// Host and port of an absolute-form target; they go before the Host field.
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
}

/// A request head by positions in its bytes, so that it can be kept while they are borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parsed {
    method: (u16, u16),
    target: (u16, u16),
    path: Option<(u16, u16)>,
    query: (u16, u16),
    authority: Option<(u16, u16)>,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) expect_continue: bool,
    upgrade: bool,
}

impl Parsed {
    pub(crate) fn view<'b>(&self, head: &'b [u8], fields: &'b [Field]) -> RequestHead<'b> {
        RequestHead {
            method: text(slice(head, self.method)),
            target: text(slice(head, self.target)),
            path: self.path.map_or("/", |path| text(slice(head, path))),
            query: text(slice(head, self.query)),
            authority: self.authority.map(|authority| text(slice(head, authority))),
            version: self.version,
            headers: Headers::new(head, fields),
            framing: self.framing,
            keep_alive: self.keep_alive,
            expect_continue: self.expect_continue,
            upgrade: self.upgrade,
        }
    }

    pub(crate) fn is_head(&self, head: &[u8]) -> bool {
        slice(head, self.method) == b"HEAD"
    }
}

fn slice(bytes: &[u8], (start, end): (u16, u16)) -> &[u8] {
    &bytes[usize::from(start)..usize::from(end)]
}

/// For bytes that were checked to be ASCII.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn bad(reason: &'static str, rule: &'static str) -> Error {
    Error::violation(400, reason, rule)
}

/// Looks for the end of a head, and goes on where it stopped when more bytes have come.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Where the search goes on.
    at: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the head begins: behind an empty line, if there was one.
    pub(crate) start: usize,
    lines: usize,
}

impl Scan {
    /// The end of the head, behind its empty line.
    pub(crate) fn find(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        while let Some(found) = memchr(b'\n', &bytes[self.at..]) {
            let lf = self.at + found;
            // As if the bytes had come one by one: a limit that is passed first is told first.
            self.check(lf, limits)?;
            if lf == self.line || bytes[lf - 1] != b'\r' {
                return Err(bad("a line does not end in CRLF", "RFC 9112 section 2.2"));
            }
            if lf + 1 - self.start > limits.head {
                return Err(Error::limit(431, "head", limits.head as u64));
            }
            let length = lf - 1 - self.line;
            let first = self.lines == 0;
            (self.at, self.line) = (lf + 1, lf + 1);
            if length > 0 {
                self.lines += 1;
                if self.lines > limits.fields + 1 {
                    return Err(Error::limit(431, "fields", limits.fields as u64));
                }
                continue;
            }
            if !first {
                return Ok(Some(lf + 1));
            }
            // "A server that is expecting to receive and parse a request-line SHOULD ignore at
            // least one empty line (CRLF) received prior to the request-line."
            if self.start > 0 {
                return Err(bad("more than one empty line before the request", "RFC 9112 section 2.2"));
            }
            self.start = lf + 1;
        }
        self.at = bytes.len();
        self.check(bytes.len(), limits)?;
        Ok(None)
    }

    /// Whether the current line may go on behind `seen` bytes. The last of them may be a CR that
    /// belongs to the line end.
    fn check(&self, seen: usize, limits: &Limits) -> Result<(), Error> {
        let (code, name, limit) = if self.lines == 0 {
            (414, "start_line", limits.start_line)
        } else {
            (431, "header_line", limits.header_line)
        };
        // How many bytes there are when each limit is passed.
        let line = self.line.saturating_add(limit).saturating_add(2);
        let head = self.start.saturating_add(limits.head).saturating_add(1);
        if seen >= line.min(head) {
            return Err(if line <= head {
                Error::limit(code, name, limit as u64)
            } else {
                Error::limit(431, "head", limits.head as u64)
            });
        }
        Ok(())
    }
}

/// The lines of a complete head, without their CRLF and without the empty one.
fn lines(head: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let end = start + memchr(b'\n', head.get(start..)?)?;
        at = end + 1;
        Some((start, &head[start..end.saturating_sub(1)])).filter(|(_, line)| !line.is_empty())
    })
}

/// Notes where the fields of a head stand, whose values have to pass `is_value`. The head is
/// shorter than 64 KiB.
pub(crate) fn index_fields(
    head: &[u8],
    fields: &mut Vec<Field>,
    limits: &Limits,
    is_value: fn(&[u8]) -> bool,
) -> Result<(), Error> {
    fields.clear();
    for (start, line) in lines(head).skip(1) {
        if fields.len() == limits.fields {
            return Err(Error::limit(431, "fields", limits.fields as u64));
        }
        if matches!(line, [b' ' | b'\t', ..]) {
            return Err(bad("a header line is folded", "RFC 9112 section 5.2"));
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(bad("a header line has no colon", "RFC 9112 section 5"));
        };
        // "No whitespace is allowed between the field name and colon."
        if !is_token(&line[..colon]) {
            return Err(bad("a field name is not a token", "RFC 9112 section 5.1"));
        }
        let raw = &line[colon + 1..];
        let value = trim(raw);
        if !is_value(value) {
            return Err(bad("a field value has a control character", "RFC 9110 section 5.5"));
        }
        let lead = raw.iter().take_while(|&byte| matches!(byte, b' ' | b'\t')).count();
        let from = start + colon + 1 + if value.is_empty() { 0 } else { lead };
        fields.push(Field {
            name: (position(start)?, position(start + colon)?),
            value: (position(from)?, position(from + value.len())?),
        });
    }
    Ok(())
}

fn position(at: usize) -> Result<u16, Error> {
    u16::try_from(at).map_err(|_| Error::limit(431, "head", u64::from(u16::MAX)))
}

/// The request line and all checks that need the whole head.
pub(crate) fn parse_request(head: &[u8], fields: &[Field]) -> Result<Parsed, Error> {
    let line = lines(head).next().map_or(&b""[..], |(_, line)| line);
    let (method, target, version) = request_line(line)?;
    let headers = Headers::new(head, fields);
    let (path, query, authority) = parse_target(method, target)?;
    check_host(&headers, version)?;
    let framing = request_framing(&headers, version)?;
    if headers.all("content-type").nth(1).is_some() {
        return Err(bad("two Content-Type fields", "RFC 9110 section 5.3"));
    }
    let close = headers.lists("connection", "close");
    let modern = version == Version::Http11;
    // All of these are parts of the first line, which is shorter than 64 KiB.
    let place = |part: &str| -> (u16, u16) {
        let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        (start as u16, (start + part.len()) as u16)
    };
    Ok(Parsed {
        method: place(method),
        target: place(target),
        path: Some(path).filter(|path| !path.is_empty()).map(place),
        query: if query.is_empty() { (0, 0) } else { place(query) },
        authority: authority.map(place),
        version,
        framing,
        keep_alive: !close && (modern || headers.lists("connection", "keep-alive")),
        expect_continue: expectation(&headers, version)?
            && !matches!(framing, Framing::None | Framing::Length(0)),
        upgrade: modern && headers.get("upgrade").is_some() && headers.lists("connection", "upgrade"),
    })
}

/// `method SP request-target SP HTTP-version`, with exactly these spaces.
fn request_line(line: &[u8]) -> Result<(&str, &str, Version), Error> {
    const RULE: &str = "RFC 9112 section 3";
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("the request line is not method, target and version", RULE));
    };
    if !is_token(method) {
        return Err(bad("the method is not a token", RULE));
    }
    if target.is_empty() || !target.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#') {
        return Err(bad("the request target has a character that no URI has", "RFC 9112 section 3.2"));
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Error::violation(505, "only versions 1.0 and 1.1 are spoken here", RULE));
        }
        _ => return Err(bad("the HTTP version is malformed", RULE)),
    };
    Ok((text(method), text(target), version))
}

/// Path, query, and the authority of an absolute-form (RFC 9112 section 3.2).
fn parse_target<'b>(method: &str, target: &'b str) -> Result<(&'b str, &'b str, Option<&'b str>), Error> {
    const RULE: &str = "RFC 9112 section 3.2";
    if method == "CONNECT" {
        return Err(Error::violation(501, "no tunnels here", "RFC 9110 section 9.3.6"));
    }
    let split = |path: &'b str| path.split_once('?').unwrap_or((path, ""));
    if target.starts_with('/') {
        let (path, query) = split(target);
        return Ok((path, query, None));
    }
    if target == "*" {
        return match method {
            "OPTIONS" => Ok((target, "", None)),
            _ => Err(bad("the target * is for OPTIONS", RULE)),
        };
    }
    let scheme = target.find("://").map(|at| &target[..at]);
    if !scheme
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
    {
        return Err(bad("the request target is neither a path nor an http URI", RULE));
    }
    let rest = &target[scheme.map_or(0, str::len) + 3..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if !is_authority(authority.as_bytes()) {
        return Err(bad("the host of the request target is malformed", RULE));
    }
    let (path, query) = split(rest);
    // An empty path stands for "/".
    Ok((path, query, Some(authority)))
}

/// "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a
/// Host header field and to any request message that contains more than one Host header field
/// line or a Host header field with an invalid field value."
fn check_host(headers: &Headers<'_>, version: Version) -> Result<(), Error> {
    const RULE: &str = "RFC 9112 section 3.2";
    let mut hosts = headers.all("host");
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(bad("two Host fields", RULE)),
        (Some(host), None) if !is_authority(host) => Err(bad("the Host field is malformed", RULE)),
        (None, None) if version == Version::Http11 => Err(bad("the Host field is missing", RULE)),
        _ => Ok(()),
    }
}

/// How the body of a request ends; anything that could be read in two ways is refused.
fn request_framing(headers: &Headers<'_>, version: Version) -> Result<Framing, Error> {
    const RULE: &str = "RFC 9112 section 6.3";
    let length = content_length(headers)?;
    if headers.get("transfer-encoding").is_none() {
        return Ok(length.map_or(Framing::None, Framing::Length));
    }
    single_chunked(headers)?;
    if version == Version::Http10 {
        return Err(bad("Transfer-Encoding in an HTTP/1.0 request", "RFC 9112 section 6.1"));
    }
    if length.is_some() {
        return Err(bad("both Transfer-Encoding and Content-Length", RULE));
    }
    Ok(Framing::Chunked)
}

/// `Transfer-Encoding: chunked` and nothing else.
pub(crate) fn single_chunked(headers: &Headers<'_>) -> Result<(), Error> {
    const RULE: &str = "RFC 9112 section 6.1";
    let mut codings = headers.all("transfer-encoding");
    let coding = codings.next().unwrap_or_default();
    if codings.next().is_some() {
        return Err(bad("two Transfer-Encoding fields", RULE));
    }
    if !coding.eq_ignore_ascii_case(b"chunked") {
        let known = list(coding).all(|element| element.eq_ignore_ascii_case(b"chunked"));
        // "A server that receives a request message with a transfer coding it does not
        // understand SHOULD respond with 501 (Not Implemented)."
        return Err(Error::violation(
            if known { 400 } else { 501 },
            "the transfer coding is not chunked",
            RULE,
        ));
    }
    Ok(())
}

/// The version of a status line.
pub(crate) fn response_version(bytes: &[u8]) -> Option<Version> {
    match bytes {
        b"HTTP/1.1" => Some(Version::Http11),
        b"HTTP/1.0" => Some(Version::Http10),
        _ => None,
    }
}

/// The one `Content-Length`, as digits and nothing else.
pub(crate) fn content_length(headers: &Headers<'_>) -> Result<Option<u64>, Error> {
    let mut lengths = headers.all("content-length");
    let Some(value) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(bad("two Content-Length fields", "RFC 9112 section 6.3"));
    }
    number(value).map(Some).ok_or(bad("Content-Length is not a number", "RFC 9110 section 8.6"))
}

/// `Expect: 100-continue`, the only expectation there is; ignored in HTTP/1.0.
fn expectation(headers: &Headers<'_>, version: Version) -> Result<bool, Error> {
    const RULE: &str = "RFC 9110 section 10.1.1";
    match headers.get("expect") {
        Some(value) if version == Version::Http11 => {
            if value.eq_ignore_ascii_case(b"100-continue") {
                Ok(true)
            } else {
                Err(Error::violation(417, "an expectation that is not 100-continue", RULE))
            }
        }
        _ => Ok(false),
    }
}
