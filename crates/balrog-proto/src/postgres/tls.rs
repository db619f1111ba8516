use std::time::{Duration, Instant};

use crate::postgres::decode::bad;
use crate::postgres::encode::{int32, untagged};
use crate::{Error, Inbox, Interest, Machine, Outbox, Phase, Step, Timer};

/// The name of the protocol for ALPN: "the client must" offer it when it begins with TLS directly,
/// without a [`TlsRequest`] (PostgreSQL 17 and later), and must not go on if the server does not
/// choose it.
pub const ALPN: &[u8] = b"postgresql";

/// Asks a server for TLS: the first thing on a connection, before [`Frontend`](super::Frontend) or
/// [`Cancel`](super::Cancel).
///
/// ```text
///   SSLRequest -+- 'S' -> Accepted: the connection itself goes to TLS, and a new Link runs in it
///               |- 'N' -> Refused: replace(Frontend) goes on in the clear. An error if required.
///               +- anything else, or more than one byte -> an error
/// ```
///
/// After [`TlsAnswer::Accepted`] no byte is read by this link: the next one belongs to TLS.
#[derive(Debug)]
pub struct TlsRequest {
    required: bool,
    time: Option<Duration>,
    deadline: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    Asked,
    Answered,
}

/// What the server says to a [`TlsRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsAnswer {
    /// TLS can begin.
    Accepted,
    /// There is no TLS here. Somebody between may have said so: never where TLS matters.
    Refused,
}

/// "The SSL request code. The value is chosen to contain 1234 in the most significant 16 bits, and 5679
/// in the least significant 16 bits."
const CODE: u32 = (1234 << 16) | 5679;

impl TlsRequest {
    /// Asks for TLS; without it there is no connection if it is `required`. The answer must come within
    /// `time`.
    pub const fn new(required: bool, time: Option<Duration>) -> Self {
        Self { required, time, deadline: None, state: State::Begin }
    }
}

impl Machine for TlsRequest {
    type Event<'b> = TlsAnswer;

    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<TlsAnswer>, Error> {
        if self.state == State::Begin {
            if !inbox.is_empty() {
                return Err(bad("bytes came before TLS was asked for"));
            }
            self.state = State::Asked;
            self.deadline = self.time.map(|time| now + time);
            untagged(&mut outbox.tail(), |out| int32(out, CODE));
        }
        // Bytes in the clear behind the answer must not pass for bytes of the session
        // (CVE-2021-23222).
        if inbox.len() > usize::from(self.state == State::Asked) {
            return Err(bad("bytes came between the answer to SSLRequest and TLS"));
        }
        if self.state == State::Answered {
            return Ok(Step::Paused);
        }
        let answer = match inbox.bytes() {
            [] if inbox.is_eof() => return Err(Error::Eof(Phase::Head)),
            [] => return Ok(Step::NeedInput),
            b"S" => TlsAnswer::Accepted,
            b"N" if self.required => return Err(bad("TLS is required, and the server refuses it")),
            b"N" => TlsAnswer::Refused,
            // "The frontend should not display this error message to the user/application, since the
            // server has not been authenticated." (CVE-2024-10977)
            b"E" => return Err(bad("the server answers SSLRequest with an error")),
            _ => return Err(bad("the answer to SSLRequest is neither S nor N")),
        };
        inbox.discard(1);
        (self.state, self.deadline) = (State::Answered, None);
        Ok(Step::Event(answer))
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn timeout(&mut self, now: Instant, _outbox: &mut Outbox) -> Result<(), Error> {
        if self.deadline.is_some_and(|at| at <= now) { Err(Error::Timeout(Timer::Connect)) } else { Ok(()) }
    }

    fn interest(&self) -> Interest {
        Interest::read_if(self.state != State::Answered)
    }
}
