//! `balrog serve`: HTTP/1.1 and WebSocket connections fed by the hub, WSGI applications in tasks.
//!
//! An idle connection is a descriptor and a small machine, with no task and no stack. The hub's
//! loop reads requests; a complete head becomes a task, which owns the connection until its
//! response is sent. A WebSocket is read by the loop again, while its handler's task waits.

mod body;
mod connection;
mod environ;
mod exchange;
mod listener;
mod log;
mod response;
mod shared;
mod socket;
mod text;
mod upgrade;
mod websocket;

use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::hub::Hub;
use crate::server::listener::Listener;
use crate::server::shared::Shared;

/// A server of the thread that made it. It works whenever that thread waits.
#[pyclass(unsendable, module = "balrog")]
struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Rc<Listener>>,
}

#[pymethods]
impl Server {
    /// ``app`` is a WSGI application. ``keep_alive`` is in seconds; ``at_once``
    /// requests run at once, more wait for their turn. ``on_error(what, exception)``
    /// is called for every exception that no one else sees, ``on_stopped()`` when the last
    /// connection is gone after ``stop()``, ``access_log(lines)`` with finished log lines.
    #[new]
    #[pyo3(signature = (app, on_error, on_stopped, *, keep_alive = 12.0, at_once = 4_096, access_log = None))]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        on_error: Py<PyAny>,
        on_stopped: Py<PyAny>,
        keep_alive: f64,
        at_once: usize,
        access_log: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let keep_alive = Duration::try_from_secs_f64(keep_alive)
            .map_err(|_| PyValueError::new_err("keep_alive is a number of seconds, zero or more"))?;
        let shared = Shared::new(py, app, on_error, on_stopped, keep_alive, at_once, access_log)?;
        Ok(Self { shared: Arc::new(shared), listeners: Vec::new() })
    }

    /// Accepts connections on a listening, non-blocking socket, whose descriptor it takes over.
    /// ``name`` and ``port`` are what requests get as ``SERVER_NAME`` and ``SERVER_PORT``.
    fn listen(&mut self, py: Python<'_>, fd: i32, name: &str, port: &str) -> PyResult<()> {
        if fd < 0 {
            return Err(PyValueError::new_err(format!("{fd} is not a descriptor")));
        }
        // SAFETY: not negative, and the caller gives it away (`socket.detach`).
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let environ = environ::base(py, name, port)?;
        self.listeners.push(Listener::start(Hub::current(py)?, fd, Arc::clone(&self.shared), environ)?);
        Ok(())
    }

    /// Stops: accepts nothing new, closes what is idle, lets running requests finish and tells
    /// each WebSocket to come back later (1012). Calls ``on_stopped()`` when all are gone.
    fn stop(&mut self, py: Python<'_>) -> PyResult<()> {
        let hub = Hub::current(py)?;
        for listener in self.listeners.drain(..) {
            listener.stop(py, hub);
        }
        self.shared.stop(py, hub);
        Ok(())
    }

    /// Counts: open connections, running requests, requests that wait for their turn.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (connections, running, waiting) = self.shared.counts(py);
        let counts = PyDict::new(py);
        counts.set_item("connections", connections)?;
        counts.set_item("running", running)?;
        counts.set_item("waiting", waiting)?;
        Ok(counts)
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Server>()?;
    m.add_class::<websocket::WebSocket>()
}
