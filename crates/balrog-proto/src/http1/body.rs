use std::ops::Range;

use crate::http1::grammar::{is_field_byte, is_tchar};
use crate::http1::parse::{Parser, bad};
use crate::http1::trailers::{TrailerSection, Trailers};
use crate::http1::{Framing, Limits};
use crate::{Error, Phase};

/// Chunks up to this size are moved together behind the one before them, in place: one event
/// then stands for many. A larger one costs more to move than an event does.
const JOIN: u64 = 256;

/// What an owner wants to see of a chunked body besides its payload.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub(crate) trailers: Trailers,
    pub(crate) extensions: bool,
}

/// Takes the framing of a message body apart (RFC 9112 sections 6 and 7).
///
/// ```text
///                 +-------------------------------+
///                 v                               |
///   chunked --> Size --> Data --> DataCr --> DataLf
///                 |  \
///                 |   Extension.. (back to the size line's end)
///                 v (size 0)
///              Trailers --> Done <-- Length, UntilEof
/// ```
#[derive(Debug)]
pub(crate) struct Body {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This many bytes follow.
    Length(u64),
    UntilEof,
    Size {
        digits: u8,
        value: u64,
    },
    ExtensionName {
        size: u64,
        seen: bool,
    },
    ExtensionValue {
        size: u64,
        seen: bool,
    },
    Quoted {
        size: u64,
        escaped: bool,
    },
    AfterQuoted {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Done,
}

const SIZE: State = State::Size { digits: 0, value: 0 };

/// What [`Body::next`] found, by its place in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Nothing here; if bytes were used up, there may be something behind them.
    More,
    Data(Range<usize>),
    /// The extensions of one chunk, without the first `;`.
    Extension(Range<usize>),
    /// The section that is complete in the parser has fields that are wanted.
    Trailers,
    Done,
}

impl Default for Body {
    fn default() -> Self {
        Self::new(Framing::None)
    }
}

