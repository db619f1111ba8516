//! Bodies that are compressed on their way (RFC 9110 section 8.4.1).

use std::io::{self, BufRead, BufReader, Read};
use std::{error, fmt};

use ::http::HeaderMap;
use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
#[cfg(feature = "brotli")]
use brotli_decompressor::BrotliDecoderParameter;
use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use crate::http::{self, Phase};

/// For `Accept-Encoding`: what can be decoded.
pub(super) const ACCEPTED: &str =
    if cfg!(feature = "brotli") { "gzip, deflate, br" } else { "gzip, deflate" };
/// So little memory is nobody's bomb, however little it came from.
const FREE: u64 = 1 << 20;
/// What is decoded at once where all of a body is wanted.
const PIECE: usize = 16 * 1024;

/// Why a compressed body could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not what its `Content-Encoding` says, or is cut.
    Malformed(String),
    /// Decoded, it has more bytes than [`Client::decoded_limit`](super::Client::decoded_limit).
    TooLong(u64),
    /// It grows more than [`Client::decoded_ratio`](super::Client::decoded_ratio) times.
    Ratio(u32),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the compressed body is malformed: {why}"),
            Self::TooLong(limit) => {
                write!(f, "decoded, the body has more than {limit} bytes (Client::decoded_limit allows more)")
            }
            Self::Ratio(limit) => write!(
                f,
                "decoded, the body grows more than {limit} times (Client::decoded_ratio allows more)"
            ),
        }
    }
}

impl error::Error for DecodeError {}

impl From<DecodeError> for http::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(Phase::Body, io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// What a decoded body may grow to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes.
    pub(super) size: u64,
    /// Times its encoded size, from 1 MiB on.
    pub(super) ratio: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { size: 1 << 30, ratio: 200 }
    }
}

/// A body, decoded as it is read.
#[derive(Debug)]
pub(super) struct Body {
    coding: Coding,
    limits: Limits,
    decoded: u64,
    /// Said again by each further read: what was read so far must not pass for the whole.
    broken: Option<DecodeError>,
}

#[derive(Debug)]
enum Coding {
    Identity(http::Response),
    Gzip(MultiGzDecoder<Input>),
    /// The decoder is made once the first byte shows which of two formats it is.
    Deflate(Input, Option<Decompress>),
    #[cfg(feature = "brotli")]
    Brotli(Box<Brotli>),
}

type Input = BufReader<Encoded>;

#[cfg(feature = "brotli")]
struct Brotli(brotli_decompressor::Decompressor<Input>);

#[cfg(feature = "brotli")]
impl fmt::Debug for Brotli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Brotli").field(self.0.get_ref()).finish()
    }
}

/// The encoded bytes, as they come.
#[derive(Debug)]
struct Encoded {
    response: http::Response,
    taken: u64,
}

/// An error travels through the decoder, which keeps it as it is.
impl Read for Encoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece =
            self.response.read(buffer.len()).map_err(|error| io::Error::new(error.source.kind(), error))?;
        buffer[..piece.len()].copy_from_slice(&piece);
        self.taken += piece.len() as u64;
        Ok(piece.len())
    }
}

impl Body {
    /// `decode`: how far, if the client itself asked for a coding. Fields that are true of the
    /// encoded body alone are then taken out of `headers`.
    pub(super) fn new(
        method: &str,
        headers: &mut HeaderMap,
        response: http::Response,
        decode: Option<Limits>,
    ) -> Self {
        // The head of a body that is not sent is told as it is.
        let bodiless = method == "HEAD" || matches!(response.status, 204 | 304);
        let mut named = headers.get_all(CONTENT_ENCODING).iter();
        let name = match (named.next(), named.next()) {
            (Some(name), None) if decode.is_some() && !bodiless => name.to_str().unwrap_or_default(),
            _ => "",
        };
        let input = |response| BufReader::new(Encoded { response, taken: 0 });
        let coding = match &*name.trim().to_ascii_lowercase() {
            "gzip" | "x-gzip" => Coding::Gzip(MultiGzDecoder::new(input(response))),
            "deflate" => Coding::Deflate(input(response), None),
            #[cfg(feature = "brotli")]
            "br" => {
                let mut decoder = brotli_decompressor::Decompressor::new(input(response), 4096);
                // 16 MiB of window are the most (RFC 7932); a large one is up to 1 GiB.
                decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
                Coding::Brotli(Box::new(Brotli(decoder)))
            }
            _ => Coding::Identity(response),
        };
        if !matches!(coding, Coding::Identity(_)) {
            headers.remove(CONTENT_ENCODING);
            headers.remove(CONTENT_LENGTH);
        }
        Self { coding, limits: decode.unwrap_or_default(), decoded: 0, broken: None }
    }

