use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use balrog_backends::Interest;

/// How long the waits of a stream may last. All are `None` at first: as long as it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a read waits for the first byte.
    pub read: Option<Duration>,
    /// How long a write waits for room.
    pub write: Option<Duration>,
    /// Until when any wait may last, whatever its own time-out: for an exchange as a whole.
    pub deadline: Option<Instant>,
}

impl Timeouts {
    /// Until when a wait that begins now may last.
    pub fn until(&self, interest: Interest) -> Option<Instant> {
        let timeout = match interest {
            Interest::Readable => self.read,
            Interest::Writable | Interest::Both => self.write,
        };
        let own = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        [own, self.deadline].into_iter().flatten().min()
    }
}

/// A stream of bytes that can be tried without a wait, and waited for.
///
/// What [`Read`](io::Read) and [`Write`](io::Write) of every stream here are made of. A driver
/// that reads and writes at once uses it directly, so that no buffer of its is lent over a wait.
pub trait Transport {
    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is nothing yet, and whatever the system reports.
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as there is room for.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room, and whatever the system reports.
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Passes on what was written and is still held here, such as a TLS record.
    ///
    /// # Errors
    ///
    /// As [`Transport::try_write`].
    fn try_flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Tells the peer that nothing more will be written, after everything that was.
    ///
    /// # Errors
    ///
    /// Whatever the system reports.
    fn shutdown(&mut self) -> io::Result<()>;

    /// Waits until it may be ready, after a try said `WouldBlock`. May return too early.
    ///
    /// # Errors
    ///
    /// `TimedOut` at `until`, and interrupts as described at [`crate::Interrupt`].
    fn wait(&mut self, interest: Interest, until: Option<Instant>) -> io::Result<()>;

    /// How long its reads and writes wait.
    fn timeouts(&self) -> Timeouts;
}

/// Repeats `attempt` until it does not say `WouldBlock`, with waits in between.
pub(crate) fn retry<S: Transport + ?Sized, T>(
    stream: &mut S,
    interest: Interest,
    mut attempt: impl FnMut(&mut S) -> io::Result<T>,
) -> io::Result<T> {
    let mut until = None;
    loop {
        match attempt(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // The time-out is for all of them together.
                let until = *until.get_or_insert_with(|| stream.timeouts().until(interest));
                stream.wait(interest, until)?;
            }
            result => return result,
        }
    }
}

/// `Read` and `Write` of a [`Transport`].
macro_rules! read_and_write {
    ($type:ty $(, $($generics:tt)+)?) => {
        impl $(<$($generics)+>)? std::io::Read for $type {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                $crate::net::retry(self, balrog_backends::Interest::Readable, |it| {
                    $crate::net::Transport::try_read(it, buffer)
                })
            }
        }

        impl $(<$($generics)+>)? std::io::Write for $type {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.write_vectored(&[std::io::IoSlice::new(bytes)])
            }

            fn write_vectored(&mut self, slices: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                $crate::net::retry(self, balrog_backends::Interest::Writable, |it| {
                    $crate::net::Transport::try_write(it, slices)
                })
            }

            fn flush(&mut self) -> std::io::Result<()> {
                $crate::net::retry(self, balrog_backends::Interest::Writable, |it| {
                    $crate::net::Transport::try_flush(it)
                })
            }
        }
    };
}
pub(crate) use read_and_write;
