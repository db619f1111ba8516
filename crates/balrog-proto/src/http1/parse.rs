//! Reads a section of lines: a request's head, a response's head, or trailers.

use memchr::{memchr, memchr3};

use crate::Error;
use crate::http1::Limits;
use crate::http1::fields::{Field, Span};
use crate::http1::scan::{token_end, value_end};

/// Positions are kept in 16 bits.
pub(crate) const LONGEST: usize = 65_000;
/// No first line is shorter, its CRLF included: `A / HTTP/1.1`, `HTTP/1.1 200`.
const SHORTEST: usize = 14;
/// Room for so many fields is made at once.
const FIELDS: usize = 16;

/// What a section may have, and what it is called when it has more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    pub(crate) first_line: usize,
    pub(crate) line: usize,
    pub(crate) total: (usize, &'static str),
    pub(crate) fields: (usize, &'static str),
}

impl Caps {
    /// Of a request or a response.
    pub(crate) fn of_head(limits: &Limits) -> Self {
        Self {
            first_line: limits.start_line,
            line: limits.header_line,
            total: (limits.head.min(LONGEST), "head"),
            fields: (limits.fields, "fields"),
        }
    }
}

/// What is particular to one kind of section.
pub(crate) trait Section {
    /// Whether it begins with a line that is no field.
    const FIRST_LINE: bool;

    /// Whether a value may have control characters besides HTAB (but NUL, CR and LF).
    const ANY_CONTROL: bool;

    /// Takes the first line, which begins at `at`, and says where it should end in CRLF. It may
    /// be called again for the same line, and must not look behind a control character.
    fn first_line(&mut self, bytes: &[u8], at: usize) -> Result<usize, Error>;

    /// Takes a complete field, and says whether to keep it.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Error>;

    fn caps(limits: &Limits) -> Caps;
}

/// Reads line after line, each once, and goes on where it stopped when more bytes have come.
///
/// What is wrong with a line is said when the control character has come that ends it or must
/// not be in it, or when it is too long: so the same bytes end the same way in whatever pieces
/// they come.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// Where the current line begins.
    line: usize,
    /// If not 0: there is nothing from `line` to here that a line could end with.
    scanned: usize,
    /// With more bytes than these in an incomplete line, a limit may be broken.
    soft: usize,
    /// Where the section begins: behind an empty line, if there was one.
    start: usize,
    /// Whether the first line is complete.
    begun: bool,
    /// How many fields there were.
    count: usize,
    fields: Vec<Field>,
}

impl Parser {
    /// Whether one byte more has come in the middle of a line, and nothing else can be said. Byte
    /// after byte is how a slow peer sends.
    #[inline]
    pub(crate) fn glance(&mut self, length: usize, last: u8) -> bool {
        if length != self.scanned + 1 || self.scanned == 0 || self.scanned >= self.soft {
            return false;
        }
        if IS_STOP[usize::from(last)] {
            // Whatever comes behind a CR decides: it is not scanned.
            return last == b'\r';
        }
        self.scanned = length;
        true
    }

