//! Who waits for a primitive, in the order of coming.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::{Interrupt, wait};

/// A queue of waiters, guarded by the lock of the primitive that it belongs to.
///
/// The nodes are on the heap: a stack may be copied away while it waits.
#[derive(Debug, Default)]
pub(super) struct Waiters(VecDeque<Arc<Waiter>>);

#[derive(Debug)]
struct Waiter(Mutex<State>);

#[derive(Debug)]
enum State {
    Waiting(Waker),
    Granted,
}

impl Waiters {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the first waiter out and grants it what it waits for. Wake it by dropping the
    /// result, after the primitive's lock.
    pub(super) fn grant_first(&mut self) -> Option<Granted> {
        let waiter = self.0.pop_front()?;
        match std::mem::replace(&mut *waiter.lock(), State::Granted) {
            State::Waiting(waker) => Some(Granted(Some(waker))),
            State::Granted => Some(Granted(None)),
        }
    }

    /// The same for all of them.
    pub(super) fn grant_all(&mut self) -> Vec<Granted> {
        std::iter::from_fn(|| self.grant_first()).collect()
    }
}

impl Waiter {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

/// A waiter that was granted what it waits for, and is woken when this is dropped.
#[derive(Debug)]
pub(super) struct Granted(Option<Waker>);

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// Locks what no code of others runs under, so that a poisoned state is sound.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A primitive with a queue of waiters.
pub(super) trait Queued {
    fn waiters(&mut self) -> &mut Waiters;

    /// A waiter was interrupted after it was granted: what it got goes to the next.
    fn hand_on(&mut self) -> Vec<Granted>;

    /// A waiter was interrupted before it was granted, and is out of the queue.
    fn abandoned(&mut self) {}
}

/// Takes what `attempt` gives at once, or else waits until it is granted.
///
/// `attempt` has to give nothing while others wait, or it would overtake them.
pub(super) fn wait_for<S: Queued>(
    state: &Mutex<S>,
    attempt: impl FnMut(&mut S) -> bool + Unpin,
) -> Result<(), Interrupt> {
    wait(Waiting { state, attempt, waiter: None })
}

struct Waiting<'a, S: Queued, F> {
    state: &'a Mutex<S>,
    attempt: F,
    waiter: Option<Arc<Waiter>>,
}

impl<S: Queued, F: FnMut(&mut S) -> bool + Unpin> Future for Waiting<'_, S, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(waiter) = &this.waiter {
            let mut state = waiter.lock();
            if matches!(*state, State::Granted) {
                drop(state);
                this.waiter = None;
                return Poll::Ready(());
            }
            *state = State::Waiting(context.waker().clone());
            return Poll::Pending;
        }
        let mut state = lock(this.state);
        if (this.attempt)(&mut state) {
            return Poll::Ready(());
        }
        let waiter = Arc::new(Waiter(Mutex::new(State::Waiting(context.waker().clone()))));
        state.waiters().0.push_back(Arc::clone(&waiter));
        this.waiter = Some(waiter);
        Poll::Pending
    }
}

impl<S: Queued, F> Drop for Waiting<'_, S, F> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let mut state = lock(self.state);
        let granted = matches!(*waiter.lock(), State::Granted);
        let next = if granted {
            state.hand_on()
        } else {
            state.waiters().0.retain(|other| !Arc::ptr_eq(other, &waiter));
            state.abandoned();
            Vec::new()
        };
        drop(state);
        drop(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Test {
        waiters: Waiters,
        abandoned: usize,
    }

    impl Queued for Test {
        fn waiters(&mut self) -> &mut Waiters {
            &mut self.waiters
        }

        fn hand_on(&mut self) -> Vec<Granted> {
            self.waiters.grant_first().into_iter().collect()
        }

        fn abandoned(&mut self) {
            self.abandoned += 1;
        }
    }

    fn ask(state: &Mutex<Test>) -> Waiting<'_, Test, impl FnMut(&mut Test) -> bool + Unpin> {
        let mut waiting = Waiting { state, attempt: |_: &mut Test| false, waiter: None };
        assert!(poll(&mut waiting).is_pending());
        waiting
    }

    fn poll<F: Future<Output = ()> + Unpin>(future: &mut F) -> Poll<()> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_waiter_dropped_after_its_grant_hands_it_on() {
        let state = Mutex::<Test>::default();
        let (first, mut second) = (ask(&state), ask(&state));
        assert!(lock(&state).waiters.grant_first().is_some());
        drop(first);
        assert!(poll(&mut second).is_ready());
        assert_eq!(lock(&state).abandoned, 0);
    }

    #[test]
    fn a_waiter_dropped_before_its_grant_leaves_the_queue() {
        let state = Mutex::<Test>::default();
        let (first, mut second) = (ask(&state), ask(&state));
        drop(first);
        assert_eq!(lock(&state).abandoned, 1);
        assert!(lock(&state).waiters.grant_first().is_some());
        assert!(poll(&mut second).is_ready());
        assert!(lock(&state).waiters.is_empty());
    }
}
