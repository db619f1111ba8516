use std::{error, fmt, io};

use balrog_proto::Error as ProtoError;
use balrog_sched::Interrupt;

/// What went wrong with a request, and when.
#[derive(Debug)]
pub struct Error {
    /// When.
    pub phase: Phase,
    /// What; may carry an [`Interrupt`].
    pub source: io::Error,
    pub(crate) unanswered: bool,
}

/// A part of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The request itself is not sound; nothing more of it was sent.
    Request,
    /// Looking the name up.
    Resolve,
    /// Connecting.
    Connect,
    /// Asking a proxy for a tunnel.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// Sending the request.
    Send,
    /// Waiting for and reading the head of the response.
    Head,
    /// Reading its body.
    Body,
}

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A wait ran out of time: the client's own, or that of an enclosing scope.
    Timeout,
    /// The peer closed or reset the connection.
    Closed,
    /// The peer broke the protocol, or a limit.
    Protocol,
    /// The peer's certificate is not to be believed.
    Certificate,
    /// Anything else that the system, or TLS, reports.
    Other,
}

impl Error {
    pub(crate) const fn new(phase: Phase, source: io::Error) -> Self {
        Self { phase, source, unanswered: false }
    }

    pub(crate) fn misuse(source: balrog_proto::Misuse) -> Self {
        Self::new(Phase::Request, source.into())
    }

    /// What kind of error it is.
    pub fn kind(&self) -> Kind {
        use io::ErrorKind as Io;
        let inner = self.source.get_ref();
        let proto = inner.and_then(|inner| inner.downcast_ref());
        let tls = inner.and_then(|inner| inner.downcast_ref());
        match (self.source.kind(), proto, tls) {
            (Io::TimedOut, ..) => Kind::Timeout,
            (_, Some(ProtoError::Violation(_) | ProtoError::Limit(_)), _) => Kind::Protocol,
            (_, _, Some(rustls::Error::InvalidCertificate(_))) => Kind::Certificate,
            (Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe, ..) => {
                Kind::Closed
            }
            _ => Kind::Other,
        }
    }

    /// The interrupt that ended it, if one did.
    pub fn interrupt(&self) -> Option<Interrupt> {
        Interrupt::of(&self.source)
    }

    pub(crate) const fn is_unanswered(&self) -> bool {
        self.unanswered
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.phase {
            Phase::Request => "the request cannot be sent",
            Phase::Resolve => "the name could not be looked up",
            Phase::Connect => "could not connect",
            Phase::Proxy => "the proxy made no tunnel",
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
