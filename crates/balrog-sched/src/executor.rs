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

use slab::Slab;

use crate::runtime::{LocalFuture, Runtime, with_runtime};
use crate::{JoinError, Timers, spawn};

/// So many tasks run between two looks at the outside.
const TURN: usize = 64;

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
        f.debug_struct("Executor").field("tasks", &self.local.tasks.borrow().len()).finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor whose outside is `driver`. To be run on the thread that makes it.
    pub fn new(driver: Box<dyn Driver>) -> Self {
        let remote = Arc::new(Remote { woken: Mutex::default(), notify: driver.notifier() });
        let local = Rc::new_cyclic(|this| Local {
            this: Weak::clone(this),
            tasks: RefCell::default(),
            ready: RefCell::default(),
            timers: RefCell::default(),
            stale: Cell::new(0),
            stamp: Cell::new(0),
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
            CURRENT.with(|current| {
                let before = current.replace(Some(Rc::clone(&self.local)));
                let result = self.run_here(f);
                // Dropped here, where they can still be woken and spawn.
                self.local.clear();
                current.replace(before);
                result
            })
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
        loop {
            if let Poll::Ready(result) = Pin::new(&mut main).poll(&mut context) {
                return Ok(result);
            }
            for _ in 0..TURN {
                let Some(key) = self.local.next() else { break };
                self.local.run(key);
            }
            self.driver.poll(if main.is_finished() {
                Some(Duration::ZERO)
            } else {
                self.local.idle_time()
            })?;
            self.local.take_in();
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
    static CURRENT: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

/// Names a task for its wakes. A late one, for a task that has ended, finds another stamp.
#[derive(Debug, Clone, Copy)]
struct Key {
    index: u32,
    stamp: u32,
}

struct Local {
    this: Weak<Self>,
    tasks: RefCell<Slab<Slot>>,
    ready: RefCell<VecDeque<Key>>,
    timers: RefCell<Timers<Rc<Alarm>>>,
    /// Timers in the heap that nobody waits for any more.
    stale: Cell<usize>,
    stamp: Cell<u32>,
    remote: Arc<Remote>,
}

struct Slot {
    stamp: u32,
    /// Out while it runs.
    work: Option<Work>,
    queued: bool,
}

struct Work {
    future: LocalFuture<()>,
    waker: Waker,
}

impl Local {
    fn next(&self) -> Option<Key> {
        self.ready.borrow_mut().pop_front()
    }

    fn run(&self, key: Key) {
        let Some(mut work) = self.slot(key, |slot| {
            slot.queued = false;
            slot.work.take()
        }) else {
            return;
        };
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            work.future.as_mut().poll(&mut Context::from_waker(&work.waker))
        }));
        if matches!(polled, Ok(Poll::Pending)) {
            self.slot(key, |slot| {
                slot.work = Some(work);
                Some(())
            });
        } else {
            // A spawned task keeps its panic for its joiner; any other future's ends with it,
            // and has been printed.
            let slot = self.tasks.borrow_mut().try_remove(key.index as usize);
            drop((slot, work));
        }
    }

    fn slot<T>(&self, key: Key, f: impl FnOnce(&mut Slot) -> Option<T>) -> Option<T> {
        let mut tasks = self.tasks.borrow_mut();
        f(tasks.get_mut(key.index as usize).filter(|slot| slot.stamp == key.stamp)?)
    }

    fn wake(&self, key: Key) {
        let queue = self.slot(key, |slot| Some(!std::mem::replace(&mut slot.queued, true)));
        if queue == Some(true) {
            self.ready.borrow_mut().push_back(key);
        }
    }

    /// How long the driver may wait.
    fn idle_time(&self) -> Option<Duration> {
        if !self.ready.borrow().is_empty() || !self.remote.lock().is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.borrow().next().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Wakes from other threads, and timers.
    fn take_in(&self) {
        let woken = std::mem::take(&mut *self.remote.lock());
        for key in woken {
            self.wake(key);
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
        loop {
            let mut tasks = self.tasks.borrow_mut();
            let Some(index) = tasks.iter().next().map(|(index, _)| index) else { break };
            let slot = tasks.remove(index);
            drop(tasks);
            // Outside of the borrow: it may wake others, and even spawn.
            drop(slot);
        }
        self.ready.borrow_mut().clear();
    }
}

impl Runtime for Local {
    fn spawn_local(&self, future: LocalFuture<()>) {
        let stamp = self.stamp.get().wrapping_add(1);
        self.stamp.set(stamp);
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        // 4 billion tasks at once are beyond any machine.
        let key = Key { index: entry.key() as u32, stamp };
        let waker = Waker::from(Arc::new(TaskWaker { key, remote: Arc::clone(&self.remote) }));
        entry.insert(Slot { stamp, work: Some(Work { future, waker }), queued: true });
        drop(tasks);
        self.ready.borrow_mut().push_back(key);
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
    woken: Mutex<Vec<Key>>,
    notify: Arc<dyn Fn() + Send + Sync>,
}

impl Remote {
    fn lock(&self) -> MutexGuard<'_, Vec<Key>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TaskWaker {
    key: Key,
    remote: Arc<Remote>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let here = CURRENT.try_with(|current| {
            // Borrowed only to set it, when nothing runs.
            let current = current.borrow();
            match &*current {
                Some(local) if Arc::ptr_eq(&local.remote, &self.remote) => {
                    local.wake(self.key);
                    true
                }
                _ => false,
            }
        });
        if here != Ok(true) {
            self.remote.lock().push(self.key);
            (self.remote.notify)();
        }
    }
}
