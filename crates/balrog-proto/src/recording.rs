use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::{Link, Machine, Transmit};

/// Writes down what goes over the wire of one connection, so that people can read it and
/// [`replay`] can play it again.
///
/// A line is the time since the beginning in seconds, what happened, and bytes as
/// [`u8::escape_ascii`] writes them: `<` they were received, `>` they were sent, `<.` the peer's
/// end was received, `!` [`Link::handle_timeout`] was called; `#` is a note. Nothing is left out:
/// a password in a message is a password in the recording.
///
/// ```
/// # use std::time::{Duration, Instant};
/// use balrog_proto::http1::{BodyLength, Limits, Server, ServerEvent};
/// use balrog_proto::{Link, Recording, Step, replay};
///
/// // Whoever moves the bytes of a connection shows them to the recording.
/// let start = Instant::now();
/// let mut recording = Recording::new(start, String::new());
/// recording.received(start + Duration::from_millis(20), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
/// recording.sent(start + Duration::from_millis(21), b"HTTP/1.1 204 \r\n\r\n")?;
/// let recorded = recording.into_inner();
/// assert_eq!(recorded.lines().nth(1), Some(r"0.021000000 > HTTP/1.1 204 \r\n\r\n"));
///
/// // The same owner sends the same bytes when the same ones come.
/// let mut link = Link::new(Server::new(Limits::default()));
/// replay(&recorded, start, &mut link, |link, now| {
///     while let Ok(Step::Event(event)) = link.poll_event(now) {
///         if let ServerEvent::End = event {
///             link.respond(204, "", &[], BodyLength::None, false).unwrap();
///             link.finish().unwrap();
///         }
///     }
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Recording<W> {
    start: Instant,
    out: W,
}

impl<W: Write> Recording<W> {
    /// A recording that goes to `out`; times count from `start`.
    pub const fn new(start: Instant, out: W) -> Self {
        Self { start, out }
    }

    /// These bytes came from the peer: at once, for how they were cut may be what matters.
    ///
    /// # Errors
    ///
    /// Those of the output, here and below.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) -> fmt::Result {
        self.line(now, "<", bytes)
    }

    /// The peer sends nothing more.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn received_eof(&mut self, now: Instant) -> fmt::Result {
        self.line(now, "<.", b"")
    }

    /// These bytes were sent to the peer.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn sent(&mut self, now: Instant, bytes: &[u8]) -> fmt::Result {
        self.line(now, ">", bytes)
    }

    /// [`Link::handle_timeout`] is called.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn timeout(&mut self, now: Instant) -> fmt::Result {
        self.line(now, "!", b"")
    }

    /// Something that a reader of the recording should know.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn note(&mut self, now: Instant, text: &str) -> fmt::Result {
        self.line(now, "#", text.as_bytes())
    }

    /// What was written.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn line(&mut self, now: Instant, what: &str, bytes: &[u8]) -> fmt::Result {
        let at = now.saturating_duration_since(self.start);
        let space = if bytes.is_empty() { "" } else { " " };
        writeln!(self.out, "{}.{:09} {what}{space}{}", at.as_secs(), at.subsec_nanos(), bytes.escape_ascii())
    }
}

/// Why a [`Recording`] could not be played to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// This line, counted from 1, is none of a recording.
    Malformed {
        /// Its number.
        line: usize,
    },
    /// Other bytes were sent than those of this line.
    Differs {
        /// Its number, counted from 1.
        line: usize,
        /// What the recording has from the first difference on.
        recorded: Vec<u8>,
        /// What the link has to send there; empty if nothing.
        sent: Vec<u8>,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { line } => write!(f, "line {line} is not a line of a recording"),
            Self::Differs { line, recorded, sent } if sent.is_empty() => {
                write!(f, "line {line}: \"{}\" was recorded, nothing is sent", recorded.escape_ascii())
            }
            Self::Differs { line, recorded, sent } => write!(
                f,
                "line {line}: \"{}\" was recorded, \"{}\" is sent",
                recorded.escape_ascii(),
                sent.escape_ascii()
            ),
        }
    }
}

