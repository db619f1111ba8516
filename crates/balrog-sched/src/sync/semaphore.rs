use std::sync::Mutex;

use super::waiters::{Granted, Queued, Waiters, lock, wait_for};
use crate::Interrupt;

/// A number of permits; who finds none waits for one.
#[derive(Debug)]
pub struct Semaphore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    permits: usize,
    closed: bool,
    waiters: Waiters,
}

impl Queued for State {
    fn waiters(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    fn hand_on(&mut self) -> Vec<Granted> {
        self.release(1)
    }
}

impl State {
    fn release(&mut self, mut n: usize) -> Vec<Granted> {
        let mut granted = Vec::new();
        while n > 0 {
            let Some(next) = self.waiters.grant_first() else { break };
            granted.push(next);
            n -= 1;
        }
        self.permits += n;
        granted
    }
}

impl Semaphore {
    /// A semaphore with so many permits.
    pub const fn new(permits: usize) -> Self {
        Self { state: Mutex::new(State { permits, closed: false, waiters: Waiters::new() }) }
    }

    /// Takes a permit, which goes back when the result is dropped.
    ///
    /// # Errors
    ///
    /// As [`crate::wait`].
    pub fn acquire(&self) -> Result<Permit<'_>, Interrupt> {
        self.take()?;
        Ok(Permit(self))
    }

    /// Takes a permit if there is one and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_take().then(|| Permit(self))
    }

    /// Adds `n` permits.
    pub fn release(&self, n: usize) {
        let granted = lock(&self.state).release(n);
        drop(granted);
    }

    /// How many permits nobody has.
    pub fn available(&self) -> usize {
        lock(&self.state).permits
    }

    /// [`Semaphore::acquire`] without an object for the permit.
    pub(super) fn take(&self) -> Result<(), Interrupt> {
        wait_for(&self.state, |state| state.closed || Self::attempt(state))
    }

    pub(super) fn try_take(&self) -> bool {
        Self::attempt(&mut lock(&self.state))
    }

    /// From now on everyone is let through at once.
    pub(super) fn close(&self) {
        let granted = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.waiters.grant_all()
        };
        drop(granted);
    }

    fn attempt(state: &mut State) -> bool {
        let free = state.permits > 0 && state.waiters.is_empty();
        if free {
            state.permits -= 1;
        }
        free
    }
}

/// A permit of a [`Semaphore`].
#[derive(Debug)]
#[must_use = "the permit goes back when this is dropped"]
pub struct Permit<'a>(&'a Semaphore);

impl Permit<'_> {
    /// Keeps the permit for good.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.release(1);
    }
}
