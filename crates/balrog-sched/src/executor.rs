//! Our own executor: tasks and futures of one thread, with no atomic on the way of a wake from
//! that thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::runtime::{LocalFuture, Runtime, with_runtime};
use crate::{JoinError, Timers, spawn};

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
        f.debug_struct("Executor").field("tasks", &self.local.tasks.borrow().live()).finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor whose outside is `driver`. To be run on the thread that makes it.
    pub fn new(driver: Box<dyn Driver>) -> Self {
        let remote = Arc::new(Remote { woken: Mutex::default(), notify: driver.notifier() });
        let local = Rc::new_cyclic(|this| Local {
            this: Weak::clone(this),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            stale: Cell::new(0),
            remote,
        });
        Self { local, driver }
    }

    /// Runs `f` as a task, and whatever it spawns, until `f` returns. What still runs then is
    /// dropped, see [`Task`](crate::Task).
    ///
    /// # Errors
    ///
    /// What the driver says, or when there is no memory for a stack. A panic of `f` goes on.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let runtime: Rc<dyn Runtime> = Rc::<Local>::clone(&self.local);
        let result = with_runtime(Some(runtime), || {
            let _current = Current::enter(&self.local);
            let result = self.run_here(f);
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
        let done = Arc::new(Unset(Arc::clone(&self.local.remote)));
        let waker = Waker::from(done);
        let mut context = Context::from_waker(&waker);
        let mut turn = TURN;
        loop {
            if let Poll::Ready(result) = Pin::new(&mut main).poll(&mut context) {
                return Ok(result);
            }
            for _ in 0..turn {
                if !self.local.run_next() {
                    break;
                }
            }
            let before = self.local.ready();
            self.driver.poll(if main.is_finished() {
                Some(Duration::ZERO)
            } else {
                self.local.idle_time()
            })?;
            self.local.take_in();
            let found = before == 0 || self.local.ready() > before;
            turn = if found { TURN } else { LONGEST_TURN.min(2 * turn) };
        }
    }
}

/// The end of the main task needs no wake of its own: the loop looks.
struct Unset(Arc<Remote>);

impl Wake for Unset {
    fn wake(self: Arc<Self>) {
        (self.0.notify)();
    }
}

thread_local! {
    /// The executor whose [`Executor::run`] is the innermost of this thread.
    static CURRENT: Cell<Option<&'static Local>> = const { Cell::new(None) };
}

/// Makes an executor the thread's, until dropped.
struct Current<'a> {
    before: Option<&'static Local>,
    /// It lives that long.
    _local: &'a Rc<Local>,
}

