//! The hub: one per thread, it decides which stack runs and polls when none can.

mod park;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog_backends::{Interest, Reactor, Readiness, Ready};
use balrog_sched::{Runnable, Scheduler, Timers, Token, Wake};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use slab::Slab;

use crate::engine::{Current, Engine, Stack};
use crate::foreign::Depth;
use crate::guest::Guest;
use crate::inspect;
use crate::inspect::Pulse;
use crate::interrupt::WaitError;
use crate::loops;
use crate::remote::{Activity, Remote, Request};
use crate::signals::{self, Interrupts};
use crate::task::Task;

/// How many stacks run between two polls.
const TURN: u32 = 64;
/// How many idle stacks are kept for the next jobs.
const IDLE_STACKS: usize = 1024;
/// A poll never lasts longer, so that a signal that came right before it is noticed in time.
const LONGEST_POLL: Duration = Duration::from_secs(1);

/// Work for a stack of its own.
pub(crate) type Job = Box<dyn FnOnce(Python<'_>, &'static Hub)>;

/// Something that the hub itself feeds, on its own stack: a listener, an idle connection.
///
/// Its methods must neither wait nor run Python code that might.
pub(crate) trait Source {
    /// The descriptor's readiness changed. It is an edge: read or write until `WouldBlock`.
    fn ready(self: Rc<Self>, py: Python<'_>, hub: &'static Hub, readiness: Readiness);

    /// A timer of [`Hub::arm`] fired.
    fn timer(self: Rc<Self>, py: Python<'_>, hub: &'static Hub);
}

/// Names a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceKey {
    index: usize,
    stamp: u64,
}

/// A stack that is parked.
pub(crate) enum Parked {
    /// Any stack but the runner's, with the task that it runs.
    Stack(Stack, Option<Py<Task>>),
    /// The stack that runs the loop; it looks here whether its own wait has ended.
    Runner(Rc<Cell<Option<Wake>>>),
}

/// One thread's scheduler, poller and stacks. Never dropped; see [`Hub::current`].
pub(crate) struct Hub {
    pub(crate) scheduler: RefCell<Scheduler<Parked, Job>>,
    pub(crate) remote: Arc<Remote>,
    /// Empty after the thread has ended.
    reactor: RefCell<Option<Reactor<Token, SourceKey>>>,
    sources: RefCell<Slab<(u64, Rc<dyn Source>)>>,
    source_timers: RefCell<Timers<SourceKey>>,
    stamp: Cell<u64>,
    /// The stack that runs the loop now.
    runner: RefCell<Option<Stack>>,
    /// How deep in foreign code the loop itself runs; a stack that is deeper stays where it is.
    depth: Cell<Depth>,
    /// The task that runs now.
    task: RefCell<Option<Py<Task>>>,
    /// Why the stack that is being resumed was woken.
    wake: Cell<Wake>,
    /// What the stack that is being resumed is to do.
    job: RefCell<Option<Job>>,
    idle: RefCell<Vec<Stack>>,
    /// Whether this thread runs signal handlers.
    pub(crate) is_main: bool,
    /// The task of `balrog.run`, which Ctrl-C is for.
    main: RefCell<Option<Py<Task>>>,
    /// Ctrl-C came while another task ran.
    interrupted: Cell<bool>,
    entry: Py<PyAny>,
    turn: Cell<u32>,
    /// Tasks that have not ended.
    pub(crate) live: RefCell<Slab<Py<Task>>>,
    /// The event loops that drive this hub, the newest last.
    pub(crate) guests: RefCell<Vec<Py<Guest>>>,
    /// Parks of code outside of tasks.
    taskless: RefCell<Vec<Token>>,
    /// Waits for descriptors that only this thread, another thread or a signal makes ready.
    wakeups: Cell<usize>,
    pub(crate) pulse: Pulse,
}

