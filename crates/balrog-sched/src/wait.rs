//! The one way in which synchronous-looking code waits.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use crate::cancel::Controlled;
use crate::local::Locals;
use crate::{Interrupt, Limits, Runtime, Scopes};

/// What a place where code can run offers to those who wait there.
///
/// A Rust task and a plain thread have one each; other stacks (Python's) bring their own with
/// [`with_suspender`].
pub trait Suspender {
    /// What futures that are waited for here are polled with.
    fn waker(&self) -> Rc<Waker>;

    /// Lets others run until the waker was woken or `until` has passed. May return early.
    fn suspend(&self, until: Option<Instant>);

    /// Lets everyone else who is ready run once.
    ///
    /// # Errors
    ///
    /// As [`Suspender::check`].
    fn yield_now(&self) -> Result<(), Interrupt> {
        self.check(None)?;
        self.waker().wake_by_ref();
        self.suspend(None);
        Ok(())
    }

    /// Begins a wait: what to poll with.
    ///
    /// # Errors
    ///
    /// As [`Suspender::check`].
    // In one call with what it is made of, as is `go_on`: each is one on the way of every wait.
    fn begin(&self, deadline: Option<Instant>) -> Result<Rc<Waker>, Interrupt> {
        self.check(deadline)?;
        Ok(self.waker())
    }

    /// Lets others run after a poll with `waker` that was pending, until it is time for the next.
    ///
    /// # Errors
    ///
    /// As [`Suspender::check`].
    fn go_on(&self, waker: &mut Rc<Waker>, deadline: Option<Instant>) -> Result<(), Interrupt> {
        let until = self.check(deadline)?;
        // A poll may wait itself (the I/O of a destructor), and come back under another waker:
        // the future knows the old one then.
        if self.is_waker(waker) {
            self.suspend(until);
        }
        if !self.is_waker(waker) {
            *waker = self.waker();
        }
        Ok(())
    }

    /// Whether this is what [`Suspender::waker`] gives.
    fn is_waker(&self, waker: &Rc<Waker>) -> bool {
        Rc::ptr_eq(waker, &self.waker())
    }

    /// Calls `f` with the deadlines, shields and cancellation of the code that runs here.
    fn with_scopes(&self, f: &mut dyn FnMut(&mut Scopes));

    /// Until when a wait with this deadline may last.
    ///
    /// # Errors
    ///
    /// Why it may not wait at all.
    fn check(&self, deadline: Option<Instant>) -> Result<Option<Instant>, Interrupt> {
        if std::thread::panicking() {
            // Others would run on this thread and take themselves for panicking.
            return Err(Interrupt::Unwinding);
        }
        let mut checked = Ok(None);
        self.with_scopes(&mut |scopes| checked = scopes.check(deadline));
        checked
    }

    /// Whether the stack stays where it is while it is suspended. A stack that is copied away
    /// (greenlet's) does not: what others point to must not live on it, so futures are boxed.
    fn is_stack_stable(&self) -> bool {
        true
    }

    /// For messages and dumps.
    fn name(&self) -> Option<&str> {
        None
    }

    /// Where [`TaskLocal`](crate::TaskLocal)s of the code here are.
    fn locals(&self) -> &Locals;

    /// The executor of the code here, if it has one.
    fn runtime(&self) -> Option<Rc<dyn Runtime>> {
        None
    }
}

thread_local! {
    static CURRENT: Cell<Option<&'static dyn Suspender>> = const { Cell::new(None) };
    static PLAIN: PlainThread = PlainThread::new();
}

/// Waits for `future`, in whatever way this place has: a task lets others run on its thread,
/// a plain thread blocks.
///
/// # Errors
///
/// An [`Interrupt`] when the code here was cancelled or an enclosing deadline passed before
/// `future` was ready. The future is dropped then. A future that is ready wins.
pub fn wait<F: Future>(future: F) -> Result<F::Output, Interrupt> {
    wait_until(future, None)
}

