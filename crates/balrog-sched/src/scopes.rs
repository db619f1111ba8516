use std::time::{Duration, Instant};

use crate::Interrupt;

/// How long clean-up may go on waiting after a cancellation was delivered.
pub const GRACE: Duration = Duration::from_secs(5);

/// The deadlines, shields and cancellation of one task.
///
/// Deadlines nest, and the nearest wins. A shield lets what is inside it wait on although the
/// task was cancelled or an outer deadline passed, for at most its own time: a ROLLBACK or a
/// close frame stays possible, and still the task ends.
#[derive(Debug, Default)]
pub struct Scopes {
    stack: Vec<Scope>,
    sequence: u64,
    cancel: Cancel,
    /// Another exception is to end the next wait that no shield protects.
    thrown: bool,
}

#[derive(Debug, Clone, Copy)]
struct Scope {
    id: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Waits fail from then on.
    Deadline(Instant),
    /// What comes from outside is held back until then.
    Shield(Instant),
    /// Can be cancelled as a task can, alone.
    Group(Cancel),
}

#[derive(Debug, Default, Clone, Copy)]
enum Cancel {
    #[default]
    No,
    Requested,
    /// The task saw it; its clean-up may wait until then.
    Delivered(Instant),
}

impl Cancel {
    /// From when on a wait that begins at `now` fails.
    const fn from(self, now: Instant) -> Option<Instant> {
        match self {
            Self::No => None,
            Self::Requested => Some(now),
            Self::Delivered(grace) => Some(grace),
        }
    }

    /// `false` if it was asked for before.
    fn request(&mut self) -> bool {
        let first = matches!(self, Self::No);
        if first {
            *self = Self::Requested;
        }
        first
    }

    fn deliver(&mut self, now: Instant) {
        if matches!(self, Self::Requested) {
            *self = Self::Delivered(now + GRACE);
        }
    }
}

/// Names a scope, to leave it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeId(u64);

/// Until when a task may wait at all, and what it gets then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// An enclosing deadline, from which on every wait fails with [`Interrupt::Deadline`].
    pub deadline: Option<Instant>,
    /// From when on every wait fails with [`Interrupt::Cancelled`]; in the past means at once.
    pub cancel: Option<Instant>,
}

impl Limits {
    /// The first of the two.
    pub fn nearest(&self) -> Option<Instant> {
        nearest(self.deadline, self.cancel)
    }

    /// What a wait gets at `now`. Cancellation goes first: it is final, a deadline is not.
    pub fn check(&self, now: Instant) -> Result<(), Interrupt> {
        if self.cancel.is_some_and(|at| at <= now) {
            Err(Interrupt::Cancelled)
        } else if self.deadline.is_some_and(|at| at <= now) {
            Err(Interrupt::Deadline)
        } else {
            Ok(())
        }
    }
}

impl Scopes {
    /// No scope, not cancelled.
    pub const fn new() -> Self {
        Self { stack: Vec::new(), sequence: 0, cancel: Cancel::No, thrown: false }
    }

    /// Enters a deadline: waits inside fail from `until` on.
    pub fn enter_deadline(&mut self, until: Instant) -> ScopeId {
        self.enter(Kind::Deadline(until))
    }

    /// Enters a shield: what came from outside is held back, until `until` at most.
    pub fn enter_shield(&mut self, until: Instant) -> ScopeId {
        self.enter(Kind::Shield(until))
    }

    /// Enters a group: [`Scopes::cancel_group`] cancels the waits inside, and only those.
    pub fn enter_group(&mut self) -> ScopeId {
        self.enter(Kind::Group(Cancel::No))
    }

    fn enter(&mut self, kind: Kind) -> ScopeId {
        self.sequence += 1;
        let id = self.sequence;
        self.stack.push(Scope { id, kind });
        ScopeId(id)
    }

    /// Leaves a scope. Generators can make scopes end out of order, so only this one is removed.
    pub fn leave(&mut self, id: ScopeId) {
        if let Some(position) = self.stack.iter().rposition(|scope| scope.id == id.0) {
            self.stack.remove(position);
        }
    }

    /// Asks for cancellation. `false` if it was asked for before.
    pub fn cancel(&mut self) -> bool {
        self.cancel.request()
    }

    /// Asks for cancellation of a group. `false` if it was asked for before, or has been left.
    pub fn cancel_group(&mut self, id: ScopeId) -> bool {
        self.stack.iter_mut().any(|scope| match &mut scope.kind {
            Kind::Group(cancel) if scope.id == id.0 => cancel.request(),
            _ => false,
        })
    }

    /// Whether nothing limits a wait: no scope, and no cancellation.
    pub const fn is_free(&self) -> bool {
        self.stack.is_empty() && matches!(self.cancel, Cancel::No)
    }

    /// Until when a wait that begins now, with this deadline of its own, may last. Takes note
    /// of a cancellation that it reports.
    ///
    /// # Errors
    ///
    /// [`Interrupt::Cancelled`] or [`Interrupt::Deadline`]: it may not wait at all.
    #[inline]
    pub fn check(&mut self, deadline: Option<Instant>) -> Result<Option<Instant>, Interrupt> {
        if deadline.is_none() && self.is_free() {
            return Ok(None);
        }
        self.check_limits(deadline)
    }

    fn check_limits(&mut self, deadline: Option<Instant>) -> Result<Option<Instant>, Interrupt> {
        let now = Instant::now();
        let limits = self.limits(now);
        match limits.check(now) {
            Err(Interrupt::Cancelled) => {
                self.delivered(now);
                Err(Interrupt::Cancelled)
            }
            Err(interrupt) => Err(interrupt),
            Ok(()) if deadline.is_some_and(|at| at <= now) => Err(Interrupt::Deadline),
            Ok(()) => Ok(limits.nearest().into_iter().chain(deadline).min()),
        }
    }

