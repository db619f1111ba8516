//! Tasks on tokio: its reactor, its timers, its threads.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use balrog_sched::{Interrupt, LocalFuture, Runtime, Task, wait_until, with_runtime};
use tokio::io::Interest as Direction;
use tokio::io::unix::AsyncFd;
use tokio::task::LocalSet;

use crate::Interest;
use crate::backend::{Backend, Pollable, Registered};
use crate::tasks::On;

/// Runs `f` as a task of a tokio runtime of this thread, and the tasks that it spawns, until
/// `f` returns.
///
/// # Errors
///
/// When the process is out of descriptors or memory.
///
/// # Panics
///
/// Inside of another tokio runtime: await [`task`] there.
pub fn run<T: 'static>(f: impl FnOnce() -> T + 'static) -> io::Result<T> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let task = task(f)?;
    Ok(LocalSet::new().block_on(&tokio, task))
}

/// `f` as a future for a tokio program, to be awaited or given to
/// [`spawn_local`](tokio::task::spawn_local). What `f` spawns runs beside it, which takes a
/// [`LocalSet`].
///
/// # Errors
///
/// When the system has no memory for a further stack.
pub fn task<T: 'static>(f: impl FnOnce() -> T + 'static) -> io::Result<On<Task<T>>> {
    with_runtime(Some(Rc::new(Local)), || balrog_sched::task(f)).map(|task| On::new(&TokioBackend, task))
}

/// The runtime that tasks spawn on.
struct Local;

impl Runtime for Local {
    fn spawn_local(&self, future: LocalFuture<()>) {
        tokio::task::spawn_local(On::new(&TokioBackend, future));
    }

    fn timer(&self, at: Instant) -> LocalFuture<()> {
        Box::pin(tokio::time::sleep_until(at.into()))
    }
}

#[derive(Debug)]
struct TokioBackend;

#[allow(unsafe_code)]
impl Backend for TokioBackend {
    fn wait_io(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Result<(), Interrupt> {
        // What cannot be watched is tried again by its owner, whose own system call says why.
        // SAFETY: `fd` is borrowed for longer than it is watched, which ends with this call.
        let watched = unsafe { AsyncFd::register_with_interest(fd, direction(interest)) };
        match watched {
            Ok(watched) => wait_until(ready(&watched, interest), deadline),
            Err(_) => Ok(()),
        }
    }

    fn register(&self, io: Pollable) -> io::Result<Option<Arc<dyn Registered>>> {
        // SAFETY: `io` keeps the descriptor open, and nobody can take it out of the registration.
        Ok(Some(Arc::new(unsafe { AsyncFd::register(io)? })))
    }
}

impl Registered for AsyncFd<Pollable> {
    fn wait(&self, interest: Interest, deadline: Option<Instant>) -> Result<(), Interrupt> {
        wait_until(ready(self, interest), deadline)
    }

    fn ready(self: Arc<Self>, interest: Interest) -> LocalFuture<()> {
        Box::pin(async move { ready(&self, interest).await })
    }
}

async fn ready<T: AsRawFd>(watched: &AsyncFd<T>, interest: Interest) {
    // tokio remembers readiness until it is told that a system call found none. Ours did,
    // so what is remembered is forgotten once it was seen; what is new comes again.
    if let Ok(mut guard) = watched.ready(direction(interest)).await {
        guard.clear_ready();
    }
}

const fn direction(interest: Interest) -> Direction {
    match interest {
        Interest::Readable => Direction::READABLE,
        Interest::Writable => Direction::WRITABLE,
        Interest::Both => Direction::READABLE.add(Direction::WRITABLE),
    }
}
