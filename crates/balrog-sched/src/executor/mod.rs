//! Our own executor: tasks and futures of one thread, with no atomic on the way of a wake from
//! that thread.

mod list;
mod queue;
mod tasks;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use self::queue::{Current, Queue};
use self::tasks::{Tasks, Work};
use crate::runtime::{LocalFuture, Runtime, with_runtime};
use crate::task::Turn;
use crate::wait::without_suspender;
use crate::{JoinError, Task, Timers, spawn};

/// So many tasks run between two looks at the outside, which cost a system call.
const TURN: usize = 64;
/// So many at most, while those looks find nothing to do.
const LONGEST_TURN: usize = 4 * TURN;

/// Where an executor's wake-ups from outside come from: a reactor, or nothing but other threads.
pub trait Driver {
    /// Takes in what has happened outside, waking whom it concerns; waits for it for at most
    /// `timeout` (`None`: for ever) if nothing has.
    ///
    /// # Errors
    ///
    /// What ends [`Executor::run`].
    fn poll(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Ends the current or the next [`Driver::poll`], from any thread.
    fn notifier(&self) -> Arc<dyn Fn() + Send + Sync>;
}

/// Waits for other threads only.
#[derive(Debug, Default)]
pub struct Park;

impl Driver for Park {
    fn poll(&self, timeout: Option<Duration>) -> io::Result<()> {
        match timeout {
            Some(timeout) if timeout.is_zero() => {}
            Some(timeout) => std::thread::park_timeout(timeout),
            None => std::thread::park(),
        }
        Ok(())
    }

    fn notifier(&self) -> Arc<dyn Fn() + Send + Sync> {
        let thread = std::thread::current();
        Arc::new(move || thread.unpark())
    }
}

/// Runs tasks, and any other futures, on the thread that calls [`Executor::run`].
pub struct Executor {
    local: Rc<Local>,
    driver: Box<dyn Driver>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("tasks", &self.local.count().0).finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor whose outside is `driver`. To be run on the thread that makes it.
    pub fn new(driver: Box<dyn Driver>) -> Self {
        let local = Rc::new_cyclic(|this| Local {
            this: Weak::clone(this),
            queue: Queue::new(driver.notifier()),
            timers: RefCell::default(),
            stale: Cell::new(0),
        });
        Self { local, driver }
    }

    /// Runs `f` as a task, and whatever it spawns, until `f` returns. What still runs then is
    /// dropped, see [`Task`].
    ///
    /// # Errors
    ///
    /// What the driver says, or when there is no memory for a stack. A panic of `f` goes on.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let runtime: Rc<dyn Runtime> = Rc::<Local>::clone(&self.local);
        let result = with_runtime(Some(runtime), || {
            let _current = Current::enter(&self.local.queue);
            let result = without_suspender(|| self.run_here(f));
            // Dropped here, where they can still be woken and spawn.
            self.local.clear();
            result
        });
        match result? {
            Ok(output) => Ok(output),
            Err(JoinError::Panicked(panic)) => std::panic::resume_unwind(panic.into_payload()),
            Err(error) => Err(error.into()),
        }
    }

    fn run_here<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Result<T, JoinError>> {
        let mut main = spawn(f)?;
        let mut turn = TURN;
        loop {
            self.local.turn(turn);
            if main.is_finished() {
                break;
            }
            let before = self.local.queue.ready();
            self.driver.poll(self.local.idle_time())?;
            self.local.take_in();
            let found = before == 0 || self.local.queue.ready() > before;
            turn = if found { TURN } else { LONGEST_TURN.min(2 * turn) };
        }
        // Its end needs no wake: the loop looks.
        let Poll::Ready(result) = Pin::new(&mut main).poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("a finished task has a result")
        };
        Ok(result)
    }
}

struct Local {
    this: Weak<Self>,
    queue: Queue,
    timers: RefCell<Timers<Rc<Alarm>>>,
    /// Timers in the heap that nobody waits for any more.
    stale: Cell<usize>,
}

