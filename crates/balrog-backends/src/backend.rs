use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use std::{fmt, io};

use balrog_sched::{Interrupt, LocalFuture};

use crate::{Blocking, tasks};

/// Which readiness of a descriptor a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, a connection, end of file or an error can be read.
    Readable,
    /// Bytes can be written, a connect finished, or an error waits.
    Writable,
    /// Either of the two.
    Both,
}

/// A way to wait. One per kind of place where code can run.
pub trait Backend {
    /// Waits until `fd` is ready for `interest`.
    ///
    /// Spurious returns are allowed: the caller repeats its system call and waits again.
    fn wait_io(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Result<(), Interrupt>;

    /// Gets ready for many waits on `io`. `None`: [`Backend::wait_io`] is all there is.
    ///
    /// # Errors
    ///
    /// Whatever the system says to watching it.
    fn register(&self, io: Pollable) -> io::Result<Option<Arc<dyn Registered>>> {
        drop(io);
        Ok(None)
    }

    /// Waits until `deadline`. Returns early only with an [`Interrupt`].
    fn sleep_until(&self, deadline: Instant) -> Result<(), Interrupt> {
        balrog_sched::sleep_until(deadline)
    }

    /// Runs `job` where blocking does no harm, and waits for its end.
    ///
    /// An interrupt ends the wait, not the job: that runs on detached, so it must own its data.
    fn offload(&self, job: Box<dyn FnOnce() + Send>, deadline: Option<Instant>) -> Result<(), Interrupt> {
        tasks::offload(job, deadline)
    }
}

/// An open descriptor, shared between its user and who watches it.
#[derive(Clone)]
pub struct Pollable(Arc<dyn Io>);

/// What [`Pollable`] holds: a socket, a pipe, whatever can be polled.
trait Io: AsFd + Send + Sync {}
impl<T: AsFd + Send + Sync> Io for T {}

impl Pollable {
    pub(crate) fn new(io: Arc<impl AsFd + Send + Sync + 'static>) -> Self {
        Self(io)
    }
}

impl AsFd for Pollable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Pollable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Pollable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pollable").field(&self.as_raw_fd()).finish()
    }
}

/// A descriptor that a backend watches until this is dropped.
pub trait Registered: Send + Sync {
    /// [`Backend::wait_io`] for it, after a system call said `WouldBlock`.
    ///
    /// # Errors
    ///
    /// As [`Backend::wait_io`].
    fn wait(&self, interest: Interest, deadline: Option<Instant>) -> Result<(), Interrupt>;

    /// The same as a future, for who has no stack to wait on. It watches from now on, not from its
    /// first poll, and wants the executor of the code here.
    fn ready(self: Arc<Self>, interest: Interest) -> LocalFuture<()>;
}

thread_local! {
    static CURRENT: Cell<Option<&'static dyn Backend>> = const { Cell::new(None) };
}

static DEFAULT: OnceLock<&'static (dyn Backend + Sync)> = OnceLock::new();

/// The calling thread's backend: its own, else the process's default, else [`Blocking`].
pub fn current() -> &'static dyn Backend {
    match CURRENT.get() {
        Some(backend) => backend,
        None => DEFAULT.get().map_or(&Blocking as &dyn Backend, |backend| *backend),
    }
}

/// Makes `backend` the calling thread's own, for the rest of the thread's life.
pub fn install(backend: &'static dyn Backend) {
    CURRENT.set(Some(backend));
}

/// Calls `f` with `backend` as the calling thread's.
pub fn with_backend<T>(backend: &'static dyn Backend, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<&'static dyn Backend>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(Some(backend)));
    f()
}

/// Makes `backend` that of every thread without one of its own. The first call counts.
///
/// For a host such as Python, where any thread may come in and a wait has to let the
/// interpreter go.
pub fn install_default(backend: &'static (dyn Backend + Sync)) {
    let _ = DEFAULT.set(backend);
}

/// [`Backend::wait_io`] of the current backend.
pub fn wait_io(fd: BorrowedFd<'_>, interest: Interest, deadline: Option<Instant>) -> Result<(), Interrupt> {
    current().wait_io(fd, interest, deadline)
}

/// [`Backend::sleep_until`] of the current backend.
pub fn sleep_until(deadline: Instant) -> Result<(), Interrupt> {
    current().sleep_until(deadline)
}

/// Runs `job` by [`Backend::offload`] of the current backend and returns its result.
pub fn offload<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
    deadline: Option<Instant>,
) -> Result<T, Interrupt> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let job = Box::new(move || {
        // The receiver is gone when the wait was interrupted: nobody wants the result.
        let _ = sender.send(job());
    });
    current().offload(job, deadline)?;
    // A job that panicked dropped its sender.
    receiver.try_recv().map_err(|_| Interrupt::Closed)
}