impl Body {
    pub(crate) const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => SIZE,
        };
        Self { state, extensions: 0 }
    }

    /// A response body that ends with the connection.
    pub(crate) const fn until_eof() -> Self {
        Self { state: State::UntilEof, extensions: 0 }
    }

    /// Whether the body is complete.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes are still to come, where a length says so.
    pub(crate) const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// How many of the next bytes are payload.
    pub(crate) const fn bulk(&self) -> Option<u64> {
        match self.state {
            State::Length(left) | State::Data(left) => Some(left),
            _ => None,
        }
    }

    /// `n` bytes of [`Body::bulk`] came another way.
    pub(crate) fn bulk_received(&mut self, n: u64) {
        self.state = match self.state {
            State::Length(left) if left <= n => State::Done,
            State::Length(left) => State::Length(left - n),
            State::Data(left) => after_data(left.saturating_sub(n)),
            state => state,
        };
    }

    /// The connection ended here.
    ///
    /// # Errors
    ///
    /// `Eof` unless the body is complete, or was to end so.
    pub(crate) fn eof(&mut self) -> Result<(), Error> {
        match self.state {
            State::Done => Ok(()),
            State::UntilEof => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Error::Eof(Phase::Body)),
        }
    }

    /// Takes the next piece, and says how many bytes of the input are used up with it.
    ///
    /// # Errors
    ///
    /// The framing is broken or over a limit: where the body ends can no longer be told.
    #[inline]
    pub(crate) fn next(
        &mut self,
        input: &mut [u8],
        parser: &mut Parser,
        wanted: Wanted,
        limits: &Limits,
    ) -> Result<(usize, Piece), Error> {
        if matches!(self.state, State::DataCr)
            && let Some(data) = whole_chunk(input)
        {
            return Ok((data.end, Piece::Data(data)));
        }
        if matches!(self.state, State::Done) {
            return Ok((0, Piece::Done));
        }
        self.next_of_any(input, parser, wanted, limits)
    }

    fn next_of_any(
        &mut self,
        input: &mut [u8],
        parser: &mut Parser,
        wanted: Wanted,
        limits: &Limits,
    ) -> Result<(usize, Piece), Error> {
        let mut used = 0;
        loop {
            match self.state {
                State::Data(left) => {
                    let n = at_most(left, input.len() - used);
                    if n == 0 {
                        break;
                    }
                    let mut data = used..used + n;
                    used += n;
                    self.state = after_data(left - n as u64);
                    // A chunk whose extensions are wanted is an event of its own.
                    if n as u64 <= JOIN && !wanted.extensions {
                        join(input, &mut used, &mut data);
                    }
                    return Ok((used, Piece::Data(data)));
                }
                State::Length(left) => {
                    let n = at_most(left, input.len());
                    self.state = if n as u64 == left { State::Done } else { State::Length(left - n as u64) };
                    return Ok((n, if n == 0 { Piece::More } else { Piece::Data(0..n) }));
                }
                State::UntilEof => {
                    let n = input.len();
                    return Ok((n, if n == 0 { Piece::More } else { Piece::Data(0..n) }));
                }
                // Places in the section count from its first byte, which is to be the input's.
                State::Trailers if used == 0 => {
                    let section = &mut TrailerSection(wanted.trailers);
                    let Some(end) = parser.advance(section, input, limits)? else { break };
                    self.state = State::Done;
                    let none = parser.fields().is_empty();
                    return Ok((end, if none { Piece::Done } else { Piece::Trailers }));
                }
                State::Trailers | State::Done => break,
                _ => {
                    let (n, extension) = self.framing(&input[used..], wanted.extensions, limits)?;
                    if n == 0 {
                        break;
                    }
                    let from = used;
                    used += n;
                    if self.state == State::Trailers {
                        parser.reset();
                    }
                    if let Some(range) = extension {
                        return Ok((used, Piece::Extension(from + range.start..from + range.end)));
                    }
                }
            }
        }
        Ok((used, Piece::More))
    }

    /// Takes bytes that are no payload: as many as there are up to the next payload or the
    /// trailers. With `whole`, a line is taken when all of it is there.
    fn framing(
        &mut self,
        input: &[u8],
        whole: bool,
        limits: &Limits,
    ) -> Result<(usize, Option<Range<usize>>), Error> {
        let mut at = 0;
        if self.state == State::DataCr && matches!(input, [b'\r', b'\n', ..]) {
            (at, self.state) = (2, SIZE);
        } else if self.state == State::DataLf && input.first() == Some(&b'\n') {
            (at, self.state) = (1, SIZE);
        }
        if self.state == SIZE {
            if let Some((size, n)) = size_line(&input[at..]) {
                self.state = after_size(size);
                return Ok((at + n, None));
            }
            if whole && !self.is_line_there(&input[at..], limits) {
                return Ok((at, None));
            }
        }
        let mut extension = None;
        while let Some(&byte) = input.get(at) {
            let state = self.state;
            self.state = self.step(byte, limits)?;
            if matches!(state, State::Size { .. }) && byte == b';' {
                extension = Some(at + 1..at + 1);
            } else if let (Some(range), State::SizeLf { .. }) = (&mut extension, self.state) {
                range.end = at;
            }
            at += 1;
            if matches!(self.state, State::Data(_) | State::Trailers) {
                break;
            }
        }
        let complete = matches!(self.state, State::Data(_) | State::Trailers);
        Ok((at, extension.filter(|_| whole && complete)))
    }

    /// Whether a size line is complete, or so long that it must be broken.
    fn is_line_there(&self, input: &[u8], limits: &Limits) -> bool {
        let longest = 16 + limits.chunk_extensions.saturating_sub(self.extensions) + 2;
        input.len() > longest || memchr::memchr(b'\n', input).is_some()
    }

    /// One byte that is no payload.
    fn step(&mut self, byte: u8, limits: &Limits) -> Result<State, Error> {
        let next = match (self.state, byte) {
            // chunk-size = 1*HEXDIG
            (State::Size { digits, value }, byte) if byte.is_ascii_hexdigit() => {
                if digits == 16 {
                    return Err(chunk("a chunk size has too many digits"));
                }
                let digit = u64::from(HEX[usize::from(byte)]);
                State::Size { digits: digits + 1, value: value << 4 | digit }
            }
            (State::Size { digits: 0, .. }, _) => return Err(chunk("a chunk size is missing")),
            (State::Size { value, .. }, b'\r') => State::SizeLf { size: value },
            (State::Size { value, .. }, b';') => State::ExtensionName { size: value, seen: false },
            (State::Size { .. }, _) => return Err(chunk("a chunk size is not hexadecimal")),
            // chunk-ext = *( ";" chunk-ext-name [ "=" chunk-ext-val ] ), no whitespace taken:
            // whoever skips it differently sees another size.
            (State::ExtensionName { size, .. }, byte) if is_tchar(byte) => {
                State::ExtensionName { size, seen: true }
            }
            (State::ExtensionName { size, seen: true }, b'=') => State::ExtensionValue { size, seen: false },
            (State::ExtensionValue { size, seen: false }, b'"') => State::Quoted { size, escaped: false },
            (State::ExtensionValue { size, .. }, byte) if is_tchar(byte) => {
                State::ExtensionValue { size, seen: true }
            }
            (State::Quoted { size, escaped: false }, b'"') => State::AfterQuoted { size },
            (State::Quoted { size, escaped }, byte) if is_field_byte(byte) => {
                State::Quoted { size, escaped: !escaped && byte == b'\\' }
            }
            (
                State::ExtensionName { size, seen: true }
                | State::ExtensionValue { size, seen: true }
                | State::AfterQuoted { size },
                b';',
            ) => State::ExtensionName { size, seen: false },
            (
                State::ExtensionName { size, seen: true }
                | State::ExtensionValue { size, seen: true }
                | State::AfterQuoted { size },
                b'\r',
            ) => State::SizeLf { size },
            (
                State::ExtensionName { .. }
                | State::ExtensionValue { .. }
                | State::Quoted { .. }
                | State::AfterQuoted { .. },
                _,
            ) => return Err(chunk("a chunk extension is malformed")),
            (State::SizeLf { size }, b'\n') => after_size(size),
            (State::SizeLf { .. }, _) => return Err(chunk("a chunk line does not end in CRLF")),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => SIZE,
            (State::DataCr | State::DataLf, _) => return Err(chunk("a chunk is longer than its size")),
            (State::Length(_) | State::UntilEof | State::Data(_) | State::Trailers | State::Done, _) => {
                self.state
            }
        };
        if matches!(
            next,
            State::ExtensionName { .. }
                | State::ExtensionValue { .. }
                | State::Quoted { .. }
                | State::AfterQuoted { .. }
        ) {
            self.extensions += 1;
            if self.extensions > limits.chunk_extensions {
                return Err(Error::limit(400, "chunk_extensions", limits.chunk_extensions as u64));
            }
        }
        Ok(next)
    }
}