    /// Reads what comes next into `buffer`; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, http::Error> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Coding::Identity(response) = &mut self.coding {
            let piece = response.read(buffer.len())?;
            buffer[..piece.len()].copy_from_slice(&piece);
            return Ok(piece.len());
        }
        if let Some(broken) = &self.broken {
            return Err(broken.clone().into());
        }
        let n = self.decode(buffer).map_err(|error| self.failed(error))?;
        self.decoded += n as u64;
        let Limits { size, ratio } = self.limits;
        if self.decoded > size {
            return Err(self.give_up(DecodeError::TooLong(size)));
        }
        let taken = self.coding.input().map_or(0, |input| input.get_ref().taken);
        if self.decoded > FREE && self.decoded / u64::from(ratio.max(1)) > taken {
            return Err(self.give_up(DecodeError::Ratio(ratio)));
        }
        Ok(n)
    }

    /// Reads the rest, of at most `limit` bytes.
    pub(super) fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, http::Error> {
        if let Coding::Identity(response) = &mut self.coding {
            return response.read_to_end(limit);
        }
        let mut body = Vec::new();
        loop {
            let start = body.len();
            body.resize(start + PIECE, 0);
            let n = self.read(&mut body[start..])?;
            body.truncate(start + n);
            if n == 0 {
                return Ok(body);
            }
            if body.len() > limit {
                return Err(self.give_up(DecodeError::TooLong(limit as u64)));
            }
        }
    }

    /// Reads at most `limit` bytes as they came, so that the connection can be used again.
    pub(super) fn drain(&mut self, limit: usize) {
        // Without, it is closed.
        let _ = self.coding.response().read_to_end(limit);
    }

    fn decode(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.decoded == 0
            && let Some(input) = self.coding.input()
            && input.fill_buf()?.is_empty()
            && input.get_ref().taken == 0
        {
            // Servers name a coding of nothing, too.
            return Ok(0);
        }
        let n = match &mut self.coding {
            Coding::Identity(_) => 0,
            Coding::Gzip(decoder) => decoder.read(buffer)?,
            Coding::Deflate(input, decoder) => inflate(input, decoder, buffer)?,
            #[cfg(feature = "brotli")]
            Coding::Brotli(decoder) => match decoder.0.read(buffer)? {
                // Asked once more, it tells whether it holds bytes that follow its end.
                0 => decoder.0.read(buffer)?,
                n => n,
            },
        };
        // The end of the coding is to be that of the body, whose connection is then free.
        if n == 0
            && let Some(input) = self.coding.input()
            && !input.fill_buf()?.is_empty()
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more follows its end"));
        }
        Ok(n)
    }

    fn failed(&mut self, error: io::Error) -> http::Error {
        match error.downcast::<http::Error>() {
            // The response says it again by itself.
            Ok(error) => error,
            Err(error) => self.give_up(DecodeError::Malformed(error.to_string())),
        }
    }

    fn give_up(&mut self, error: DecodeError) -> http::Error {
        self.coding.response().close();
        self.broken = Some(error.clone());
        error.into()
    }
}

impl Coding {
    fn input(&mut self) -> Option<&mut Input> {
        match self {
            Self::Identity(_) => None,
            Self::Gzip(decoder) => Some(decoder.get_mut()),
            Self::Deflate(input, _) => Some(input),
            #[cfg(feature = "brotli")]
            Self::Brotli(decoder) => Some(decoder.0.get_mut()),
        }
    }

    fn response(&mut self) -> &mut http::Response {
        match self {
            Self::Identity(response) => response,
            Self::Gzip(decoder) => &mut decoder.get_mut().get_mut().response,
            Self::Deflate(input, _) => &mut input.get_mut().response,
            #[cfg(feature = "brotli")]
            Self::Brotli(decoder) => &mut decoder.0.get_mut().get_mut().response,
        }
    }
}

/// Reads `deflate`: by the letter in zlib's format, from some servers without it. The former
/// begins with an 8 in the low half of a byte, the latter only with a stored block whose padding
/// is not the zeros that all encoders write.
fn inflate(input: &mut Input, decoder: &mut Option<Decompress>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let data = input.fill_buf()?;
        let decoder =
            decoder.get_or_insert_with(|| Decompress::new(data.first().is_some_and(|byte| byte & 0xf == 8)));
        let (taken, made) = (decoder.total_in(), decoder.total_out());
        let ended = data.is_empty();
        let status = decoder.decompress(data, buffer, FlushDecompress::None)?;
        let (taken, made) = (decoder.total_in() - taken, decoder.total_out() - made);
        input.consume(taken as usize);
        match status {
            _ if made > 0 => return Ok(made as usize),
            Status::StreamEnd => return Ok(0),
            _ if ended || taken == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}
