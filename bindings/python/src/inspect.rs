//! Seeing inside: every hub of the process, the stacks of its tasks, what holds it up.

use std::cell::Cell;
use std::ffi::c_ulong;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::{Current, Engine, Stack};
use crate::hub::{Hub, Parked};
use crate::task::Task;

/// A hub as seen from every thread.
#[derive(Clone, Copy)]
struct Listed {
    hub: &'static Hub,
    /// `threading.get_ident()` of its thread.
    thread: c_ulong,
}

// SAFETY: a hub's cells are borrowed only while the interpreter lock is held, which every user of
// this list holds too, and no borrow lasts over a moment at which that lock is let go; the one
// that does, the reactor's, is not touched from here.
unsafe impl Send for Listed {}

static HUBS: Mutex<Vec<Listed>> = Mutex::new(Vec::new());

fn hubs() -> MutexGuard<'static, Vec<Listed>> {
    // No code that can panic runs under the lock.
    HUBS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds the calling thread's hub to the list.
pub(crate) fn enlist(hub: &'static Hub) {
    // SAFETY: no arguments; needs no thread state.
    let thread = unsafe { ffi::PyThread_get_thread_ident() };
    hubs().push(Listed { hub, thread });
}

/// Takes the hub of a thread that ends from the list.
pub(crate) fn strike(hub: &'static Hub) {
    hubs().retain(|listed| !std::ptr::eq(listed.hub, hub));
}

/// After a fork no hub of the parent's is left.
pub(crate) fn strike_all() {
    hubs().clear();
}

/// Counts what a hub runs, and notices who runs for long.
#[derive(Default)]
pub(crate) struct Pulse {
    /// Odd while a task's stack runs; each turn of a stack makes it two more.
    beat: AtomicU64,
    jobs: Cell<u64>,
    entered: Cell<Option<Instant>>,
    longest: Cell<Duration>,
}

/// From how many nanoseconds on a turn is reported; 0: nothing is measured.
static SLOW: AtomicU64 = AtomicU64::new(0);
/// Called with a turn's end: (thread, beat, task, seconds).
static REPORT: OnceLock<Py<PyAny>> = OnceLock::new();
/// Called when nothing can wake anybody; returns the error to raise, or none.
static STUCK: OnceLock<Py<PyAny>> = OnceLock::new();

impl Pulse {
    /// A stack goes on, or starts.
    pub(crate) fn enter(&self) {
        // Only the hub's thread writes.
        self.beat.store(self.beat.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if SLOW.load(Ordering::Relaxed) > 0 {
            self.entered.set(Some(Instant::now()));
        }
    }

    /// It is the hub's turn again.
    pub(crate) fn leave(&self, py: Python<'_>) {
        let beat = self.beat.load(Ordering::Relaxed);
        self.beat.store(beat + 1, Ordering::Relaxed);
        if let Some(entered) = self.entered.take() {
            self.held(py, beat, entered.elapsed());
        }
    }

    /// A stack has done one job and may take another.
    pub(crate) fn next(&self, py: Python<'_>) {
        self.jobs.set(self.jobs.get() + 1);
        self.leave(py);
        self.enter();
    }

    #[cold]
    fn held(&self, py: Python<'_>, beat: u64, time: Duration) {
        self.longest.set(self.longest.get().max(time));
        let slow = SLOW.load(Ordering::Relaxed);
        if slow == 0 || time < Duration::from_nanos(slow) {
            return;
        }
        let (Some(report), Some(hub)) = (REPORT.get(), Hub::existing(py)) else { return };
        // SAFETY: as in `enlist`.
        let thread = unsafe { ffi::PyThread_get_thread_ident() };
        if let Err(error) = report.call1(py, (thread, beat, hub.task(py), time.as_secs_f64())) {
            error.write_unraisable(py, Some(report.bind(py)));
        }
    }
}

/// Raises what the Python side makes of a hub that nothing can wake.
pub(crate) fn raise_if_stuck(py: Python<'_>) -> PyResult<()> {
    let Some(stuck) = STUCK.get() else { return Ok(()) };
    let error = stuck.call0(py)?;
    if error.is_none(py) { Ok(()) } else { Err(PyErr::from_value(error.into_bound(py))) }
}

/// The frames of a task, outermost first.
pub(crate) fn frames<'py>(task: &Bound<'py, Task>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let mut frames = Vec::new();
    let mut next = innermost(task)?;
    while let Some(frame) = next {
        next = Some(frame.getattr("f_back")?).filter(|back| !back.is_none());
        frames.push(frame);
    }
    frames.reverse();
    Ok(frames)
}