/// [`wait`] with a deadline of its own, which ends it with [`Interrupt::Deadline`].
///
/// # Errors
///
/// As [`wait`].
pub fn wait_until<F: Future>(future: F, deadline: Option<Instant>) -> Result<F::Output, Interrupt> {
    with_current(|here| {
        if here.is_stack_stable() {
            drive(here, std::pin::pin!(future), deadline)
        } else {
            drive(here, Box::pin(future).as_mut(), deadline)
        }
    })
}

/// Lets everyone else who is ready run once.
///
/// # Errors
///
/// As [`wait`].
pub fn yield_now() -> Result<(), Interrupt> {
    with_current(|here| here.yield_now())
}

/// Calls `f` with every wait inside of it ending at `until`, or earlier by an outer deadline.
pub fn with_deadline<T>(until: Instant, f: impl FnOnce() -> T) -> T {
    in_scope(|scopes| scopes.enter_deadline(until), f)
}

/// Calls `f` with what comes from outside (cancellation, outer deadlines) held back, until
/// `until` at most: for the ROLLBACK, the close frame.
pub fn with_shield<T>(until: Instant, f: impl FnOnce() -> T) -> T {
    in_scope(|scopes| scopes.enter_shield(until), f)
}

fn in_scope<T>(enter: impl Fn(&mut Scopes) -> crate::ScopeId, f: impl FnOnce() -> T) -> T {
    struct Leave(crate::ScopeId);
    impl Drop for Leave {
        fn drop(&mut self) {
            with_current(|here| here.with_scopes(&mut |scopes| scopes.leave(self.0)));
        }
    }
    let mut id = None;
    with_current(|here| here.with_scopes(&mut |scopes| id = Some(enter(scopes))));
    let _leave = id.map(Leave);
    f()
}

/// Until when a wait of the code here may last that has this deadline of its own, for waits
/// that are not futures (a blocking system call).
///
/// # Errors
///
/// Why it may not wait, or not any longer. A cancellation is delivered by that.
pub fn limit(deadline: Option<Instant>) -> Result<Option<Instant>, Interrupt> {
    with_current(|here| here.check(deadline))
}

/// Until when the code here may wait at all.
pub fn limits() -> Limits {
    let now = Instant::now();
    let mut limits = Limits::default();
    with_current(|here| here.with_scopes(&mut |scopes| limits = scopes.limits(now)));
    limits
}

/// Runs `f` as the code of `suspender`: waits inside of it go there.
pub fn with_suspender<T>(suspender: &dyn Suspender, f: impl FnOnce() -> T) -> T {
    // SAFETY: only the lifetime changes. The reference is in `CURRENT` while this frame lives,
    // and `with_current` hands it out for the time of a call on this thread: either a call
    // below this frame, or one on a stack that is resumed below it.
    let suspender: &'static dyn Suspender = unsafe { std::mem::transmute(suspender) };
    replace_suspender(Some(suspender), f)
}

/// Runs `f` as an executor's own code, which is no task's even where a task runs the executor.
pub(crate) fn without_suspender<T>(f: impl FnOnce() -> T) -> T {
    replace_suspender(None, f)
}

fn replace_suspender<T>(suspender: Option<&'static dyn Suspender>, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<&'static dyn Suspender>);
    impl Drop for Restore {
        fn drop(&mut self) {
            set_current(self.0);
        }
    }
    let _restore = Restore(set_current(suspender));
    f()
}

/// Whether code runs here that lets others run while it waits.
pub fn in_task() -> bool {
    current().is_some()
}

pub(crate) fn with_current<T>(f: impl FnOnce(&dyn Suspender) -> T) -> T {
    match current() {
        Some(suspender) => f(suspender),
        None => PLAIN.with(|plain| f(plain)),
    }
}

#[inline]
pub(crate) fn current() -> Option<&'static dyn Suspender> {
    CURRENT.get()
}

#[inline]
pub(crate) fn set_current(suspender: Option<&'static dyn Suspender>) -> Option<&'static dyn Suspender> {
    CURRENT.replace(suspender)
}

fn drive<F: Future>(
    here: &dyn Suspender,
    mut future: Pin<&mut F>,
    deadline: Option<Instant>,
) -> Result<F::Output, Interrupt> {
    let mut waker = here.begin(deadline)?;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
        here.go_on(&mut waker, deadline)?;
    }
}

