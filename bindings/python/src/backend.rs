//! The hub as a driver for Rust code, and the plain waits for Python code.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use balrog_backends::{Backend, Interest, execute, poll_once};
use balrog_sched::{Interrupt, Token};
use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;

use crate::hub::Hub;
use crate::interrupt::to_py_err;
use crate::remote::Waker;
use crate::scope::{deadline, far_off};
use crate::wait::{FdWait, Sleep, Wait, block_on_event, pass, wait};

/// Waits of Rust code under Python: a task parks in its hub, a plain thread blocks with the
/// interpreter let go.
#[derive(Debug)]
pub(crate) struct HubBackend;

impl Backend for HubBackend {
    fn wait_io(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Result<(), Interrupt> {
        Python::attach(|py| match wait(py, &mut FdWait::new(fd, interest), deadline)? {
            true => Ok(()),
            false => Err(Interrupt::Deadline),
        })
    }

    fn sleep_until(&self, deadline: Instant) -> Result<(), Interrupt> {
        Python::attach(|py| wait(py, &mut Sleep, Some(deadline)).map(drop).map_err(Into::into))
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>, deadline: Option<Instant>) -> Result<(), Interrupt> {
        Python::attach(|py| {
            match wait(py, &mut Offload { job: Some(job), shared: Arc::default() }, deadline)? {
                true => Ok(()),
                false => Err(Interrupt::Deadline),
            }
        })
    }
}

/// A job on a pool thread, which touches no Python object.
struct Offload {
    job: Option<Box<dyn FnOnce() + Send>>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    done: bool,
    waker: Option<Waker>,
}

impl Offload {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves `waker` for the job's end, and queues the job if that has not been done.
    fn begin(&mut self, waker: Waker) -> io::Result<bool> {
        {
            let mut shared = self.lock();
            if shared.done {
                return Ok(false);
            }
            shared.waker = Some(waker);
        }
        if let Some(job) = self.job.take() {
            let shared = Arc::clone(&self.shared);
            execute(Box::new(move || {
                // A job that panics is seen by its missing result.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                let waker = {
                    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    shared.done = true;
                    shared.waker.take()
                };
                if let Some(waker) = waker {
                    waker.wake_from_outside();
                }
            }))?;
        }
        Ok(true)
    }
}

impl Wait for Offload {
    fn register(&mut self, _py: Python<'_>, hub: &'static Hub, token: Token) -> io::Result<bool> {
        self.begin(Waker::Parked(Arc::clone(&hub.remote), token))
    }

    fn forget(&mut self, _py: Python<'_>, _hub: &'static Hub, _token: Token) {
        self.lock().waker = None;
    }

    fn happened(&mut self, _py: Python<'_>) -> bool {
        self.lock().done
    }

    fn block(&mut self, py: Python<'_>, until: Option<Instant>) -> io::Result<bool> {
        let mut begun = Ok(true);
        block_on_event(py, until, |waker| {
            begun = self.begin(waker.clone());
            if !matches!(begun, Ok(true)) {
                waker.wake_from_outside();
            }
        })?;
        begun?;
        Ok(self.happened(py))
    }
}

/// Waits for ``seconds`` and lets other tasks run. ``sleep(0)`` lets them run once.
#[pyfunction]
fn sleep(py: Python<'_>, seconds: f64) -> PyResult<()> {
    if seconds <= 0.0 && Hub::existing(py).is_some_and(Hub::is_busy) {
        return yield_now(py);
    }
    let until = deadline(Some(seconds))?.unwrap_or_else(far_off);
    wait(py, &mut Sleep, Some(until)).map(drop).map_err(|error| error.into_py_err(py))
}

/// Lets everybody who is runnable run once, in a task that has had its fair share.
pub(crate) fn yield_now(py: Python<'_>) -> PyResult<()> {
    if let Some(hub) = Hub::existing(py).filter(|hub| hub.task(py).is_some()) {
        let counted = |py| pass(py, hub).map_err(|interrupt| to_py_err(py, interrupt));
        if hub.is_next_anyway() {
            return counted(py);
        }
        if let Some((here, runner)) = hub.aside(py)? {
            counted(py)?;
            return hub.step_aside(py, here, &runner).map_err(|error| error.into_py_err(py));
        }
    }
    wait(py, &mut Yield { yielded: false }, None).map(drop).map_err(|error| error.into_py_err(py))
}

/// One turn for everybody who is runnable.
struct Yield {
    yielded: bool,
}

