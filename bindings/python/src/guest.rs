//! The hub as a guest of an event loop that somebody else runs: asyncio's, uvloop's.
//!
//! The loop watches the hub's epoll descriptor, its nearest timer, and is told when a task
//! becomes runnable in between. Each of them gives the hub a turn.

use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::cell::GilCell;
use crate::engine::{Current, Engine};
use crate::hub::Hub;
use crate::loops;
use crate::task::{Context, Task, run_as};
use crate::waiter::Waiter;

/// How much too early an event loop may fire a timer; uvloop counts in milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

/// The hub's place in one event loop. Calling it gives the hub a turn.
#[pyclass(frozen, module = "balrog")]
pub(crate) struct Guest {
    #[pyo3(get)]
    r#loop: Py<PyAny>,
    state: GilCell<State>,
}

#[derive(Default)]
struct State {
    /// The loop drives the hub. Otherwise it is the hub that runs the loop, in a task.
    drives: bool,
    /// A turn has been asked for and has not begun.
    scheduled: bool,
    timer: Option<(Instant, Py<PyAny>)>,
}

#[pymethods]
impl Guest {
    #[new]
    fn new(r#loop: Py<PyAny>) -> Self {
        Self { r#loop, state: GilCell::new(State::default()) }
    }

    /// Has the loop, which must be this thread's, await for tasks that are spawned by its code,
    /// and unless ``drives`` is false, drive the thread's hub from now on.
    #[pyo3(signature = (drives = true))]
    fn attach(slf: &Bound<'_, Self>, drives: bool) -> PyResult<()> {
        let py = slf.py();
        let hub = Hub::current(py)?;
        if drives {
            let event_loop = slf.get().r#loop.bind(py);
            event_loop.call_method1(intern!(py, "add_reader"), (hub.poll_fd()?, slf))?;
            slf.get().state.borrow_mut(py).drives = true;
        }
        hub.add_guest(py, slf.clone().unbind());
        slf.get().arrange(slf, hub)
    }

    /// A turn: takes in what happened and runs whoever is runnable.
    fn __call__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let hub = Hub::current(py)?;
        slf.get().state.borrow_mut(py).scheduled = false;
        let turned = hub.turn(py, true);
        slf.get().arrange(slf, hub)?;
        turned
    }

    /// Starts ``fn(*args, **kwargs)`` as a task and runs it at once, until its first wait. It
    /// runs in the caller's very context, with ``host`` as its host.
    fn begin<'py>(
        slf: &Bound<'py, Self>,
        r#fn: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Bound<'py, PyDict>,
        host: Py<PyAny>,
    ) -> PyResult<Bound<'py, Task>> {
        let py = slf.py();
        let hub = Hub::current(py)?;
        let task = Bound::new(py, Task::new(&hub.remote))?;
        task.get().set_host(py, Some(host));
        task.get().set_guest(py, Some(slf.clone().unbind()));
        let context = match Current::context(py)? {
            Some(context) => Context::Shared(context.unbind()),
            None => Context::Own(crate::task::copy_context(py)?.unbind()),
        };
        let run = task.clone().unbind();
        let (function, args, kwargs) = (r#fn.unbind(), args.unbind(), kwargs.unbind());
        hub.run_now(
            py,
            Box::new(move |py, hub| {
                run_as(py, hub, run.bind(py), context, |py| {
                    function.call(py, args.bind(py).clone(), Some(kwargs.bind(py)))
                });
            }),
        )?;
        slf.get().arrange(slf, hub)?;
        Ok(task)
    }

    /// Ends a wait and runs who waited, at once.
    fn resume(slf: &Bound<'_, Self>, waiter: &Bound<'_, Waiter>) -> PyResult<()> {
        let py = slf.py();
        let hub = Hub::current(py)?;
        waiter.get().end_quietly(py);
        let turned = hub.turn(py, false);
        slf.get().arrange(slf, hub)?;
        turned
    }
}

