use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use crate::Timers;

/// What ended a park.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// What was waited for has happened.
    Ready,
    /// A timer of the park fired.
    Timer,
    /// The task is to look at its cancellation.
    Cancelled,
}

/// Names one park of one stack. Waking it a second time, or after it ended, does nothing.
///
/// Every source of wake-ups (readiness, timer, cancel, another thread) may therefore keep a
/// token for as long as it likes, and races between them need no further thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    index: usize,
    stamp: u64,
}

/// What a scheduler hands its loop to run next.
#[derive(Debug)]
pub enum Runnable<S, J> {
    /// A parked stack goes on.
    Resume(S, Wake),
    /// A job that has no stack yet.
    Start(J),
}

/// Who runs next: a FIFO of runnable stacks and new jobs, the parked stacks, their timers.
///
/// `S` is whatever the engine calls a suspended stack; `J` a job that is to be started on one.
/// The scheduler never runs anything itself: its owner takes [`Scheduler::next`] and switches.
#[derive(Debug)]
pub struct Scheduler<S, J> {
    parked: Slab<Parked<S>>,
    ready: VecDeque<Runnable<S, J>>,
    timers: Timers<Token>,
    stamp: u64,
    /// Timers in the heap whose park has ended.
    stale: usize,
}

#[derive(Debug)]
struct Parked<S> {
    stamp: u64,
    stack: S,
    timers: usize,
}

impl<S, J> Scheduler<S, J> {
    /// Nothing to run.
    pub const fn new() -> Self {
        Self { parked: Slab::new(), ready: VecDeque::new(), timers: Timers::new(), stamp: 0, stale: 0 }
    }

    /// Queues a new job behind everything that is runnable.
    pub fn start(&mut self, job: J) {
        self.ready.push_back(Runnable::Start(job));
    }

    /// Queues a running stack behind everything that is runnable: a park that is over at once.
    pub fn requeue(&mut self, stack: S) {
        self.ready.push_back(Runnable::Resume(stack, Wake::Ready));
    }

    /// Parks `stack` until the token is woken, or until `deadline`.
    pub fn park(&mut self, stack: S, deadline: Option<Instant>) -> Token {
        self.stamp += 1;
        let stamp = self.stamp;
        let index = self.parked.insert(Parked { stamp, stack, timers: 0 });
        let token = Token { index, stamp };
        if let Some(at) = deadline {
            self.arm(token, at);
        }
        token
    }

    /// Wakes a parked stack with [`Wake::Timer`] at `at`, unless something else does so before.
    pub fn arm(&mut self, token: Token, at: Instant) {
        if let Some(parked) = self.parked.get_mut(token.index).filter(|parked| parked.stamp == token.stamp) {
            parked.timers += 1;
            self.timers.push(at, token);
        }
    }

    /// Makes a parked stack runnable. `false` if that park has ended already.
    pub fn wake(&mut self, token: Token, wake: Wake) -> bool {
        match self.take(token) {
            Some(stack) => {
                self.ready.push_back(Runnable::Resume(stack, wake));
                true
            }
            None => false,
        }
    }

    /// Ends a park without running its stack.
    pub fn take(&mut self, token: Token) -> Option<S> {
        if !self.is_parked(token) {
            return None;
        }
        let parked = self.parked.remove(token.index);
        self.stale += parked.timers;
        self.sweep();
        Some(parked.stack)
    }

    /// The stack of a park that still lasts.
    pub fn get(&self, token: Token) -> Option<&S> {
        self.parked.get(token.index).filter(|parked| parked.stamp == token.stamp).map(|parked| &parked.stack)
    }

    /// The stacks whose park has ended and whose turn has not come.
    pub fn woken(&self) -> impl Iterator<Item = &S> {
        self.ready.iter().filter_map(|runnable| match runnable {
            Runnable::Resume(stack, _) => Some(stack),
            Runnable::Start(_) => None,
        })
    }

    /// Whether this park still lasts.
    pub fn is_parked(&self, token: Token) -> bool {
        self.parked.get(token.index).is_some_and(|parked| parked.stamp == token.stamp)
    }

