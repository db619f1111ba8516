//! The one way to wait, whatever for and from wherever.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use balrog_backends::{Interest, poll_once};
use balrog_sched::{Interrupt, Limits, Scopes, Token, Wake};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::foreign::Depth;
use crate::hub::Hub;
use crate::interrupt::{WaitError, carry};
use crate::remote::{Event, Waker};
use crate::task::Task;

/// Something to wait for.
pub(crate) trait Wait {
    /// Sees to it that `token` is woken. `false`: it has happened already.
    fn register(&mut self, py: Python<'_>, hub: &'static Hub, token: Token) -> io::Result<bool>;

    /// The wait ended otherwise: nobody is to wake `token` any more.
    fn forget(&mut self, py: Python<'_>, hub: &'static Hub, token: Token);

    /// Whether it has happened; asked after `token` was woken as ready.
    fn happened(&mut self, py: Python<'_>) -> bool;

    /// Whether only another stack of `hub` can make it happen.
    fn needs_others(&self, _hub: &'static Hub) -> bool {
        false
    }

    /// The same on a thread without a hub: blocks once, until `until` at most; whether it
    /// has happened.
    fn block(&mut self, py: Python<'_>, until: Option<Instant>) -> io::Result<bool>;
}

thread_local! {
    /// Deadlines and shields of the code that runs outside of tasks.
    static THREAD: RefCell<Scopes> = const { RefCell::new(Scopes::new()) };
    static EVENT: RefCell<Option<Arc<Event>>> = const { RefCell::new(None) };
}

/// Calls `f` with the scopes of the current task, or else of the thread.
pub(crate) fn with_scopes<T>(py: Python<'_>, f: impl FnOnce(&mut Scopes) -> T) -> T {
    match Hub::existing(py).and_then(|hub| hub.task(py)) {
        Some(task) => task.get().with_scopes(py, f),
        None => thread_scopes(f),
    }
}

/// Calls `f` with the scopes of the thread's code outside of tasks.
pub(crate) fn thread_scopes<T>(f: impl FnOnce(&mut Scopes) -> T) -> T {
    THREAD.with(|scopes| f(&mut scopes.borrow_mut()))
}

/// Fails if the current task may not wait now: an exception pending, cancelled, out of time.
fn check(py: Python<'_>, task: Option<&Task>, now: Instant) -> Result<Limits, Interrupt> {
    let with = |f: &mut dyn FnMut(&mut Scopes)| match task {
        Some(task) => task.with_scopes(py, f),
        None => thread_scopes(f),
    };
    let mut limits = Limits::default();
    with(&mut |scopes| limits = scopes.limits(now));
    match limits.check(now) {
        Err(Interrupt::Cancelled) => match task.and_then(|task| task.take_thrown(py)) {
            Some(error) => Err(carry(error)),
            None => {
                with(&mut |scopes| scopes.delivered(now));
                Err(Interrupt::Cancelled)
            }
        },
        checked => checked.map(|()| limits),
    }
}

/// Whether [`check`] would say yes at any time, so that the clock need not be read.
fn is_unlimited(py: Python<'_>, task: Option<&Task>) -> bool {
    task.is_some_and(|task| task.with_scopes(py, |scopes| scopes.is_unlimited()))
}

/// A wait that is over at once: it fails if the running code may not wait now, and counts.
pub(crate) fn pass(py: Python<'_>, hub: &Hub) -> Result<(), Interrupt> {
    let task = hub.task(py);
    let task = task.as_ref().map(Bound::get);
    if !is_unlimited(py, task) {
        check(py, task, Instant::now())?;
    }
    if let Some(task) = task {
        task.count_wait(py);
    }
    Ok(())
}

/// Until when to wait at most for what has a deadline of its own; `None` if that has passed.
#[inline(never)]
fn until(
    py: Python<'_>,
    task: Option<&Task>,
    deadline: Option<Instant>,
) -> Result<Option<Option<Instant>>, Interrupt> {
    if deadline.is_none() && is_unlimited(py, task) {
        return Ok(Some(None));
    }
    let now = Instant::now();
    let limits = check(py, task, now)?;
    let passed = deadline.is_some_and(|at| at <= now);
    Ok((!passed).then(|| [limits.nearest(), deadline].into_iter().flatten().min()))
}

/// Waits until it has happened (`true`) or `deadline` has passed (`false`).
///
/// Each parked stack keeps these frames, so what is not needed while it is parked, and what
/// happens seldom, has functions of its own.
pub(crate) fn wait(
    py: Python<'_>,
    what: &mut dyn Wait,
    deadline: Option<Instant>,
) -> Result<bool, WaitError> {
    let hub = Hub::existing(py);
    let task = hub.and_then(|hub| hub.task(py));
    let task = task.as_ref().map(Bound::get);
    loop {
        let Some(until) = until(py, task, deadline)? else { return Ok(false) };
        let happened = match hub.filter(|hub| hub.is_busy()) {
            Some(hub) => {
                let held = hub.held(py)?;
                if let Some(depth) = held {
                    may_hold(py, hub, depth, what)?;
                }
                park(py, hub, held.is_some(), what, until)?
            }
            None => block(py, what, until)?,
        };
        if happened {
            return Ok(true);
        }
    }
}

/// Waits on a thread where nothing else is to run.
#[inline(never)]
fn block(py: Python<'_>, what: &mut dyn Wait, until: Option<Instant>) -> Result<bool, WaitError> {
    match what.block(py, until) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            py.check_signals().map_err(carry)?;
            Ok(false)
        }
        result => result.map_err(WaitError::Io),
    }
}