    /// Whether cancellation was asked for.
    pub const fn is_cancelled(&self) -> bool {
        !matches!(self.cancel, Cancel::No)
    }

    /// Whether [`Interrupt::Cancelled`] stands for an exception of the owner's, once.
    pub fn set_thrown(&mut self, thrown: bool) {
        self.thrown = thrown;
    }

    /// The task has been given [`Interrupt::Cancelled`] for the first time: its grace begins.
    pub fn delivered(&mut self, now: Instant) {
        for scope in self.stack.iter_mut().rev() {
            match &mut scope.kind {
                Kind::Group(cancel) => cancel.deliver(now),
                // What is outside of it is still held back.
                Kind::Shield(until) if *until > now => return,
                _ => {}
            }
        }
        self.cancel.deliver(now);
    }

    /// Whether no wait has any limit, so that nobody need know what time it is.
    pub const fn is_unlimited(&self) -> bool {
        self.stack.is_empty() && !self.thrown && matches!(self.cancel, Cancel::No)
    }

    /// Until when a wait that begins at `now` may last.
    pub fn limits(&self, now: Instant) -> Limits {
        let cancel = if self.thrown { Some(now) } else { self.cancel.from(now) };
        let mut limits = Limits { deadline: None, cancel };
        for scope in &self.stack {
            match scope.kind {
                Kind::Shield(until) => {
                    limits.deadline = limits.deadline.map(|at| at.max(until));
                    limits.cancel = limits.cancel.map(|at| at.max(until));
                }
                Kind::Deadline(until) => limits.deadline = nearest(limits.deadline, Some(until)),
                Kind::Group(cancel) => limits.cancel = nearest(limits.cancel, cancel.from(now)),
            }
        }
        limits
    }
}

fn nearest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_nearest_deadline_wins_and_leaving_restores() {
        let now = Instant::now();
        let mut scopes = Scopes::new();
        assert_eq!(scopes.limits(now), Limits::default());
        let outer = scopes.enter_deadline(now + SECOND);
        let inner = scopes.enter_deadline(now + 5 * SECOND);
        assert_eq!(scopes.limits(now).nearest(), Some(now + SECOND));
        scopes.leave(outer);
        assert_eq!(scopes.limits(now).nearest(), Some(now + 5 * SECOND));
        scopes.leave(inner);
        assert_eq!(scopes.limits(now).nearest(), None);
    }

    #[test]
    fn cancel_is_delivered_once_then_grace_runs_out() {
        let now = Instant::now();
        let mut scopes = Scopes::new();
        assert!(scopes.cancel());
        assert!(!scopes.cancel());
        assert_eq!(scopes.limits(now).check(now), Err(Interrupt::Cancelled));
        scopes.delivered(now);
        assert_eq!(scopes.limits(now).check(now), Ok(()));
        assert_eq!(scopes.limits(now).check(now + GRACE), Err(Interrupt::Cancelled));
    }

    #[test]
    fn a_shield_holds_back_what_is_outside_for_its_own_time() {
        let now = Instant::now();
        let mut scopes = Scopes::new();
        scopes.enter_deadline(now);
        let shield = scopes.enter_shield(now + 2 * SECOND);
        scopes.cancel();
        assert_eq!(scopes.limits(now).check(now + SECOND), Ok(()));
        assert_eq!(scopes.limits(now).check(now + 2 * SECOND), Err(Interrupt::Cancelled));
        let inner = scopes.enter_deadline(now + SECOND);
        assert_eq!(scopes.limits(now).check(now + SECOND), Err(Interrupt::Deadline));
        scopes.leave(inner);
        scopes.leave(shield);
        assert_eq!(scopes.limits(now).check(now), Err(Interrupt::Cancelled));
    }

    #[test]
    fn a_group_is_cancelled_alone_and_inside_a_shield() {
        let now = Instant::now();
        let mut scopes = Scopes::new();
        let shield = scopes.enter_shield(now + 2 * SECOND);
        let group = scopes.enter_group();
        scopes.cancel();
        assert_eq!(scopes.limits(now).check(now), Ok(()));
        assert!(scopes.cancel_group(group));
        assert!(!scopes.cancel_group(group));
        assert_eq!(scopes.limits(now).check(now), Err(Interrupt::Cancelled));
        scopes.delivered(now);
        assert_eq!(scopes.limits(now).check(now), Ok(()));
        scopes.leave(group);
        assert!(!scopes.cancel_group(group));
        // The task's own cancellation was held back, so its grace has not begun.
        scopes.leave(shield);
        assert_eq!(scopes.limits(now).check(now), Err(Interrupt::Cancelled));
    }

    #[test]
    fn what_is_thrown_waits_for_the_shields_end() {
        let now = Instant::now();
        let mut scopes = Scopes::new();
        let shield = scopes.enter_shield(now + SECOND);
        scopes.set_thrown(true);
        assert_eq!(scopes.limits(now).check(now), Ok(()));
        scopes.leave(shield);
        assert_eq!(scopes.limits(now).check(now), Err(Interrupt::Cancelled));
        scopes.set_thrown(false);
        assert_eq!(scopes.limits(now).check(now), Ok(()));
    }

    #[test]
    fn a_shield_alone_limits_nothing() {
        let now = Instant::now();
        let mut scopes = Scopes::new();
        scopes.enter_shield(now + SECOND);
        assert_eq!(scopes.limits(now).nearest(), None);
    }
}
