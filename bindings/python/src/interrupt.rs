//! How a wait that was interrupted becomes a Python exception.

use std::cell::RefCell;
use std::io;

use balrog_sched::Interrupt;
use pyo3::create_exception;
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyTimeoutError};
use pyo3::prelude::*;

create_exception!(
    balrog,
    Cancelled,
    PyBaseException,
    "The task was cancelled while it waited.\n\nRaised at waits only. Not an `Exception`, so that `except Exception` lets it through."
);

/// Why a wait failed.
pub(crate) enum WaitError {
    /// An enclosing deadline, a cancellation, or an exception that [`carry`] keeps.
    Interrupted(Interrupt),
    /// The wait could not begin.
    Io(io::Error),
}

impl From<Interrupt> for WaitError {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl From<WaitError> for Interrupt {
    /// For callers that know interrupts only; the I/O error is carried as its exception.
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Interrupted(interrupt) => interrupt,
            WaitError::Io(error) => carry(error.into()),
        }
    }
}

impl WaitError {
    /// That of an exception.
    #[inline(never)]
    pub(crate) fn raised(error: PyErr) -> Self {
        Self::Interrupted(carry(error))
    }

    /// The exception to raise for it.
    #[inline(never)]
    pub(crate) fn into_py_err(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Interrupted(interrupt) => to_py_err(py, interrupt),
            Self::Io(error) => error.into(),
        }
    }
}

thread_local! {
    /// The Python exception behind the last interrupt: a signal handler's, or one that was
    /// thrown into the task. It has to cross Rust code that knows only [`Interrupt`].
    static PENDING: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Keeps `error` for [`to_py_err`] and gives the interrupt that stands for it.
pub(crate) fn carry(error: PyErr) -> Interrupt {
    PENDING.with(|pending| *pending.borrow_mut() = Some(error));
    Interrupt::Cancelled
}

/// The exception to raise for an interrupt.
pub(crate) fn to_py_err(_py: Python<'_>, interrupt: Interrupt) -> PyErr {
    if let Some(error) = PENDING.with(|pending| pending.borrow_mut().take()) {
        return error;
    }
    match interrupt {
        Interrupt::Cancelled => Cancelled::new_err("the task was cancelled while it waited"),
        Interrupt::Deadline => PyTimeoutError::new_err("a deadline of balrog.timeout() passed while waiting"),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}