/// Waits while others run, or holds them up where it must not be left.
fn park(
    py: Python<'_>,
    hub: &'static Hub,
    holds: bool,
    what: &mut dyn Wait,
    until: Option<Instant>,
) -> Result<bool, WaitError> {
    let mut used = None;
    let mut register = |token| {
        used = Some(token);
        what.register(py, hub, token)
    };
    let parked = if holds { hub.hold(py, until, &mut register) } else { hub.park(py, until, &mut register) };
    parked_end(py, hub, what, used, parked)
}

/// Whether a wait may hold the thread; warns of the first that does.
#[inline(never)]
fn may_hold(py: Python<'_>, hub: &'static Hub, depth: Depth, what: &dyn Wait) -> Result<(), WaitError> {
    if what.needs_others(hub) {
        return Err(WaitError::raised(PyRuntimeError::new_err(format!(
            "this task cannot wait for another one: it is {depth}, where no other may run"
        ))));
    }
    depth.warn(py).map_err(WaitError::raised)
}

/// What a park that ended means for its wait; whether that is over.
#[inline(never)]
fn parked_end(
    py: Python<'_>,
    hub: &'static Hub,
    what: &mut dyn Wait,
    token: Option<Token>,
    parked: Result<Option<Wake>, WaitError>,
) -> Result<bool, WaitError> {
    let result = match parked {
        Ok(None) => return Ok(true),
        Ok(Some(Wake::Ready)) => return Ok(what.happened(py)),
        Ok(Some(_)) => Ok(false),
        Err(error) => Err(error),
    };
    if let Some(token) = token {
        what.forget(py, hub, token);
    }
    result
}

/// Readiness of a descriptor.
pub(crate) struct FdWait<'fd> {
    fd: BorrowedFd<'fd>,
    interest: Interest,
}

impl<'fd> FdWait<'fd> {
    pub(crate) const fn new(fd: BorrowedFd<'fd>, interest: Interest) -> Self {
        Self { fd, interest }
    }
}

impl Wait for FdWait<'_> {
    fn register(&mut self, _py: Python<'_>, hub: &'static Hub, token: Token) -> io::Result<bool> {
        match hub.watch(self.fd, self.interest, token) {
            // Files and the like are always ready.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            result => result.map(|()| true),
        }
    }

    fn forget(&mut self, _py: Python<'_>, hub: &'static Hub, token: Token) {
        hub.unwatch(self.fd.as_raw_fd(), token);
    }

    fn happened(&mut self, _py: Python<'_>) -> bool {
        true
    }

    fn block(&mut self, py: Python<'_>, until: Option<Instant>) -> io::Result<bool> {
        let (fd, interest) = (self.fd, self.interest);
        py.detach(|| poll_once(fd, interest, until))
    }
}

/// Time alone.
pub(crate) struct Sleep;

impl Wait for Sleep {
    fn register(&mut self, _py: Python<'_>, _hub: &'static Hub, _token: Token) -> io::Result<bool> {
        Ok(true)
    }

    fn forget(&mut self, _py: Python<'_>, _hub: &'static Hub, _token: Token) {}

    fn happened(&mut self, _py: Python<'_>) -> bool {
        false
    }

    fn block(&mut self, py: Python<'_>, until: Option<Instant>) -> io::Result<bool> {
        block_on_event(py, until, |_| ()).map(|()| false)
    }
}

/// Blocks the thread until its event is set, which `register` gives to somebody.
pub(crate) fn block_on_event(
    py: Python<'_>,
    until: Option<Instant>,
    register: impl FnOnce(Waker),
) -> io::Result<()> {
    let event = EVENT.with(|slot| -> io::Result<_> {
        let mut slot = slot.borrow_mut();
        match &*slot {
            Some(event) => Ok(Arc::clone(event)),
            None => Ok(Arc::clone(slot.insert(Arc::new(Event::new()?)))),
        }
    })?;
    event.clear();
    register(Waker::Thread(Arc::clone(&event)));
    py.detach(|| poll_once(event.as_fd(), Interest::Readable, until)).map(drop)
}
