use std::cell::{Ref, RefCell, RefMut};

use pyo3::Python;

/// A cell that the interpreter lock guards: whoever holds a `Python` token may look inside.
///
/// Borrows must be short: never one over a call into Python or over a wait, for either lets
/// other tasks and threads in. A breach panics, as `RefCell` does.
pub(crate) struct GilCell<T>(RefCell<T>);

// SAFETY: every access takes a `Python` token, so at most one thread is inside at a time; builds
// without the lock are refused in `lib.rs`. A value may be dropped on another thread than the
// one that made it, hence `T: Send`.
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    pub(crate) fn borrow<'a>(&'a self, _py: Python<'a>) -> Ref<'a, T> {
        self.0.borrow()
    }

    pub(crate) fn borrow_mut<'a>(&'a self, _py: Python<'a>) -> RefMut<'a, T> {
        self.0.borrow_mut()
    }

    /// For a collection of garbage, which holds the lock but has no token. `None` while borrowed.
    pub(crate) fn collecting(&self) -> Option<Ref<'_, T>> {
        self.0.try_borrow().ok()
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}
