//! The extension module `balrog._balrog`.
use pyo3::prelude::*;

#[pymodule]
fn _balrog(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))
}
