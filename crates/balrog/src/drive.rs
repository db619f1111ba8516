//! The one loop between a protocol's machine and a stream.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::time::Instant;

use balrog_backends::Interest;
use balrog_proto::{Link, Machine, Step};

use crate::Interrupt;
use crate::net::{AnyStream, Transport};

/// How much is read ahead of an owner who is still sending.
const AHEAD: usize = 256 * 1024;
/// Reads of so many bytes at most, into a link that gave its room back, go through a buffer of
/// the thread: most find a few hundred bytes or nothing, and room would be cleared and freed for
/// each of them.
const SMALL: usize = 16 * 1024;
/// How many pieces go out with one system call.
const SLICES: usize = 16;

/// A machine and the stream that it talks over.
///
/// The caller's own task reads and writes; there is no task behind it. Every wait can be
/// interrupted, and everything that was read or written by then is accounted for, so that the
/// caller can go on later.
#[derive(Debug)]
pub(crate) struct Connection<M> {
    pub(crate) link: Link<M>,
    pub(crate) stream: AnyStream,
}

impl<M: Machine> Connection<M> {
    pub(crate) fn new(machine: M, stream: impl Into<AnyStream>) -> Self {
        Self { link: Link::new(machine), stream: stream.into() }
    }

    /// Does what the machine asks for until `take` finds what it looks for. `hint`: how much one
    /// read takes, in bytes.
    ///
    /// `take` is given every event, and `Paused` and `Closed`; `None` means that it is not what it
    /// looks for, which after `Paused` and `Closed` is never to come: it must not say so then.
    pub(crate) fn event<T>(
        &mut self,
        hint: usize,
        mut take: impl FnMut(Step<M::Event<'_>>) -> Option<T>,
    ) -> io::Result<T> {
        enum Next<T> {
            Found(T),
            Other,
            Input,
        }
        let mut until = None;
        // One look at the clock for all events of a read.
        let mut now = Instant::now();
        loop {
            let next = self.link.poll_event(now).map(|step| match step {
                Step::NeedInput => Next::Input,
                step => take(step).map_or(Next::Other, Next::Found),
            });
            match next {
                Ok(Next::Found(found)) => return Ok(found),
                Ok(Next::Other) => {}
                Ok(Next::Input) => {
                    self.exchange(hint, &mut until)?;
                    now = Instant::now();
                }
                Err(error) => {
                    // What the machine has to say to that (400, a close frame) goes out if it can.
                    let _ = self.try_flush();
                    return Err(error.into());
                }
            }
        }
    }

    /// Sends what is in the outbox, then reads once; or reads something before all is sent, for
    /// that has to be looked at first: the peer may send much more of it before it takes the rest.
    /// `until`: how long there may be no room, from when there was none.
    fn exchange(&mut self, hint: usize, until: &mut Option<Option<Instant>>) -> io::Result<()> {
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    *until = None;
                    return sent.and_then(|()| self.fill(hint));
                }
            }
            let mut interest = Interest::Writable;
            if self.link.wants_input() {
                match self.try_fill(hint) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => interest = Interest::Both,
                    read => return read,
                }
            }
            let until = *until.get_or_insert_with(|| self.stream.timeouts().until(Interest::Writable));
            if self.wait(interest, until)? {
                return Ok(());
            }
        }
    }

    /// Sends everything that is in the outbox.
    ///
    /// Reads meanwhile, as far as the machine wants input: a peer that has to get rid of its own
    /// bytes before it takes ours must not be waited for in vain.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut until = None;
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let mut interest = Interest::Writable;
            if self.link.wants_input() && self.link.unread() < AHEAD {
                match self.try_fill(16 * 1024) {
                    Ok(()) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => interest = Interest::Both,
                    // The next read says so again, once what came before it was seen.
                    Err(_) => {}
                }
            }
            let until = *until.get_or_insert_with(|| self.stream.timeouts().until(Interest::Writable));
            self.wait(interest, until)?;
        }
    }

    /// Sends what there is room for; `WouldBlock` when something is left.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let n = self.link.segments().io_slices(&mut slices);
            if n == 0 {
                break;
            }
            let n = self.stream.try_write(&slices[..n])?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.link.transmitted(n);
        }
        self.stream.try_flush()?;
        Ok(())
    }

    /// Reads once into the link, or lets a deadline of the machine pass.
    pub(crate) fn fill(&mut self, hint: usize) -> io::Result<()> {
        let mut until = None;
        loop {
            match self.try_fill(hint) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let until = *until.get_or_insert_with(|| self.stream.timeouts().until(Interest::Readable));
            if self.wait(Interest::Readable, until)? {
                return Ok(());
            }
        }
    }

    /// Reads what is there, once; `WouldBlock` when that is nothing.
    pub(crate) fn try_fill(&mut self, hint: usize) -> io::Result<()> {
        let read = if hint <= SMALL && self.link.room() < hint {
            let link = &mut self.link;
            with_scratch(|scratch| {
                let n = self.stream.try_read(&mut scratch[..hint.max(1)])?;
                link.receive(&scratch[..n]);
                Ok(n)
            })
        } else {
            // Into the inbox itself: what is read may be much.
            let read = self.stream.try_read(self.link.recv_space(hint));
            self.link.received(*read.as_ref().unwrap_or(&0));
            read
        };
        match read {
            Ok(0) => self.link.receive_eof(),
            Ok(_) => {}
            Err(error) => {
                self.link.shrink();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits for the stream. `true`: a deadline of the machine passed, and it was told.
    fn wait(&mut self, interest: Interest, until: Option<Instant>) -> io::Result<bool> {
        let own = self.link.poll_timeout();
        let soonest = [own, until].into_iter().flatten().min();
        match self.stream.wait(interest, soonest) {
            Err(error) if Interrupt::of(&error) == Some(Interrupt::Deadline) => {
                let now = Instant::now();
                if own.is_some_and(|own| own <= now) && until.is_none_or(|until| until > now) {
                    // An enclosing deadline that passed too is met by the next wait.
                    self.link.handle_timeout(now)?;
                    return Ok(true);
                }
                Err(error)
            }
            waited => waited.map(|()| false),
        }
    }
}

/// Calls `f` with [`SMALL`] bytes of this thread's, whose contents are anybody's.
fn with_scratch<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    // Out of its cell: a second `f` inside of this one has one of its own.
    let mut scratch = SCRATCH.take();
    scratch.resize(SMALL, 0);
    let result = f(&mut scratch);
    SCRATCH.set(scratch);
    result
}
