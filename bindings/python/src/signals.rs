//! Ctrl-C while tasks run: `KeyboardInterrupt` belongs to the main function, not to whichever task
//! happens to compute.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::intern;
use pyo3::prelude::*;

use crate::hub::Hub;

/// Python's own handler of SIGINT replaced for as long as the main thread runs its hub. Any
/// other handler is left alone.
pub(crate) struct Interrupts {
    ours: Py<PyAny>,
    before: Py<PyAny>,
}

const SIGINT: i32 = 2;

impl Interrupts {
    /// `None` if there is nothing to replace, or if this is not the main thread.
    pub(crate) fn take_over(py: Python<'_>, hub: &Hub) -> PyResult<Option<Self>> {
        if !hub.is_main {
            return Ok(None);
        }
        let signal = py.import(intern!(py, "signal"))?;
        let before = signal.call_method1(intern!(py, "getsignal"), (SIGINT,))?;
        if !before.is(signal.getattr(intern!(py, "default_int_handler"))?) {
            return Ok(None);
        }
        let ours = py.import(intern!(py, "balrog._balrog"))?.getattr(intern!(py, "_on_interrupt"))?;
        signal.call_method1(intern!(py, "signal"), (SIGINT, &ours))?;
        Ok(Some(Self { ours: ours.unbind(), before: before.unbind() }))
    }

    /// Puts the handler back, unless somebody has set another one since.
    pub(crate) fn give_back(self, py: Python<'_>) -> PyResult<()> {
        let signal = py.import(intern!(py, "signal"))?;
        if signal.call_method1(intern!(py, "getsignal"), (SIGINT,))?.is(&self.ours) {
            signal.call_method1(intern!(py, "signal"), (SIGINT, self.before))?;
        }
        Ok(())
    }
}

/// Whether the calling thread is the one that runs signal handlers.
pub(crate) fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let here = threading.call_method0("get_ident")?;
    threading.call_method0("main_thread")?.getattr("ident")?.eq(here)
}

/// The handler. A second Ctrl-C, while the first waits for its turn, is raised wherever it comes.
#[pyfunction]
fn _on_interrupt(py: Python<'_>, _number: i32, _frame: &Bound<'_, PyAny>) -> PyResult<()> {
    if Hub::existing(py).is_some_and(|hub| hub.defers_interrupt(py)) {
        return Ok(());
    }
    Err(PyKeyboardInterrupt::new_err(()))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_on_interrupt, m)?)
}
