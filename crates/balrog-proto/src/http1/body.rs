use std::ops::Range;

use crate::http1::Limits;
use crate::http1::grammar::{is_field_byte, is_tchar};
use crate::{Error, Phase};

/// Takes the framing of a message body apart (RFC 9112 sections 6 and 7).
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    extensions: usize,
    trailers: usize,
    fields: usize,
    limits: [usize; 3],
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
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// What [`BodyDecoder::decode`] found in its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// So many bytes of the input are used up, `data` included.
    pub used: usize,
    /// Where in the input payload stands; empty if there is none yet.
    pub data: Range<usize>,
    /// Whether the body is complete.
    pub done: bool,
}

impl BodyDecoder {
    /// A body of exactly `length` bytes.
    pub fn length(length: u64) -> Self {
        Self::new(if length == 0 { State::Done } else { State::Length(length) }, &Limits::default())
    }

    /// A chunked body.
    pub fn chunked(limits: &Limits) -> Self {
        Self::new(State::Size { digits: 0, value: 0 }, limits)
    }

    /// A response body that ends with the connection.
    pub fn until_eof() -> Self {
        Self::new(State::UntilEof, &Limits::default())
    }

    fn new(state: State, limits: &Limits) -> Self {
        let limits = [limits.chunk_extensions, limits.trailers, limits.trailer_fields];
        Self { state, extensions: 0, trailers: 0, fields: 0, limits }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes are still to come, where the framing says so.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// The connection ended here.
    ///
    /// # Errors
    ///
    /// `Eof` unless the body is complete, or was to end so.
    pub fn eof(&mut self) -> Result<(), Error> {
        match self.state {
            State::Done => Ok(()),
            State::UntilEof => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Error::Eof(Phase::Body)),
        }
    }

