//! What the drivers for tasks share.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use balrog_sched::{Interrupt, wait_until};

use crate::execute;

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
