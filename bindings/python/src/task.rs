//! Green tasks: what `balrog.spawn` gives, and what runs a function as one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use balrog_sched::{Scopes, Token, Wake};
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyTimeoutError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::cell::GilCell;
use crate::engine::{Current, Engine};
use crate::guest::Guest;
use crate::hub::Hub;
use crate::inspect;
use crate::interrupt::Cancelled;
use crate::remote::{Remote, Waker, wake};
use crate::scope::deadline;
use crate::wait::{Wait, block_on_event, wait};

/// A function that runs on a stack of its own, on the thread that spawned it.
///
/// Waits of one task let the others of its thread run; between waits nothing else runs there.
/// A task has its own copy of the context variables. It never changes its thread.
#[pyclass(frozen, module = "balrog", weakref)]
pub(crate) struct Task {
    id: u64,
    remote: Arc<Remote>,
    state: GilCell<State>,
}

#[derive(Default)]
struct State {
    scopes: Scopes,
    parked: Option<Token>,
    /// How often it has been parked.
    waits: u64,
    outcome: Option<Outcome>,
    /// Whether somebody has seen the outcome; an error that nobody sees is reported.
    seen: bool,
    joiners: Vec<Waker>,
    /// What awaits for the task in its asyncio loop.
    host: Option<Py<PyAny>>,
    /// The loop that awaits for the task, unless that has ended.
    guest: Option<Py<Guest>>,
    /// The context that the task is in.
    context: Option<Context>,
    rare: Option<Box<Rare>>,
}

/// What few tasks have.
#[derive(Default)]
struct Rare {
    name: Option<String>,
    /// Raised at the next wait.
    thrown: Option<PyErr>,
    /// Called with the task once it has ended.
    callbacks: Vec<Py<PyAny>>,
    /// Called in the task when its function has returned.
    at_end: Vec<Py<PyAny>>,
    locals: Option<Py<PyDict>>,
}

impl State {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// How a task is in its context.
pub(crate) enum Context {
    /// It has entered it, so nobody else can.
    Own(Py<PyAny>),
    /// It is in it without having entered it: an asyncio task enters it as well, in turn.
    Shared(Py<PyAny>),
}

impl Context {
    fn enter(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            // SAFETY: a live context object; a negative result comes with an exception.
            Self::Own(context) if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 => {
                Err(PyErr::fetch(py))
            }
            Self::Own(_) => Ok(()),
            Self::Shared(context) => Current::set_context(py, Some(context.bind(py))),
        }
    }

    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            // SAFETY: as above; code that left another context entered is told so.
            Self::Own(context) if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 => {
                Err(PyErr::fetch(py))
            }
            Self::Own(_) => Ok(()),
            Self::Shared(_) => Current::set_context(py, None),
        }
    }
}

/// The function's result, or the exception that ended it.
type Outcome = Result<Py<PyAny>, Py<PyBaseException>>;

impl Drop for Task {
    fn drop(&mut self) {
        let id = self.id;
        let state = self.state.get_mut();
        let Some(Err(error)) = state.outcome.take().filter(|_| !state.seen) else { return };
        let name = state.rare.take().and_then(|rare| rare.name).unwrap_or_else(|| format!("Task-{id}"));
        Python::attach(|py| {
            // The last reference may go while an exception unwinds its frame: it goes on afterwards.
            let pending = PyErr::take(py);
            report(py, &name, error);
            if let Some(pending) = pending {
                pending.restore(py);
            }
        });
    }
}

/// Tells of an exception that nobody has seen.
fn report(py: Python<'_>, name: &str, error: Py<PyBaseException>) {
    let error = PyErr::from_value(error.into_bound(py).into_any());
    // Cancelling a task and forgetting it is nothing to report.
    if !error.is_instance_of::<Cancelled>(py) {
        let about = format!("balrog task {name}, which nobody joined").into_pyobject(py);
        error.write_unraisable(py, about.ok().as_ref().map(Bound::as_any));
    }
}