thread_local! {
    static HUB: Cell<Option<&'static Hub>> = const { Cell::new(None) };
    static END: ThreadEnd = const { ThreadEnd };
}

/// Gives a thread's descriptors back when it ends.
struct ThreadEnd;

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        if let Ok(Some(hub)) = HUB.try_with(Cell::get) {
            inspect::strike(hub);
            // No Python object may be touched here: the interpreter may be gone.
            hub.remote.close();
            if let Ok(mut reactor) = hub.reactor.try_borrow_mut() {
                reactor.take();
            }
        }
    }
}

impl Hub {
    /// The calling thread's hub, made when missing.
    ///
    /// It lives for ever: at the end of a thread, or of the interpreter, there is no moment at
    /// which the Python objects that it holds could be dropped safely.
    pub(crate) fn current(py: Python<'_>) -> PyResult<&'static Self> {
        if let Some(hub) = HUB.get() {
            return Ok(hub);
        }
        let reactor = Reactor::new()?;
        let hub: &'static Self = Box::leak(Box::new(Self {
            scheduler: RefCell::default(),
            remote: Arc::new(Remote::new(reactor.notifier())),
            reactor: RefCell::new(Some(reactor)),
            sources: RefCell::default(),
            source_timers: RefCell::default(),
            stamp: Cell::new(0),
            runner: RefCell::new(None),
            depth: Cell::new(Depth::default()),
            task: RefCell::new(None),
            wake: Cell::new(Wake::Ready),
            job: RefCell::new(None),
            idle: RefCell::default(),
            is_main: signals::is_main_thread(py)?,
            main: RefCell::new(None),
            interrupted: Cell::new(false),
            entry: wrap_pyfunction!(stack_main, py)?.into_any().unbind(),
            turn: Cell::new(0),
            live: RefCell::default(),
            guests: RefCell::default(),
            taskless: RefCell::default(),
            wakeups: Cell::new(0),
            pulse: Pulse::default(),
        }));
        HUB.set(Some(hub));
        inspect::enlist(hub);
        END.with(|_| ());
        Ok(hub)
    }

    /// The calling thread's hub, if it has one.
    pub(crate) fn existing(_py: Python<'_>) -> Option<&'static Self> {
        HUB.get()
    }

    /// After a fork: this process's thread starts with no hub, and leaves the parent's alone.
    pub(crate) fn forget() {
        HUB.set(None);
        inspect::strike_all();
    }

    /// Whether a wait on this thread has to let others run.
    pub(crate) fn is_busy(&self) -> bool {
        self.runner.borrow().is_some() || !self.live.borrow().is_empty() || !self.sources.borrow().is_empty()
    }

    /// Whether a loop of this hub runs, further down the thread's stacks.
    pub(crate) fn is_run(&self) -> bool {
        self.runner.borrow().is_some()
    }

    /// The descriptor that is readable when something happened to what this hub watches.
    pub(crate) fn poll_fd(&self) -> io::Result<i32> {
        self.reactor(|reactor| Ok(reactor.as_fd().as_raw_fd()))
    }

    /// When the nearest timer is due.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let timers = [self.scheduler.borrow().next_timer(), self.source_timers.borrow().next()];
        timers.into_iter().flatten().min()
    }

    /// Wakes a park of this thread's.
    pub(crate) fn wake(&self, py: Python<'_>, token: Token, wake: Wake) {
        if self.scheduler.borrow_mut().wake(token, wake) {
            self.tell_host(py);
        }
    }

    /// The task that runs now, if any.
    pub(crate) fn task<'py>(&self, py: Python<'py>) -> Option<Bound<'py, Task>> {
        self.task.borrow().as_ref().map(|task| task.bind(py).clone())
    }

    /// Changes which task runs now; returns the one before.
    pub(crate) fn set_task(&self, task: Option<Py<Task>>) -> Option<Py<Task>> {
        std::mem::replace(&mut *self.task.borrow_mut(), task)
    }

    /// Changes which task Ctrl-C is for; returns the one before.
    pub(crate) fn set_main(&self, task: Option<Py<Task>>) -> Option<Py<Task>> {
        std::mem::replace(&mut *self.main.borrow_mut(), task)
    }

    /// Whether Ctrl-C has to wait until the task that runs now lets the loop go on.
    pub(crate) fn defers_interrupt(&self, py: Python<'_>) -> bool {
        let Some(task) = self.task(py) else { return false };
        let is_main = self.main.borrow().as_ref().is_some_and(|main| main.is(&task));
        !is_main && !self.interrupted.replace(true)
    }

    /// Queues a job; it gets a stack of its own when its turn comes.
    pub(crate) fn start(&self, job: Job) {
        self.scheduler.borrow_mut().start(job);
    }

    /// Wakes `token` when `fd` is ready for `interest`. See [`Reactor::wait`].
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>, interest: Interest, token: Token) -> io::Result<()> {
        self.reactor(|reactor| reactor.wait(fd, interest, token))
    }

    /// While `f` runs, one wait for a descriptor does not count as one for something outside.
    pub(crate) fn as_wakeup<T>(&self, f: impl FnOnce() -> T) -> T {
        self.wakeups.update(|count| count + 1);
        let result = f();
        self.wakeups.update(|count| count - 1);
        result
    }

    /// Ends a watch that was not reported.
    pub(crate) fn unwatch(&self, fd: i32, token: Token) {
        let _ = self.reactor(|reactor| {
            reactor.forget(fd, token);
            Ok(())
        });
    }

    /// Feeds `source` with the readiness of `fd` until it is removed.
    pub(crate) fn add_source(&self, fd: BorrowedFd<'_>, source: Rc<dyn Source>) -> io::Result<SourceKey> {
        let stamp = self.stamp.get() + 1;
        self.stamp.set(stamp);
        let key = SourceKey { index: self.sources.borrow_mut().insert((stamp, source)), stamp };
        let added = self.reactor(|reactor| reactor.add_source(fd, key));
        if added.is_err() {
            self.sources.borrow_mut().remove(key.index);
        }
        added.map(|()| key)
    }

    /// Removes a source before its descriptor is closed; whoever waits on it is woken.
    pub(crate) fn remove_source(&self, fd: BorrowedFd<'_>, key: SourceKey) {
        let waiting = self.reactor(|reactor| Ok(reactor.remove_source(fd))).unwrap_or_default();
        for token in waiting.into_iter().flatten() {
            self.scheduler.borrow_mut().wake(token, Wake::Ready);
        }
        if self.source(key).is_some() {
            let source = self.sources.borrow_mut().remove(key.index);
            // Outside of the borrow: dropping a source may do anything.
            drop(source);
        }
    }

    /// Calls the source's `timer` at `at`. Timers of a removed source are dropped.
    pub(crate) fn arm(&self, key: SourceKey, at: Instant) {
        self.source_timers.borrow_mut().push(at, key);
    }

    fn source(&self, key: SourceKey) -> Option<Rc<dyn Source>> {
        let sources = self.sources.borrow();
        sources.get(key.index).filter(|(stamp, _)| *stamp == key.stamp).map(|(_, source)| Rc::clone(source))
    }

    fn reactor<T>(&self, f: impl FnOnce(&mut Reactor<Token, SourceKey>) -> io::Result<T>) -> io::Result<T> {
        match &mut *self.reactor.borrow_mut() {
            Some(reactor) => f(reactor),
            None => Err(io::Error::other("the thread of this hub has ended")),
        }
    }

    /// Runs the loop on the calling stack until `done` is set.
    #[inline(never)]
    fn run(&'static self, py: Python<'_>, done: &Cell<Option<Wake>>) -> Result<Wake, WaitError> {
        self.remote.set_activity(Activity::Elsewhere, Activity::Runs);
        let outermost = self.runner.borrow().is_none();
        let interrupts =
            if outermost { Interrupts::take_over(py, self).map_err(WaitError::raised)? } else { None };
        let mut result = self.as_runner(py, || self.turns(py, done));
        if outermost {
            self.remote.set_activity(Activity::Runs, Activity::Elsewhere);
        }
        if let Some(interrupts) = interrupts {
            let given = interrupts.give_back(py);
            result = result.and_then(|wake| given.map(|()| wake));
        }
        result.map_err(WaitError::raised)
    }

    /// Has the calling stack run others while `f` lasts.
    fn as_runner<T>(&'static self, py: Python<'_>, f: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        let here = Current::current(py)?;
        let hidden = loops::hide(py)?;
        let depth = self.depth.replace(Depth::now(py)?);
        let before = self.runner.borrow_mut().replace(here);
        let task = self.set_task(None);
        let result = f();
        self.depth.set(depth);
        self.set_task(task);
        *self.runner.borrow_mut() = before;
        loops::restore(py, hidden)?;
        result
    }

    /// Runs `job` on a stack of its own right now, until its first wait.
    pub(crate) fn run_now(&'static self, py: Python<'_>, job: Job) -> PyResult<()> {
        let turn = self.turn.replace(0);
        let result = self.as_runner(py, || self.start_stack(py, job));
        self.turn.set(turn);
        result
    }

    /// Runs whoever is runnable, once, after a look at what happened if `polls`.
    pub(crate) fn turn(&'static self, py: Python<'_>, polls: bool) -> PyResult<()> {
        let turn = self.turn.replace(TURN);
        let result = self.as_runner(py, || {
            if polls {
                self.poll(py, false)?;
            }
            self.run_ready(py)
        });
        self.turn.set(turn);
        result
    }

    fn turns(&'static self, py: Python<'_>, done: &Cell<Option<Wake>>) -> PyResult<Wake> {
        loop {
            self.turn.set(TURN);
            self.run_ready(py)?;
            if self.interrupted.take() {
                return Err(PyKeyboardInterrupt::new_err(()));
            }
            if let Some(wake) = done.get() {
                return Ok(wake);
            }
            if self.nothing_can_come(py)? {
                inspect::raise_if_stuck(py)?;
            }
            let idle = !self.scheduler.borrow().has_ready();
            self.poll(py, idle)?;
        }
    }

    /// Runs who is runnable until the turn is over.
    fn run_ready(&'static self, py: Python<'_>) -> PyResult<()> {
        while self.turn.get() > 0 {
            let next = self.scheduler.borrow_mut().next();
            match next {
                None => break,
                Some(Runnable::Start(job)) => self.start_stack(py, job)?,
                Some(Runnable::Resume(Parked::Runner(flag), wake)) => flag.set(Some(wake)),
                Some(Runnable::Resume(Parked::Stack(stack, task), wake)) => {
                    self.set_task(task);
                    self.wake.set(wake);
                    self.enter(py, &stack);
                }
            }
            self.turn.set(self.turn.get().saturating_sub(1));
        }
        Ok(())
    }

    fn take_in(&self, request: Request) {
        let mut scheduler = self.scheduler.borrow_mut();
        match request {
            Request::Wake(token, wake) => drop(scheduler.wake(token, wake)),
            Request::Start(job) => scheduler.start(job),
        }
    }

    /// Whether nothing on this thread can ever wake anybody: no timer, no descriptor, no job.
    fn nothing_can_come(&'static self, py: Python<'_>) -> PyResult<bool> {
        let idle = || {
            let (scheduler, sources) = (self.scheduler.borrow(), self.sources.borrow());
            !scheduler.has_ready() && scheduler.next_timer().is_none() && sources.is_empty()
        };
        if !idle() || self.reactor(|reactor| Ok(reactor.waiters()))? > self.wakeups.get() {
            return Ok(false);
        }
        // Another thread may have left something at the door.
        for request in self.remote.drain() {
            self.take_in(request);
        }
        py.check_signals()?;
        Ok(idle())
    }

    fn start_stack(&'static self, py: Python<'_>, job: Job) -> PyResult<()> {
        *self.job.borrow_mut() = Some(job);
        let idle = self.idle.borrow_mut().pop();
        let stack = match idle {
            Some(stack) => stack,
            None => Current::spawn(py, self.entry.bind(py))?,
        };
        self.enter(py, &stack);
        Ok(())
    }

    /// Switches to `stack` until it parks or ends.
    fn enter(&self, py: Python<'_>, stack: &Stack) {
        self.pulse.enter();
        if let Err(error) = Current::switch(py, stack) {
            // Jobs report their own errors; only a panic or a foreign stack's end comes here.
            error.write_unraisable(py, None);
        }
        self.pulse.leave(py);
        self.set_task(None);
    }

    /// Takes in what happened outside; waits for it if nothing can run (`idle`).
    fn poll(&'static self, py: Python<'_>, idle: bool) -> PyResult<()> {
        let mut timeout = Duration::ZERO;
        if idle {
            timeout = LONGEST_POLL;
            if let Some(at) = self.next_timer() {
                timeout = timeout.min(at.saturating_duration_since(Instant::now()));
            }
        }
        let polled = self.reactor(|reactor| {
            if timeout.is_zero() {
                reactor.poll(Some(timeout))
            } else {
                // The one place where the hub lets other threads have the interpreter.
                py.detach(|| reactor.poll(Some(timeout)))
            }
        });
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => py.check_signals()?,
        }
        self.remote.stop_if_asked(py);
        let mut ready = Vec::new();
        self.reactor(|reactor| {
            reactor.take(|found| match found {
                Ready::Waiter(token) => {
                    self.scheduler.borrow_mut().wake(token, Wake::Ready);
                }
                Ready::Source(key, readiness) => ready.push((key, readiness)),
            });
            Ok(())
        })?;
        for (key, readiness) in ready {
            if let Some(source) = self.source(key) {
                source.ready(py, self, readiness);
            }
        }
        for request in self.remote.drain() {
            self.take_in(request);
        }
        crate::client::sweep();
        let now = Instant::now();
        self.scheduler.borrow_mut().expire(now);
        loop {
            let due = self.source_timers.borrow_mut().pop_due(now);
            let Some(key) = due else { return Ok(()) };
            if let Some(source) = self.source(key) {
                source.timer(py, self);
            }
        }
    }
}