fn innermost<'py>(task: &Bound<'py, Task>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = task.py();
    let found = hubs().iter().find(|listed| Arc::ptr_eq(&listed.hub.remote, task.get().remote())).copied();
    let Some(Listed { hub, thread }) = found else { return Ok(None) };
    if let Some(stack) = suspended(py, hub, task) {
        return Current::frame(py, &stack);
    }
    if hub.task(py).is_some_and(|running| running.is(task)) {
        let frames = py.import("sys")?.call_method0("_current_frames")?;
        return frames.cast::<PyDict>()?.get_item(thread);
    }
    Ok(None)
}

/// The stack on which a task that does not run is suspended.
fn suspended(py: Python<'_>, hub: &Hub, task: &Bound<'_, Task>) -> Option<Stack> {
    let scheduler = hub.scheduler.borrow();
    let of_task = |parked: &Parked| match parked {
        Parked::Stack(stack, Some(other)) if other.is(task) => Some(Current::clone(py, stack)),
        _ => None,
    };
    let parked = task.get().parked(py)?;
    match scheduler.get(parked) {
        Some(parked) => of_task(parked),
        None => scheduler.woken().find_map(of_task),
    }
}

/// The tasks of every thread that have not ended: a list of (thread, task).
#[pyfunction]
fn _all_tasks(py: Python<'_>) -> Vec<(c_ulong, Py<Task>)> {
    let hubs = hubs().clone();
    let mut all = Vec::new();
    for Listed { hub, thread } in hubs {
        all.extend(hub.live.borrow().iter().map(|(_, task)| (thread, task.clone_ref(py))));
    }
    all
}

/// What runs on each thread's hub: a list of (thread, beat, task).
#[pyfunction]
fn _pulses(py: Python<'_>) -> Vec<(c_ulong, u64, Option<Py<Task>>)> {
    let hubs = hubs().clone();
    hubs.iter()
        .map(|Listed { hub, thread }| {
            (*thread, hub.pulse.beat.load(Ordering::Relaxed), hub.task(py).map(Bound::unbind))
        })
        .collect()
}

/// What this thread's hub has done: ``switches`` to a task's stack, ``jobs`` that ended, tasks
/// ``live``, stacks ``parked``, and ``longest`` turn in seconds (measured while
/// ``balrog.debug()`` is on).
#[pyfunction]
fn counters(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let counters = PyDict::new(py);
    let hub = Hub::current(py)?;
    counters.set_item("switches", hub.pulse.beat.load(Ordering::Relaxed).div_ceil(2))?;
    counters.set_item("jobs", hub.pulse.jobs.get())?;
    counters.set_item("live", hub.live.borrow().len())?;
    counters.set_item("parked", hub.scheduler.borrow().parked())?;
    counters.set_item("longest", hub.pulse.longest.get().as_secs_f64())?;
    Ok(counters)
}

/// From how many seconds on a task's turn is reported; 0 ends that.
#[pyfunction]
fn _watch_slow(seconds: f64) {
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    SLOW.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Sets whom slow turns are reported to, and who is asked when nothing can wake anybody.
#[pyfunction]
fn _set_observers(report: Py<PyAny>, stuck: Py<PyAny>) {
    let _ = (REPORT.set(report), STUCK.set(stuck));
}

/// Stops the loops of all other threads, at the interpreter's exit: returns when they stand
/// still, or after ``seconds``.
///
/// A thread that wants to go on with Python code while the interpreter ends is unwound by
/// CPython up to 3.13 (`pthread_exit`), through frames of ours that cannot be: that aborts.
#[pyfunction]
fn _stop_other_hubs(py: Python<'_>, seconds: f64) {
    let here = Hub::existing(py).map(std::ptr::from_ref);
    let others: Vec<_> = hubs()
        .iter()
        .filter(|listed| here != Some(std::ptr::from_ref(listed.hub)))
        .map(|listed| Arc::clone(&listed.hub.remote))
        .filter(|remote| remote.ask_to_stop())
        .collect();
    let until = Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default();
    py.detach(|| {
        while !others.iter().all(|remote| remote.has_stopped()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_all_tasks, m)?)?;
    m.add_function(wrap_pyfunction!(_stop_other_hubs, m)?)?;
    m.add_function(wrap_pyfunction!(_pulses, m)?)?;
    m.add_function(wrap_pyfunction!(counters, m)?)?;
    m.add_function(wrap_pyfunction!(_watch_slow, m)?)?;
    m.add_function(wrap_pyfunction!(_set_observers, m)?)
}
