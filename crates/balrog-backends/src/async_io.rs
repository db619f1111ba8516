//! Tasks on async-io: its reactor thread and timers, under any executor (smol's, async-std's).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use async_executor::LocalExecutor;
use async_io::{Async, Timer};
use balrog_sched::{Interrupt, LocalFuture, Runtime, Task, wait_until, with_runtime};

use crate::Interest;
use crate::backend::{Backend, Pollable, Registered};
use crate::tasks::On;

/// Runs `f` as a task of this thread on async-io, and the tasks that it spawns, until `f`
/// returns.
///
/// # Errors
///
/// When there is no memory for a stack.
pub fn run<T: 'static>(f: impl FnOnce() -> T + 'static) -> io::Result<T> {
    let executor = Rc::new(LocalExecutor::new());
    let task = task(&executor, f)?;
    Ok(async_io::block_on(executor.run(task)))
}

/// `f` as a future; what it spawns runs on `executor`.
///
/// # Errors
///
/// When the system has no memory for a further stack.
pub fn task<T: 'static>(
    executor: &Rc<LocalExecutor<'static>>,
    f: impl FnOnce() -> T + 'static,
) -> io::Result<On<Task<T>>> {
    // Weak, since the executor holds the tasks.
    let local = Local(Rc::downgrade(executor));
    with_runtime(Some(Rc::new(local)), || balrog_sched::task(f)).map(|task| On::new(&AsyncIoBackend, task))
}

/// The executor that tasks spawn on.
struct Local(Weak<LocalExecutor<'static>>);

impl Runtime for Local {
    fn spawn_local(&self, future: LocalFuture<()>) {
        // An executor that is gone runs nothing: the task is dropped, and its joiner told.
        if let Some(executor) = self.0.upgrade() {
            executor.spawn(On::new(&AsyncIoBackend, future)).detach();
        }
    }

    fn timer(&self, at: Instant) -> LocalFuture<()> {
        Box::pin(async move {
            Timer::at(at).await;
        })
    }
}

#[derive(Debug)]
struct AsyncIoBackend;

impl Backend for AsyncIoBackend {
    fn wait_io(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Result<(), Interrupt> {
        // What cannot be watched is tried again by its owner, whose own system call says why.
        match Async::new_nonblocking(fd) {
            Ok(watched) => wait_until(ready(&watched, interest), deadline),
            Err(_) => Ok(()),
        }
    }

    fn register(&self, io: Pollable) -> io::Result<Option<Arc<dyn Registered>>> {
        Ok(Some(Arc::new(Async::new_nonblocking(io)?)))
    }
}

impl Registered for Async<Pollable> {
    fn wait(&self, interest: Interest, deadline: Option<Instant>) -> Result<(), Interrupt> {
        wait_until(ready(self, interest), deadline)
    }

    fn ready(self: Arc<Self>, interest: Interest) -> LocalFuture<()> {
        // async-io watches from the first poll on, and the readiness of an `epoll` that is not
        // edge-triggered is still there then.
        Box::pin(async move { ready(&self, interest).await })
    }
}

async fn ready<T: AsFd>(watched: &Async<T>, interest: Interest) {
    // An error is the system's about this descriptor, which the caller's own call sees too.
    let _ = match interest {
        Interest::Readable => watched.readable().await,
        Interest::Writable => watched.writable().await,
        Interest::Both => futures_lite::future::or(watched.readable(), watched.writable()).await,
    };
}
