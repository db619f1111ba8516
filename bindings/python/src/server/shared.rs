//! What all connections of a server share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use balrog_proto::{http1, websocket};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;
use slab::Slab;

use crate::cell::GilCell;
use crate::hub::Hub;
use crate::remote::Remote;
use crate::server::connection::{Conn, Peer};
use crate::server::exchange::{self, Request};
use crate::server::log::{AccessLog, Clock, Entry};
use crate::task::copy_context;

/// Open connections at most; more wait in the kernel's queue.
const CONNECTIONS: usize = 10_000;

/// However short the keep-alive time is, a new connection has so long for its first byte.
const FIRST: Duration = Duration::from_secs(10);

/// A server's state. Guarded by the interpreter lock.
pub(crate) struct Shared {
    pub(crate) app: Py<PyAny>,
    pub(crate) http: Arc<http1::Limits>,
    pub(crate) websocket: Arc<websocket::Limits>,
    /// The variables that the server was started with; every request gets a copy.
    context: Py<PyAny>,
    /// Names the hub.
    remote: Arc<Remote>,
    on_error: Py<PyAny>,
    on_stopped: Py<PyAny>,
    access_log: Option<Py<PyAny>>,
    /// Requests that run at once at most; more wait for their turn.
    at_once: usize,
    state: GilCell<State>,
}

#[derive(Default)]
struct State {
    connections: Slab<Weak<Conn>>,
    running: usize,
    waiting: VecDeque<(Arc<Conn>, Request)>,
    stopping: bool,
    stopped: bool,
    clock: Clock,
    log: AccessLog,
    /// `HTTP_…` keys by header name as it was sent.
    keys: HashMap<Box<str>, Py<PyString>>,
}

