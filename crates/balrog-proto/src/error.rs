use std::{error, fmt, io};

/// Why a connection ended. The first one is final, and is repeated by every later call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke the protocol. The answer, if there is one, is in the outbox.
    Violation(Violation),
    /// A named limit was hit. Answered like a violation.
    Limit(Limit),
    /// The peer closed in the middle of something.
    Eof(Phase),
    /// A named deadline passed.
    Timeout(Timer),
}

/// A rule that the peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong, for people.
    pub reason: &'static str,
    /// Where the rule stands: an RFC and its section.
    pub rule: &'static str,
    /// The HTTP status or WebSocket close code that answers it.
    pub code: u16,
}

/// A limit that the peer exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Which one: the name of its field in `Limits`.
    pub name: &'static str,
    /// Its configured value.
    pub value: u64,
    /// The HTTP status or WebSocket close code that answers it.
    pub code: u16,
}

/// Where in an exchange something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Before the first byte of a message.
    Idle,
    /// Inside a head.
    Head,
    /// Inside a body.
    Body,
    /// After the handshake, without a closing one.
    Open,
}

/// A deadline of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timer {
    /// The head was not complete in time.
    Head,
    /// The next request did not come in time.
    Idle,
    /// The body stood still, or came too slowly.
    Body,
    /// The peer did not answer a ping.
    Pong,
    /// The peer did not finish the closing handshake.
    Close,
}

/// The caller asked for something that the protocol does not allow now. Nothing was sent and
/// nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misuse(pub &'static str);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(Violation { reason, rule, .. }) => write!(f, "{reason} ({rule})"),
            Self::Limit(Limit { name, value, .. }) => write!(f, "over the limit {name} = {value}"),
            Self::Eof(Phase::Idle) => f.write_str("the connection was closed before a message"),
            Self::Eof(Phase::Head) => f.write_str("the connection was closed inside a head"),
            Self::Eof(Phase::Body) => f.write_str("the connection was closed inside a body"),
            Self::Eof(Phase::Open) => f.write_str("the connection was closed without a closing handshake"),
            Self::Timeout(Timer::Head) => f.write_str("the head did not arrive in time"),
            Self::Timeout(Timer::Idle) => f.write_str("no request arrived in time"),
            Self::Timeout(Timer::Body) => f.write_str("the body did not arrive in time"),
            Self::Timeout(Timer::Pong) => f.write_str("the peer did not answer a ping in time"),
            Self::Timeout(Timer::Close) => f.write_str("the peer did not finish closing in time"),
        }
    }
}

impl error::Error for Error {}

impl Error {
    /// The HTTP status or close code that answers it, if any does.
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::Violation(Violation { code, .. }) | Self::Limit(Limit { code, .. }) => Some(*code),
            _ => None,
        }
    }

    pub(crate) const fn violation(code: u16, reason: &'static str, rule: &'static str) -> Self {
        Self::Violation(Violation { reason, rule, code })
    }

    pub(crate) const fn limit(code: u16, name: &'static str, value: u64) -> Self {
        Self::Limit(Limit { name, value, code })
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Violation(_) | Error::Limit(_) => io::ErrorKind::InvalidData,
            Error::Eof(_) => io::ErrorKind::UnexpectedEof,
            Error::Timeout(_) => io::ErrorKind::TimedOut,
        };
        Self::new(kind, error)
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl error::Error for Misuse {}