/// What every stack of ours runs: jobs, one after another, as long as there are any.
#[pyfunction]
fn stack_main(py: Python<'_>) -> PyResult<()> {
    let hub = Hub::current(py)?;
    loop {
        let mut job = hub.job.borrow_mut().take();
        while let Some(run) = job {
            run(py, hub);
            hub.pulse.next(py);
            // The stack is as empty as a new one, so the next job in line needs no switch.
            let turn = hub.turn.get().saturating_sub(1);
            hub.turn.set(turn);
            job = if turn > 0 { hub.scheduler.borrow_mut().next_job() } else { None };
        }
        if !rest(py, hub)? {
            return Ok(());
        }
    }
}

/// Waits on an empty stack for the next job; `false` if there are enough that do.
///
/// A function of its own, for a task's stack keeps the frame of [`stack_main`].
#[inline(never)]
fn rest(py: Python<'_>, hub: &'static Hub) -> PyResult<bool> {
    let here = Current::current(py)?;
    let Some(runner) = hub.runner.borrow().as_ref().map(|runner| Current::clone(py, runner)) else {
        return Ok(false);
    };
    if hub.idle.borrow().len() >= IDLE_STACKS {
        return Current::set_hub(py, &here, &runner).map(|()| false);
    }
    hub.idle.borrow_mut().push(here);
    Current::switch(py, &runner)?;
    Ok(true)
}
