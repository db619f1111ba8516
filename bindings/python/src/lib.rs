//! The extension module `balrog._balrog`: the hub and what runs on it, for CPython.

mod backend;
mod cell;
mod client;
mod engine;
mod foreign;
mod guest;
mod hub;
mod inspect;
mod interrupt;
mod loops;
mod remote;
mod repl;
mod scope;
mod server;
mod signals;
mod spawn;
mod task;
mod wait;
mod waiter;

use engine::{Current, Engine};
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

#[pymodule(gil_used = true)]
fn _balrog(m: &Bound<'_, PyModule>) -> PyResult<()> {
    refuse_free_threading(m.py())?;
    Current::load(m.py())?;
    foreign::load(m.py())?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("Cancelled", m.py().get_type::<interrupt::Cancelled>())?;
    backend::register(m)?;
    client::register(m)?;
    guest::register(m)?;
    repl::register(m)?;
    inspect::register(m)?;
    spawn::register(m)?;
    task::register(m)?;
    scope::register(m)?;
    server::register(m)?;
    signals::register(m)?;
    waiter::register(m)
}

/// Everything here relies on the interpreter lock.
fn refuse_free_threading(py: Python<'_>) -> PyResult<()> {
    let disabled = py.import("sysconfig")?.call_method1("get_config_var", ("Py_GIL_DISABLED",))?;
    if disabled.is_truthy()? {
        return Err(PyImportError::new_err(
            "balrog does not run on free-threaded Python yet: use the standard build of CPython",
        ));
    }
    Ok(())
}
