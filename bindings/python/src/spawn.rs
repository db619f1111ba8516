//! Starting tasks: `balrog.spawn`, `balrog.run`, a hub for other threads; and finding them again.

use std::sync::Arc;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::hub::Hub;
use crate::remote::Remote;
use crate::task::{Context, Task, copy_context, run_as};

/// What runs ``fn(*args, **kwargs)`` as `task`, in a copy of the context of now.
fn job(
    task: &Bound<'_, Task>,
    function: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<Bound<'_, PyDict>>,
) -> PyResult<impl FnOnce(Python<'_>, &'static Hub) + Send + 'static> {
    let context = copy_context(task.py())?.unbind();
    let task = task.clone().unbind();
    let (function, args, kwargs) = (function.unbind(), args.unbind(), kwargs.map(Bound::unbind));
    Ok(move |py: Python<'_>, hub: &'static Hub| {
        run_as(py, hub, task.bind(py), Context::Own(context), |py| {
            function.call(py, args.bind(py), kwargs.as_ref().map(|kwargs| kwargs.bind(py)))
        });
    })
}

/// Starts ``fn(*args, **kwargs)`` as a green task of this thread and returns the ``Task``.
///
/// It first runs at the next wait of whoever runs now.
#[pyfunction]
#[pyo3(signature = (r#fn, /, *args, **kwargs))]
fn spawn<'py>(
    py: Python<'py>,
    r#fn: Bound<'py, PyAny>,
    args: Bound<'py, PyTuple>,
    kwargs: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, Task>> {
    let hub = Hub::current(py)?;
    let task = Bound::new(py, Task::new(&hub.remote))?;
    if let Some(guest) = hub.guest_for_child(py)? {
        task.get().set_guest(py, Some(guest));
    }
    let job = job(&task, r#fn, args, kwargs)?;
    // Counted as live from now on: a wait must let it run.
    let queued = hub.live.borrow_mut().insert(task.clone().unbind());
    hub.start(Box::new(move |py, hub| {
        drop(hub.live.borrow_mut().remove(queued));
        job(py, hub);
    }));
    hub.tell_host(py);
    Ok(task)
}

/// The way into a thread's hub for other threads; ``balrog.current_hub()`` gives it.
#[pyclass(frozen, name = "Hub", module = "balrog")]
pub(crate) struct Door {
    remote: Arc<Remote>,
}

#[pymethods]
impl Door {
    /// Starts ``fn(*args, **kwargs)`` as a green task of the hub's thread and returns the
    /// ``Task``. May be called from any thread.
    ///
    /// The function runs when the hub's thread waits next. It sees a copy of the caller's context.
    #[pyo3(signature = (r#fn, /, *args, **kwargs))]
    fn spawn<'py>(
        &self,
        py: Python<'py>,
        r#fn: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Task>> {
        let task = Bound::new(py, Task::new(&self.remote))?;
        self.remote.start(Box::new(job(&task, r#fn, args, kwargs)?));
        Ok(task)
    }
}

/// The hub of this thread, for other threads to start tasks on it.
#[pyfunction]
fn current_hub(py: Python<'_>) -> PyResult<Door> {
    Ok(Door { remote: Arc::clone(&Hub::current(py)?.remote) })
}

/// Runs ``fn(*args, **kwargs)`` as a green task of this thread and returns its result.
///
/// Other tasks of the thread run while it waits. Ctrl-C raises ``KeyboardInterrupt`` inside it.
#[pyfunction]
#[pyo3(signature = (r#fn, /, *args, **kwargs))]
fn run<'py>(
    py: Python<'py>,
    r#fn: Bound<'py, PyAny>,
    args: Bound<'py, PyTuple>,
    kwargs: Option<Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let task = spawn(py, r#fn, args, kwargs)?;
    let hub = Hub::current(py)?;
    let before = hub.set_main(Some(task.clone().unbind()));
    let result = run_to_end(py, &task);
    hub.set_main(before);
    result
}

fn run_to_end(py: Python<'_>, task: &Bound<'_, Task>) -> PyResult<Py<PyAny>> {
    let ended = Task::wait_end(task, None);
    if let Err(error) = ended {
        // A signal's, or this task's own cancellation: the function gets it, and its answer
        // counts. A second one is for the caller.
        if error.is_instance_of::<PyKeyboardInterrupt>(py) {
            task.get().throw(py, error);
        } else {
            task.get().cancel(py);
            Task::wait_end(task, None)?;
            // What comes of it is nobody's any more.
            let _ = task.get().outcome(py);
            return Err(error);
        }
        Task::wait_end(task, None)?;
    }
    task.get().outcome(py)
}

/// The task that runs now, or ``None`` outside of tasks.
#[pyfunction]
fn current_task(py: Python<'_>) -> Option<Bound<'_, Task>> {
    Hub::existing(py).and_then(|hub| hub.task(py))
}

/// The tasks of this thread that have not ended.
#[pyfunction]
fn tasks(py: Python<'_>) -> Vec<Py<Task>> {
    Hub::existing(py)
        .map_or_else(Vec::new, |hub| hub.live.borrow().iter().map(|(_, task)| task.clone_ref(py)).collect())
}

/// Calls ``callback()`` in the current task when that ends, last registered first, shielded
/// from its cancellation. Returns ``False`` (and does nothing) outside of tasks.
#[pyfunction]
fn at_task_end(py: Python<'_>, callback: Py<PyAny>) -> bool {
    current_task(py).is_some_and(|task| {
        task.get().at_end(py, callback);
        true
    })
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Door>()?;
    m.add_function(wrap_pyfunction!(current_hub, m)?)?;
    m.add_function(wrap_pyfunction!(spawn, m)?)?;
    m.add_function(wrap_pyfunction!(run, m)?)?;
    m.add_function(wrap_pyfunction!(current_task, m)?)?;
    m.add_function(wrap_pyfunction!(tasks, m)?)?;
    m.add_function(wrap_pyfunction!(at_task_end, m)?)
}
