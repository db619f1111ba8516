use std::{error, fmt, io};

use balrog_sched::Interrupt;

use super::DecodeError;
use crate::http::{self, Kind, Phase};

/// Why there is no response, or no whole one.
#[derive(Debug)]
pub struct Error {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) source: http::Error,
}

impl Error {
    pub(super) fn new(method: &str, url: &str, source: http::Error) -> Self {
        Self { method: method.to_owned(), url: url.to_owned(), source }
    }

    pub(super) fn request(method: &str, url: &str, why: impl Into<String>) -> Self {
        let why = io::Error::new(io::ErrorKind::InvalidInput, why.into());
        Self::new(method, url, http::Error::new(Phase::Request, why))
    }

    /// In which part of the exchange.
    pub const fn phase(&self) -> Phase {
        self.source.phase
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        if self.decoding().is_some() { Kind::Protocol } else { self.source.kind() }
    }

    /// The interrupt that ended it, if one did.
    pub fn interrupt(&self) -> Option<Interrupt> {
        self.source.interrupt()
    }

    /// Why the body could not be decoded, if that is it.
    pub fn decoding(&self) -> Option<&DecodeError> {
        self.source.source.get_ref()?.downcast_ref()
    }

    /// The URL that was asked for, the last one after redirects.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn cure(&self) -> &'static str {
        match (self.kind(), self.phase()) {
            (Kind::Timeout, Phase::Resolve | Phase::Connect | Phase::Tls | Phase::Proxy) => {
                " (is it the right host and port? Client::connect_timeout allows more time)"
            }
            (Kind::Timeout, _) => " (Client::read_timeout and RequestBuilder::timeout allow more time)",
            (Kind::Certificate, _) => " (Client::tls says whom to trust)",
            _ => "",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}{}", self.method, self.url, self.source, self.cure())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.source)
    }
}

/// An interrupt stays one; all else keeps its kind.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error.interrupt() {
            Some(interrupt) => interrupt.into(),
            None => Self::new(error.source.source.kind(), error),
        }
    }
}
