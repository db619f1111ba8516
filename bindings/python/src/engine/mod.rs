//! How Python stacks are switched. The hub knows only this trait, so that another engine can
//! take greenlet's place without a change above.

mod greenlet;

use pyo3::prelude::*;

pub(crate) use greenlet::Greenlet;

/// The engine in use.
pub(crate) type Current = Greenlet;
/// A suspended or running Python stack.
pub(crate) type Stack = <Current as Engine>::Stack;

/// Switches between the Python stacks of one thread.
pub(crate) trait Engine {
    /// A handle of a stack. Dropping the last one of a suspended stack makes it leave by an
    /// exception at the place where it is suspended.
    type Stack;

    /// Loads whatever the engine needs. Called once, when the module is imported.
    fn load(py: Python<'_>) -> PyResult<()>;

    /// A new stack that runs `entry()` when it is first resumed.
    fn spawn(py: Python<'_>, entry: &Bound<'_, PyAny>) -> PyResult<Self::Stack>;

    /// The stack that runs now; also one that is not ours.
    fn current(py: Python<'_>) -> PyResult<Self::Stack>;

    /// Leaves the running stack for `stack`, until somebody switches back.
    ///
    /// # Errors
    ///
    /// What was thrown into the stack that was left.
    fn switch(py: Python<'_>, stack: &Self::Stack) -> PyResult<()>;

    /// Makes `hub` the one that goes on when `stack` ends.
    fn set_hub(py: Python<'_>, stack: &Self::Stack, hub: &Self::Stack) -> PyResult<()>;

    /// The context (`contextvars.Context`) that the running stack is in, if it is in any.
    fn context(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>>;

    /// Puts the running stack into `context`, which others may be in as well, or into none.
    fn set_context(py: Python<'_>, context: Option<&Bound<'_, PyAny>>) -> PyResult<()>;

    /// The innermost Python frame of a suspended stack.
    fn frame<'py>(py: Python<'py>, stack: &Self::Stack) -> PyResult<Option<Bound<'py, PyAny>>>;

    /// Another handle of the same stack.
    fn clone(py: Python<'_>, stack: &Self::Stack) -> Self::Stack;

    /// Whether both are handles of one stack.
    fn same(a: &Self::Stack, b: &Self::Stack) -> bool;
}
