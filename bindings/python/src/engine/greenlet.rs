use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::ffi::{self, PyObject};
use pyo3::intern;
use pyo3::prelude::*;

use super::Engine;

/// Stacks by the greenlet package, through its C API.
///
/// A suspended greenlet's part of the C stack is copied away, so nothing that anybody else can
/// reach may live there: no wait may lend out a pointer into its own frames.
pub(crate) struct Greenlet;

/// The functions of `greenlet.h` in use, by their index in the capsule `greenlet._C_API`.
struct Api {
    /// `PyGreenlet_New(run, parent)`, 3.
    new: unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject,
    /// `PyGreenlet_GetCurrent()`, 4.
    get_current: unsafe extern "C" fn() -> *mut PyObject,
    /// `PyGreenlet_Switch(greenlet, args, kwargs)`, 6.
    switch: unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject,
    /// `PyGreenlet_SetParent(greenlet, parent)`, 7.
    set_parent: unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> c_int,
}

static API: OnceLock<Api> = OnceLock::new();

fn api() -> &'static Api {
    API.get().expect("the engine is loaded when the module is imported")
}

/// The exception that is set. Not inlined: a suspended stack keeps the frame of `switch`.
#[cold]
#[inline(never)]
fn thrown(py: Python<'_>) -> PyErr {
    PyErr::fetch(py)
}

impl Engine for Greenlet {
    type Stack = Py<PyAny>;

    fn load(py: Python<'_>) -> PyResult<()> {
        py.import("greenlet").map_err(|error| {
            let clear = PyImportError::new_err("balrog needs the package 'greenlet': pip install greenlet");
            clear.set_cause(py, Some(error));
            clear
        })?;
        // SAFETY: the name is NUL-terminated; a null result is an exception, taken below.
        let table = unsafe { ffi::PyCapsule_Import(c"greenlet._C_API".as_ptr(), 0) }.cast::<*mut c_void>();
        if table.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: the capsule holds an array of at least 12 pointers whose order and types
        // `greenlet.h` fixes, and which lives as long as the process.
        let api = unsafe {
            Api {
                new: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject,
                >(*table.add(3)),
                get_current: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut PyObject>(
                    *table.add(4),
                ),
                switch: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject,
                >(*table.add(6)),
                set_parent: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> c_int,
                >(*table.add(7)),
            }
        };
        let _ = API.set(api);
        Ok(())
    }

    fn spawn(py: Python<'_>, entry: &Bound<'_, PyAny>) -> PyResult<Self::Stack> {
        // SAFETY: `entry` is a live object; a null parent means the running greenlet. The result
        // is a new reference or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, (api().new)(entry.as_ptr(), ptr::null_mut())) }
            .map(Bound::unbind)
    }

    fn current(py: Python<'_>) -> PyResult<Self::Stack> {
        // SAFETY: returns a new reference or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, (api().get_current)()) }.map(Bound::unbind)
    }

    fn switch(py: Python<'_>, stack: &Self::Stack) -> PyResult<()> {
        // SAFETY: `stack` is a live greenlet of this thread, and null arguments are allowed. Other
        // stacks run meanwhile; nothing of this frame is reachable for them but `stack` itself,
        // which its owner keeps.
        let result = unsafe { (api().switch)(stack.as_ptr(), ptr::null_mut(), ptr::null_mut()) };
        // SAFETY: a new reference or null with an exception set.
        match unsafe { Bound::from_owned_ptr_or_opt(py, result) } {
            Some(_) => Ok(()),
            None => Err(thrown(py)),
        }
    }

    fn set_hub(py: Python<'_>, stack: &Self::Stack, hub: &Self::Stack) -> PyResult<()> {
        // SAFETY: both are live greenlets; a negative result comes with an exception set.
        if unsafe { (api().set_parent)(stack.as_ptr(), hub.as_ptr()) } < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(())
    }

    fn context(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
        let context = Self::current(py)?.into_bound(py).getattr(intern!(py, "gr_context"))?;
        Ok(Some(context).filter(|context| !context.is_none()))
    }

    fn set_context(py: Python<'_>, context: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Self::current(py)?.bind(py).setattr(intern!(py, "gr_context"), context)
    }

    fn frame<'py>(py: Python<'py>, stack: &Self::Stack) -> PyResult<Option<Bound<'py, PyAny>>> {
        let frame = stack.bind(py).getattr(intern!(py, "gr_frame"))?;
        Ok(Some(frame).filter(|frame| !frame.is_none()))
    }

    fn clone(py: Python<'_>, stack: &Self::Stack) -> Self::Stack {
        stack.clone_ref(py)
    }

    fn same(a: &Self::Stack, b: &Self::Stack) -> bool {
        a.is(b)
    }
}
