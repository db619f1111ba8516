use std::time::Instant;

use crate::{Error, Inbox, Outbox};

/// A protocol, with no buffer, socket, clock or randomness of its own.
pub trait Machine {
    /// What the peer did. May borrow from the inbox and the machine.
    type Event<'b>
    where
        Self: 'b;

    /// Takes the next event out of `inbox` and writes any answer into `outbox`.
    ///
    /// # Errors
    ///
    /// The connection is over. Called again, it returns the same error.
    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<Self::Event<'b>>, Error>;

    /// When [`Machine::timeout`] is to be called.
    fn deadline(&self) -> Option<Instant>;

    /// The deadline has passed, or may have.
    ///
    /// # Errors
    ///
    /// The connection is over: whatever was to happen did not happen in time.
    fn timeout(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Error>;

    /// Whether bytes from the peer are wanted now.
    fn wants_input(&self) -> bool;
}

/// What [`Link::poll_event`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<E> {
    /// The peer did this.
    Event(E),
    /// More bytes are needed.
    NeedInput,
    /// The machine waits for a command of its owner, a response for example.
    Paused,
    /// The connection is over; send what is left in the outbox and close.
    Closed,
}

/// A machine with its buffers: all that a driver sees of a protocol.
///
/// After any input or command: [`Link::poll_event`] until it gives no event, send what
/// [`Link::transmit`] gives, then wait for readiness until [`Link::poll_timeout`].
#[derive(Debug)]
pub struct Link<M> {
    pub(crate) machine: M,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    failed: Option<Error>,
}

impl<M: Machine> Link<M> {
    /// A link with empty buffers.
    pub fn new(machine: M) -> Self {
        Self { machine, inbox: Inbox::default(), outbox: Outbox::default(), failed: None }
    }

    /// Bytes came from the peer.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.inbox.push(bytes);
        }
    }

    /// The peer sends nothing more.
    pub fn receive_eof(&mut self) {
        self.inbox.set_eof();
    }

    /// The next event.
    ///
    /// # Errors
    ///
    /// The connection is over. What answers the error is in the outbox.
    pub fn poll_event(&mut self, now: Instant) -> Result<Step<M::Event<'_>>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.machine.advance(now, &mut self.inbox, &mut self.outbox);
        if let Err(error) = result {
            self.failed = Some(error);
        }
        result
    }

    /// Bytes to send next.
    pub fn transmit(&self) -> Option<&[u8]> {
        self.outbox.front()
    }

    /// All bytes to send, in segments.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.outbox.segments()
    }

    /// So many bytes were sent.
    pub fn transmitted(&mut self, n: usize) {
        self.outbox.sent(n);
    }

    /// How many bytes wait to be sent.
    pub fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// Whether the sending side is to be shut down once everything is sent.
    pub fn is_shutdown(&self) -> bool {
        self.outbox.is_shutdown()
    }

    /// Bytes received and not used up yet.
    pub fn unread(&self) -> usize {
        self.inbox.len()
    }

    /// Whether the peer closed its side.
    pub fn is_eof(&self) -> bool {
        self.inbox.is_eof()
    }

    /// When [`Link::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.failed.is_some() { None } else { self.machine.deadline() }
    }

    /// Tells the machine the time.
    ///
    /// # Errors
    ///
    /// The connection is over: a deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.machine.timeout(now, &mut self.outbox);
        if let Err(error) = result {
            self.failed = Some(error);
        }
        result
    }

    /// Whether to read from the peer now.
    pub fn wants_input(&self) -> bool {
        self.failed.is_none() && !self.inbox.is_eof() && self.machine.wants_input()
    }

    /// The machine's own state.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// Another protocol takes over: what was received and not used travels on, and what is to
    /// be sent is sent first.
    pub fn replace<N: Machine>(self, machine: N) -> Link<N> {
        Link { machine, inbox: self.inbox, outbox: self.outbox, failed: None }
    }
}
