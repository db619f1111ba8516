use std::io::IoSlice;
use std::time::Instant;

use crate::{Error, Inbox, Outbox, buffer::Segments};

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

    /// Whether a glance tells that [`Machine::advance`] would only need more input. Saying no is
    /// always right.
    #[inline]
    fn glance(&mut self, now: Instant, inbox: &Inbox) -> bool {
        let _ = (now, inbox);
        false
    }

    /// When [`Machine::timeout`] is to be called.
    fn deadline(&self) -> Option<Instant>;

    /// The deadline has passed, or may have.
    ///
    /// # Errors
    ///
    /// The connection is over: whatever was to happen did not happen in time.
    fn timeout(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Error>;

    /// [`Interest::READ`] if bytes from the peer are wanted now, [`Interest::NONE`] while the
    /// machine waits for its owner and when it is done. (Writing is the [`Link`]'s to know.)
    fn interest(&self) -> Interest;

    /// So many of the next bytes from the peer are payload and nothing else.
    fn bulk(&self) -> Option<u64> {
        None
    }

    /// `n` bytes of what [`Machine::bulk`] announced went to the owner without passing through
    /// the inbox. At most as many as were announced.
    fn bulk_received(&mut self, now: Instant, n: u64) {
        let _ = (now, n);
    }

    /// Gives back storage that holds nothing: nothing may happen for long.
    fn shrink(&mut self) {}

    /// How many bytes at the front of the inbox the last event borrowed: used up, and to be
    /// discarded at the next step.
    fn borrowed(&self) -> usize {
        0
    }
}

/// What a driver should wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Bytes from the peer are wanted.
    pub read: bool,
    /// There are bytes for the peer.
    pub write: bool,
}

impl Interest {
    /// Nothing but the time, or a command of the owner.
    pub const NONE: Self = Self { read: false, write: false };
    /// Bytes from the peer.
    pub const READ: Self = Self { read: true, write: false };
    /// Room for bytes to the peer.
    pub const WRITE: Self = Self { read: false, write: true };

    /// [`Interest::READ`] or [`Interest::NONE`].
    pub const fn read_if(wanted: bool) -> Self {
        Self { read: wanted, write: false }
    }
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

/// What [`Link::poll_transmit`] wants done next.
#[derive(Debug, Clone)]
pub enum Transmit<'a> {
    /// Send these bytes, in order, as many as go; then [`Link::transmitted`].
    Data(Segments<'a>),
    /// Send so many bytes that only the driver has (`sendfile`); then [`Link::transmitted`].
    External(usize),
    /// Shut the sending side down: the peer is to see the end. Said once.
    Shutdown,
}

impl<'a> Segments<'a> {
    /// Fills `slices` for one vectored write, and returns how many there are.
    pub fn io_slices(self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, segment) in slices.iter_mut().zip(self) {
            *slot = IoSlice::new(segment);
            n += 1;
        }
        n
    }
}

/// A machine with its buffers: all that a driver sees of a protocol.
///
/// After any input or command: [`Link::poll_event`] until it gives no event, then do what
/// [`Link::poll_transmit`] says, then wait for what [`Link::interest`] says, until
/// [`Link::poll_timeout`].
#[derive(Debug)]
pub struct Link<M> {
    pub(crate) machine: M,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    failed: Option<Box<Error>>,
    /// Whether the driver was told to shut the sending side down.
    half_closed: bool,
    /// Whether there may be events that nobody has asked for.
    #[cfg(debug_assertions)]
    pending: bool,
}

impl<M: Machine> Link<M> {
    /// A link with empty buffers.
    pub fn new(machine: M) -> Self {
        Self {
            machine,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            failed: None,
            half_closed: false,
            #[cfg(debug_assertions)]
            pending: false,
        }
    }