    /// Wakes every stack whose timer is due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(token) = self.timers.pop_due(now) {
            match self.parked.get_mut(token.index).filter(|parked| parked.stamp == token.stamp) {
                Some(parked) => {
                    parked.timers -= 1;
                    self.wake(token, Wake::Timer);
                }
                None => self.stale -= 1,
            }
        }
    }

    /// The next one to run, in the order of becoming runnable.
    // Not an iterator: what is runnable changes between the calls.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Runnable<S, J>> {
        self.ready.pop_front()
    }

    /// The next one, if it is a new job: a stack that has just ended may run it with no switch.
    pub fn next_job(&mut self) -> Option<J> {
        match self.ready.pop_front()? {
            Runnable::Start(job) => Some(job),
            resume @ Runnable::Resume(..) => {
                self.ready.push_front(resume);
                None
            }
        }
    }

    /// Takes the first runnable stack that `is_it` picks, out of turn, and what woke it.
    ///
    /// For the owner of a stack that cannot be switched away from: it may not run anybody else
    /// until its own wait has ended.
    pub fn take_ready(&mut self, is_it: impl Fn(&S) -> bool) -> Option<Wake> {
        let at = self
            .ready
            .iter()
            .position(|runnable| matches!(runnable, Runnable::Resume(stack, _) if is_it(stack)))?;
        match self.ready.remove(at)? {
            Runnable::Resume(_, wake) => Some(wake),
            Runnable::Start(_) => None,
        }
    }

    /// Whether anything is runnable now.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the nearest timer is due. May be early: a timer of an ended park counts too.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// How many stacks are parked.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Long time-outs of short waits would pile up: drop them once they are the majority.
    fn sweep(&mut self) {
        const FEW: usize = 256;
        if self.stale > FEW && self.stale * 2 > self.timers.len() {
            let parked = &self.parked;
            self.timers
                .retain(|token| parked.get(token.index).is_some_and(|entry| entry.stamp == token.stamp));
            self.stale = 0;
        }
    }
}

impl<S, J> Default for Scheduler<S, J> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    type Names = Scheduler<&'static str, &'static str>;

    fn names(scheduler: &mut Names) -> Vec<(&'static str, Option<Wake>)> {
        std::iter::from_fn(|| scheduler.next())
            .map(|runnable| match runnable {
                Runnable::Resume(stack, wake) => (stack, Some(wake)),
                Runnable::Start(job) => (job, None),
            })
            .collect()
    }

    #[test]
    fn runs_in_the_order_of_becoming_runnable() {
        let mut scheduler = Names::new();
        let a = scheduler.park("a", None);
        let b = scheduler.park("b", None);
        scheduler.wake(b, Wake::Ready);
        scheduler.start("new");
        scheduler.requeue("c");
        scheduler.wake(a, Wake::Cancelled);
        assert_eq!(scheduler.next_job(), None);
        assert_eq!(
            names(&mut scheduler),
            [("b", Some(Wake::Ready)), ("new", None), ("c", Some(Wake::Ready)), ("a", Some(Wake::Cancelled))]
        );
    }

    #[test]
    fn a_park_ends_once() {
        let mut scheduler = Names::new();
        let now = Instant::now();
        let token = scheduler.park("a", Some(now));
        assert!(scheduler.wake(token, Wake::Ready));
        assert!(!scheduler.wake(token, Wake::Cancelled));
        // The slot is used again: the old token and the old timer do not touch the new park.
        let again = scheduler.park("b", None);
        assert_eq!(again.index, token.index);
        scheduler.expire(now);
        assert!(!scheduler.wake(token, Wake::Ready));
        assert!(scheduler.is_parked(again));
        assert_eq!(names(&mut scheduler), [("a", Some(Wake::Ready))]);
        assert_eq!(scheduler.take(again), Some("b"));
        assert_eq!(scheduler.parked(), 0);
    }

    #[test]
    fn timers_wake_in_their_order() {
        let mut scheduler = Names::new();
        let now = Instant::now();
        let late = scheduler.park("late", Some(now + Duration::from_secs(2)));
        scheduler.park("soon", Some(now + Duration::from_secs(1)));
        scheduler.arm(late, now + Duration::from_millis(500));
        scheduler.expire(now + Duration::from_secs(3));
        assert_eq!(names(&mut scheduler), [("late", Some(Wake::Timer)), ("soon", Some(Wake::Timer))]);
        assert_eq!(scheduler.next_timer(), None);
        assert_eq!(scheduler.stale, 0);
    }

    #[test]
    fn one_is_taken_out_of_turn() {
        let mut scheduler = Names::new();
        let tokens = ["a", "b", "c"].map(|name| scheduler.park(name, None));
        scheduler.start("new");
        assert_eq!(scheduler.take_ready(|name| *name == "b"), None);
        for token in tokens {
            scheduler.wake(token, Wake::Timer);
        }
        assert_eq!(scheduler.take_ready(|name| *name == "b"), Some(Wake::Timer));
        assert_eq!(scheduler.take_ready(|name| *name == "b"), None);
        assert_eq!(
            names(&mut scheduler),
            [("new", None), ("a", Some(Wake::Timer)), ("c", Some(Wake::Timer))]
        );
    }

    #[test]
    fn long_timeouts_of_short_waits_do_not_pile_up() {
        let mut scheduler = Names::new();
        let far = Instant::now() + Duration::from_secs(3600);
        for _ in 0..100_000 {
            let token = scheduler.park("short", Some(far));
            scheduler.wake(token, Wake::Ready);
            scheduler.next();
        }
        assert!(scheduler.timers.len() < 1_000, "{} timers", scheduler.timers.len());
    }
}
