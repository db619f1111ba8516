use std::io::{self, Read};
use std::time::Instant;

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use balrog_sched::with_deadline;

use super::Error;
use super::decode::{Body, Limits};
use crate::http::{self, Phase};

/// How much [`Response::text`] and its like take.
const MOST: usize = 64 << 20;
/// What is read of a response that redirects, to keep its connection.
const DRAIN: usize = 64 * 1024;

/// A response; its body is read from it as it comes, and decoded if it came compressed.
#[derive(Debug)]
pub struct Response {
    method: String,
    url: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    deadline: Option<Instant>,
}

impl Response {
    pub(super) fn new(
        method: &str,
        url: String,
        mut inner: http::Response,
        decode: Option<Limits>,
        deadline: Option<Instant>,
    ) -> Self {
        let fields = std::mem::take(&mut inner.headers);
        let mut headers = HeaderMap::with_capacity(fields.len());
        for (name, value) in fields {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        // The machine takes 100 to 999, as this type does.
        let status = StatusCode::from_u16(inner.status).unwrap_or_default();
        let body = Body::new(method, &mut headers, inner, decode);
        Self { method: method.to_owned(), url, status, headers, body, deadline }
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields. Where the body is decoded, without its `Content-Encoding` and `Content-Length`.
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Where it came from, after redirects.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Itself, if its status is below 400.
    ///
    /// # Errors
    ///
    /// An [`Error`] that tells the status.
    pub fn ok(self) -> Result<Self, Error> {
        if self.status.as_u16() < 400 {
            return Ok(self);
        }
        let why = io::Error::other(format!("the server answered {}", self.status));
        Err(self.error(http::Error::new(Phase::Head, why)))
    }

    /// The body, of at most 64 MiB once it is decoded.
    ///
    /// # Errors
    ///
    /// When it is longer, is cut, does not come in time, or cannot be decoded
    /// ([`Error::decoding`](super::Error::decoding)).
    pub fn bytes(mut self) -> Result<Vec<u8>, Error> {
        self.within(|body| body.read_to_end(MOST))
    }

    /// The body as text in UTF-8; what is not becomes U+FFFD.
    ///
    /// # Errors
    ///
    /// As [`Response::bytes`].
    pub fn text(self) -> Result<String, Error> {
        let bytes = self.bytes()?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    ///
    /// As [`Response::bytes`], and when it is not what was asked for.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(mut self) -> Result<T, Error> {
        let bytes = self.within(|body| body.read_to_end(MOST))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.error(http::Error::new(Phase::Body, io::Error::from(error))))
    }

    /// Reads a little that nobody wants, so that the connection can be used again.
    pub(super) fn drain(&mut self) {
        self.body.drain(DRAIN);
    }

    fn within<T>(&mut self, f: impl FnOnce(&mut Body) -> Result<T, http::Error>) -> Result<T, Error> {
        let result = match self.deadline {
            Some(deadline) => with_deadline(deadline, || f(&mut self.body)),
            None => f(&mut self.body),
        };
        result.map_err(|error| self.error(error))
    }

    fn error(&self, source: http::Error) -> Error {
        Error::new(&self.method, &self.url, source)
    }
}

/// A body that is cut or malformed is an error, and never passed off as a shorter one.
impl Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.within(|body| body.read(buffer))?)
    }
}
