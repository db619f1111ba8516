use std::time::Instant;

use crate::{Error, Inbox, Interest, Link, Machine, Misuse, Outbox, Step};

/// Bytes both ways and nothing else: what takes over after a CONNECT, or for a protocol that is
/// none of ours.
#[derive(Debug, Default)]
pub struct Tunnel {
    used: usize,
    over: bool,
}

/// What the other end of a tunnel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEvent<'b> {
    /// It sent these bytes.
    Data(&'b [u8]),
    /// It sends nothing more; it may still read.
    End,
}

impl Machine for Tunnel {
    type Event<'b> = TunnelEvent<'b>;

    fn advance<'b>(
        &'b mut self,
        _now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<TunnelEvent<'b>>, Error> {
        inbox.discard(std::mem::take(&mut self.used));
        if !inbox.is_empty() {
            self.used = inbox.len();
            return Ok(Step::Event(TunnelEvent::Data(inbox.bytes())));
        }
        Ok(match (inbox.is_eof(), std::mem::replace(&mut self.over, inbox.is_eof())) {
            (true, false) => Step::Event(TunnelEvent::End),
            (true, true) if outbox.is_shutdown() => Step::Closed,
            (true, true) => Step::Paused,
            (false, _) => Step::NeedInput,
        })
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn timeout(&mut self, _now: Instant, _outbox: &mut Outbox) -> Result<(), Error> {
        Ok(())
    }

    fn interest(&self) -> Interest {
        Interest::read_if(!self.over)
    }

    fn bulk(&self) -> Option<u64> {
        Some(u64::MAX).filter(|_| !self.over)
    }
}

impl Link<Tunnel> {
    /// Sends bytes.
    ///
    /// # Errors
    ///
    /// `Misuse` after [`Link::shut`].
    pub fn send(&mut self, data: &[u8]) -> Result<(), Misuse> {
        if self.outbox.is_shutdown() {
            return Err(Misuse("this side of the tunnel is shut"));
        }
        self.outbox.push(data);
        Ok(())
    }

    /// Sends nothing more. What the other end sends still comes.
    pub fn shut(&mut self) {
        self.outbox.shutdown();
    }
}
