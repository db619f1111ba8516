//! Tasks on async-io: its reactor thread and timers, under any executor (smol's, async-std's).

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_executor::LocalExecutor;
use async_io::{Async, Timer};
use balrog_sched::{Interrupt, LocalFuture, Runtime, Task, wait_until, with_runtime};

use crate::backend::{Backend, Pollable, Registered, with_backend};
use crate::{Interest, tasks};

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
) -> io::Result<OnAsyncIo<T>> {
    // Weak, since the executor holds the tasks.
    let local = Local(Rc::downgrade(executor));
    with_runtime(Some(Rc::new(local)), || balrog_sched::task(f)).map(OnAsyncIo)
}

/// A task whose waits are async-io's. See [`task`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is awaited or spawned"]
pub struct OnAsyncIo<T>(Task<T>);

impl<T> Future for OnAsyncIo<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        with_backend(&AsyncIoBackend, || Pin::new(&mut self.0).poll(context))
    }
}

/// The executor that tasks spawn on.
struct Local(Weak<LocalExecutor<'static>>);

impl Runtime for Local {
    fn spawn_local(&self, mut future: LocalFuture<()>) {
        // An executor that is gone runs nothing: the task is dropped, and its joiner told.
        if let Some(executor) = self.0.upgrade() {
            executor
                .spawn(std::future::poll_fn(move |context| {
                    with_backend(&AsyncIoBackend, || future.as_mut().poll(context))
                }))
                .detach();
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
            Ok(watched) => ready(&watched, interest, deadline),
            Err(_) => Ok(()),
        }
    }

    fn register(&self, io: Pollable) -> io::Result<Option<Arc<dyn Registered>>> {
        Ok(Some(Arc::new(Async::new_nonblocking(io)?)))
    }

    fn sleep_until(&self, deadline: Instant) -> Result<(), Interrupt> {
        balrog_sched::sleep_until(deadline)
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>, deadline: Option<Instant>) -> Result<(), Interrupt> {
        tasks::offload(job, deadline)
    }
}

impl Registered for Async<Pollable> {
    fn wait(&self, interest: Interest, deadline: Option<Instant>) -> Result<(), Interrupt> {
        ready(self, interest, deadline)
    }
}

fn ready<T: AsFd>(
    watched: &Async<T>,
    interest: Interest,
    deadline: Option<Instant>,
) -> Result<(), Interrupt> {
    // An error is the system's about this descriptor, which the caller's own call sees too.
    let ready = async {
        let _ = match interest {
            Interest::Readable => watched.readable().await,
            Interest::Writable => watched.writable().await,
            Interest::Both => futures_lite::future::or(watched.readable(), watched.writable()).await,
        };
    };
    wait_until(ready, deadline)
}
