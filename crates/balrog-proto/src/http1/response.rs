use std::ops::Range;

use crate::Error;
use crate::http1::fields::{Field, Headers, Span};
use crate::http1::grammar::list;
use crate::http1::limits::Limits;
use crate::http1::parse::{Caps, LONGEST, Section};
use crate::http1::request::{Version, content_length, only_chunked};
use crate::http1::scan::value_end;

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
    /// The head as it came, its empty line included.
    pub raw: &'b [u8],
}

/// What is noted of a response while its head is read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) version: Version,
    reason: Span,
    pub(crate) length: Option<u64>,
    lengths: u8,
    codings: u8,
    /// What is wrong with the framing, which counts only where there is framing.
    broken: Option<&'static str>,
    close: bool,
    keep_alive: bool,
    pub(crate) connection_upgrade: bool,
}

const FRAMING: &str = "RFC 9112 section 6.3";

/// Nothing answers a broken response.
pub(crate) fn bad(reason: &'static str, rule: &str) -> Error {
    Error::violation(0, reason, rule)
}

impl Section for Response {
    const FIRST_LINE: bool = true;
    /// "Field values containing other CTL characters are also invalid; however, recipients MAY
    /// retain such characters" (RFC 9110 section 5.5). Servers do send them, in cookies.
    const ANY_CONTROL: bool = true;

    /// `status-line = HTTP-version SP status-code SP [ reason-phrase ]`; the last SP may be
    /// missing with the phrase.
    fn first_line(&mut self, bytes: &[u8], at: usize) -> Result<usize, Error> {
        const RULE: &str = "RFC 9112 section 4";
        self.version = match bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            Some(b"HTTP/1.1") => Version::Http11,
            Some(b"HTTP/1.0") => Version::Http10,
            _ => return Err(bad("this is no HTTP/1 response", RULE)),
        };
        let Some(&[b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) =
            bytes.get(at + 8..).and_then(<[u8]>::first_chunk::<4>)
        else {
            return Err(bad("the status code is not three digits", RULE));
        };
        self.status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let end = at + 12 + value_end(&bytes[at + 12..]);
        if end > at + 12 && bytes[at + 12] != b' ' {
            return Err(bad("the status code is not three digits", RULE));
        }
        if !matches!(bytes.get(end), None | Some(b'\r' | b'\n')) {
            return Err(bad("the reason phrase has a control character", RULE));
        }
        if end < LONGEST {
            self.reason = Span::new((at + 13).min(end), end);
        }
        Ok(end)
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Error> {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            10 if is(b"connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if is(b"content-length") => {
                self.lengths = self.lengths.saturating_add(1);
                match content_length(value) {
                    Ok(length) => self.length = Some(length),
                    Err(_) => self.broken = Some("Content-Length is not a number"),
                }
            }
            17 if is(b"transfer-encoding") => {
                self.codings = self.codings.saturating_add(1);
                if only_chunked(value).is_err() {
                    self.broken = Some("the transfer coding is not chunked");
                }
            }
            _ => {}
        }
        Ok(true)
    }

    fn caps(limits: &Limits) -> Caps {
        Caps::of_head(limits)
    }
}

impl Response {
    /// Whether the framing says one thing and one only: a response that says two is refused,
    /// because the next response on the connection begins where this one is said to end.
    pub(crate) fn check_framing(&self) -> Result<(), Error> {
        if let Some(reason) = self.broken {
            return Err(bad(reason, FRAMING));
        }
        match (self.codings, self.lengths) {
            (0, 0 | 1) => Ok(()),
            (0, _) => Err(bad("two Content-Length fields", FRAMING)),
            // "A server or client that receives an HTTP/1.0 message containing a
            // Transfer-Encoding header field MUST treat the message as if the framing is faulty"
            (1, 0) if self.version == Version::Http10 => {
                Err(bad("Transfer-Encoding in an HTTP/1.0 message", "RFC 9112 section 6.1"))
            }
            (1, 0) => Ok(()),
            (_, 0) => Err(bad("two Transfer-Encoding fields", FRAMING)),
            _ => Err(bad("both Transfer-Encoding and Content-Length", FRAMING)),
        }
    }

    pub(crate) const fn is_chunked(&self) -> bool {
        self.codings > 0
    }

    pub(crate) const fn keeps_alive(&self) -> bool {
        !self.close && (self.keep_alive || matches!(self.version, Version::Http11))
    }

    pub(crate) fn view<'b>(
        &self,
        bytes: &'b [u8],
        head: Range<usize>,
        fields: &'b [Field],
    ) -> ResponseHead<'b> {
        let bytes = &bytes[..head.end];
        ResponseHead {
            status: self.status,
            reason: self.reason.of(bytes),
            version: self.version,
            headers: Headers::new(bytes, fields),
            raw: &bytes[head.start..],
        }
    }
}
