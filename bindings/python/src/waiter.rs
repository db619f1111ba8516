//! What the sync primitives are made of: a one-shot wait and a fair semaphore.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use balrog_sched::{Token, Wake};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::cell::GilCell;
use crate::hub::Hub;
use crate::remote::Waker;
use crate::scope::deadline;
use crate::wait::{Wait, block_on_event, wait};

/// One wait that anybody may end, once, from any task or thread.
#[pyclass(frozen, module = "balrog")]
pub(crate) struct Waiter {
    state: GilCell<State>,
}

#[derive(Default)]
struct State {
    woken: bool,
    waker: Option<Waker>,
}

impl Waiter {
    pub(crate) fn create() -> Self {
        Self { state: GilCell::new(State::default()) }
    }

    pub(crate) fn is_woken(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).woken
    }

    pub(crate) fn end(&self, py: Python<'_>) {
        let waker = {
            let mut state = self.state.borrow_mut(py);
            state.woken = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake(py);
        }
    }

    /// Like [`Waiter::end`] on the waiting task's own thread, for a caller that gives the hub its
    /// turn right after.
    pub(crate) fn end_quietly(&self, py: Python<'_>) {
        let waker = {
            let mut state = self.state.borrow_mut(py);
            state.woken = true;
            state.waker.take()
        };
        match waker {
            Some(Waker::Parked(remote, token)) => match Hub::existing(py) {
                Some(hub) if Arc::ptr_eq(&hub.remote, &remote) => {
                    hub.scheduler.borrow_mut().wake(token, Wake::Ready);
                }
                _ => remote.wake(token, Wake::Ready),
            },
            Some(thread) => thread.wake(py),
            None => {}
        }
    }

    pub(crate) fn wait_until(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<bool> {
        wait(py, &mut Woken(self), deadline).map_err(|error| error.into_py_err(py))
    }

    fn set_waker(&self, py: Python<'_>, waker: Waker) -> bool {
        let mut state = self.state.borrow_mut(py);
        if !state.woken {
            state.waker = Some(waker);
        }
        !state.woken
    }
}

struct Woken<'a>(&'a Waiter);

impl Wait for Woken<'_> {
    fn register(&mut self, py: Python<'_>, hub: &'static Hub, token: Token) -> io::Result<bool> {
        Ok(self.0.set_waker(py, Waker::Parked(Arc::clone(&hub.remote), token)))
    }

    fn forget(&mut self, py: Python<'_>, _hub: &'static Hub, _token: Token) {
        self.0.state.borrow_mut(py).waker = None;
    }

    fn happened(&mut self, py: Python<'_>) -> bool {
        self.0.is_woken(py)
    }

    fn block(&mut self, py: Python<'_>, until: Option<Instant>) -> io::Result<bool> {
        if !self.0.is_woken(py) {
            block_on_event(py, until, |waker| {
                self.0.set_waker(py, waker);
            })?;
        }
        Ok(self.0.is_woken(py))
    }
}

#[pymethods]
impl Waiter {
    #[new]
    fn new() -> Self {
        Self::create()
    }

    /// Waits for ``wake()``. ``False`` if ``timeout`` seconds pass before.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.wait_until(py, deadline(timeout)?)
    }

    /// Ends the wait, or the next one if none has begun.
    fn wake(&self, py: Python<'_>) {
        self.end(py);
    }

    /// Whether ``wake()`` was called.
    #[getter]
    fn woken(&self, py: Python<'_>) -> bool {
        self.is_woken(py)
    }
}

/// A counter of permits. Those who wait get them in the order of asking, handed over directly.
///
/// Right between tasks, between threads, and between both. Never negative.
#[pyclass(frozen, subclass, module = "balrog")]
struct Semaphore {
    state: GilCell<Permits>,
}

struct Permits {
    value: u64,
    queue: VecDeque<Py<Waiter>>,
}

#[pymethods]
impl Semaphore {
    #[new]
    #[pyo3(signature = (value = 1))]
    fn new(value: i64) -> PyResult<Self> {
        let value = u64::try_from(value)
            .map_err(|_| PyValueError::new_err("semaphore initial value must be >= 0"))?;
        Ok(Self { state: GilCell::new(Permits { value, queue: VecDeque::new() }) })
    }

    /// Takes a permit; ``False`` if there is none and ``blocking`` is false, or none came
    /// within ``timeout`` seconds.
    #[pyo3(signature = (blocking = true, timeout = None))]
    fn acquire(&self, py: Python<'_>, blocking: bool, timeout: Option<f64>) -> PyResult<bool> {
        let until = deadline(timeout)?;
        let waiter = {
            let mut state = self.state.borrow_mut(py);
            if state.value > 0 {
                state.value -= 1;
                return Ok(true);
            }
            if !blocking {
                return Ok(false);
            }
            let waiter = Py::new(py, Waiter::create())?;
            state.queue.push_back(waiter.clone_ref(py));
            waiter
        };
        let waited = waiter.get().wait_until(py, until);
        if waiter.get().is_woken(py) {
            // Handed over, maybe in the same moment as the wait ended otherwise.
            if waited.is_err() {
                self.give(py, 1);
            }
            return waited.map(|_| true);
        }
        self.state.borrow_mut(py).queue.retain(|other| !other.is(&waiter));
        waited
    }

    /// Gives back ``n`` permits.
    #[pyo3(signature = (n = 1))]
    fn release(&self, py: Python<'_>, n: i64) -> PyResult<()> {
        match u64::try_from(n) {
            Ok(n) if n > 0 => {
                self.give(py, n);
                Ok(())
            }
            _ => Err(PyValueError::new_err("n must be one or more")),
        }
    }

    /// Permits that nobody holds.
    #[getter]
    fn _value(&self, py: Python<'_>) -> u64 {
        self.state.borrow(py).value
    }

    /// How many wait for a permit.
    #[getter]
    fn _waiting(&self, py: Python<'_>) -> usize {
        self.state.borrow(py).queue.len()
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire(py, true, None)
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(slf: &Bound<'_, Self>, _args: Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        // By name: a subclass checks its releases.
        slf.call_method0("release").map(drop)
    }
}

impl Semaphore {
    fn give(&self, py: Python<'_>, n: u64) {
        for _ in 0..n {
            let next = {
                let mut state = self.state.borrow_mut(py);
                let next = state.queue.pop_front();
                if next.is_none() {
                    state.value += 1;
                }
                next
            };
            if let Some(waiter) = next {
                waiter.get().end(py);
            }
        }
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Waiter>()?;
    m.add_class::<Semaphore>()
}
