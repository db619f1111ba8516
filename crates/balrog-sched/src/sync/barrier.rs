use std::sync::Mutex;

use super::waiters::{Granted, Queued, Waiters, wait_for};
use crate::Interrupt;

/// A place where so many have to come before any goes on.
#[derive(Debug)]
pub struct Barrier(Mutex<State>);

#[derive(Debug)]
struct State {
    parties: usize,
    /// How many are there now.
    arrived: usize,
    waiters: Waiters,
}

impl Queued for State {
    fn waiters(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    fn hand_on(&mut self) -> Vec<Granted> {
        // The round that it was counted in is over.
        Vec::new()
    }

    fn abandoned(&mut self) {
        self.arrived -= 1;
    }
}

impl Barrier {
    /// A barrier for `parties`; 0 counts as 1. It can be used again and again.
    pub fn new(parties: usize) -> Self {
        Self(Mutex::new(State { parties: parties.max(1), arrived: 0, waiters: Waiters::new() }))
    }

    /// Waits for the others. `true` for one of them, the last to come.
    ///
    /// # Errors
    ///
    /// As [`crate::wait`]; one that is interrupted is not counted any more.
    pub fn wait(&self) -> Result<bool, Interrupt> {
        let (mut last, mut granted) = (false, Vec::new());
        wait_for(&self.0, |state| {
            state.arrived += 1;
            last = state.arrived == state.parties;
            if last {
                state.arrived = 0;
                granted = state.waiters.grant_all();
            }
            last
        })?;
        drop(granted);
        Ok(last)
    }
}