impl Task {
    /// A task that has not begun.
    pub(crate) fn new(remote: &Arc<Remote>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            remote: Arc::clone(remote),
            state: GilCell::new(State::default()),
        }
    }

    pub(crate) fn with_scopes<T>(&self, py: Python<'_>, f: impl FnOnce(&mut Scopes) -> T) -> T {
        f(&mut self.state.borrow_mut(py).scopes)
    }

    pub(crate) fn set_parked(&self, py: Python<'_>, token: Option<Token>) {
        let mut state = self.state.borrow_mut(py);
        state.waits += u64::from(token.is_some());
        state.parked = token;
    }

    /// The task would have let others run, had there been any.
    pub(crate) fn count_wait(&self, py: Python<'_>) {
        self.state.borrow_mut(py).waits += 1;
    }

    /// An exception that is to be raised at the task's next wait.
    pub(crate) fn take_thrown(&self, py: Python<'_>) -> Option<PyErr> {
        let mut state = self.state.borrow_mut(py);
        state.scopes.set_thrown(false);
        state.rare.as_mut()?.thrown.take()
    }

    /// Raises `error` at the wait where the task is, or at its next one.
    pub(crate) fn throw(&self, py: Python<'_>, error: PyErr) {
        let before = {
            let mut state = self.state.borrow_mut(py);
            state.scopes.set_thrown(true);
            state.rare().thrown.replace(error)
        };
        drop(before);
        self.interrupt(py);
    }

    /// Makes a parked task look at what changed.
    pub(crate) fn interrupt(&self, py: Python<'_>) {
        let parked = self.state.borrow(py).parked;
        if let Some(token) = parked {
            wake(py, &self.remote, token, Wake::Cancelled);
        }
    }

    fn is_done(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).outcome.is_some()
    }

    fn finish(slf: &Bound<'_, Self>, outcome: PyResult<Py<PyAny>>) {
        let py = slf.py();
        // What goes may run code that looks at the task, so it goes outside of the borrow.
        let (joiners, rare, others) = {
            let mut state = slf.get().state.borrow_mut(py);
            state.outcome = Some(outcome.map_err(|error| error.into_value(py)));
            let rare =
                state.rare.as_mut().map(|rare| (rare.locals.take(), std::mem::take(&mut rare.callbacks)));
            (std::mem::take(&mut state.joiners), rare, (state.host.take(), state.guest.take()))
        };
        drop(others);
        let (locals, callbacks) = rare.unwrap_or_default();
        drop(locals);
        for joiner in joiners {
            joiner.wake(py);
        }
        for callback in callbacks {
            if let Err(error) = callback.call1(py, (slf,)) {
                error.write_unraisable(py, Some(callback.bind(py)));
            }
        }
    }

    /// The hub's other half for other threads.
    pub(crate) const fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    pub(crate) fn set_host(&self, py: Python<'_>, host: Option<Py<PyAny>>) {
        let before = std::mem::replace(&mut self.state.borrow_mut(py).host, host);
        drop(before);
    }

    pub(crate) fn set_guest(&self, py: Python<'_>, guest: Option<Py<Guest>>) {
        let before = std::mem::replace(&mut self.state.borrow_mut(py).guest, guest);
        drop(before);
    }

    pub(crate) fn guest(&self, py: Python<'_>) -> Option<Py<Guest>> {
        self.state.borrow(py).guest.as_ref().map(|guest| guest.clone_ref(py))
    }

    /// Where the task is parked, if it is.
    pub(crate) fn parked(&self, py: Python<'_>) -> Option<Token> {
        self.state.borrow(py).parked
    }

    /// Has `callback` called when the task ends.
    pub(crate) fn at_end(&self, py: Python<'_>, callback: Py<PyAny>) {
        self.state.borrow_mut(py).rare().at_end.push(callback);
    }

    /// Waits for the end; `false` if `timeout` seconds pass before.
    pub(crate) fn wait_end(slf: &Bound<'_, Self>, deadline: Option<Instant>) -> PyResult<bool> {
        let py = slf.py();
        let hub = Hub::existing(py);
        if hub.and_then(|hub| hub.task(py)).is_some_and(|task| task.is(slf)) && !slf.get().is_done(py) {
            return Err(PyRuntimeError::new_err("a task cannot wait for its own end"));
        }
        if slf.get().is_done(py) {
            return Ok(true);
        }
        wait(py, &mut EndWait(slf.get()), deadline).map_err(|error| error.into_py_err(py))
    }

    /// The function's result, or its exception, which counts as seen from now on.
    pub(crate) fn outcome(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut state = self.state.borrow_mut(py);
        state.seen = true;
        match &state.outcome {
            Some(Ok(value)) => Ok(value.clone_ref(py)),
            Some(Err(error)) => Err(PyErr::from_value(error.bind(py).clone().into_any())),
            None => Err(PyRuntimeError::new_err("the task has not ended")),
        }
    }
}

/// The end of a task.
struct EndWait<'a>(&'a Task);

