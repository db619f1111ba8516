use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::Timespec;

use crate::Interest;

/// How many events one poll takes at most.
const EVENTS: usize = 256;

/// Our own readiness loop on `epoll(7)`, for one thread.
///
/// Descriptors come in two kinds. A *source* is ours, stays registered edge-triggered until it
/// is removed and reports under its key `S`. Any other descriptor is watched for one wait at a
/// time (`EPOLLONESHOT`, level-triggered), because libraries close and reopen theirs as they
/// like (libpq does while it connects). `W` names a waiter; a source can be waited on as well.
pub struct Reactor<W, S> {
    epoll: OwnedFd,
    notifier: Notifier,
    /// Indexed by descriptor, which the kernel keeps small.
    entries: Vec<Entry<W, S>>,
    /// What the last poll found: the user data and the flags of each event.
    events: Vec<(u64, EventFlags)>,
}

#[derive(Debug)]
struct Entry<W, S> {
    /// Tells events of this use of the descriptor number from those of an earlier one.
    generation: u32,
    source: Option<S>,
    reader: Option<W>,
    writer: Option<W>,
    /// The kernel may still know this descriptor from an earlier one-shot wait.
    known: bool,
}

impl<W, S> Default for Entry<W, S> {
    fn default() -> Self {
        Self { generation: 0, source: None, reader: None, writer: None, known: false }
    }
}

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// A read would not block: bytes, end of file or an error.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
    /// The peer shut down its sending side, or the connection is gone.
    pub hangup: bool,
}

/// What a poll found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready<W, S> {
    /// This waiter's descriptor is ready.
    Waiter(W),
    /// This source is ready.
    Source(S, Readiness),
}

/// Ends the poll of a [`Reactor`] from any thread.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<OwnedFd>);

impl Notifier {
    /// Makes the current poll, or else the next one, return at once.
    pub fn notify(&self) {
        // A full counter (`EAGAIN`) notifies as well as a higher one.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn drain(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }
}

const NOTIFIER: u64 = u64::MAX;

impl<W: Copy + PartialEq, S: Copy> Reactor<W, S> {
    /// A reactor that watches nothing.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &*event, EventData::new_u64(NOTIFIER), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, notifier: Notifier(event), entries: Vec::new(), events: Vec::with_capacity(EVENTS) })
    }