/// A thread that runs no task: it blocks.
struct PlainThread {
    waker: Rc<Waker>,
    scopes: RefCell<Scopes>,
    control: RefCell<Option<Arc<Controlled>>>,
    locals: Locals,
}

/// Makes the calling thread's code one that `control` cancels.
pub(crate) fn control_thread(control: &Arc<Controlled>) {
    PLAIN.with(|plain| {
        control.control.set_waker(&plain.waker);
        *plain.control.borrow_mut() = Some(Arc::clone(control));
    });
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

impl PlainThread {
    fn new() -> Self {
        let waker = Arc::new(Unpark(std::thread::current())).into();
        Self {
            waker: Rc::new(waker),
            scopes: RefCell::default(),
            control: RefCell::default(),
            locals: Locals::default(),
        }
    }
}

impl Suspender for PlainThread {
    fn waker(&self) -> Rc<Waker> {
        Rc::clone(&self.waker)
    }

    fn suspend(&self, until: Option<Instant>) {
        match until {
            Some(until) => std::thread::park_timeout(until.saturating_duration_since(Instant::now())),
            None => std::thread::park(),
        }
    }

    fn yield_now(&self) -> Result<(), Interrupt> {
        self.check(None)?;
        std::thread::yield_now();
        Ok(())
    }

    /// A thread that unwinds may wait: it stops nobody else.
    fn check(&self, deadline: Option<Instant>) -> Result<Option<Instant>, Interrupt> {
        let mut checked = Ok(None);
        self.with_scopes(&mut |scopes| checked = scopes.check(deadline));
        checked
    }

    fn locals(&self) -> &Locals {
        &self.locals
    }

    fn with_scopes(&self, f: &mut dyn FnMut(&mut Scopes)) {
        let mut scopes = self.scopes.borrow_mut();
        if let Some(control) = &*self.control.borrow() {
            control.control.apply(&mut scopes);
        }
        f(&mut scopes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SOON: Duration = Duration::from_millis(20);

    fn never() -> std::future::Pending<()> {
        std::future::pending()
    }

    #[test]
    fn a_plain_thread_blocks() {
        assert_eq!(wait(async { 7 }), Ok(7));
        let thread = std::thread::current();
        let mut first = true;
        let woken = std::future::poll_fn(move |context| {
            if !std::mem::take(&mut first) {
                return Poll::Ready(());
            }
            let (waker, thread) = (context.waker().clone(), thread.clone());
            std::thread::spawn(move || {
                std::thread::sleep(SOON);
                thread.unpark(); // a stranger's unpark is no wake
                waker.wake();
            });
            Poll::Pending
        });
        assert_eq!(wait(woken), Ok(()));
    }

    #[test]
    fn the_nearest_deadline_ends_a_wait() {
        let start = Instant::now();
        assert_eq!(wait_until(never(), Some(start + SOON)), Err(Interrupt::Deadline));
        assert!(start.elapsed() >= SOON);
        let waited = with_deadline(Instant::now() + SOON, || {
            wait_until(never(), Some(Instant::now() + Duration::from_secs(60)))
        });
        assert_eq!(waited, Err(Interrupt::Deadline));
        assert_eq!(limits(), Limits::default());
    }

    #[test]
    fn a_ready_future_wins_over_a_deadline_that_has_passed_meanwhile() {
        let late = std::future::poll_fn(|_| {
            std::thread::sleep(SOON);
            Poll::Ready(1)
        });
        assert_eq!(wait_until(late, Some(Instant::now() + SOON / 2)), Ok(1));
    }

    #[test]
    fn a_shield_holds_an_outer_deadline_back() {
        with_deadline(Instant::now(), || {
            assert_eq!(wait(async {}), Err(Interrupt::Deadline));
            with_shield(Instant::now() + Duration::from_secs(5), || assert_eq!(wait(async {}), Ok(())));
            assert_eq!(wait(async {}), Err(Interrupt::Deadline));
        });
    }
}