impl EndWait<'_> {
    fn add(&self, py: Python<'_>, waker: Waker) -> bool {
        let mut state = self.0.state.borrow_mut(py);
        let waits = state.outcome.is_none();
        if waits {
            state.joiners.push(waker);
        }
        waits
    }
}

impl Wait for EndWait<'_> {
    fn register(&mut self, py: Python<'_>, hub: &'static Hub, token: Token) -> io::Result<bool> {
        Ok(self.add(py, Waker::Parked(Arc::clone(&hub.remote), token)))
    }

    fn forget(&mut self, py: Python<'_>, _hub: &'static Hub, token: Token) {
        let mut state = self.0.state.borrow_mut(py);
        state.joiners.retain(|joiner| !matches!(joiner, Waker::Parked(_, other) if *other == token));
    }

    fn happened(&mut self, py: Python<'_>) -> bool {
        self.0.is_done(py)
    }

    fn needs_others(&self, hub: &'static Hub) -> bool {
        Arc::ptr_eq(&self.0.remote, &hub.remote)
    }

    fn block(&mut self, py: Python<'_>, until: Option<Instant>) -> io::Result<bool> {
        block_on_event(py, until, |waker| {
            self.add(py, waker);
        })?;
        Ok(self.0.is_done(py))
    }
}

#[pymethods]
impl Task {
    /// The task's name; ``Task-N`` unless set.
    #[getter]
    fn name(&self, py: Python<'_>) -> String {
        let name = self.state.borrow(py).rare.as_ref().and_then(|rare| rare.name.clone());
        name.unwrap_or_else(|| format!("Task-{}", self.id))
    }

    #[setter]
    fn set_name(&self, py: Python<'_>, name: String) {
        self.state.borrow_mut(py).rare().name = Some(name);
    }

    /// How many waits have let other tasks run so far, if there were any; the present one included.
    #[getter]
    fn waits(&self, py: Python<'_>) -> u64 {
        self.state.borrow(py).waits
    }

    /// Waits for the end and gives the function's result, or raises its exception.
    ///
    /// ``timeout`` is in seconds; ``None`` waits as long as it takes. Raises ``TimeoutError``
    /// when the time is over; the task itself goes on.
    #[pyo3(signature = (timeout = None))]
    fn result(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if !Self::wait_end(slf, deadline(timeout)?)? {
            let name = slf.get().name(py);
            return Err(PyTimeoutError::new_err(format!(
                "{name} has not ended within {} s",
                timeout.unwrap_or(0.0)
            )));
        }
        slf.get().outcome(py)
    }

    /// Waits for the end, however it comes. ``False`` if ``timeout`` seconds pass before.
    #[pyo3(signature = (timeout = None))]
    fn join(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<bool> {
        Self::wait_end(slf, deadline(timeout)?)
    }

    /// Asks the task to end: ``balrog.Cancelled`` is raised at its current wait, or its next.
    ///
    /// Clean-up may wait again for 5 s; after that every wait fails. Returns ``False`` if the
    /// task has ended or was asked before. May be called from any thread.
    pub(crate) fn cancel(&self, py: Python<'_>) -> bool {
        let asked = {
            let mut state = self.state.borrow_mut(py);
            state.outcome.is_none() && state.scopes.cancel()
        };
        if asked {
            self.interrupt(py);
        }
        asked
    }

    /// Whether cancellation was asked for.
    #[getter]
    fn cancelling(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).scopes.is_cancelled()
    }

    /// Whether the task has ended.
    fn done(&self, py: Python<'_>) -> bool {
        self.is_done(py)
    }

    /// The exception that ended the task, or ``None``. Raises ``RuntimeError`` while it runs.
    fn exception(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut state = self.state.borrow_mut(py);
        state.seen = true;
        match &state.outcome {
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Ok(Some(error.clone_ref(py).into_any())),
            None => Err(PyRuntimeError::new_err("the task has not ended")),
        }
    }

    /// Calls ``callback(task)`` once the task has ended, on the task's thread; at once if it has.
    ///
    /// The callback must not wait. Its errors go to ``sys.unraisablehook``.
    fn add_done_callback(slf: &Bound<'_, Self>, callback: Py<PyAny>) -> PyResult<()> {
        let py = slf.py();
        {
            let mut state = slf.get().state.borrow_mut(py);
            if state.outcome.is_none() {
                state.rare().callbacks.push(callback);
                return Ok(());
            }
        }
        callback.call1(py, (slf,)).map(drop)
    }

