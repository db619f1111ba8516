//! Tasks: synchronous-looking code on a stack of its own, seen from outside as a future.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use std::{fmt, io};

use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::cancel::{Canceller, Control, Controlled};
use crate::local::Locals;
use crate::runtime::{LocalFuture, Runtime, runtime};
use crate::stack::{self, PooledStack};
use crate::wait::{Suspender, set_current, with_suspender};
use crate::{Interrupt, Scopes, overflow};

/// A dropped task's waits all fail with [`Interrupt::Closed`]. One that goes on in spite of so
/// many is unwound by force.
const REFUSALS: u32 = 16;

/// Of what a task is given so many bytes fit on its stack at first; more are boxed.
const LARGEST: usize = 512;

/// Synchronous-looking code as a future: any executor can run it, on one thread.
///
/// Each [`wait`](crate::wait) in it suspends its stack and gives the thread to others. It stays
/// on the thread that made it, whatever executor drives it: thread-locals and the addresses of
/// them are part of compiled code, so a stack that changed its thread would be unsound.
///
/// Dropped before its end, it is resumed with every wait failing as [`Interrupt::Closed`], so
/// that it leaves by its own error path.
///
/// The output is what the code returns. If it panics, so does [`Task::poll`].
#[must_use = "a task does nothing until it is awaited or given to an executor"]
pub struct Task<T> {
    /// At the base of the task's own stack, and owned by this. A pointer, so no task can leave its
    /// thread.
    body: NonNull<Body<T>>,
}

/// A task's records.
struct Body<T> {
    core: Core,
    /// Owns the stack, and with it the memory of this.
    coroutine: Coroutine<(), (), Ended<T>, PooledStack>,
}

type Ended<T> = Result<T, Box<dyn Any + Send>>;

/// How a task is to be made: its name, its stack.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    name: Option<Rc<str>>,
    stack_size: Option<usize>,
}

impl Builder {
    /// The defaults: no name, [`DEFAULT_STACK_SIZE`](crate::DEFAULT_STACK_SIZE).
    pub fn new() -> Self {
        Self::default()
    }

    /// A name for messages and dumps.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How deep the task may go, in bytes; at least [`MIN_STACK_SIZE`](crate::MIN_STACK_SIZE).
    /// Only what it touches costs memory. Beyond it the process ends, with the task's name.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// A task that will run `f`.
    ///
    /// # Errors
    ///
    /// When the system has no memory for a further stack.
    pub fn task<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> io::Result<Task<T>> {
        self.controlled_task(Arc::<Controlled<()>>::default(), f)
    }

    /// A task that is cancelled by `control`, which is there until `f` has run or was dropped.
    pub(crate) fn controlled_task<T: 'static, F: FnOnce() -> T + 'static>(
        self,
        control: Arc<Controlled>,
        f: F,
    ) -> io::Result<Task<T>> {
        if size_of::<F>() > LARGEST {
            return self.task_on_stack(control, Box::new(f));
        }
        self.task_on_stack(control, f)
    }

    fn task_on_stack<T: 'static>(
        self,
        control: Arc<Controlled>,
        f: impl FnOnce() -> T + 'static,
    ) -> io::Result<Task<T>> {
        overflow::install();
        let size = self.stack_size.unwrap_or(stack::DEFAULT_STACK_SIZE);
        let mut stack = stack::take(size)?;
        let body = stack.reserve::<Body<T>>();
        let core = Core {
            name: self.name,
            yielder: Cell::new(None),
            waker: RefCell::new(None),
            wakes: Cell::new(false),
            scopes: RefCell::default(),
            free: Cell::new(true),
            cancel: NonNull::from(&control.control),
            control,
            yielded: Cell::new(false),
            closing: Cell::new(false),
            refused: Cell::new(0),
            alarm: RefCell::default(),
            runtime: runtime(),
            locals: Locals::default(),
        };
        // SAFETY: the address of a place that is written below, before the stack first runs.
        let inside = unsafe { &raw const (*body.as_ptr()).core };
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
            // SAFETY: the task's `Drop` ends this stack before it drops the core.
            unsafe { (*inside).yielder.set(Some(NonNull::from(yielder))) };
            // The thread of an executor survives; the panic goes on in `poll`.
            catch_unwind(AssertUnwindSafe(f))
        });
        // SAFETY: room for a `Body<T>` that lasts as long as the stack, which it owns.
        unsafe { body.write(Body { core, coroutine }) };
        Ok(Task { body })
    }
}

