use std::sync::Mutex;

use super::waiters::{Granted, Queued, Waiters, lock, wait_for};
use crate::Interrupt;

/// A flag that can be waited for.
#[derive(Debug, Default)]
pub struct Event(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    set: bool,
    waiters: Waiters,
}

impl Queued for State {
    fn waiters(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    fn hand_on(&mut self) -> Vec<Granted> {
        // Setting woke everyone, so nobody misses what this one got.
        Vec::new()
    }
}

impl Event {
    /// A flag that is not set.
    pub const fn new() -> Self {
        Self(Mutex::new(State { set: false, waiters: Waiters::new() }))
    }

    /// Sets the flag: all who wait go on, and nobody waits until it is cleared.
    pub fn set(&self) {
        let granted = {
            let mut state = lock(&self.0);
            state.set = true;
            state.waiters.grant_all()
        };
        drop(granted);
    }

    /// Clears the flag.
    pub fn clear(&self) {
        lock(&self.0).set = false;
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        lock(&self.0).set
    }

    /// Waits until the flag is set.
    ///
    /// # Errors
    ///
    /// As [`crate::wait`].
    pub fn wait(&self) -> Result<(), Interrupt> {
        wait_for(&self.0, |state| state.set)
    }
}