impl std::error::Error for ReplayError {}

/// Plays the peer's side of a [`Recording`] to a link: the same bytes, cut alike, at the same
/// times after `start`, and compares what is sent. What is random in the machine has to be drawn
/// from the same [`Entropy`](crate::Entropy).
///
/// `owner` is called for every line, with its time: to take the events and to give commands as
/// the owner of the recorded connection did.
///
/// # Errors
///
/// A line cannot be read, or what is sent differs. More may be left to send at the end: a
/// connection may have been cut there.
pub fn replay<M: Machine>(
    recorded: &str,
    start: Instant,
    link: &mut Link<M>,
    mut owner: impl FnMut(&mut Link<M>, Instant),
) -> Result<(), ReplayError> {
    for (index, text) in recorded.lines().enumerate() {
        let line = index + 1;
        let Line { at, what } = text.parse().map_err(|()| ReplayError::Malformed { line })?;
        let now = start + at;
        match &what {
            What::Received(bytes) => link.receive(bytes),
            What::Eof => link.receive_eof(),
            // An error is said again by whatever the owner asks next.
            What::Timeout => _ = link.handle_timeout(now),
            What::Sent(_) | What::Note => {}
        }
        owner(link, now);
        if let What::Sent(bytes) = what {
            compare(link, &bytes).map_err(|(recorded, sent)| ReplayError::Differs {
                line,
                recorded,
                sent,
            })?;
        }
    }
    Ok(())
}

/// Takes what was sent out of the link; what of it the driver sends by itself can be anything.
fn compare<M: Machine>(link: &mut Link<M>, mut recorded: &[u8]) -> Result<(), (Vec<u8>, Vec<u8>)> {
    while !recorded.is_empty() {
        let n = match link.poll_transmit() {
            Some(Transmit::External(n)) => n.min(recorded.len()),
            Some(Transmit::Data(mut segments)) => {
                let segment = segments.next().unwrap_or_default();
                let common = segment.iter().zip(recorded).take_while(|(a, b)| a == b).count();
                if common < segment.len().min(recorded.len()) || segment.is_empty() {
                    return Err((recorded[common..].to_vec(), segment[common..].to_vec()));
                }
                common
            }
            Some(Transmit::Shutdown) | None => return Err((recorded.to_vec(), Vec::new())),
        };
        link.transmitted(n);
        recorded = &recorded[n..];
    }
    Ok(())
}

#[derive(Debug)]
struct Line {
    at: Duration,
    what: What,
}

#[derive(Debug)]
enum What {
    Received(Vec<u8>),
    Eof,
    Sent(Vec<u8>),
    Timeout,
    Note,
}

impl FromStr for Line {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (at, rest) = line.split_once(' ').ok_or(())?;
        let (seconds, nanos) = at.split_once('.').filter(|(_, nanos)| nanos.len() == 9).ok_or(())?;
        let at = Duration::new(seconds.parse().map_err(drop)?, nanos.parse().map_err(drop)?);
        let (what, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let what = match what {
            "<" => What::Received(unescape(text).ok_or(())?),
            ">" => What::Sent(unescape(text).ok_or(())?),
            "<." => What::Eof,
            "!" => What::Timeout,
            "#" => What::Note,
            _ => return Err(()),
        };
        Ok(Self { at, what })
    }
}

/// The bytes that [`u8::escape_ascii`] wrote.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let (escaped, behind) = match rest {
            [b't', behind @ ..] => (b'\t', behind),
            [b'r', behind @ ..] => (b'\r', behind),
            [b'n', behind @ ..] => (b'\n', behind),
            [byte @ (b'\\' | b'\'' | b'"'), behind @ ..] => (*byte, behind),
            [b'x', high, low, behind @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                ((digit(*high)? << 4 | digit(*low)?) as u8, behind)
            }
            _ => return None,
        };
        bytes.push(escaped);
        rest = behind;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_written_and_read() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&bytes.escape_ascii().to_string()), Some(bytes));
        for bad in ["\\", "\\x", "\\x1", "\\xzz", "\\a", "\\x1g"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