impl Builder {
    /// A thread of this name and stack that runs `f`.
    pub(crate) fn thread(self, f: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut builder = std::thread::Builder::new();
        if let Some(name) = &self.name {
            builder = builder.name(name.to_string());
        }
        if let Some(size) = self.stack_size {
            builder = builder.stack_size(size);
        }
        builder.spawn(f).map(drop)
    }
}

/// A task with the defaults of [`Builder`].
///
/// # Errors
///
/// When the system has no memory for a further stack.
pub fn task<T: 'static>(f: impl FnOnce() -> T + 'static) -> io::Result<Task<T>> {
    Builder::new().task(f)
}

impl<T> Task<T> {
    /// What cancels it from anywhere.
    pub fn canceller(&self) -> Canceller {
        Canceller::new(&self.core().control)
    }

    /// The name it was given.
    pub fn name(&self) -> Option<&str> {
        self.core().name.as_deref()
    }

    fn core(&self) -> &Core {
        // SAFETY: written when the task was made, dropped by its `Drop`, and only shared between.
        unsafe { &(*self.body.as_ptr()).core }
    }

    fn coroutine(&mut self) -> &mut Coroutine<(), (), Ended<T>, PooledStack> {
        // SAFETY: as above; nobody else uses it, and code on the stack uses the core alone.
        unsafe { &mut (*self.body.as_ptr()).coroutine }
    }

    /// Sets what wakes it, for good, for an executor of [`Task::stack`].
    pub(crate) fn bind(&mut self, waker: Rc<Waker>) {
        *self.core().waker.borrow_mut() = Some(waker);
    }

    /// What runs it, for an executor that keeps the task where it can be moved meanwhile.
    pub(crate) const fn stack(&self) -> TaskStack<T> {
        TaskStack(self.body)
    }

    fn resume(&mut self) -> Option<Ended<T>> {
        // SAFETY: the task is borrowed mutably, so it is not dropped and not run meanwhile.
        unsafe { self.stack().resume() }
    }

    fn has_yielded(&self) -> bool {
        self.core().yielded.replace(false)
    }
}

/// The stack of a [`Task`] that somebody else owns.
pub(crate) struct TaskStack<T>(NonNull<Body<T>>);

impl<T> TaskStack<T> {
    /// Runs the task until its next wait. `None`: it waits.
    ///
    /// # Safety
    ///
    /// The task has not ended and does not run, and is not dropped until this returns.
    #[inline]
    unsafe fn resume(&self) -> Option<Ended<T>> {
        let body = self.0.as_ptr();
        // SAFETY: the body is there, and code on the stack shares the core and leaves the
        // coroutine alone.
        let (core, coroutine) = unsafe { (&(*body).core, &mut (*body).coroutine) };
        // SAFETY: only the lifetime changes: the core is there while this runs.
        let before = set_current(Some(unsafe { &*ptr::from_ref::<Core>(core) }));
        // It does not unwind: code on the stack catches what it runs.
        let left = coroutine.resume(());
        set_current(before);
        match left {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(ended) => Some(ended),
        }
    }
}

/// How a task left its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is to be woken.
    Waits,
    /// It waits for nothing but its next turn.
    Yielded,
    /// It is over.
    Ended,
}