    /// What other threads interrupt a poll with.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// Reports `waiter` once, as soon as `fd` is ready for `interest`, or now and then before.
    ///
    /// On a source, call it only after a system call said `WouldBlock`: its readiness is an edge.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when another waits for the same direction of `fd`: one of them would
    /// read the other's bytes. `PermissionDenied` for a descriptor that is always ready, such
    /// as a file.
    pub fn wait(&mut self, fd: BorrowedFd<'_>, interest: Interest, waiter: W) -> io::Result<()> {
        let (reads, writes) = (interest != Interest::Writable, interest != Interest::Readable);
        let number = index(fd);
        let entry = entry(&mut self.entries, number);
        if (reads && entry.reader.is_some()) || (writes && entry.writer.is_some()) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("another task waits on descriptor {} already", fd.as_raw_fd()),
            ));
        }
        if reads {
            entry.reader = Some(waiter);
        }
        if writes {
            entry.writer = Some(waiter);
        }
        if entry.source.is_some() {
            return Ok(());
        }
        let armed = arm(&self.epoll, fd, entry);
        if armed.is_err() {
            self.forget(fd.as_raw_fd(), waiter);
        }
        armed
    }

    /// Drops a waiter whose wait ended otherwise.
    pub fn forget(&mut self, fd: RawFd, waiter: W) {
        let Some(entry) = usize::try_from(fd).ok().and_then(|number| self.entries.get_mut(number)) else {
            return;
        };
        for slot in [&mut entry.reader, &mut entry.writer] {
            if *slot == Some(waiter) {
                *slot = None;
            }
        }
    }

    /// How many wait for a descriptor. Linear in the highest one.
    pub fn waiters(&self) -> usize {
        let of =
            |entry: &Entry<W, S>| usize::from(entry.reader.is_some()) + usize::from(entry.writer.is_some());
        self.entries.iter().map(of).sum()
    }

    /// Watches `fd` from now on and reports each change of its readiness under `key`.
    ///
    /// # Errors
    ///
    /// Whatever `epoll_ctl(2)` says.
    pub fn add_source(&mut self, fd: BorrowedFd<'_>, key: S) -> io::Result<()> {
        let number = index(fd);
        let entry = entry(&mut self.entries, number);
        entry.generation = entry.generation.wrapping_add(1);
        let data = data(fd, entry.generation);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        match epoll::add(&self.epoll, fd, data, flags) {
            Err(rustix::io::Errno::EXIST) => epoll::modify(&self.epoll, fd, data, flags)?,
            result => result?,
        }
        entry.source = Some(key);
        Ok(())
    }

    /// Forgets a source, right before its descriptor is closed. Returns who still waits on it.
    pub fn remove_source(&mut self, fd: BorrowedFd<'_>) -> [Option<W>; 2] {
        // Closing would do, unless the descriptor was duplicated, by a fork for example.
        let _ = epoll::delete(&self.epoll, fd);
        let entry = entry(&mut self.entries, index(fd));
        entry.generation = entry.generation.wrapping_add(1);
        entry.source = None;
        [entry.reader.take(), entry.writer.take()]
    }

    /// Polls for at most `timeout` (`None`: until something happens), and keeps what it found
    /// for [`Reactor::take`].
    ///
    /// # Errors
    ///
    /// `Interrupted` when a signal came in.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.events.clear();
        // Rounded up: waking before a timer is due would only mean to poll again.
        let timeout = timeout.map(|duration| {
            let nanos = duration.as_nanos().div_ceil(1_000_000) * 1_000_000;
            Timespec {
                tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
            }
        });
        let mut buffer = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
        let (found, _) = epoll::wait(&self.epoll, &mut buffer, timeout.as_ref())?;
        self.events.extend(found.iter().map(|event| (event.data.u64(), event.flags)));
        Ok(())
    }

    /// Gives what the last poll found to `report`, each only once.
    pub fn take(&mut self, mut report: impl FnMut(Ready<W, S>)) {
        for (data, flags) in self.events.drain(..) {
            if data == NOTIFIER {
                self.notifier.drain();
                continue;
            }
            let (number, generation) = ((data & 0xffff_ffff) as usize, (data >> 32) as u32);
            let Some(entry) = self.entries.get_mut(number).filter(|entry| entry.generation == generation)
            else {
                continue;
            };
            let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            let readiness = Readiness {
                readable: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                writable: broken || flags.contains(EventFlags::OUT),
                hangup: broken || flags.contains(EventFlags::RDHUP),
            };
            // A one-shot is spent by whichever direction came first, so both waiters go: one of
            // them tries again and waits anew.
            let spent = entry.source.is_none();
            let reader = if spent || readiness.readable { entry.reader.take() } else { None };
            let writer = if spent || readiness.writable { entry.writer.take() } else { None };
            if let Some(waiter) = reader {
                report(Ready::Waiter(waiter));
                // One that waits for either direction is woken once.
                if entry.writer == Some(waiter) {
                    entry.writer = None;
                }
            }
            if let Some(waiter) = writer.filter(|waiter| reader != Some(*waiter)) {
                report(Ready::Waiter(waiter));
                if entry.reader == Some(waiter) {
                    entry.reader = None;
                }
            }
            if let Some(key) = entry.source {
                report(Ready::Source(key, readiness));
            }
        }
    }
}

/// One shot for whoever waits on `entry` now.
fn arm<W, S>(epoll: &OwnedFd, fd: BorrowedFd<'_>, entry: &mut Entry<W, S>) -> io::Result<()> {
    let (data, flags) = (data(fd, entry.generation), one_shot(entry));
    if entry.known {
        match epoll::modify(epoll, fd, data, flags) {
            // The number was closed and given out again since.
            Err(rustix::io::Errno::NOENT) => {}
            result => return Ok(result?),
        }
    }
    match epoll::add(epoll, fd, data, flags) {
        Err(rustix::io::Errno::EXIST) => epoll::modify(epoll, fd, data, flags)?,
        result => result?,
    }
    entry.known = true;
    Ok(())
}

fn one_shot<W, S>(entry: &Entry<W, S>) -> EventFlags {
    let mut flags = EventFlags::ONESHOT;
    if entry.reader.is_some() {
        flags |= EventFlags::IN | EventFlags::RDHUP;
    }
    if entry.writer.is_some() {
        flags |= EventFlags::OUT;
    }
    flags
}

fn index(fd: BorrowedFd<'_>) -> usize {
    // A `BorrowedFd` is never negative.
    fd.as_raw_fd() as usize
}

fn entry<W, S>(entries: &mut Vec<Entry<W, S>>, number: usize) -> &mut Entry<W, S> {
    if entries.len() <= number {
        entries.resize_with(number + 1, Entry::default);
    }
    &mut entries[number]
}

