//! Where a stack must stay: inside a callback of C code, and in the middle of an import.
//!
//! C code that calls Python back through `PyGILState_Ensure` (ctypes, sqlite3, other PyO3
//! modules) counts on calls that end in the reverse order of their beginning. A task that left
//! its stack in there would let others break that order: PyO3 aborts the process then. And a
//! module whose body waits is half made meanwhile: another task of the thread would get it so.

use std::ffi::c_int;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyImportError, PyRuntimeWarning};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{ffi, intern};

/// How deep the running stack is inside of either.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Depth {
    callbacks: c_int,
    imports: usize,
}

impl Depth {
    /// That of the running stack.
    pub(crate) fn now(py: Python<'_>) -> PyResult<Self> {
        Ok(Self { callbacks: callbacks(py), imports: imports(py)? })
    }

    /// Whether something was entered since `other`.
    pub(crate) const fn is_below(self, other: Self) -> bool {
        self.callbacks > other.callbacks || self.imports > other.imports
    }

    /// Says once that a wait here lets nobody run.
    pub(crate) fn warn(self, py: Python<'_>) -> PyResult<()> {
        static CALLBACKS: AtomicBool = AtomicBool::new(false);
        static IMPORTS: AtomicBool = AtomicBool::new(false);
        let said = if self.imports > 0 { &IMPORTS } else { &CALLBACKS };
        if said.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let text = std::ffi::CString::new(format!(
            "a task waits {self}: no other task of this thread runs meanwhile"
        ))?;
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.imports > 0 {
            "in the middle of an import"
        } else {
            "inside a callback of C code"
        })
    }
}

/// So much of a thread state is there in every supported version (288 bytes in 3.12).
const WORDS: usize = 256 / size_of::<c_int>();

/// Where a thread state counts its `PyGILState_Ensure`, in units of `c_int`.
static COUNTER: OnceLock<usize> = OnceLock::new();
/// The locks of the modules that are being imported, by name; empty nearly always.
static LOCKS: OnceLock<Py<PyDict>> = OnceLock::new();

/// Finds the two; called once, when the module is imported.
pub(crate) fn load(py: Python<'_>) -> PyResult<()> {
    let counter = find_counter(py).ok_or_else(|| {
        PyImportError::new_err(
            "balrog does not know this build of CPython: its thread state has no gilstate_counter",
        )
    })?;
    let locks = py.import("_frozen_importlib")?.getattr("_module_locks")?.cast_into::<PyDict>()?;
    let _ = COUNTER.set(counter);
    let _ = LOCKS.set(locks.unbind());
    Ok(())
}

/// `gilstate_counter` is private, and each version has it elsewhere; but it alone follows
/// `PyGILState_Ensure` and `PyGILState_Release` step by step.
fn find_counter(_py: Python<'_>) -> Option<usize> {
    let look = || -> [c_int; WORDS] {
        // SAFETY: the interpreter is attached, so there is a thread state; it is larger than
        // `WORDS` and made of words. Volatile: others may write to some of them.
        unsafe {
            let state = ffi::PyThreadState_Get().cast::<c_int>();
            std::array::from_fn(|at| state.add(at).read_volatile())
        }
    };
    let before = look();
    // SAFETY: attached already, so both only count; each is released, in reverse order.
    let (one, two) = unsafe {
        let first = ffi::PyGILState_Ensure();
        let one = look();
        let second = ffi::PyGILState_Ensure();
        let two = look();
        ffi::PyGILState_Release(second);
        ffi::PyGILState_Release(first);
        (one, two)
    };
    let after = look();
    let counts = |at: &usize| {
        let base = before[*at];
        one[*at] == base.wrapping_add(1) && two[*at] == base.wrapping_add(2) && after[*at] == base
    };
    let mut found = (0..WORDS).filter(counts);
    found.next().filter(|_| found.next().is_none())
}

fn callbacks(_py: Python<'_>) -> c_int {
    let Some(at) = COUNTER.get() else { return 0 };
    // SAFETY: as in `find_counter`, which found the place inside of the thread state.
    unsafe { ffi::PyThreadState_Get().cast::<c_int>().add(*at).read_volatile() }
}

/// How many modules the calling thread is importing.
fn imports(py: Python<'_>) -> PyResult<usize> {
    let Some(locks) = LOCKS.get().map(|locks| locks.bind(py)).filter(|locks| !locks.is_empty()) else {
        return Ok(0);
    };
    let here = py.import(intern!(py, "_thread"))?.call_method0(intern!(py, "get_ident"))?;
    let mut count = 0;
    // A copy: locks die, and take their entries along, whenever a reference is let go.
    for reference in locks.values() {
        let lock = reference.call0()?;
        if !lock.is_none() && lock.getattr(intern!(py, "owner"))?.eq(&here)? {
            count += 1;
        }
    }
    Ok(count)
}
