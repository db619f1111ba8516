//! Cancellation from outside: a request that the code finds at its waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::Scopes;

/// Cancels a task, from any thread.
#[derive(Debug, Clone)]
pub struct Canceller(Arc<Controlled>);

impl Canceller {
    pub(crate) fn new(controlled: &Arc<Controlled>) -> Self {
        Self(Arc::clone(controlled))
    }

    /// The task's current wait, or its next, fails with
    /// [`Interrupt::Cancelled`](crate::Interrupt::Cancelled). Clean-up may wait on for
    /// [`GRACE`](crate::GRACE). A second call does nothing.
    ///
    /// A blocked thread notices when what it waits for in the system comes, or its deadline.
    pub fn cancel(&self) {
        self.0.control.cancel();
    }

    /// Whether cancellation was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.control.is_cancelled()
    }
}

/// Running code's control, and what else is shared with it: one allocation a task.
#[derive(Default)]
pub(crate) struct Controlled<S: ?Sized = dyn Send + Sync> {
    pub(crate) control: Control,
    pub(crate) shared: S,
}

impl<S: ?Sized> std::fmt::Debug for Controlled<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.control.fmt(f)
    }
}

/// What other threads see of running code.
#[derive(Debug, Default)]
pub(crate) struct Control {
    cancelled: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Control {
    /// See [`Canceller::cancel`].
    pub(crate) fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::AcqRel) {
            let waker = self.lock().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// What ends the code's waits.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        *self.lock() = Some(waker.clone());
    }

    /// Whether cancellation was asked for.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Tells the code's scopes what was asked for.
    pub(crate) fn apply(&self, scopes: &mut Scopes) {
        if self.is_cancelled() {
            scopes.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        // Nothing runs under the lock.
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