fn data(fd: BorrowedFd<'_>, generation: u32) -> EventData {
    EventData::new_u64(u64::from(generation) << 32 | index(fd) as u64)
}

impl<W, S> fmt::Debug for Reactor<W, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl<W, S> AsFd for Reactor<W, S> {
    /// The epoll descriptor itself, for a host loop that drives this reactor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    type Test = Reactor<u32, u32>;

    fn poll(reactor: &mut Test) -> Vec<Ready<u32, u32>> {
        let mut found = Vec::new();
        reactor.poll(Some(Duration::from_millis(10))).unwrap();
        reactor.take(|ready| found.push(ready));
        found
    }

    #[test]
    fn a_wait_reports_once() {
        let mut reactor = Test::new().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        reactor.wait(theirs.as_fd(), Interest::Readable, 1).unwrap();
        assert_eq!(poll(&mut reactor), []);
        ours.write_all(b"x").unwrap();
        assert_eq!(poll(&mut reactor), [Ready::Waiter(1)]);
        assert_eq!(poll(&mut reactor), []);
        // Level-triggered: the unread byte is still there for the next wait.
        reactor.wait(theirs.as_fd(), Interest::Readable, 2).unwrap();
        assert_eq!(poll(&mut reactor), [Ready::Waiter(2)]);
    }

    #[test]
    fn two_directions_of_one_descriptor_are_two_waiters() {
        let mut reactor = Test::new().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        reactor.wait(theirs.as_fd(), Interest::Readable, 1).unwrap();
        reactor.wait(theirs.as_fd(), Interest::Writable, 2).unwrap();
        let again = reactor.wait(theirs.as_fd(), Interest::Both, 3).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        // The one shot is spent, so the reader is woken too, and comes back.
        assert_eq!(poll(&mut reactor), [Ready::Waiter(1), Ready::Waiter(2)]);
        reactor.wait(theirs.as_fd(), Interest::Readable, 1).unwrap();
        assert_eq!(poll(&mut reactor), []);
        ours.write_all(b"x").unwrap();
        assert_eq!(poll(&mut reactor), [Ready::Waiter(1)]);
    }

    #[test]
    fn a_closed_and_reused_number_is_watched_anew() {
        let mut reactor = Test::new().unwrap();
        for waiter in 0..3 {
            // The same number each time, known to the reactor from the time before.
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            reactor.wait(theirs.as_fd(), Interest::Readable, waiter).unwrap();
            ours.write_all(b"x").unwrap();
            assert_eq!(poll(&mut reactor), [Ready::Waiter(waiter)]);
        }
    }

    #[test]
    fn a_forgotten_waiter_is_not_reported() {
        let mut reactor = Test::new().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        reactor.wait(theirs.as_fd(), Interest::Both, 1).unwrap();
        reactor.forget(theirs.as_raw_fd(), 1);
        ours.write_all(b"x").unwrap();
        assert_eq!(poll(&mut reactor), []);
        reactor.wait(theirs.as_fd(), Interest::Both, 2).unwrap();
        assert_eq!(poll(&mut reactor), [Ready::Waiter(2)]);
    }

    #[test]
    fn a_source_reports_edges_and_serves_waiters() {
        let mut reactor = Test::new().unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        reactor.add_source(theirs.as_fd(), 7).unwrap();
        let writable = Readiness { writable: true, ..Readiness::default() };
        assert_eq!(poll(&mut reactor), [Ready::Source(7, writable)]);
        reactor.wait(theirs.as_fd(), Interest::Readable, 1).unwrap();
        ours.write_all(b"x").unwrap();
        let both = Readiness { readable: true, writable: true, hangup: false };
        assert_eq!(poll(&mut reactor), [Ready::Waiter(1), Ready::Source(7, both)]);
        theirs.read_exact(&mut [0]).unwrap();
        reactor.wait(theirs.as_fd(), Interest::Readable, 2).unwrap();
        drop(ours);
        assert!(poll(&mut reactor).contains(&Ready::Waiter(2)));
        reactor.wait(theirs.as_fd(), Interest::Readable, 3).unwrap();
        assert_eq!(reactor.remove_source(theirs.as_fd()), [Some(3), None]);
        assert_eq!(poll(&mut reactor), []);
    }

    #[test]
    fn another_thread_ends_the_poll() {
        let mut reactor = Test::new().unwrap();
        let notifier = reactor.notifier();
        let thread = std::thread::spawn(move || notifier.notify());
        reactor.poll(Some(Duration::from_secs(10))).unwrap();
        thread.join().unwrap();
        reactor.take(|ready| panic!("{ready:?}"));
        assert_eq!(poll(&mut reactor), []);
    }
}