    /// The Python frames of the task, outermost first; empty before its start and after its end.
    #[getter]
    fn stack<'py>(slf: &Bound<'py, Self>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        inspect::frames(slf)
    }

    /// What awaits for the task in its asyncio loop.
    #[getter(_host)]
    fn get_host(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).host.as_ref().map(|host| host.clone_ref(py))
    }

    /// The loop that awaits for the task, unless that has ended.
    #[getter(_guest)]
    fn get_guest(&self, py: Python<'_>) -> Option<Py<Guest>> {
        self.guest(py)
    }

    #[setter(_host)]
    fn set_host_(&self, py: Python<'_>, host: Option<Py<PyAny>>) {
        self.set_host(py, host);
    }

    /// Lets an asyncio task enter the context that this task, the running one, is in; gives it.
    fn _share_context(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let shared = match &self.state.borrow(py).context {
            Some(Context::Shared(context)) => return Ok(context.clone_ref(py)),
            Some(Context::Own(context)) => context.clone_ref(py),
            None => return Err(PyRuntimeError::new_err("the task does not run")),
        };
        Context::Own(shared.clone_ref(py)).leave(py)?;
        let context = Context::Shared(shared.clone_ref(py));
        context.enter(py)?;
        self.state.borrow_mut(py).context = Some(context);
        Ok(shared)
    }

    /// Raises ``error`` at the task's current wait, or its next, as often as it is called.
    fn _throw(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.throw(py, PyErr::from_value(error));
    }

    /// The dictionary behind ``balrog.local`` for this task.
    #[getter]
    fn _locals<'py>(&self, py: Python<'py>) -> Bound<'py, PyDict> {
        let mut state = self.state.borrow_mut(py);
        state.rare().locals.get_or_insert_with(|| PyDict::new(py).unbind()).bind(py).clone()
    }

    /// ``Task[int]``, for annotations: a task whose result is an ``int``.
    #[classmethod]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        cls.py().import("types")?.getattr("GenericAlias")?.call1((cls, item))
    }

    // An exception's traceback leads to the frames of those who joined, and they to the task.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.collecting() else { return Ok(()) };
        match &state.outcome {
            Some(Ok(value)) => visit.call(value),
            Some(Err(error)) => visit.call(error),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        Python::attach(|py| {
            let (outcome, seen) = {
                let mut state = self.state.borrow_mut(py);
                (state.outcome.take(), state.seen)
            };
            if let Some(Err(error)) = outcome.filter(|_| !seen) {
                report(py, &self.name(py), error);
            }
        });
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let what = match (self.is_done(py), self.state.borrow(py).parked) {
            (true, _) => "done",
            (false, Some(_)) => "waiting",
            (false, None) => "runnable",
        };
        format!("<balrog.Task {} {what}>", self.name(py))
    }
}

/// Runs `body` as `task` on the current stack: own context, end callbacks, outcome.
pub(crate) fn run_as(
    py: Python<'_>,
    hub: &'static Hub,
    task: &Bound<'_, Task>,
    context: Context,
    body: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>>,
) {
    let key = hub.live.borrow_mut().insert(task.clone().unbind());
    hub.set_task(Some(task.clone().unbind()));
    let outcome = match begin(py, task, context) {
        Ok(()) => body(py),
        Err(error) => Err(error),
    };
    end(py, hub, task, key, outcome);
}

#[inline(never)]
fn begin(py: Python<'_>, task: &Bound<'_, Task>, context: Context) -> PyResult<()> {
    context.enter(py)?;
    task.get().state.borrow_mut(py).context = Some(context);
    Ok(())
}

#[inline(never)]
fn end(py: Python<'_>, hub: &'static Hub, task: &Bound<'_, Task>, key: usize, outcome: PyResult<Py<PyAny>>) {
    run_at_end(py, task.get());
    let context = task.get().state.borrow_mut(py).context.take();
    if let Some(Err(error)) = context.map(|context| context.leave(py)) {
        error.write_unraisable(py, Some(task.as_any()));
    }
    hub.set_task(None);
    drop(hub.live.borrow_mut().remove(key));
    Task::finish(task, outcome);
}

/// Runs the callbacks of the task's end, last one first, shielded from its cancellation.
fn run_at_end(py: Python<'_>, task: &Task) {
    loop {
        let next = task.state.borrow_mut(py).rare.as_mut().and_then(|rare| rare.at_end.pop());
        let Some(callback) = next else { return };
        let shield = task.with_scopes(py, |scopes| scopes.enter_shield(Instant::now() + balrog_sched::GRACE));
        if let Err(error) = callback.call0(py) {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
        task.with_scopes(py, |scopes| scopes.leave(shield));
    }
}

/// A copy of the current context.
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Task>()
}
