use std::time::{Duration, Instant};

use crate::postgres::event::Unit;
use crate::{Error, Timer};

/// The deadlines of a session.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// The end of the log-in.
    pub(super) connect: Option<Instant>,
    /// The end of [`recover`](crate::Link::recover).
    pub(super) drain: Option<Instant>,
    /// When the owner wants a unit to be over.
    query: Option<(Unit, Instant)>,
    /// That time has come.
    passed: bool,
    /// The owner has not been told yet.
    overdue: bool,
    /// When it must be over, cancelled or not.
    cancel: Option<Instant>,
}

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        let query = self.query.filter(|_| !self.passed).map(|(_, at)| at);
        [self.connect, self.drain, query, self.cancel].into_iter().flatten().min()
    }

    /// Sets or clears the deadline of a unit.
    pub(super) fn set_query(&mut self, query: Option<(Unit, Instant)>) {
        *self = Self { connect: self.connect, drain: self.drain, query, ..Self::default() };
    }

    /// This unit is complete, and so is all before it.
    pub(super) fn done(&mut self, unit: Unit) {
        if self.query.is_some_and(|(query, _)| query <= unit) {
            self.set_query(None);
        }
    }

    /// The unit whose deadline has passed, once.
    pub(super) fn take_overdue(&mut self) -> Option<Unit> {
        let (unit, _) = self.query?;
        std::mem::take(&mut self.overdue).then_some(unit)
    }

    /// It is `now`.
    pub(super) fn pass(&mut self, now: Instant, cancel_time: Option<Duration>) -> Result<(), Error> {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        for (at, timer) in
            [(self.connect, Timer::Connect), (self.drain, Timer::Drain), (self.cancel, Timer::Query)]
        {
            if passed(at) {
                return Err(Error::Timeout(timer));
            }
        }
        if !self.passed && passed(self.query.map(|(_, at)| at)) {
            (self.passed, self.overdue) = (true, true);
            self.cancel = cancel_time.map(|time| now + time);
        }
        Ok(())
    }
}