impl Local {
    /// Runs whoever is ready, `most` times at most.
    fn turn(&self, most: usize) {
        for _ in 0..most {
            // SAFETY: a method only.
            let Some((index, stack)) = (unsafe { self.queue.with(Tasks::next) }) else { return };
            let turn = match stack {
                // SAFETY: `next` gave it because it waits, and it stays in its slot until it
                // comes back: `Tasks::end` leaves what runs alone.
                Some(stack) => unsafe { stack.turn() },
                None => self.poll(index),
            };
            // SAFETY: a method only.
            if unsafe { self.queue.with(|tasks| tasks.come_back(index, turn)) } {
                self.end(index);
            }
        }
    }

    /// The turn of a future.
    fn poll(&self, index: u32) -> Turn {
        // SAFETY: a method only.
        let (mut work, waker) = unsafe { self.queue.with(|tasks| tasks.take(index)) };
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| match &mut work {
            Work::Future(future) => future.as_mut().poll(&mut context),
            Work::Task(_) | Work::Nothing => Poll::Ready(()),
        }));
        // SAFETY: a method only; what lies in the slot is nothing.
        unsafe { self.queue.with(|tasks| tasks.put_back(index, work)) };
        // Its panic ends with it, and has been printed.
        if matches!(polled, Ok(Poll::Pending)) { Turn::Waits } else { Turn::Ended }
    }

    fn end(&self, index: u32) {
        // SAFETY: a method only.
        let over = unsafe { self.queue.with(|tasks| tasks.end(index)) };
        // After that: it may wake others, and even spawn.
        drop(over);
    }

    /// How many there are: all of them, and those that do not run now.
    fn count(&self) -> (usize, usize) {
        // SAFETY: methods only.
        unsafe { self.queue.with(|tasks| (tasks.live(), tasks.waiting())) }
    }

    /// How long the driver may wait.
    fn idle_time(&self) -> Option<Duration> {
        if !self.queue.is_quiet() {
            return Some(Duration::ZERO);
        }
        self.timers.borrow().next().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Wakes from other threads, and timers.
    fn take_in(&self) {
        self.queue.take_in();
        if self.timers.borrow().is_empty() {
            return;
        }
        let now = Instant::now();
        loop {
            let due = self.timers.borrow_mut().pop_due(now);
            let Some(alarm) = due else { return };
            if Rc::strong_count(&alarm) == 1 {
                self.stale.set(self.stale.get().saturating_sub(1));
            }
            alarm.fired.set(true);
            if let Some(waker) = alarm.waker.take() {
                waker.wake();
            }
        }
    }

    fn clear(&self) {
        // Again until none is left, since dropping one may spawn others.
        while self.count().1 > 0 {
            let mut index = 0;
            // SAFETY: a method only.
            while index < unsafe { self.queue.with(|tasks| tasks.slots()) } {
                self.end(index as u32);
                index += 1;
            }
        }
    }
}

impl Runtime for Local {
    fn spawn_local(&self, future: LocalFuture<()>) {
        self.queue.begin(|_| Work::Future(future));
    }

    fn spawn_task(&self, mut task: Task<()>) {
        self.queue.begin(|waker| {
            task.bind(waker);
            Work::Task(task)
        });
    }

    fn timer(&self, at: Instant) -> LocalFuture<()> {
        Box::pin(Timer { at, alarm: None, local: Weak::clone(&self.this) })
    }
}

/// A timer of an executor.
struct Timer {
    at: Instant,
    alarm: Option<Rc<Alarm>>,
    local: Weak<Local>,
}

#[derive(Default)]
struct Alarm {
    fired: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.alarm.as_ref().map_or_else(|| Instant::now() >= self.at, |alarm| alarm.fired.get()) {
            return Poll::Ready(());
        }
        let (at, local) = (self.at, Weak::clone(&self.local));
        let alarm = self.alarm.get_or_insert_with(|| {
            let alarm = Rc::new(Alarm::default());
            if let Some(local) = local.upgrade() {
                local.timers.borrow_mut().push(at, Rc::clone(&alarm));
            }
            alarm
        });
        alarm.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let (Some(alarm), Some(local)) = (self.alarm.take(), self.local.upgrade()) else { return };
        if alarm.fired.get() {
            return;
        }
        drop(alarm);
        // Long time-outs of short waits would pile up: drop them once they are the majority.
        let stale = local.stale.get() + 1;
        let mut timers = local.timers.borrow_mut();
        if stale > 256 && stale * 2 > timers.len() {
            timers.retain(|alarm| Rc::strong_count(alarm) > 1);
            local.stale.set(0);
        } else {
            local.stale.set(stale);
        }
    }
}
