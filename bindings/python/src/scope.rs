//! `balrog.timeout`, `balrog.shield`, what task groups are cancelled by, and seconds as moments.

use std::time::{Duration, Instant};

use balrog_sched::ScopeId;
use pyo3::exceptions::{PyException, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;

use crate::cell::GilCell;
use crate::hub::Hub;
use crate::task::Task;
use crate::wait::{thread_scopes, with_scopes};

#[derive(Clone, Copy)]
struct Entered {
    id: ScopeId,
    until: Instant,
}

/// ``with timeout(seconds):`` raises ``TimeoutError`` at a wait inside once the time is over.
///
/// Timeouts nest, the nearest counts, and every driver obeys. An exception that a driver made
/// of it (``requests.ReadTimeout``, say) becomes ``TimeoutError`` again on the way out, with
/// the driver's as its cause. ``None`` means no limit.
#[pyclass(frozen, name = "timeout", module = "balrog")]
struct Timeout {
    seconds: Option<f64>,
    entered: GilCell<Option<Entered>>,
}

#[pymethods]
impl Timeout {
    #[new]
    fn new(seconds: Option<f64>) -> PyResult<Self> {
        deadline(seconds)?;
        Ok(Self { seconds, entered: GilCell::new(None) })
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, this) = (slf.py(), slf.get());
        if this.entered.borrow(py).is_some() {
            return Err(PyRuntimeError::new_err("this timeout is in use already; make one for each with"));
        }
        if let Some(until) = deadline(this.seconds)? {
            let id = with_scopes(py, |scopes| scopes.enter_deadline(until));
            *this.entered.borrow_mut(py) = Some(Entered { id, until });
        }
        Ok(slf.clone())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyAny>>,
        value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let Some(entered) = self.entered.borrow_mut(py).take() else { return Ok(false) };
        with_scopes(py, |scopes| scopes.leave(entered.id));
        let (Some(_), Some(value)) = (kind, value) else { return Ok(false) };
        let translate = entered.until <= Instant::now()
            && value.is_instance_of::<PyException>()
            && !value.is_exact_instance_of::<PyTimeoutError>();
        if !translate {
            return Ok(false);
        }
        let error = PyTimeoutError::new_err(format!("not done within {} s", self.seconds.unwrap_or(0.0)));
        error.set_cause(py, Some(PyErr::from_value(value)));
        Err(error)
    }

    /// Whether the time is over. ``False`` outside of the ``with``.
    #[getter]
    fn expired(&self, py: Python<'_>) -> bool {
        self.entered.borrow(py).is_some_and(|entered| entered.until <= Instant::now())
    }
}

/// ``with shield(seconds):`` holds back cancellation and outer timeouts, for clean-up that has
/// to wait. After that many seconds (5 unless told) waits fail as they would have without it.
#[pyclass(frozen, name = "shield", module = "balrog")]
struct Shield {
    seconds: f64,
    entered: GilCell<Option<ScopeId>>,
}

#[pymethods]
impl Shield {
    #[new]
    #[pyo3(signature = (seconds = 5.0))]
    fn new(seconds: f64) -> PyResult<Self> {
        deadline(Some(seconds))?;
        Ok(Self { seconds, entered: GilCell::new(None) })
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, this) = (slf.py(), slf.get());
        if this.entered.borrow(py).is_some() {
            return Err(PyRuntimeError::new_err("this shield is in use already; make one for each with"));
        }
        let until = deadline(Some(this.seconds))?.unwrap_or_else(far_off);
        let id = with_scopes(py, |scopes| scopes.enter_shield(until));
        *this.entered.borrow_mut(py) = Some(id);
        Ok(slf.clone())
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: Bound<'_, pyo3::types::PyTuple>) -> bool {
        if let Some(id) = self.entered.borrow_mut(py).take() {
            with_scopes(py, |scopes| scopes.leave(id));
        }
        false
    }
}

/// Waits inside the ``with`` can be cancelled together: ``balrog.Cancelled`` is raised at them,
/// once, and again when the grace time of 5 s is over. Nothing outside is touched.
#[pyclass(frozen, module = "balrog")]
struct CancelScope {
    state: GilCell<Group>,
}

#[derive(Default)]
struct Group {
    id: Option<ScopeId>,
    /// Whose waits they are; none: those of the thread, outside of tasks.
    task: Option<Py<Task>>,
    cancelled: bool,
}

#[pymethods]
impl CancelScope {
    #[new]
    fn new() -> Self {
        Self { state: GilCell::new(Group::default()) }
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let (py, this) = (slf.py(), slf.get());
        if this.state.borrow(py).id.is_some() {
            return Err(PyRuntimeError::new_err("this scope is in use already; make one for each with"));
        }
        let id = with_scopes(py, |scopes| {
            let id = scopes.enter_group();
            if this.state.borrow(py).cancelled {
                scopes.cancel_group(id);
            }
            id
        });
        let mut state = this.state.borrow_mut(py);
        state.id = Some(id);
        state.task = Hub::existing(py).and_then(|hub| hub.task(py)).map(Bound::unbind);
        Ok(slf.clone())
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: Bound<'_, pyo3::types::PyTuple>) -> bool {
        let (id, task) = {
            let mut state = self.state.borrow_mut(py);
            (state.id.take(), state.task.take())
        };
        match (id, task) {
            (Some(id), Some(task)) => task.get().with_scopes(py, |scopes| scopes.leave(id)),
            (Some(id), None) => with_scopes(py, |scopes| scopes.leave(id)),
            _ => {}
        }
        false
    }

    /// Cancels the waits inside. The scope of a task may be cancelled from any thread.
    fn cancel(&self, py: Python<'_>) {
        let (id, task) = {
            let mut state = self.state.borrow_mut(py);
            state.cancelled = true;
            (state.id, state.task.as_ref().map(|task| task.clone_ref(py)))
        };
        let Some(id) = id else { return };
        match task {
            Some(task) => {
                task.get().with_scopes(py, |scopes| scopes.cancel_group(id));
                task.get().interrupt(py);
            }
            None => {
                thread_scopes(|scopes| scopes.cancel_group(id));
                if let Some(hub) = Hub::existing(py) {
                    hub.interrupt_taskless();
                }
            }
        }
    }

    /// Whether ``cancel()`` was called.
    #[getter]
    fn cancelled(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).cancelled
    }
}

/// The moment `timeout` seconds from now.
pub(crate) fn deadline(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(seconds) = timeout else { return Ok(None) };
    if seconds.is_nan() {
        return Err(PyValueError::new_err("a timeout is a number of seconds, not nan"));
    }
    // A time too long for the clock is as good as none.
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    Ok(Instant::now().checked_add(duration))
}

/// A moment that does not come, for what is endless by its nature.
pub(crate) fn far_off() -> Instant {
    Instant::now() + Duration::from_secs(1 << 32)
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Timeout>()?;
    m.add_class::<Shield>()?;
    m.add_class::<CancelScope>()
}
