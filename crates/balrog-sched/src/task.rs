//! Tasks: synchronous-looking code on a stack of its own, seen from outside as a future.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use std::{fmt, io};

use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::cancel::{Canceller, Controlled};
use crate::local::Locals;
use crate::runtime::{LocalFuture, Runtime, runtime};
use crate::stack::{self, PooledStack};
use crate::wait::{Suspender, with_suspender};
use crate::{Interrupt, Scopes, overflow};

/// A dropped task's waits all fail with [`Interrupt::Closed`]. One that goes on in spite of so
/// many is unwound by force.
const REFUSALS: u32 = 16;

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
    coroutine: Option<Stackful<Ended<T>>>,
    /// An `Rc`, so that no task can leave its thread.
    core: Rc<Core>,
}

type Stackful<R> = Coroutine<(), (), R, PooledStack>;
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

    /// A task that is cancelled by `control`.
    pub(crate) fn controlled_task<T: 'static>(
        self,
        control: Arc<Controlled>,
        f: impl FnOnce() -> T + 'static,
    ) -> io::Result<Task<T>> {
        overflow::install();
        let stack = stack::take(self.stack_size.unwrap_or(stack::DEFAULT_STACK_SIZE))?;
        let core = Rc::new(Core {
            name: self.name,
            yielder: Cell::new(None),
            waker: RefCell::new(None),
            scopes: RefCell::default(),
            control,
            yielded: Cell::new(false),
            closing: Cell::new(false),
            refused: Cell::new(0),
            alarm: RefCell::default(),
            runtime: runtime(),
            locals: Locals::default(),
        });
        let inside = Rc::clone(&core);
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
            inside.yielder.set(Some(NonNull::from(yielder)));
            // The thread of an executor survives; the panic goes on in `poll`.
            catch_unwind(AssertUnwindSafe(f))
        });
        Ok(Task { coroutine: Some(coroutine), core })
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
        Canceller::new(&self.core.control)
    }

    /// The name it was given.
    pub fn name(&self) -> Option<&str> {
        self.core.name.as_deref()
    }

    /// Runs it until its next wait.
    fn resume(&mut self) -> Option<Ended<T>> {
        let coroutine = self.coroutine.as_mut()?;
        match with_suspender(&*self.core, || coroutine.resume(())) {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(ended) => {
                // The stack goes back to the pool at once, not when the future is dropped.
                self.coroutine = None;
                Some(ended)
            }
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Nothing in a task is pinned: its stack is elsewhere.
        let this = self.get_mut();
        assert!(this.coroutine.is_some(), "a task was polled after its end");
        this.core.set_waker(context.waker());
        match this.resume() {
            None => {
                if this.core.yielded.replace(false) {
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

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.core.closing.set(true);
        let Some(coroutine) = &self.coroutine else { return };
        if !coroutine.started() {
            // Its closure is dropped where it lies.
            return;
        }
        if self.core.waker.borrow().is_none() {
            self.core.set_waker(Waker::noop());
        }
        // A panic of a task that nobody waits for any more ends with it.
        if self.resume().is_none()
            && let Some(mut coroutine) = self.coroutine.take()
        {
            // It waits on and on, so it is unwound from where it waits.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                with_suspender(&*self.core, || coroutine.force_unwind());
            }));
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.core.name)
            .field("done", &self.coroutine.is_none())
            .finish_non_exhaustive()
    }
}

/// What a task's own code and its future share.
struct Core {
    name: Option<Rc<str>>,
    /// Where the stack is suspended from; set by its first instruction, valid until it ends.
    yielder: Cell<Option<NonNull<Yielder<(), ()>>>>,
    waker: RefCell<Option<Rc<Waker>>>,
    scopes: RefCell<Scopes>,
    control: Arc<Controlled>,
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
        self.control.control.set_waker(waker);
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
        if let Some(until) = until {
            self.arm(until);
        }
        let Some(yielder) = self.yielder.get() else { return };
        // SAFETY: set by the first instruction of the stack, whose frame holds the yielder until
        // the stack ends; and only code on that stack finds this suspender, since `CURRENT` is
        // set for the time of `resume` alone.
        unsafe { yielder.as_ref() }.suspend(());
    }

    fn yield_now(&self) {
        self.yielded.set(true);
        self.suspend(None);
    }

    fn with_scopes(&self, f: &mut dyn FnMut(&mut Scopes)) {
        let mut scopes = self.scopes.borrow_mut();
        self.control.control.apply(&mut scopes);
        f(&mut scopes);
    }

    fn check(&self, deadline: Option<Instant>) -> Result<Option<Instant>, Interrupt> {
        if std::thread::panicking() {
            // Others would run on this thread and take themselves for panicking.
            return Err(Interrupt::Unwinding);
        }
        if self.closing.get() {
            return Err(self.refuse());
        }
        let mut scopes = self.scopes.borrow_mut();
        self.control.control.apply(&mut scopes);
        scopes.check(deadline)
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