impl TaskStack<()> {
    /// Runs the task until its next wait. A panic stays in it.
    ///
    /// # Safety
    ///
    /// The task has not ended and does not run, and is not dropped until this returns.
    #[inline]
    pub(crate) unsafe fn turn(&self) -> Turn {
        // SAFETY: as asked for here.
        match unsafe { self.resume() } {
            Some(_) => Turn::Ended,
            // SAFETY: as above.
            None if unsafe { (*self.0.as_ptr()).core.yielded.replace(false) } => Turn::Yielded,
            None => Turn::Waits,
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Nothing in a task is pinned: its stack is elsewhere.
        let this = self.get_mut();
        assert!(!this.coroutine().done(), "a task was polled after its end");
        this.core().set_waker(context.waker());
        match this.resume() {
            None => {
                if this.has_yielded() {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Some(Ok(output)) => Poll::Ready(output),
            Some(Err(panic)) => resume_unwind(panic),
        }
    }
}

impl<T> Unpin for Task<T> {}

impl<T> Task<T> {
    /// Ends the stack.
    fn close(&mut self) {
        self.core().closing.set(true);
        self.core().free.set(false);
        if self.coroutine().started() && !self.coroutine().done() {
            if self.core().waker.borrow().is_none() {
                self.core().set_waker(Waker::noop());
            }
            self.resume();
        }
        if self.coroutine().done() {
            return;
        }
        // Either it waits on and on, and is unwound from where it waits; or it never began, and
        // what it was given is dropped. A panic of a task that nobody waits for ends with it.
        let core: *const Core = self.core();
        let coroutine = self.coroutine();
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if coroutine.started() {
                // SAFETY: as in `resume`.
                with_suspender(unsafe { &*core }, || coroutine.force_unwind());
            } else {
                coroutine.force_unwind();
            }
        }));
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.close();
        let body = self.body.as_ptr();
        // SAFETY: nothing runs on the stack any more, and nobody else has a pointer to the body. It
        // lies in memory of the stack, so that goes last.
        unsafe {
            let coroutine = (&raw const (*body).coroutine).read();
            (&raw mut (*body).core).drop_in_place();
            drop(coroutine);
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.core().name).finish_non_exhaustive()
    }
}

/// What a task's own code and its future share.
struct Core {
    name: Option<Rc<str>>,
    /// Where the stack is suspended from; set by its first instruction, valid until it ends.
    yielder: Cell<Option<NonNull<Yielder<(), ()>>>>,
    waker: RefCell<Option<Rc<Waker>>>,
    /// Whether `control` has the waker.
    wakes: Cell<bool>,
    scopes: RefCell<Scopes>,
    /// Nothing of the task's own limits its waits: neither a scope nor that it is dropped.
    free: Cell<bool>,
    control: Arc<Controlled>,
    /// That of `control`.
    cancel: NonNull<Control>,
    /// It was suspended to let others run, and is to go on behind them.
    yielded: Cell<bool>,
    closing: Cell<bool>,
    refused: Cell<u32>,
    /// The timer that is armed, and for when. It may be for earlier than is needed now.
    alarm: RefCell<Option<(Instant, LocalFuture<()>)>>,
    runtime: Option<Rc<dyn Runtime>>,
    locals: Locals,
}

impl Core {
    fn set_waker(&self, waker: &Waker) {
        if self.waker.borrow().as_ref().is_some_and(|own| own.will_wake(waker)) {
            return;
        }
        *self.waker.borrow_mut() = Some(Rc::new(waker.clone()));
        self.wakes.set(false);
    }

    /// Tells `control` what wakes the task. `false`: it was cancelled before it could know.
    #[cold]
    fn be_woken(&self) -> bool {
        self.cancel().set_waker(&self.waker());
        self.wakes.set(true);
        !self.cancel().is_cancelled()
    }