/// The payload of the chunk that follows one, if all of it is there, nothing is out of the ordinary
/// and it is too large to be joined.
#[inline]
fn whole_chunk(input: &[u8]) -> Option<Range<usize>> {
    let [b'\r', b'\n', rest @ ..] = input else { return None };
    let (size, line) = size_line(rest)?;
    let from = 2 + line;
    let data = from..from.checked_add(usize::try_from(size).ok()?)?;
    (size > JOIN && data.end <= input.len()).then_some(data)
}

/// Moves the payload of whole small chunks that follow behind `data`, one after the other. Behind
/// the last of them, again, the end of a chunk is awaited.
#[inline]
fn join(input: &mut [u8], used: &mut usize, data: &mut Range<usize>) {
    loop {
        let Some([b'\r', b'\n', rest @ ..]) = input.get(*used..) else { return };
        let Some((size @ 1..=JOIN, line)) = size_line(rest) else { return };
        let (from, size) = (*used + 2 + line, size as usize);
        if from + size > input.len() {
            return;
        }
        input.copy_within(from..from + size, data.end);
        data.end += size;
        *used = from + size;
    }
}

const fn after_data(left: u64) -> State {
    if left == 0 { State::DataCr } else { State::Data(left) }
}

const fn after_size(size: u64) -> State {
    if size == 0 { State::Trailers } else { State::Data(size) }
}

#[inline]
fn at_most(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// A whole size line without extensions, as nearly all are, and how long it is.
#[inline]
fn size_line(input: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0;
    for (at, &byte) in input.iter().take(17).enumerate() {
        let digit = HEX[usize::from(byte)];
        if digit == NOT_HEX {
            let ends = at > 0 && byte == b'\r' && input.get(at + 1) == Some(&b'\n');
            return ends.then_some((size, at + 2));
        }
        size = size << 4 | u64::from(digit);
    }
    None
}

const NOT_HEX: u8 = 0xff;
const HEX: [u8; 256] = {
    let mut table = [NOT_HEX; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

fn chunk(reason: &'static str) -> Error {
    bad(reason, "RFC 9112 section 7.1")
}

#[cfg(test)]
mod tests;
