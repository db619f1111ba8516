use std::sync::Mutex as Lock;

use super::waiters::{Granted, Queued, Waiters, lock, wait_for};
use super::{Mutex, MutexGuard};
use crate::Interrupt;

/// Waits for a change of what a [`Mutex`] guards.
#[derive(Debug, Default)]
pub struct Condvar(Lock<State>);

#[derive(Debug, Default)]
struct State(Waiters);

impl Queued for State {
    fn waiters(&mut self) -> &mut Waiters {
        &mut self.0
    }

    fn hand_on(&mut self) -> Vec<Granted> {
        self.0.grant_first().into_iter().collect()
    }
}

impl Condvar {
    /// A condition that nobody waits for.
    pub const fn new() -> Self {
        Self(Lock::new(State(Waiters::new())))
    }

    /// Unlocks the mutex, waits for a notification, and locks it again. Nothing that is
    /// notified after the unlocking is missed.
    ///
    /// # Errors
    ///
    /// As [`crate::wait`]; the mutex is unlocked then.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> Result<MutexGuard<'a, T>, Interrupt> {
        let mutex: &'a Mutex<T> = guard.mutex();
        let mut guard = Some(guard);
        // The first attempt queues us, under the condition's lock; only then is the mutex free.
        wait_for(&self.0, |_| {
            guard = None;
            false
        })?;
        mutex.lock()
    }

    /// [`Condvar::wait`] for as long as `condition` holds.
    ///
    /// # Errors
    ///
    /// As [`crate::wait`]; the mutex is unlocked then.
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<MutexGuard<'a, T>, Interrupt> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Wakes who has waited longest.
    pub fn notify_one(&self) {
        let granted = lock(&self.0).0.grant_first();
        drop(granted);
    }

    /// Wakes everyone who waits.
    pub fn notify_all(&self) {
        let granted = lock(&self.0).0.grant_all();
        drop(granted);
    }
}
