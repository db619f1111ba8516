//! One value that crosses from a task to whoever waits for its end.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

/// A place for one value, with one who gives it and one who takes it, on whatever threads.
///
/// The giver calls [`Oneshot::give`] once at most, the taker everything else: the owners of the
/// two halves see to that, which is why both are unsafe to call.
#[derive(Debug)]
pub(crate) struct Oneshot<T> {
    state: AtomicU8,
    /// The giver's until it has given, the taker's from then on.
    value: UnsafeCell<Option<T>>,
    /// The taker's, but the giver's while it is [`WAITING`].
    waker: UnsafeCell<Option<Waker>>,
}

/// Nothing was given, nobody waits.
const EMPTY: u8 = 0;
/// Nothing was given, and the waker is set.
const WAITING: u8 = 1;
/// The value is there, or was taken.
const GIVEN: u8 = 2;
/// Nobody will take it.
const UNWANTED: u8 = 3;

// SAFETY: value and waker are each touched by one side at a time, as `state` says; so the type is
// a channel for a `T`, and a `Waker` may be used on any thread.
unsafe impl<T: Send> Send for Oneshot<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Oneshot<T> {}

impl<T> Oneshot<T> {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(None), waker: UnsafeCell::new(None) }
    }

    /// Whether there is, or was, a value.
    pub(crate) fn is_given(&self) -> bool {
        self.state.load(Ordering::Acquire) == GIVEN
    }

    /// Gives the value and wakes who waits for it.
    ///
    /// # Safety
    ///
    /// Called once at most.
    pub(crate) unsafe fn give(&self, value: T) {
        // SAFETY: the taker looks at it after `GIVEN` only.
        unsafe { *self.value.get() = Some(value) };
        match self.state.swap(GIVEN, Ordering::AcqRel) {
            WAITING => {
                // SAFETY: the taker set it and leaves it alone since `WAITING`.
                if let Some(waker) = unsafe { (*self.waker.get()).take() } {
                    waker.wake();
                }
            }
            UNWANTED => {
                // SAFETY: there is no taker any more.
                drop(unsafe { (*self.value.get()).take() });
            }
            _ => {}
        }
    }

    /// Takes the value, or has `context` woken when it is there. `None`: it was taken before.
    ///
    /// # Safety
    ///
    /// Called by one thread at a time, and not after [`Oneshot::refuse`].
    pub(crate) unsafe fn poll(&self, context: &Context<'_>) -> Poll<Option<T>> {
        let state = self.state.load(Ordering::Acquire);
        if state != GIVEN && (state == EMPTY || self.change(WAITING, EMPTY)) {
            // SAFETY: in `EMPTY` the waker is the taker's.
            let waker = unsafe { &mut *self.waker.get() };
            if waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            if self.change(EMPTY, WAITING) {
                return Poll::Pending;
            }
        }
        // SAFETY: it was given, so it is the taker's.
        Poll::Ready(unsafe { (*self.value.get()).take() })
    }

    /// The taker goes; a value that is there is returned, one that comes is dropped.
    ///
    /// # Safety
    ///
    /// Called once at most, by the last user of the taker's side.
    pub(crate) unsafe fn refuse(&self) -> Option<T> {
        if !self.is_given() && self.state.swap(UNWANTED, Ordering::AcqRel) != GIVEN {
            // SAFETY: in `UNWANTED` the giver leaves the waker alone.
            unsafe { *self.waker.get() = None };
            return None;
        }
        // SAFETY: it was given, so it is the taker's.
        unsafe { (*self.value.get()).take() }
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<T>(oneshot: &Oneshot<T>) -> Poll<Option<T>> {
        // SAFETY: the tests poll from one thread, and before they refuse.
        unsafe { oneshot.poll(&Context::from_waker(Waker::noop())) }
    }

    #[test]
    fn the_value_is_taken_once() {
        let oneshot = Oneshot::new();
        assert!(poll(&oneshot).is_pending() && poll(&oneshot).is_pending());
        // SAFETY: once.
        unsafe { oneshot.give(1) };
        assert!(oneshot.is_given());
        assert_eq!(poll(&oneshot), Poll::Ready(Some(1)));
        assert_eq!(poll(&oneshot), Poll::Ready(None));
        // SAFETY: once, and last.
        assert_eq!(unsafe { oneshot.refuse() }, None);
    }

    #[test]
    fn a_value_that_nobody_wants_is_dropped_at_once() {
        let value = std::sync::Arc::new(());
        let (early, late) = (Oneshot::new(), Oneshot::new());
        assert!(poll(&early).is_pending());
        // SAFETY: once each, with no poll after `refuse`.
        unsafe {
            assert!(early.refuse().is_none());
            early.give(std::sync::Arc::clone(&value));
            late.give(std::sync::Arc::clone(&value));
            assert_eq!(std::sync::Arc::strong_count(&value), 2);
            assert!(late.refuse().is_some());
        }
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }
}
