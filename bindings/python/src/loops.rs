//! Which asyncio loop counts as running, stack by stack.
//!
//! asyncio keeps its running loop per thread. Here several stacks share the thread, so each has
//! its own: what one runs, the others must not see, or Django would refuse to query and
//! `asyncio.run` to run.

use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

struct Functions {
    get: Py<PyAny>,
    set: Py<PyAny>,
}

/// asyncio's own functions, once the program has imported it.
fn functions(py: Python<'_>) -> PyResult<Option<&'static Functions>> {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    if let Some(functions) = FUNCTIONS.get() {
        return Ok(Some(functions));
    }
    // SAFETY: a borrowed reference to the dictionary of modules, which lives as long as the
    // interpreter, and a live key; no exception is set for a key that is missing.
    let module = unsafe {
        let modules = ffi::PyImport_GetModuleDict();
        let module = ffi::PyDict_GetItemWithError(modules, intern!(py, "_asyncio").as_ptr());
        Bound::from_borrowed_ptr_or_opt(py, module)
    };
    let Some(module) = module else { return Ok(None) };
    // Absent while the module is being imported.
    let get = module.getattr_opt(intern!(py, "_get_running_loop"))?;
    let set = module.getattr_opt(intern!(py, "_set_running_loop"))?;
    let (Some(get), Some(set)) = (get, set) else { return Ok(None) };
    Ok(Some(FUNCTIONS.get_or_init(|| Functions { get: get.unbind(), set: set.unbind() })))
}

/// The loop that runs on the calling stack.
pub(crate) fn running(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let Some(functions) = functions(py)? else { return Ok(None) };
    let running = functions.get.bind(py).call0()?;
    Ok(Some(running).filter(|running| !running.is_none()))
}

/// Makes `running` the calling stack's loop.
pub(crate) fn set(py: Python<'_>, running: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    if let Some(functions) = functions(py)? {
        match running {
            Some(running) => functions.set.bind(py).call1((running,))?,
            None => functions.set.bind(py).call1((py.None(),))?,
        };
    }
    Ok(())
}

/// Hides the running loop from the stacks that have their turn now; [`restore`] gives it back.
#[inline(never)]
pub(crate) fn hide(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let hidden = running(py)?;
    if hidden.is_some() {
        set(py, None)?;
    }
    Ok(hidden)
}

/// Undoes [`hide`].
#[inline(never)]
pub(crate) fn restore(py: Python<'_>, hidden: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    match hidden {
        Some(hidden) => set(py, Some(&hidden)),
        None => Ok(()),
    }
}