    /// Reads what there is of a section that begins with `bytes`. `Some` when it is complete:
    /// where it ends, behind its empty line.
    pub(crate) fn advance<S: Section>(
        &mut self,
        section: &mut S,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, Error> {
        if bytes.len() == self.line {
            return Ok(None);
        }
        if self.scanned > 0 {
            if stop::<S>(bytes, self.scanned) == bytes.len() {
                self.scanned = bytes.len();
                if bytes.len() > self.soft {
                    self.check(bytes.len() - 1, bytes.len(), &S::caps(limits))?;
                }
                return Ok(None);
            }
            self.scanned = 0;
        }
        self.lines(section, bytes, &S::caps(limits))
    }

    fn lines<S: Section>(
        &mut self,
        section: &mut S,
        bytes: &[u8],
        caps: &Caps,
    ) -> Result<Option<usize>, Error> {
        if !self.begun {
            if !S::FIRST_LINE {
                self.begun = true;
            } else if !self.first_line(section, bytes, caps)? {
                return Ok(None);
            }
        }
        loop {
            let at = self.line;
            let line = bytes.get(at..).unwrap_or_default();
            let name_end = token_end(line);
            match line.get(name_end) {
                Some(b':') if name_end > 0 => {
                    let raw = &line[name_end + 1..];
                    let raw_end = Self::end_of_value::<S>(raw);
                    if !matches!(raw.get(raw_end..), Some([b'\r', b'\n', ..])) {
                        break;
                    }
                    let end = at + name_end + 1 + raw_end;
                    self.check(end, end + 2, caps)?;
                    if self.count >= caps.fields.0 {
                        return Err(Error::limit(431, caps.fields.1, caps.fields.0 as u64));
                    }
                    self.count += 1;
                    let (from, to) = trimmed(raw, raw_end);
                    if section.field(&line[..name_end], &raw[from..to])? {
                        if self.fields.capacity() == 0 {
                            self.fields = Vec::with_capacity(FIELDS);
                        }
                        let value_at = at + name_end + 1;
                        self.fields.push(Field {
                            name: Span::new(at, at + name_end),
                            value: Span::new(value_at + from, value_at + to),
                        });
                    }
                    self.line = end + 2;
                    if self.line == bytes.len() {
                        self.incomplete(self.line, caps);
                        return Ok(None);
                    }
                }
                Some(b'\r') if name_end == 0 && line.get(1) == Some(&b'\n') => {
                    self.check(at, at + 2, caps)?;
                    return Ok(Some(at + 2));
                }
                _ => break,
            }
        }
        self.broken_line::<S>(bytes, caps, broken_field)
    }

    /// Whether the first line is there.
    fn first_line<S: Section>(&mut self, section: &mut S, bytes: &[u8], caps: &Caps) -> Result<bool, Error> {
        // "A server that is expecting to receive and parse a request-line SHOULD ignore at
        // least one empty line (CRLF) received prior to the request-line."
        while is_crlf(bytes, self.line) {
            if self.start > 0 {
                return Err(bad("more than one empty line before a message", "RFC 9112 section 2.2"));
            }
            (self.start, self.line) = (2, 2);
        }
        let at = self.line;
        if bytes.len() < at + SHORTEST {
            let error =
                |_: &[u8], _: &[u8]| section.first_line(bytes, at).err().unwrap_or_else(crlf_expected);
            return self.broken_line::<S>(bytes, caps, error).map(|_| false);
        }
        match section.first_line(bytes, at) {
            Ok(end) if is_crlf(bytes, end) => {
                self.check(end, end + 2, caps)?;
                (self.line, self.begun) = (end + 2, true);
                Ok(true)
            }
            Ok(_) => self.broken_line::<S>(bytes, caps, |_, _| crlf_expected()).map(|_| false),
            Err(error) => self.broken_line::<S>(bytes, caps, |_, _| error).map(|_| false),
        }
    }

    /// The current line cannot be read: because there is more to come, or for good. `error` is
    /// given the line up to its first control character, and what follows from there.
    #[cold]
    fn broken_line<S: Section>(
        &mut self,
        bytes: &[u8],
        caps: &Caps,
        error: impl FnOnce(&[u8], &[u8]) -> Error,
    ) -> Result<Option<usize>, Error> {
        let stop = stop::<S>(bytes, self.line);
        let seen = match bytes.get(stop..).unwrap_or_default() {
            [] | [b'\r'] => None,
            [b'\r', _, ..] => Some(stop + 2),
            _ => Some(stop + 1),
        };
        if let Some(seen) = seen {
            self.check(stop, seen, caps)?;
            return Err(error(&bytes[self.line..stop], &bytes[stop..seen]));
        }
        self.incomplete(stop, caps);
        // The last byte may be the CR of the line's end.
        self.check(bytes.len().saturating_sub(1).max(self.line), bytes.len(), caps)?;
        Ok(None)
    }

    /// There is nothing in the current line, up to `scanned`, that it could end with.
    fn incomplete(&mut self, scanned: usize, caps: &Caps) {
        self.scanned = scanned;
        let line = if self.begun { caps.line } else { caps.first_line };
        self.soft = (self.line + line).min(self.start + caps.total.0);
    }

    /// The current line has its content up to `end`, and the section its bytes up to `total`. Of
    /// two limits that are broken, that counts whose last byte came first.
    #[inline]
    fn check(&self, end: usize, total: usize, caps: &Caps) -> Result<(), Error> {
        let line = if self.begun { caps.line } else { caps.first_line };
        if end - self.line <= line && total - self.start <= caps.total.0 {
            return Ok(());
        }
        Err(self.too_long(end, line, caps))
    }

    #[cold]
    fn too_long(&self, end: usize, line: usize, caps: &Caps) -> Error {
        // A line is judged one byte late, since its last byte may be the CR.
        let line_is_over = end - self.line > line;
        if line_is_over && self.line + line < self.start + caps.total.0 {
            return if self.begun {
                Error::limit(431, "header_line", line as u64)
            } else {
                Error::limit(414, "start_line", line as u64)
            };
        }
        Error::limit(431, caps.total.1, caps.total.0 as u64)
    }

    #[inline]
    fn end_of_value<S: Section>(bytes: &[u8]) -> usize {
        let mut end = value_end(bytes);
        while S::ANY_CONTROL && bytes.get(end).is_some_and(|byte| !matches!(byte, b'\0' | b'\r' | b'\n')) {
            end += 1 + value_end(&bytes[end + 1..]);
        }
        end
    }

    /// Where the section begins.
    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        self.fields.capacity() * size_of::<Field>()
    }

