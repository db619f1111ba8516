//! The one way in which synchronous-looking code waits.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use crate::cancel::Control;
use crate::{Interrupt, Limits, Scopes};

/// What a place where code can run offers to those who wait there.
///
/// A Rust task and a plain thread have one each; other stacks (Python's) bring their own with
/// [`with_suspender`].
pub trait Suspender {
    /// What futures that are waited for here are polled with.
    fn waker(&self) -> std::rc::Rc<Waker>;

    /// Lets others run until the waker was woken or `until` has passed. May return early.
    fn suspend(&self, until: Option<Instant>);

    /// Calls `f` with the deadlines, shields and cancellation of the code that runs here.
    fn with_scopes(&self, f: &mut dyn FnMut(&mut Scopes));

    /// Whether waiting is refused now, whatever for.
    fn refuses(&self) -> Option<Interrupt> {
        None
    }

    /// Whether the stack stays where it is while it is suspended. A stack that is copied away
    /// (greenlet's) does not: what others point to must not live on it, so futures are boxed.
    fn is_stack_stable(&self) -> bool {
        true
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
        let here = &Here { suspender: here, deadline };
        if here.suspender.is_stack_stable() {
            here.drive(std::pin::pin!(future))
        } else {
            here.drive(Box::pin(future).as_mut())
        }
    })
}

/// Lets everyone else who is ready run once.
///
/// # Errors
///
/// As [`wait`].
pub fn yield_now() -> Result<(), Interrupt> {
    let mut yielded = false;
    wait(std::future::poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }))
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

/// Until when the code here may wait at all.
pub fn limits() -> Limits {
    let now = Instant::now();
    let mut limits = Limits::default();
    with_current(|here| here.with_scopes(&mut |scopes| limits = scopes.limits(now)));
    limits
}

/// Runs `f` as the code of `suspender`: waits inside of it go there.
pub fn with_suspender<T>(suspender: &dyn Suspender, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<&'static dyn Suspender>);
    impl Drop for Restore {
        fn drop(&mut self) {
            set_current(self.0);
        }
    }
    // SAFETY: only the lifetime changes. The reference is in `CURRENT` while this frame lives,
    // and `with_current` hands it out for the time of a call on this thread: either a call
    // below this frame, or one on a stack that is resumed below it.
    let suspender: &'static dyn Suspender = unsafe { std::mem::transmute(suspender) };
    let _restore = Restore(set_current(Some(suspender)));
    f()
}

/// Whether code runs here that lets others run while it waits.
pub fn in_task() -> bool {
    current().is_some()
}

fn with_current<T>(f: impl FnOnce(&dyn Suspender) -> T) -> T {
    match current() {
        Some(suspender) => f(suspender),
        None => PLAIN.with(|plain| f(plain)),
    }
}

// Neither is inlined: the address of a thread-local must not be kept over a switch of stacks.
// (Ours never change their thread; this is for compilers that cannot know.)
#[inline(never)]
fn current() -> Option<&'static dyn Suspender> {
    CURRENT.get()
}

#[inline(never)]
fn set_current(suspender: Option<&'static dyn Suspender>) -> Option<&'static dyn Suspender> {
    CURRENT.replace(suspender)
}

/// One wait at one place.
struct Here<'a> {
    suspender: &'a dyn Suspender,
    deadline: Option<Instant>,
}

impl Here<'_> {
    fn drive<F: Future>(&self, mut future: Pin<&mut F>) -> Result<F::Output, Interrupt> {
        self.check()?;
        loop {
            let waker = self.suspender.waker();
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(output);
            }
            drop(waker);
            let until = self.check()?;
            self.suspender.suspend(until);
        }
    }

    /// Until when to suspend, or why not to.
    fn check(&self) -> Result<Option<Instant>, Interrupt> {
        if std::thread::panicking() {
            // Others would run on this thread and take themselves for panicking.
            return Err(Interrupt::Unwinding);
        }
        if let Some(interrupt) = self.suspender.refuses() {
            return Err(interrupt);
        }
        let mut checked = Ok(None);
        self.suspender.with_scopes(&mut |scopes| {
            if self.deadline.is_none() && scopes.is_free() {
                return;
            }
            let now = Instant::now();
            let limits = scopes.limits(now);
            checked = match limits.check(now) {
                Err(Interrupt::Cancelled) => {
                    scopes.delivered(now);
                    Err(Interrupt::Cancelled)
                }
                Err(interrupt) => Err(interrupt),
                Ok(()) if self.deadline.is_some_and(|at| at <= now) => Err(Interrupt::Deadline),
                Ok(()) => Ok(limits.nearest().into_iter().chain(self.deadline).min()),
            };
        });
        checked
    }
}

/// A thread that runs no task: it blocks.
struct PlainThread {
    waker: std::rc::Rc<Waker>,
    scopes: RefCell<Scopes>,
    control: RefCell<Option<Arc<Control>>>,
}

/// Makes the calling thread's code one that `control` cancels.
pub(crate) fn control_thread(control: &Arc<Control>) {
    PLAIN.with(|plain| {
        control.set_waker(&plain.waker);
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
        Self { waker: std::rc::Rc::new(waker), scopes: RefCell::default(), control: RefCell::default() }
    }
}

impl Suspender for PlainThread {
    fn waker(&self) -> std::rc::Rc<Waker> {
        std::rc::Rc::clone(&self.waker)
    }

    fn suspend(&self, until: Option<Instant>) {
        match until {
            Some(until) => std::thread::park_timeout(until.saturating_duration_since(Instant::now())),
            None => std::thread::park(),
        }
    }

    fn with_scopes(&self, f: &mut dyn FnMut(&mut Scopes)) {
        let mut scopes = self.scopes.borrow_mut();
        if let Some(control) = &*self.control.borrow() {
            control.apply(&mut scopes);
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

    #[test]
    fn nothing_waits_while_a_panic_unwinds() {
        struct Waits;
        impl Drop for Waits {
            fn drop(&mut self) {
                assert_eq!(wait(async {}), Err(Interrupt::Unwinding));
            }
        }
        let unwound = std::panic::catch_unwind(|| {
            let _waits = Waits;
            panic!("on purpose");
        });
        assert!(unwound.is_err());
    }
}
