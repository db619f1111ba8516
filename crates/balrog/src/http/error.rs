use std::{error, fmt, io};

use balrog_sched::Interrupt;

/// What went wrong with a request, and when.
#[derive(Debug)]
pub struct Error {
    /// When.
    pub phase: Phase,
    /// What; may carry an [`Interrupt`].
    pub source: io::Error,
    /// Whether a wait of the client itself ran out, not one of the caller's scopes.
    pub timed_out: bool,
    pub(crate) unanswered: bool,
}

/// A part of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The request itself is not sound; nothing was sent.
    Request,
    /// Name look-up and connecting.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request.
    Send,
    /// Waiting for and reading the head of the response.
    Head,
    /// Reading its body.
    Body,
}

impl Error {
    pub(crate) fn new(phase: Phase, source: io::Error) -> Self {
        let timed_out = source.kind() == io::ErrorKind::TimedOut;
        Self { phase, source, timed_out, unanswered: false }
    }

    pub(crate) fn misuse(source: balrog_proto::Misuse) -> Self {
        Self::new(Phase::Request, io::Error::new(io::ErrorKind::InvalidInput, source))
    }

    /// The interrupt that ended it, if one did.
    pub fn interrupt(&self) -> Option<Interrupt> {
        Interrupt::of(&self.source)
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        self.unanswered && self.interrupt().is_none()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.phase {
            Phase::Request => "the request cannot be sent",
            Phase::Connect => "could not connect",
            Phase::Tls => "the TLS handshake failed",
            Phase::Send => "the connection broke while the request was sent",
            Phase::Head => "no response",
            Phase::Body => "the response broke off",
        };
        write!(f, "{when}: {}", self.source)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.source)
    }
}