    /// Decodes up to the end of one piece of payload.
    ///
    /// # Errors
    ///
    /// The framing is broken or over a limit: where the body ends can no longer be told.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Error> {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            match self.state {
                State::Done => break,
                State::Length(left) | State::Data(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - used);
                    let left = left - n as u64;
                    self.state = match (self.state, left) {
                        (State::Length(_), 0) => State::Done,
                        (State::Length(_), left) => State::Length(left),
                        (_, 0) => State::DataCr,
                        (_, left) => State::Data(left),
                    };
                    return Ok(Decoded { used: used + n, data: used..used + n, done: self.is_done() });
                }
                State::UntilEof => {
                    return Ok(Decoded { used: input.len(), data: used..input.len(), done: false });
                }
                _ => self.framing(byte)?,
            }
            used += 1;
        }
        Ok(Decoded { used, data: used..used, done: self.is_done() })
    }

    /// One byte that is not payload.
    fn framing(&mut self, byte: u8) -> Result<(), Error> {
        self.count()?;
        self.state = match (self.state, byte) {
            // chunk-size = 1*HEXDIG
            (State::Size { digits, value }, byte) if byte.is_ascii_hexdigit() => {
                if digits == 16 {
                    return Err(bad("a chunk size has too many digits"));
                }
                let digit = u64::from((byte as char).to_digit(16).unwrap_or(0));
                State::Size { digits: digits + 1, value: value << 4 | digit }
            }
            (State::Size { digits: 0, .. }, _) => return Err(bad("a chunk size is missing")),
            (State::Size { value, .. }, b'\r') => State::SizeLf { size: value },
            (State::Size { value, .. }, b';') => State::ExtensionName { size: value, seen: false },
            (State::Size { .. }, _) => return Err(bad("a chunk size is not hexadecimal")),
            // chunk-ext = *( ";" chunk-ext-name [ "=" chunk-ext-val ] ), no whitespace taken
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
            ) => return Err(bad("a chunk extension is malformed")),
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => State::Data(size),
            (State::SizeLf { .. }, _) => return Err(bad("a chunk line does not end in CRLF")),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, value: 0 },
            (State::DataCr | State::DataLf, _) => return Err(bad("a chunk is longer than its size")),
            // trailer-section = *( field-line CRLF )
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, byte) if is_tchar(byte) => {
                self.fields += 1;
                if self.fields > self.limits[2] {
                    return Err(Error::limit(431, "trailer_fields", self.limits[2] as u64));
                }
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerName, byte) if is_tchar(byte) => State::TrailerName,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, byte) if is_field_byte(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf, _) => {
                return Err(bad("a trailer field is malformed"));
            }
            (State::EndLf, b'\n') => State::Done,
            (State::EndLf, _) => return Err(bad("the last chunk does not end in CRLF")),
            (State::Length(_) | State::UntilEof | State::Data(_) | State::Done, _) => self.state,
        };
        Ok(())
    }

    fn count(&mut self) -> Result<(), Error> {
        match self.state {
            State::ExtensionName { .. }
            | State::ExtensionValue { .. }
            | State::Quoted { .. }
            | State::AfterQuoted { .. } => {
                self.extensions += 1;
                if self.extensions > self.limits[0] {
                    return Err(Error::limit(400, "chunk_extensions", self.limits[0] as u64));
                }
            }
            State::TrailerName | State::TrailerValue => {
                self.trailers += 1;
                if self.trailers > self.limits[1] {
                    return Err(Error::limit(431, "trailers", self.limits[1] as u64));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn bad(reason: &'static str) -> Error {
    Error::violation(400, reason, "RFC 9112 section 7.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut BodyDecoder, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), Error> {
        let mut body = Vec::new();
        let mut left = 0;
        for piece in pieces {
            let mut input = *piece;
            loop {
                let decoded = decoder.decode(input)?;
                body.extend_from_slice(&input[decoded.data.clone()]);
                input = &input[decoded.used..];
                if decoded.done || input.is_empty() {
                    left = input.len();
                    break;
                }
            }
        }
        Ok((body, left))
    }

    const GOOD: &[u8] = b"3;x=y;q=\"a;\\\"b\"\r\nhel\r\n2\r\nlo\r\n0;e\r\nX-T: 1\r\nY: \r\n\r\n";

    #[test]
    fn every_split_gives_the_same_body() {
        for cut in 0..=GOOD.len() {
            let mut decoder = BodyDecoder::chunked(&Limits::default());
            let (body, _) = decode(&mut decoder, &[&GOOD[..cut], &GOOD[cut..]]).unwrap();
            assert_eq!(body, b"hello", "cut at {cut}");
            assert!(decoder.is_done());
        }
        let bytes: Vec<&[u8]> = GOOD.chunks(1).collect();
        let mut decoder = BodyDecoder::chunked(&Limits::default());
        assert_eq!(decode(&mut decoder, &bytes).unwrap(), (b"hello".to_vec(), 0));
    }

    #[test]
    fn what_follows_is_left() {
        let mut decoder = BodyDecoder::chunked(&Limits::default());
        let (body, left) = decode(&mut decoder, &[b"1\r\nx\r\n0\r\n\r\nGET"]).unwrap();
        assert_eq!((body.as_slice(), left), (&b"x"[..], 3));
        let mut decoder = BodyDecoder::length(2);
        assert_eq!(decode(&mut decoder, &[b"o", b"kGET"]).unwrap(), (b"ok".to_vec(), 3));
    }

    #[test]
    fn broken_framing_is_refused() {
        for bad in [
            "\r\n",
            " 5\r\n",
            "+5\r\n",
            "0x5\r\n",
            "5 \r\n",
            "5_\r\n",
            "5\n",
            "5\rX",
            "5.0\r\n",
            "-1\r\n",
            "00000000000000005\r\n",
            "5;\r\n",
            "5;=a\r\n",
            "5; a\r\n",
            "5;a=\r\n",
            "5;a=\"\n\"\r\n",
            "5;a\n",
            "1\r\nxx",
            "1\r\nx\n",
            "1\r\nx\r\r",
            "0\r\n\n",
            "0\r\nX : 1\r\n",
            "0\r\n X: 1\r\n",
            "0\r\nX\r\n",
            "0\r\nX: a\rb\r\n",
            "0\r\nX: \u{0}\r\n",
            "0\r\n\rX",
            "0\n",
        ] {
            let mut decoder = BodyDecoder::chunked(&Limits::default());
            assert!(decode(&mut decoder, &[bad.as_bytes()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_are_exact() {
        let limits = Limits::default();
        let extension = |n: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(n));
        // The CR after the extension is counted with it.
        for (n, ok) in [(limits.chunk_extensions - 1, true), (limits.chunk_extensions, false)] {
            let mut decoder = BodyDecoder::chunked(&limits);
            assert_eq!(decode(&mut decoder, &[extension(n).as_bytes()]).is_ok(), ok, "{n}");
        }
        for (n, ok) in [(limits.trailer_fields, true), (limits.trailer_fields + 1, false)] {
            let mut decoder = BodyDecoder::chunked(&limits);
            let body = format!("0\r\n{}\r\n", "a: b\r\n".repeat(n));
            assert_eq!(decode(&mut decoder, &[body.as_bytes()]).is_ok(), ok, "{n}");
        }
    }

    #[test]
    fn a_cut_body_is_an_error() {
        for cut in 0..GOOD.len() {
            let mut decoder = BodyDecoder::chunked(&Limits::default());
            decode(&mut decoder, &[&GOOD[..cut]]).unwrap();
            assert_eq!(decoder.eof(), Err(Error::Eof(Phase::Body)), "cut at {cut}");
        }
        let mut decoder = BodyDecoder::until_eof();
        assert_eq!(decode(&mut decoder, &[b"all of it"]).unwrap().0, b"all of it");
        assert_eq!(decoder.eof(), Ok(()));
    }
}
