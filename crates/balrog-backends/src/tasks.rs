//! What the drivers for tasks share.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use balrog_sched::{Interrupt, wait_until};

use crate::backend::{Backend, with_backend};
use crate::execute;

/// A task, or any future, whose waits are those of one driver: a future for its executor.
#[must_use = "a task does nothing until it is awaited or spawned"]
pub struct On<F> {
    backend: &'static dyn Backend,
    future: F,
}

#[cfg(any(feature = "tokio", feature = "async-io"))]
impl<F> On<F> {
    pub(crate) const fn new(backend: &'static dyn Backend, future: F) -> Self {
        Self { backend, future }
    }
}

impl<F: Future + Unpin> Future for On<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        with_backend(self.backend, || Pin::new(&mut self.future).poll(context))
    }
}

impl<F: fmt::Debug> fmt::Debug for On<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("On").field(&self.future).finish()
    }
}

/// [`Backend::offload`](crate::Backend::offload) for code that waits by
/// [`balrog_sched::wait`].
pub(crate) fn offload(job: Box<dyn FnOnce() + Send>, deadline: Option<Instant>) -> Result<(), Interrupt> {
    #[derive(Default)]
    struct Shared {
        done: bool,
        waker: Option<Waker>,
    }
    let shared = Arc::new(Mutex::new(Shared::default()));
    let there = Arc::clone(&shared);
    let queued = execute(Box::new(move || {
        // A job that panics is seen by its missing result.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        let waker = {
            let mut shared = there.lock().unwrap_or_else(PoisonError::into_inner);
            shared.done = true;
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }));
    if queued.is_err() {
        return Err(Interrupt::Closed);
    }
    let done = std::future::poll_fn(|context| {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.done {
            return Poll::Ready(());
        }
        shared.waker = Some(context.waker().clone());
        Poll::Pending
    });
    wait_until(done, deadline)
}