impl Wait for Yield {
    fn register(&mut self, _py: Python<'_>, hub: &'static Hub, token: Token) -> io::Result<bool> {
        self.yielded = true;
        hub.scheduler.borrow_mut().wake(token, balrog_sched::Wake::Ready);
        Ok(true)
    }

    fn forget(&mut self, _py: Python<'_>, _hub: &'static Hub, _token: Token) {}

    fn happened(&mut self, _py: Python<'_>) -> bool {
        self.yielded
    }

    fn block(&mut self, _py: Python<'_>, _until: Option<Instant>) -> io::Result<bool> {
        Ok(true)
    }
}

const READ: u32 = 1;
const WRITE: u32 = 2;

/// Waits until ``fd`` is ready: ``events`` is 1 to read, 2 to write, 3 for either.
///
/// Returns the events that are ready, 0 if ``timeout`` seconds passed before. Inside a task
/// other tasks run meanwhile; elsewhere the thread blocks in poll(2) with the GIL released.
#[pyfunction]
#[pyo3(signature = (fd, events, timeout = None))]
fn wait_fd(py: Python<'_>, fd: i32, events: u32, timeout: Option<f64>) -> PyResult<u32> {
    let interest = match events {
        READ => Interest::Readable,
        WRITE => Interest::Writable,
        3 => Interest::Both,
        _ => return Err(PyValueError::new_err("events must be 1 (read), 2 (write) or 3 (either)")),
    };
    if fd < 0 {
        return Err(PyValueError::new_err(format!("{fd} is not a descriptor: closed already?")));
    }
    // SAFETY: not negative. The caller keeps the descriptor open during the wait, as for
    // `select`; a closed one gives `EBADF`, which is raised.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let ready = wait(py, &mut FdWait::new(fd, interest), deadline(timeout)?)
        .map_err(|error| error.into_py_err(py))?;
    if !ready {
        return Ok(0);
    }
    if interest != Interest::Both {
        return Ok(events);
    }
    let now = Some(Instant::now());
    let readable = poll_once(fd, Interest::Readable, now).unwrap_or(true);
    let writable = poll_once(fd, Interest::Writable, now).unwrap_or(true);
    Ok(u32::from(readable) * READ + u32::from(writable) * WRITE)
}

/// Waits until ``fd`` can be read, which only this thread, another thread or a signal brings about.
#[pyfunction]
fn _wait_for_wakeup(py: Python<'_>, fd: i32) -> PyResult<()> {
    let waits = || wait_fd(py, fd, READ, None).map(drop);
    match Hub::existing(py) {
        Some(hub) => hub.as_wakeup(waits),
        None => waits(),
    }
}

/// Waits until ``fd`` can be read. Raises ``TimeoutError`` after ``timeout`` seconds.
#[pyfunction]
#[pyo3(signature = (fd, timeout = None))]
fn wait_readable(py: Python<'_>, fd: i32, timeout: Option<f64>) -> PyResult<()> {
    wait_or_raise(py, fd, READ, timeout, "readable")
}

/// Waits until ``fd`` can be written. Raises ``TimeoutError`` after ``timeout`` seconds.
#[pyfunction]
#[pyo3(signature = (fd, timeout = None))]
fn wait_writable(py: Python<'_>, fd: i32, timeout: Option<f64>) -> PyResult<()> {
    wait_or_raise(py, fd, WRITE, timeout, "writable")
}

fn wait_or_raise(py: Python<'_>, fd: i32, events: u32, timeout: Option<f64>, what: &str) -> PyResult<()> {
    match wait_fd(py, fd, events, timeout)? {
        0 => Err(PyTimeoutError::new_err(format!(
            "descriptor {fd} is not {what} after {} s",
            timeout.unwrap_or(0.0)
        ))),
        _ => Ok(()),
    }
}

/// For ``os.register_at_fork``: the child begins with no hub.
#[pyfunction]
fn _after_fork() {
    Hub::forget();
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    balrog_backends::install_default(&HubBackend);
    m.add_function(wrap_pyfunction!(sleep, m)?)?;
    m.add_function(wrap_pyfunction!(wait_fd, m)?)?;
    m.add_function(wrap_pyfunction!(_wait_for_wakeup, m)?)?;
    m.add_function(wrap_pyfunction!(wait_readable, m)?)?;
    m.add_function(wrap_pyfunction!(wait_writable, m)?)?;
    m.add_function(wrap_pyfunction!(_after_fork, m)?)
}