impl Shared {
    pub(crate) fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        on_error: Py<PyAny>,
        on_stopped: Py<PyAny>,
        keep_alive: Duration,
        at_once: usize,
        access_log: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let mut websocket = websocket::Limits::default();
        // What is small enough decompressed may have been as small as it likes: a message of one
        // letter a million times is not an attack.
        websocket.ratio = usize::MAX;
        let mut http = http1::Limits::default();
        http.idle_time = Some(keep_alive);
        // A client that says nothing at all is worth no more than one that has said something,
        // but has to have the time to begin.
        http.first_time = http.first_time.map(|time| time.min(keep_alive.max(FIRST)));
        Ok(Self {
            app,
            http: Arc::new(http),
            websocket: Arc::new(websocket),
            context: copy_context(py)?.unbind(),
            remote: Arc::clone(&Hub::current(py)?.remote),
            on_error,
            on_stopped,
            access_log,
            at_once: at_once.max(1),
            state: GilCell::new(State::default()),
        })
    }

    /// Whether `hub` is the one that runs the server.
    pub(crate) fn is_of(&self, hub: &Hub) -> bool {
        Arc::ptr_eq(&self.remote, &hub.remote)
    }

    /// A context for one request.
    pub(crate) fn context<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: `context` is a context object; the result is new or null with an exception.
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(self.context.as_ptr())) }
    }

    /// Reports an exception that nobody else sees.
    pub(crate) fn error(&self, py: Python<'_>, what: &str, error: PyErr) {
        if let Err(second) = self.on_error.call1(py, (what, error.into_value(py))) {
            second.write_unraisable(py, Some(self.on_error.bind(py)));
        }
    }

    pub(crate) fn add(&self, py: Python<'_>, conn: &Arc<Conn>) -> usize {
        self.state.borrow_mut(py).connections.insert(Arc::downgrade(conn))
    }

    pub(crate) fn remove(&self, py: Python<'_>, id: usize) {
        self.state.borrow_mut(py).connections.try_remove(id);
        self.check_stopped(py);
    }

    pub(crate) fn is_full(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).connections.len() >= CONNECTIONS
    }

    pub(crate) fn is_stopping(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).stopping
    }

    pub(crate) fn counts(&self, py: Python<'_>) -> (usize, usize, usize) {
        let state = self.state.borrow(py);
        (state.connections.len(), state.running, state.waiting.len())
    }

    /// Runs a request now or when its turn comes; [`Shared::end`] is called at its end.
    pub(crate) fn begin(&self, py: Python<'_>, hub: &Hub, conn: Arc<Conn>, request: Request) {
        {
            let mut state = self.state.borrow_mut(py);
            if state.running >= self.at_once {
                state.waiting.push_back((conn, request));
                return;
            }
            state.running += 1;
        }
        hub.start(exchange::job(conn, request));
    }

    pub(crate) fn end(&self, py: Python<'_>, hub: &Hub) {
        let next = {
            let mut state = self.state.borrow_mut(py);
            let next = state.waiting.pop_front();
            if next.is_none() {
                state.running -= 1;
            }
            next
        };
        match next {
            Some((conn, request)) => hub.start(exchange::job(conn, request)),
            None => self.check_stopped(py),
        }
    }

    pub(crate) fn stop(&self, py: Python<'_>, hub: &'static Hub) {
        let connections: Vec<_> = {
            let mut state = self.state.borrow_mut(py);
            state.stopping = true;
            state.connections.iter().filter_map(|(_, conn)| conn.upgrade()).collect()
        };
        for conn in connections {
            conn.stop(py, hub);
        }
        self.check_stopped(py);
    }

    fn check_stopped(&self, py: Python<'_>) {
        {
            let mut state = self.state.borrow_mut(py);
            let gone = state.connections.is_empty() && state.running == 0;
            if !state.stopping || state.stopped || !gone {
                return;
            }
            state.stopped = true;
        }
        self.write_log(py);
        if let Err(error) = self.on_stopped.call0(py) {
            error.write_unraisable(py, Some(self.on_stopped.bind(py)));
        }
    }

    /// Calls `f` with the current time as an HTTP date.
    pub(crate) fn with_date<T>(&self, py: Python<'_>, f: impl FnOnce(&str) -> T) -> T {
        f(self.state.borrow_mut(py).clock.http_date())
    }

    pub(crate) const fn logs(&self) -> bool {
        self.access_log.is_some()
    }

    pub(crate) fn log(&self, py: Python<'_>, peer: &Peer, entry: &Entry, status: u16, bytes: u64) {
        let peer = peer.address.bind(py).to_str().unwrap_or_default();
        let full = {
            let state = &mut *self.state.borrow_mut(py);
            state.log.add(peer, state.clock.log_date(), entry, status, bytes)
        };
        if full {
            self.write_log(py);
        }
    }

    /// Writes the access log's lines so far.
    pub(crate) fn write_log(&self, py: Python<'_>) {
        let Some(write) = &self.access_log else { return };
        if self.state.borrow(py).log.is_empty() {
            return;
        }
        let lines = self.state.borrow_mut(py).log.take();
        if let Err(error) = write.call1(py, (lines,)) {
            error.write_unraisable(py, Some(write.bind(py)));
        }
    }

    /// The environ key of a header; the same string object each time, so that its hash is known.
    pub(crate) fn header_key<'py>(&self, py: Python<'py>, name: &str) -> Bound<'py, PyString> {
        /// Names are the clients' choice, so the cache must not grow with them.
        const CACHED: usize = 256;
        let mut state = self.state.borrow_mut(py);
        if let Some(key) = state.keys.get(name) {
            return key.bind(py).clone();
        }
        let upper =
            name.bytes().map(|byte| if byte == b'-' { '_' } else { char::from(byte.to_ascii_uppercase()) });
        let mut key: String = upper.collect();
        if !matches!(&*key, "CONTENT_TYPE" | "CONTENT_LENGTH") {
            key.insert_str(0, "HTTP_");
        }
        let key = PyString::new(py, &key);
        if state.keys.len() < CACHED {
            state.keys.insert(name.into(), key.clone().unbind());
        }
        key
    }
}
