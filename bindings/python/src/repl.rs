//! Tasks go on while a prompt waits for its line: the hook of readline, of the plain prompt and
//! of `input()`.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use balrog_backends::Interest;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::{ffi, intern};

use crate::hub::Hub;
use crate::interrupt::{WaitError, to_py_err};
use crate::wait::{FdWait, wait};

type Hook = Option<unsafe extern "C" fn() -> c_int>;

unsafe extern "C" {
    /// Called by CPython before, and by some prompts while, it waits for standard input.
    static mut PyOS_InputHook: Hook;
}

/// How long the prompt of Python 3.13 may be kept from looking at what it has read ahead.
const LOOK_AHEAD: Duration = Duration::from_millis(100);

/// [`_serve_prompt`] as a Python object, kept for ever.
static SERVE: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// Called with the interpreter lock held or not. It goes through CPython alone: what PyO3 counts
/// on this thread includes the calls that parked tasks are in, so it cannot tell which it is.
unsafe extern "C" fn hook() -> c_int {
    // SAFETY: a function that was registered is a live object, and the state is given back as it
    // was found, on the same thread. Tasks that ran meanwhile are parked inside the call.
    unsafe {
        let state = ffi::PyGILState_Ensure();
        let result = ffi::PyObject_CallNoArgs(SERVE.load(Ordering::Relaxed));
        if result.is_null() {
            ffi::PyErr_WriteUnraisable(ptr::null_mut());
        } else {
            ffi::Py_DecRef(result);
        }
        ffi::PyGILState_Release(state);
    }
    0
}

/// Runs the thread's tasks, if it has any, until there is something to read.
#[pyfunction]
fn _serve_prompt(py: Python<'_>) -> PyResult<()> {
    // Inside a task the prompt has the thread for itself: what reads cannot be switched away from.
    let Some(hub) = Hub::existing(py).filter(|hub| hub.is_busy() && !hub.is_run()) else { return Ok(()) };
    debug_assert!(hub.task(py).is_none());
    // SAFETY: both need the interpreter lock alone, which `py` stands for.
    unsafe {
        // A signal that ended readline's own wait: it looks for it after this call, not before.
        if ffi::PyOS_InterruptOccurred() != 0 {
            ffi::PyErr_SetInterrupt();
            return Ok(());
        }
    }
    // SAFETY: standard input is not closed while somebody reads from it.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    match wait(py, &mut FdWait::new(stdin, Interest::Readable), limit(py)) {
        Err(WaitError::Interrupted(interrupt)) => {
            let error = to_py_err(py, interrupt);
            if error.is_instance_of::<PyKeyboardInterrupt>(py) { again(py) } else { Err(error) }
        }
        // Somebody else reads, or it cannot be waited for: the prompt blocks.
        _ => Ok(()),
    }
}

fn limit(py: Python<'_>) -> Option<Instant> {
    let modules = py.import(intern!(py, "sys")).and_then(|sys| sys.getattr(intern!(py, "modules"))).ok()?;
    modules.contains("_pyrepl.reader").ok()?.then(|| Instant::now() + LOOK_AHEAD)
}

/// Ctrl-C is the prompt's. It came while we waited in its place, so it has to come once more.
fn again(py: Python<'_>) -> PyResult<()> {
    py.import("balrog._repl")?.call_method0("interrupt_soon").map(drop)
}

/// Has prompts of this process run the main thread's tasks, unless somebody else (a GUI toolkit)
/// has a hook there already. Whether it is ours.
#[pyfunction]
fn _hook_prompts(py: Python<'_>) -> PyResult<bool> {
    if SERVE.load(Ordering::Relaxed).is_null() {
        SERVE.store(wrap_pyfunction!(_serve_prompt, py)?.into_ptr(), Ordering::Relaxed);
    }
    // SAFETY: CPython's own variable, read and written under the interpreter lock only.
    unsafe {
        let slot = &raw mut PyOS_InputHook;
        match slot.read() {
            None => slot.write(Some(hook)),
            Some(other) => return Ok(ptr::fn_addr_eq(other, hook as unsafe extern "C" fn() -> c_int)),
        }
    }
    Ok(true)
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_hook_prompts, m)?)
}