impl<'a> Current<'a> {
    fn enter(local: &'a Rc<Local>) -> Self {
        // SAFETY: only the lifetime changes. The reference is in `CURRENT` no longer than this
        // value lives, which borrows the `Rc`; it is never forgotten, and whoever reads
        // `CURRENT` uses what it finds for one call below the frame that holds this value, or
        // on a stack that is resumed below it.
        let current: &'static Local = unsafe { &*Rc::as_ptr(local) };
        Self { before: CURRENT.replace(Some(current)), _local: local }
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

struct Local {
    this: Weak<Self>,
    tasks: RefCell<Tasks>,
    timers: RefCell<Timers<Rc<Alarm>>>,
    /// Timers in the heap that nobody waits for any more.
    stale: Cell<usize>,
    remote: Arc<Remote>,
}

/// The tasks by their indices, and whose turn it is.
///
/// A slot and its waker are used again for the next task, so that a new task costs no waker. A
/// late wake for the one before is a wake too many for the new one, which futures allow.
#[derive(Default)]
struct Tasks {
    slots: Vec<Slot>,
    /// Slots without a task and not in `ready`; used last, taken first.
    free: Vec<u32>,
    ready: VecDeque<u32>,
}

struct Slot {
    /// Out while it runs.
    future: Option<LocalFuture<()>>,
    /// Out while it runs, too.
    waker: Option<Waker>,
    /// Whether it has a task.
    live: bool,
    /// Whether it is in `ready`; an ended task may be there still.
    queued: bool,
}

impl Tasks {
    fn live(&self) -> usize {
        self.slots.iter().filter(|slot| slot.live).count()
    }

    fn wake(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && slot.live
            && !slot.queued
        {
            slot.queued = true;
            self.ready.push_back(index);
        }
    }

    /// The next one to run: its future and its waker.
    fn next(&mut self) -> Option<(u32, LocalFuture<()>, Waker)> {
        loop {
            let index = self.ready.pop_front()?;
            let slot = self.slots.get_mut(index as usize)?;
            slot.queued = false;
            if !slot.live {
                // It ended after it was woken.
                self.free.push(index);
                continue;
            }
            // One that runs an executor inside of it, and is woken meanwhile, is out.
            let Some(future) = slot.future.take() else { continue };
            if let Some(waker) = slot.waker.take() {
                return Some((index, future, waker));
            }
        }
    }

    /// The slot's task is over.
    fn end(&mut self, index: u32) -> Option<LocalFuture<()>> {
        let slot = self.slots.get_mut(index as usize)?;
        slot.live = false;
        if !slot.queued {
            self.free.push(index);
        }
        slot.future.take()
    }
}

impl Local {
    fn run_next(&self) -> bool {
        let Some((index, mut future, waker)) = self.tasks.borrow_mut().next() else { return false };
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            future.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        let pending = matches!(polled, Ok(Poll::Pending));
        let mut tasks = self.tasks.borrow_mut();
        let Some(slot) = tasks.slots.get_mut(index as usize) else { return true };
        slot.waker = Some(waker);
        if pending && slot.live {
            slot.future = Some(future);
        } else {
            // A spawned task keeps its panic for its joiner; any other future's ends with it,
            // and has been printed.
            if slot.live {
                tasks.end(index);
            }
            drop(tasks);
            drop((future, polled));
        }
        true
    }

    /// How many wait for their turn.
    fn ready(&self) -> usize {
        self.tasks.borrow().ready.len()
    }

    /// How long the driver may wait.
    fn idle_time(&self) -> Option<Duration> {
        if self.ready() > 0 || !self.remote.lock().is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.borrow().next().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Wakes from other threads, and timers.
    fn take_in(&self) {
        let woken = std::mem::take(&mut *self.remote.lock());
        if !woken.is_empty() {
            let mut tasks = self.tasks.borrow_mut();
            woken.into_iter().for_each(|index| tasks.wake(index));
        }
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
        while self.tasks.borrow().slots.iter().any(|slot| slot.live) {
            let mut index = 0;
            while index < self.tasks.borrow().slots.len() {
                let mut tasks = self.tasks.borrow_mut();
                let ended = tasks.slots[index].live.then(|| tasks.end(index as u32));
                drop(tasks);
                // Outside of the borrow: it may wake others, and even spawn.
                drop(ended);
                index += 1;
            }
        }
    }
}

impl Runtime for Local {
    fn spawn_local(&self, future: LocalFuture<()>) {
        let mut tasks = self.tasks.borrow_mut();
        if let Some(index) = tasks.free.pop() {
            if let Some(slot) = tasks.slots.get_mut(index as usize) {
                (slot.future, slot.live, slot.queued) = (Some(future), true, true);
            }
            tasks.ready.push_back(index);
            return;
        }
        // 4 billion tasks at once are beyond any machine.
        let index = tasks.slots.len() as u32;
        let waker = Waker::from(Arc::new(TaskWaker { index, remote: Arc::clone(&self.remote) }));
        tasks.slots.push(Slot { future: Some(future), waker: Some(waker), live: true, queued: true });
        tasks.ready.push_back(index);
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

/// Wakes from other threads.
struct Remote {
    woken: Mutex<Vec<u32>>,
    notify: Arc<dyn Fn() + Send + Sync>,
}

impl Remote {
    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TaskWaker {
    index: u32,
    remote: Arc<Remote>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match CURRENT.get() {
            Some(local) if Arc::ptr_eq(&local.remote, &self.remote) => {
                local.tasks.borrow_mut().wake(self.index);
            }
            _ => {
                self.remote.lock().push(self.index);
                (self.remote.notify)();
            }
        }
    }
}