    /// Gets ready for the next section. Room for many fields is given back.
    pub(crate) fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        if fields.capacity() > FIELDS {
            fields = Vec::new();
        }
        *self = Self { fields, ..Self::default() };
    }

    /// Gives back its room, if it is empty.
    pub(crate) fn shrink(&mut self) {
        if self.fields.is_empty() {
            self.fields = Vec::new();
        }
    }
}

#[inline]
fn is_crlf(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at..), Some([b'\r', b'\n', ..]))
}

/// `OWS field-value OWS`, without the whitespace: where it begins and ends.
#[inline]
fn trimmed(raw: &[u8], to: usize) -> (usize, usize) {
    // One space before and none behind, nearly always.
    if let [b' ', first, .., last] | [b' ', first @ last] = &raw[..to]
        && *first > b' '
        && *last > b' '
    {
        return (1, to);
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let value = &raw[..to];
    let Some(from) = value.iter().position(|byte| !is_blank(byte)) else { return (to, to) };
    let behind = value.iter().rev().take_while(|byte| is_blank(byte)).count();
    (from, to - behind)
}

pub(crate) fn bad(reason: &'static str, rule: &str) -> Error {
    Error::violation(400, reason, rule)
}

/// "Although the line terminator for the start-line and fields is the sequence CRLF, a recipient
/// MAY recognize a single LF as a line terminator and ignore any preceding CR." We do not: who
/// does sees other lines than who does not.
fn crlf_expected() -> Error {
    bad("a line does not end in CRLF", "RFC 9112 section 2.2")
}

/// What is wrong with a line that is no field.
fn broken_field(line: &[u8], end: &[u8]) -> Error {
    // "A server that receives an obs-fold in a request message that is not within a
    // 'message/http' container MUST either reject the message by sending a 400 [...] or replace"
    if let [b' ' | b'\t', ..] = line {
        return bad("a header line is folded", "RFC 9112 section 5.2");
    }
    match end {
        b"\r\n" => {}
        [b'\r' | b'\n', ..] => return crlf_expected(),
        // "Field values containing CR, LF, or NUL characters are invalid and dangerous"
        _ => return bad("a header line has a control character", "RFC 9110 section 5.5"),
    }
    if memchr(b':', line).is_none() {
        return bad("a header line has no colon", "RFC 9112 section 5");
    }
    // "No whitespace is allowed between the field name and colon. [...] A server MUST reject,
    // with a response status code of 400 (Bad Request), any received request message that
    // contains whitespace between a header field name and colon."
    bad("a field name is not a token", "RFC 9112 section 5.1")
}

/// The first byte from `at` on that a line ends with, or that ends it.
#[inline]
fn stop<S: Section>(bytes: &[u8], at: usize) -> usize {
    if S::ANY_CONTROL {
        bytes.get(at..).and_then(|rest| memchr3(b'\0', b'\r', b'\n', rest)).map_or(bytes.len(), |n| at + n)
    } else {
        at + value_end(bytes.get(at..).unwrap_or_default())
    }
}

/// The control characters but HTAB.
const IS_STOP: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte != b'\t' as usize && (byte < b' ' as usize || byte == 0x7f);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::request::Request;

    fn grown(parser: &mut Parser, bytes: &[u8]) -> Result<Option<usize>, Error> {
        parser.advance(&mut Request::default(), bytes, &Limits::default())
    }

    /// What is saved for slow peers is no saving if it is never taken.
    #[test]
    fn a_glance_is_enough_in_the_middle_of_a_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut parser = Parser::default();
        let glances: Vec<usize> = (1..=head.len())
            .filter(|&n| {
                let enough = parser.glance(n, head[n - 1]);
                let complete = !enough && grown(&mut parser, &head[..n]).unwrap().is_some();
                assert_eq!(complete, n == head.len());
                enough
            })
            .collect();
        // Not for the first byte of all, nor for what a CR leads to.
        assert_eq!(glances, [2..16, 17..25, 26..27].into_iter().flatten().collect::<Vec<_>>());
    }

    #[test]
    fn a_glance_is_for_one_byte_and_no_other_control_character_than_cr() {
        for (length, last, enough) in [(4, b'e', true), (4, b'\r', true), (4, b'\n', false), (5, b'e', false)]
        {
            let mut parser = Parser::default();
            assert_eq!(grown(&mut parser, b"GET"), Ok(None));
            assert_eq!(parser.glance(length, last), enough, "{length} {last}");
        }
        // Behind the CR, the next byte decides.
        let mut parser = Parser::default();
        assert_eq!(grown(&mut parser, b"GET"), Ok(None));
        assert!(parser.glance(4, b'\r'));
        assert!(!parser.glance(5, b'e'));
    }

    /// What comes of `bytes`, the first `known` of which came before.
    fn outcome(limits: &Limits, bytes: &[u8], known: usize) -> Result<Option<usize>, Error> {
        let mut parser = Parser::default();
        assert_eq!(parser.advance(&mut Request::default(), &bytes[..known], limits), Ok(None));
        parser.advance(&mut Request::default(), bytes, limits)
    }

    #[test]
    fn a_line_is_judged_one_byte_late_in_any_pieces() {
        let limits = Limits { start_line: 30, header_line: 20, ..Limits::default() };
        for (before, limit, error) in [
            ("", 30, Error::limit(414, "start_line", 30)),
            ("GET / HTTP/1.1\r\nHost: a\r\n", 20, Error::limit(431, "header_line", 20)),
        ] {
            let line = |length| [before.as_bytes(), b"GET_", &vec![b'a'; length - 4]].concat();
            for known in [before.len() + 3, before.len() + limit] {
                assert_eq!(
                    outcome(&limits, &line(limit + 1), known),
                    Ok(None),
                    "the last byte may be the CR"
                );
                assert_eq!(outcome(&limits, &line(limit + 2), known), Err(error));
            }
        }
    }

    #[test]
    fn a_head_is_too_long_as_soon_as_a_line_is() {
        for head in ["GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHo"] {
            for empty_line in ["", "\r\n"] {
                let bytes = [empty_line, head].concat();
                for known in 0..bytes.len() {
                    let limits = |head| Limits { head, ..Limits::default() };
                    assert_eq!(outcome(&limits(head.len()), bytes.as_bytes(), known), Ok(None));
                    let limit = head.len() - 1;
                    let got = outcome(&limits(limit), bytes.as_bytes(), known);
                    assert_eq!(got, Err(Error::limit(431, "head", limit as u64)));
                }
            }
        }
    }

    #[test]
    fn room_for_usual_heads_is_kept_and_more_given_back() {
        for (fields, kept) in [(3, FIELDS), (FIELDS, FIELDS), (FIELDS + 1, 0)] {
            let head = format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(fields));
            let mut parser = Parser::default();
            assert_eq!(grown(&mut parser, head.as_bytes()), Ok(Some(head.len())));
            assert_eq!(parser.fields().len(), fields);
            parser.reset();
            assert_eq!(parser.heap(), kept * size_of::<Field>());
            parser.shrink();
            assert_eq!(parser.heap(), 0);
        }
    }

    #[test]
    fn of_two_limits_the_first_to_be_broken_is_named() {
        let start = "GET / HTTP/1.1\r\n";
        let field = |length: usize| format!("{start}Host: {}\r\n", "a".repeat(length - 6));
        let [line, head] = ["header_line", "head"];
        for (header_line, total, length, name) in [
            // The line is not over.
            (23, 40, 23, head),
            (24, 40, 23, head),
            (22, 40, 23, line),
            (10, 40, 11, line),
            // It is, but the head was before.
            (30, 40, 31, head),
            (24, 40, 25, head),
            (23, 40, 24, line),
        ] {
            let limits = Limits { header_line, head: total, ..Limits::default() };
            let error = Error::limit(431, name, if name == line { header_line } else { total } as u64);
            let got = outcome(&limits, field(length).as_bytes(), 0);
            assert_eq!(got, Err(error), "{header_line} {total} {length}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line() {
        let crlf = ("a line does not end in CRLF", "2.2");
        let control = ("a header line has a control character", "5.5");
        for (line, (reason, section)) in [
            ("a: b\n", crlf),
            ("a\n", crlf),
            ("a: b\rc", crlf),
            ("a: b\r\r", crlf),
            ("\n", crlf),
            ("\rx", crlf),
            ("a: b\0", control),
            ("a: \u{1b}", control),
            ("a\u{7f}", control),
            ("a\r\n", ("a header line has no colon", "5")),
            (" a: b\r\n", ("a header line is folded", "5.2")),
            ("\ta: b\n", ("a header line is folded", "5.2")),
            ("a : b\r\n", ("a field name is not a token", "5.1")),
            (": b\r\n", ("a field name is not a token", "5.1")),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{line}");
            let rule = format!("RFC {} section {section}", if section == "5.5" { 9110 } else { 9112 });
            for known in 0..head.len() {
                let got = outcome(&Limits::default(), head.as_bytes(), known);
                assert_eq!(got, Err(bad(reason, &rule)), "{line:?} behind {known}");
            }
        }
        for line in ["GET\r\n", "GET / HTTP/1.1\n", "GET / HTTP/1.1\rx"] {
            let Err(error) = outcome(&Limits::default(), line.as_bytes(), 0) else { panic!("{line:?}") };
            assert_eq!(error.code(), Some(400));
        }
        assert_eq!(outcome(&Limits::default(), b"GET / HTTP/1.1\n", 0), Err(crlf_expected()));
    }
}
