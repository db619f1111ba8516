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
    /// Where the rule stands.
    pub rule: Rule,
    /// The HTTP status or WebSocket close code that answers it; 0 if nothing does.
    pub code: u16,
}

/// Where a rule stands, in little room: made from a text as `"RFC 9112 section 2.2"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// A section of an RFC, its numbers from the left; 0 where there are no more.
    Rfc(u16, [u8; 3]),
    /// The chapter "Frontend/Backend Protocol" of PostgreSQL's documentation.
    Postgres,
}

/// A limit that the peer exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Which one: the name of its field in `Limits`.
    pub name: &'static str,
    /// Its configured value; `u32::MAX` stands for more, too.
    pub value: u32,
    /// The HTTP status or WebSocket close code that answers it; 0 if nothing does.
    pub code: u16,
}

/// Where in an exchange something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Before a byte of our own request had been handed over: the peer cannot have acted on it.
    Unsent,
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
    /// What nobody wanted of a body or a result was not over in time.
    Drain,
    /// The peer did not answer a ping.
    Pong,
    /// The peer did not finish the closing handshake.
    Close,
    /// The log-in was not complete in time.
    Connect,
    /// A query did not end, not even cancelled.
    Query,
}

/// The caller asked for something that the protocol does not allow now. Nothing was sent and
/// nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misuse(pub &'static str);

impl Error {
    /// The HTTP status or close code that answers it, if any does.
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::Violation(Violation { code: 0, .. }) | Self::Limit(Limit { code: 0, .. }) => None,
            Self::Violation(Violation { code, .. }) | Self::Limit(Limit { code, .. }) => Some(*code),
            Self::Eof(_) | Self::Timeout(_) => None,
        }
    }

    /// Whether the request can be sent again on another connection, whatever its method:
    /// not a byte of it was handed to the peer.
    pub const fn safe_to_retry(&self) -> bool {
        matches!(self, Self::Eof(Phase::Unsent))
    }

    /// The status with which an HTTP server answers it, if it does.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Timeout(Timer::Head | Timer::Body) => Some(408),
            error => error.code(),
        }
    }

    #[cold]
    pub(crate) fn violation(code: u16, reason: &'static str, rule: &str) -> Self {
        Self::Violation(Violation { reason, rule: Rule::from(rule), code })
    }

    #[cold]
    pub(crate) fn limit(code: u16, name: &'static str, value: u64) -> Self {
        Self::Limit(Limit { name, value: u32::try_from(value).unwrap_or(u32::MAX), code })
    }
}

impl From<&str> for Rule {
    fn from(text: &str) -> Self {
        let Some(rest) = text.strip_prefix("RFC ") else { return Self::Postgres };
        let (number, section) = rest.split_once(" section ").unwrap_or((rest, ""));
        let mut numbers = section.split('.').map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self::Rfc(number.parse().unwrap_or(0), [next(), next(), next()])
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rfc(number, section) => {
                write!(f, "RFC {number}")?;
                for (index, part) in section.iter().take_while(|part| **part > 0).enumerate() {
                    write!(f, "{}{part}", if index == 0 { " section " } else { "." })?;
                }
                Ok(())
            }
            Self::Postgres => f.write_str("PostgreSQL's frontend/backend protocol"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Violation(Violation { reason, rule, .. }) => return write!(f, "{reason} ({rule})"),
            Self::Limit(Limit { name, value, .. }) => return write!(f, "over the limit {name} = {value}"),
            Self::Eof(Phase::Unsent) => "the connection was closed before the request was sent",
            Self::Eof(Phase::Idle) => "the connection was closed before a message",
            Self::Eof(Phase::Head) => "the connection was closed inside a head",
            Self::Eof(Phase::Body) => "the connection was closed inside a body",
            Self::Eof(Phase::Open) => "the connection was closed without a closing handshake",
            Self::Timeout(Timer::Head) => "the head did not arrive in time",
            Self::Timeout(Timer::Idle) => "no request arrived in time",
            Self::Timeout(Timer::Body) => "the body did not arrive in time",
            Self::Timeout(Timer::Drain) => "the rest of what nobody wanted did not arrive in time",
            Self::Timeout(Timer::Pong) => "the peer did not answer a ping in time",
            Self::Timeout(Timer::Close) => "the peer did not finish closing in time",
            Self::Timeout(Timer::Connect) => "the log-in was not complete in time",
            Self::Timeout(Timer::Query) => "the query did not end in time",
        })
    }
}

impl error::Error for Error {}

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

impl From<Misuse> for io::Error {
    fn from(misuse: Misuse) -> Self {
        Self::new(io::ErrorKind::InvalidInput, misuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small_enough_to_be_returned_by_value() {
        assert!(size_of::<Error>() <= 32, "{}", size_of::<Error>());
        assert!(size_of::<Result<(), Error>>() <= 32);
    }

    #[test]
    fn a_rule_says_where_it_stands() {
        for text in ["RFC 9112 section 2.2", "RFC 9110 section 15.5.22", "RFC 9112 section 3", "RFC 7692"] {
            assert_eq!(Rule::from(text).to_string(), text);
        }
        assert_eq!(
            Error::violation(400, "a header line is folded", "RFC 9112 section 5.2").to_string(),
            "a header line is folded (RFC 9112 section 5.2)"
        );
    }

    #[test]
    fn each_class_has_its_kind_of_io_error() {
        let kind = |error: Error| io::Error::from(error).kind();
        assert_eq!(kind(Error::violation(400, "x", "RFC 9112")), io::ErrorKind::InvalidData);
        assert_eq!(kind(Error::limit(431, "head", u64::MAX)), io::ErrorKind::InvalidData);
        assert_eq!(kind(Error::Eof(Phase::Body)), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(Error::Timeout(Timer::Idle)), io::ErrorKind::TimedOut);
        assert_eq!(io::Error::from(Misuse("x")).kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn only_what_was_never_sent_is_safe_to_retry() {
        assert!(Error::Eof(Phase::Unsent).safe_to_retry());
        for phase in [Phase::Idle, Phase::Head, Phase::Body, Phase::Open] {
            assert!(!Error::Eof(phase).safe_to_retry());
        }
        assert!(!Error::Timeout(Timer::Head).safe_to_retry());
        assert_eq!(Error::violation(0, "x", "RFC 9112").code(), None);
        assert_eq!(Error::limit(431, "head", 1).code(), Some(431));
    }
}