    /// Bytes came from the peer. After an error they are dropped.
    #[inline]
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.inbox.push(bytes);
            self.set_pending(true);
        }
    }

    /// Room to read into: `hint` bytes, or 64 KiB if that is less. Saves the copy that
    /// [`Link::receive`] makes; then [`Link::received`] says how many came.
    pub fn recv_space(&mut self, hint: usize) -> &mut [u8] {
        self.inbox.space(hint)
    }

    /// So many bytes [`Link::recv_space`] gives at least with nothing allocated or cleared for them.
    pub const fn room(&self) -> usize {
        self.inbox.room()
    }

    /// So many bytes were read into [`Link::recv_space`]; 0 gives the room back.
    pub fn received(&mut self, n: usize) {
        self.inbox.received(n);
        self.set_pending(n > 0);
    }

    /// The peer sends nothing more.
    pub fn receive_eof(&mut self) {
        self.inbox.set_eof();
        self.set_pending(true);
    }

    /// So many of the next bytes are payload and nothing else, and none of them has been read
    /// yet: a driver may read up to as many straight into its caller's buffer, and say so by
    /// [`Link::bulk_received`]. Takes the place of payload events.
    pub fn bulk(&self) -> Option<u64> {
        if self.failed.is_none() && self.inbox.is_empty() { self.machine.bulk() } else { None }
    }

    /// `n` bytes of what [`Link::bulk`] announced were read. More than were announced count
    /// as that many.
    pub fn bulk_received(&mut self, now: Instant, n: usize) {
        let n = self.bulk().unwrap_or(0).min(n as u64);
        self.machine.bulk_received(now, n);
        self.inbox.passed(n);
        self.set_pending(true);
    }

    /// The next event.
    ///
    /// # Errors
    ///
    /// The connection is over. What answers the error is in the outbox.
    #[inline]
    pub fn poll_event(&mut self, now: Instant) -> Result<Step<M::Event<'_>>, Error> {
        if self.machine.glance(now, &self.inbox) {
            #[cfg(debug_assertions)]
            {
                self.pending = false;
            }
            return Ok(Step::NeedInput);
        }
        self.advance(now)
    }

    fn advance(&mut self, now: Instant) -> Result<Step<M::Event<'_>>, Error> {
        if let Some(error) = &self.failed {
            return Err(**error);
        }
        let result = self.machine.advance(now, &mut self.inbox, &mut self.outbox);
        #[cfg(debug_assertions)]
        {
            self.pending = matches!(result, Ok(Step::Event(_)));
        }
        if let Err(error) = result {
            self.failed = Some(Box::new(error));
        }
        result
    }

    /// What to do for the peer next; `None` when everything is done.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        if let Some(n) = self.outbox.external() {
            return Some(Transmit::External(n));
        }
        if !self.outbox.is_empty() {
            return Some(Transmit::Data(self.outbox.segments()));
        }
        let shutdown = self.outbox.is_shutdown() && !self.half_closed;
        self.half_closed |= shutdown;
        shutdown.then_some(Transmit::Shutdown)
    }

    /// The bytes to send next, for a driver that neither gathers nor sends files.
    #[inline]
    pub fn transmit(&self) -> Option<&[u8]> {
        self.outbox.front()
    }

    /// All bytes to send, in segments.
    pub fn segments(&self) -> Segments<'_> {
        self.outbox.segments()
    }

    /// So many bytes were sent.
    pub fn transmitted(&mut self, n: usize) {
        self.outbox.sent(n);
    }

    /// How many bytes were sent so far.
    pub const fn sent(&self) -> u64 {
        self.outbox.position()
    }

    /// How many bytes wait to be sent.
    pub const fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// Whether so much waits to be sent that commands should hold back: true from 256 KiB on,
    /// until less than 64 KiB are left.
    pub const fn is_congested(&self) -> bool {
        self.outbox.is_full()
    }

    /// Sets the marks of [`Link::is_congested`], in bytes.
    pub fn set_water(&mut self, low: usize, high: usize) {
        self.outbox.set_water(low, high);
    }

    /// Whether the sending side is to be shut down once everything is sent.
    pub const fn is_shutdown(&self) -> bool {
        self.outbox.is_shutdown()
    }

    /// Bytes received and not used up yet.
    pub fn unread(&self) -> usize {
        self.inbox.len().saturating_sub(self.machine.borrowed())
    }

    /// The same bytes: after an error, from where the message began that it is about.
    pub fn unread_bytes(&self) -> &[u8] {
        self.inbox.bytes().get(self.machine.borrowed()..).unwrap_or_default()
    }

    /// How many bytes of the peer's were used up since the connection began: after an error,
    /// where the message began that it is about.
    pub const fn position(&self) -> u64 {
        self.inbox.position()
    }

    /// Whether the peer closed its side.
    pub const fn is_eof(&self) -> bool {
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
        if let Some(error) = &self.failed {
            return Err(**error);
        }
        let result = self.machine.timeout(now, &mut self.outbox);
        if let Err(error) = result {
            self.failed = Some(Box::new(error));
        }
        result
    }

    /// What to wait for. [`Interest::NONE`] without a deadline: the connection is over, or the
    /// machine waits for a command.
    ///
    /// # Panics
    ///
    /// In debug builds, if there may be events that were not asked for: who waits then may
    /// wait for ever.
    pub fn interest(&self) -> Interest {
        #[cfg(debug_assertions)]
        assert!(!self.pending, "ask poll_event until it gives no event, then wait");
        Interest { read: self.wants_input(), write: !self.outbox.is_empty() }
    }

    /// Whether to read from the peer now.
    pub fn wants_input(&self) -> bool {
        self.failed.is_none() && !self.inbox.is_eof() && self.machine.interest().read
    }

    /// Gives back the storage of empty buffers. For a driver that begins to wait: an idle
    /// connection then holds the struct only. While messages follow each other, a little stays
    /// for the next one.
    pub fn shrink(&mut self) {
        self.inbox.shrink();
        self.outbox.shrink();
        self.machine.shrink();
    }

    /// The machine's own state.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// Another protocol takes over: what was received and not used travels on, and what is to
    /// be sent is sent first.
    pub fn replace<N: Machine>(mut self, machine: N) -> Link<N> {
        self.inbox.discard(self.machine.borrowed());
        Link {
            machine,
            inbox: self.inbox,
            outbox: self.outbox,
            failed: None,
            half_closed: self.half_closed,
            #[cfg(debug_assertions)]
            pending: true,
        }
    }

    /// A command may have let further events happen.
    pub(crate) fn changed(&mut self) {
        self.set_pending(!self.inbox.is_empty());
    }

    #[inline]
    fn set_pending(&mut self, pending: bool) {
        #[cfg(debug_assertions)]
        {
            self.pending |= pending;
        }
        let _ = pending;
    }

    /// Heap storage that the link itself holds.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        self.inbox.capacity() + self.outbox.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{BodyLength, Limits, Server};

    #[test]
    fn an_idle_link_holds_little() {
        let now = Instant::now();
        let mut link = Link::new(Server::new(Limits::default()));
        for fields in [1, 16, 90] {
            let fields = "X-Field: value\r\n".repeat(fields);
            link.receive(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
            while let Step::Event(_) = link.poll_event(now).unwrap() {}
            link.respond(200, "OK", &[], BodyLength::Length(100_000), false).unwrap();
            link.body(&[0; 100_000]).unwrap();
            link.finish().unwrap();
            assert!(matches!(link.poll_event(now), Ok(Step::NeedInput)));
            link.transmitted(link.unsent());
            assert!(size_of::<Link<Server>>() + link.heap() + link.machine().heap() <= 3 * 1024);
            link.shrink();
            let held = size_of::<Link<Server>>() + link.heap() + link.machine().heap();
            assert!(held <= 512, "{held} bytes");
        }
    }

    #[test]
    fn a_driver_is_told_what_to_send_in_order_and_to_shut_down_once() {
        let mut link = Link::new(Server::new(Limits::default()));
        link.outbox.push(b"head");
        link.outbox.push_external(7);
        link.outbox.push(b"tail");
        link.outbox.shutdown();
        let mut slices = [IoSlice::new(b""); 4];
        let Some(Transmit::Data(segments)) = link.poll_transmit() else { panic!("the head comes first") };
        assert_eq!(segments.io_slices(&mut slices), 1);
        assert_eq!(&*slices[0], b"head");
        link.transmitted(4);
        assert!(matches!(link.poll_transmit(), Some(Transmit::External(7))));
        link.transmitted(3);
        assert!(matches!(link.poll_transmit(), Some(Transmit::External(4))));
        link.transmitted(4);
        assert!(matches!(link.poll_transmit(), Some(Transmit::Data(_))));
        link.transmitted(4);
        assert!(matches!(link.poll_transmit(), Some(Transmit::Shutdown)));
        assert!(link.poll_transmit().is_none());
    }

    #[test]
    #[should_panic(expected = "poll_event")]
    #[cfg(debug_assertions)]
    fn waiting_over_events_that_nobody_took_is_a_bug() {
        let mut link = Link::new(Server::new(Limits::default()));
        link.receive(b"GET");
        let _ = link.interest();
    }
}