impl Guest {
    /// Sees to it that the next turn comes when it has to.
    fn arrange(&self, slf: &Bound<'_, Self>, hub: &'static Hub) -> PyResult<()> {
        let py = slf.py();
        if !self.state.borrow(py).drives {
            return Ok(());
        }
        if hub.scheduler.borrow().has_ready() {
            return self.schedule(slf);
        }
        let Some(at) = hub.next_timer() else { return Ok(()) };
        let armed = self.state.borrow(py).timer.as_ref().map(|(at, _)| *at);
        let now = Instant::now();
        // An earlier one may still be there: its turn arms the next. But one that is nearly due may
        // have fired already: loops round.
        if armed.is_some_and(|armed| armed <= at && armed > now + ROUNDING) {
            return Ok(());
        }
        let event_loop = self.r#loop.bind(py);
        let seconds = at.saturating_duration_since(now).as_secs_f64();
        let time: f64 = event_loop.call_method0(intern!(py, "time"))?.extract()?;
        let handle = event_loop.call_method1(intern!(py, "call_at"), (time + seconds, slf))?;
        let before = self.state.borrow_mut(py).timer.replace((at, handle.unbind()));
        if let Some((_, handle)) = before {
            handle.call_method0(py, intern!(py, "cancel"))?;
        }
        Ok(())
    }

    /// Asks the loop for a turn, once.
    fn schedule(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        {
            let mut state = self.state.borrow_mut(py);
            if state.scheduled || !state.drives {
                return Ok(());
            }
            state.scheduled = true;
        }
        self.r#loop.bind(py).call_method1(intern!(py, "call_soon"), (slf,)).map(drop)
    }

    fn is_closed(&self, py: Python<'_>) -> PyResult<bool> {
        self.r#loop.bind(py).call_method0(intern!(py, "is_closed"))?.is_truthy()
    }
}

impl Hub {
    fn add_guest(&self, py: Python<'_>, guest: Py<Guest>) {
        let mut guests = self.guests.borrow_mut();
        guests.retain(|other| !other.get().r#loop.is(&guest.get().r#loop));
        guests.push(guest);
        // Loops that are gone need no place; the newest are looked at first.
        drop(guests);
        self.forget_closed(py);
    }

    fn forget_closed(&self, py: Python<'_>) {
        let guests = self.guests.borrow().iter().map(|guest| guest.clone_ref(py)).collect::<Vec<_>>();
        let open = guests.into_iter().filter(|guest| !guest.get().is_closed(py).unwrap_or(true)).collect();
        let before = std::mem::replace(&mut *self.guests.borrow_mut(), open);
        drop(before);
    }

    /// The hub's place in `event_loop`, if it has one there.
    pub(crate) fn guest_of(&self, py: Python<'_>, event_loop: &Bound<'_, PyAny>) -> Option<Py<Guest>> {
        let guests = self.guests.borrow();
        guests.iter().rfind(|guest| guest.get().r#loop.is(event_loop)).map(|guest| guest.clone_ref(py))
    }

    /// The loop that is to await for a task that is spawned here and now: the one that runs, or
    /// else that of the spawning task.
    pub(crate) fn guest_for_child(&self, py: Python<'_>) -> PyResult<Option<Py<Guest>>> {
        if !self.guests.borrow().is_empty()
            && let Some(running) = loops::running(py)?
        {
            return Ok(self.guest_of(py, &running));
        }
        Ok(self.task(py).and_then(|task| task.get().guest(py)))
    }

    /// Something became runnable: whoever drives this hub has to know.
    pub(crate) fn tell_host(&self, py: Python<'_>) {
        if self.guests.borrow().is_empty() {
            return;
        }
        if let Err(error) = self.ask_for_turn(py) {
            error.write_unraisable(py, None);
        }
    }

    fn ask_for_turn(&self, py: Python<'_>) -> PyResult<()> {
        let guest = match loops::running(py)? {
            Some(running) => self.guest_of(py, &running),
            // A task's doing: the loop below it runs on when the task waits.
            None if self.is_run() => return Ok(()),
            None => {
                self.forget_closed(py);
                self.guests.borrow().last().map(|guest| guest.clone_ref(py))
            }
        };
        match guest {
            Some(guest) => guest.get().schedule(guest.bind(py)),
            None => Ok(()),
        }
    }
}

/// The ``Guest`` of ``loop`` on this thread, if it drives the hub.
#[pyfunction]
fn _guest_of(py: Python<'_>, r#loop: Bound<'_, PyAny>) -> Option<Py<Guest>> {
    Hub::existing(py)?.guest_of(py, &r#loop)
}

/// The context that the running stack is in, made when missing.
#[pyfunction]
fn _current_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    if let Some(context) = Current::context(py)? {
        return Ok(context);
    }
    let context = crate::task::copy_context(py)?;
    Current::set_context(py, Some(&context))?;
    Ok(context)
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Guest>()?;
    m.add_function(wrap_pyfunction!(_guest_of, m)?)?;
    m.add_function(wrap_pyfunction!(_current_context, m)?)
}