    /// Sees to it that the task is woken at `until`.
    fn arm(&self, until: Instant) {
        let waker = self.waker();
        let mut context = Context::from_waker(&waker);
        let mut alarm = self.alarm.borrow_mut();
        // One that is set for earlier wakes the task too early, and it arms anew then: so long
        // time-outs of short waits cost one timer, not one each.
        if let Some((at, timer)) = &mut *alarm
            && *at <= until
            && timer.as_mut().poll(&mut context).is_pending()
        {
            return;
        }
        let mut timer = crate::runtime::timer(until);
        if timer.as_mut().poll(&mut context).is_ready() {
            waker.wake_by_ref();
            *alarm = None;
        } else {
            *alarm = Some((until, timer));
        }
    }
}

impl Suspender for Core {
    fn waker(&self) -> Rc<Waker> {
        // Set by `poll` before the stack runs.
        self.waker.borrow().clone().unwrap_or_else(|| Rc::new(Waker::noop().clone()))
    }

    fn suspend(&self, until: Option<Instant>) {
        // Not before: most tasks that are short never wait, and those that do look then.
        if !self.wakes.get() && !self.be_woken() {
            // A cancellation that no wait of this task was told of yet, perhaps.
            self.yielded.set(true);
        }
        if let Some(until) = until {
            self.arm(until);
        }
        let Some(yielder) = self.yielder.get() else { return };
        // SAFETY: set by the first instruction of the stack, whose frame holds the yielder until
        // the stack ends; and only code on that stack finds this suspender, since `CURRENT` is
        // set for the time of `resume` alone.
        unsafe { yielder.as_ref() }.suspend(());
    }

    fn yield_now(&self) -> Result<(), Interrupt> {
        self.check(None)?;
        self.yielded.set(true);
        self.suspend(None);
        Ok(())
    }

    fn is_waker(&self, waker: &Rc<Waker>) -> bool {
        self.waker.borrow().as_ref().is_some_and(|own| Rc::ptr_eq(own, waker))
    }

    fn with_scopes(&self, f: &mut dyn FnMut(&mut Scopes)) {
        let mut scopes = self.scopes.borrow_mut();
        self.cancel().apply(&mut scopes);
        f(&mut scopes);
        self.free.set(scopes.is_free() && !self.closing.get());
    }

    #[inline]
    fn check(&self, deadline: Option<Instant>) -> Result<Option<Instant>, Interrupt> {
        if self.free.get() && deadline.is_none() && !std::thread::panicking() && !self.cancel().is_cancelled()
        {
            return Ok(None);
        }
        self.check_limits(deadline)
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn locals(&self) -> &Locals {
        &self.locals
    }

    fn runtime(&self) -> Option<Rc<dyn Runtime>> {
        self.runtime.clone()
    }
}

impl Core {
    #[inline]
    fn cancel(&self) -> &Control {
        // SAFETY: it is in `control`, which lives as long as this.
        unsafe { self.cancel.as_ref() }
    }

    #[cold]
    fn check_limits(&self, deadline: Option<Instant>) -> Result<Option<Instant>, Interrupt> {
        if std::thread::panicking() {
            // Others would run on this thread and take themselves for panicking.
            return Err(Interrupt::Unwinding);
        }
        if self.closing.get() {
            return Err(self.refuse());
        }
        let mut scopes = self.scopes.borrow_mut();
        self.cancel().apply(&mut scopes);
        self.free.set(scopes.is_free());
        scopes.check(deadline)
    }

    #[cold]
    fn refuse(&self) -> Interrupt {
        self.refused.set(self.refused.get() + 1);
        if self.refused.get() > 64 * REFUSALS {
            // It catches even the unwinding, and would keep the thread for ever.
            let name = self.name.as_deref().unwrap_or("a task without a name");
            eprintln!("balrog: the dropped task '{name}' does not end: it ignores that its waits fail");
            std::process::abort();
        }
        if self.refused.get() > REFUSALS {
            // `Task::drop` sees a task that does not end, and unwinds it.
            self.suspend(None);
        }
        Interrupt::Closed
    }
}
