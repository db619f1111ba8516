use std::time::{Duration, Instant};

use crate::postgres::decode::bad;
use crate::postgres::encode::{int32, untagged};
use crate::postgres::session::CancelKey;
use crate::{Error, Inbox, Interest, Machine, Outbox, Step, Timer};

/// A cancel request, over a connection of its own to the same server, with TLS if the session has it.
///
/// It is over, as [`Step::Closed`], when the server closes that connection: then the request has been
/// processed. Whether it cancelled anything only the session's own link tells: the running statement
/// ends with SQLSTATE 57014, or as if nothing had been.
///
/// ```
/// use balrog_proto::postgres::{Cancel, CancelKey};
/// use balrog_proto::{Link, Step};
/// use std::time::{Duration, Instant};
///
/// let now = Instant::now();
/// let key = CancelKey::new(4711, &[1, 2, 3, 4])?;
/// let mut link = Link::new(Cancel::new(key, Some(Duration::from_secs(5))));
/// assert_eq!(link.poll_event(now)?, Step::NeedInput);
/// assert_eq!(link.transmit(), Some(&b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x12\x67\x01\x02\x03\x04"[..]));
/// link.transmitted(16);
/// link.receive_eof();
/// assert_eq!(link.poll_event(now)?, Step::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Cancel {
    key: CancelKey,
    time: Option<Duration>,
    deadline: Option<Instant>,
    sent: bool,
    over: bool,
}

/// "The cancel request code. The value is chosen to contain 1234 in the most significant 16 bits, and
/// 5678 in the least significant 16 bits."
const CODE: u32 = (1234 << 16) | 5678;

impl Cancel {
    /// A request that is over after `time` at the latest.
    pub const fn new(key: CancelKey, time: Option<Duration>) -> Self {
        Self { key, time, deadline: None, sent: false, over: false }
    }
}

impl Machine for Cancel {
    /// There are none.
    type Event<'b> = std::convert::Infallible;

    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<Self::Event<'b>>, Error> {
        if !self.sent {
            self.sent = true;
            self.deadline = self.time.map(|time| now + time);
            // CancelRequest: Int32 code, Int32 process, Byten secret
            untagged(&mut outbox.tail(), |out| {
                int32(out, CODE);
                out.extend_from_slice(&self.key.process().to_be_bytes());
                out.extend_from_slice(self.key.secret());
            });
        }
        // "No direct reply is made to the cancel request message."
        if !inbox.is_empty() {
            return Err(bad("the server answered a cancel request"));
        }
        if inbox.is_eof() {
            self.over = true;
            outbox.shutdown();
            return Ok(Step::Closed);
        }
        Ok(Step::NeedInput)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| !self.over)
    }

    fn timeout(&mut self, now: Instant, _outbox: &mut Outbox) -> Result<(), Error> {
        if self.deadline().is_some_and(|at| at <= now) { Err(Error::Timeout(Timer::Query)) } else { Ok(()) }
    }

    fn interest(&self) -> Interest {
        Interest::read_if(!self.over)
    }
}
