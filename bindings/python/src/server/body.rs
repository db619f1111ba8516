//! `wsgi.input`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog_backends::Interest;
use balrog_proto::http1::{Framing, ServerEvent};
use balrog_proto::{Error, Step};
use pyo3::exceptions::{
    PyConnectionAbortedError, PyConnectionResetError, PyOSError, PyTimeoutError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::cell::GilCell;
use crate::server::connection::Conn;
use crate::server::socket::Received;

/// Until the machine's own deadline is known.
const STALL: Duration = Duration::from_secs(30);

/// The body of a request, read from the connection when the application asks for it.
///
/// A body that ends early or is malformed raises ``OSError``; it never looks complete.
#[pyclass(frozen, module = "balrog")]
pub(crate) struct RequestBody {
    state: GilCell<State>,
}

struct State {
    /// `None` once the request is over.
    conn: Option<Arc<Conn>>,
    /// Came, and was not asked for yet.
    buffer: Vec<u8>,
    start: usize,
    complete: bool,
    failed: Option<Error>,
}

/// What one look at the machine gave.
enum Found {
    Bytes(usize),
    End,
    Failed(Error),
    Missing,
    Gone,
}

impl RequestBody {
    pub(crate) fn new(conn: &Arc<Conn>, framing: Framing) -> Self {
        let empty = matches!(framing, Framing::None | Framing::Length(0));
        Self {
            state: GilCell::new(State {
                conn: (!empty).then(|| Arc::clone(conn)),
                buffer: Vec::new(),
                start: 0,
                complete: empty,
                failed: None,
            }),
        }
    }

    /// The request is over; whoever kept this object gets nothing more from it.
    pub(crate) fn finish(&self, py: Python<'_>) {
        self.state.borrow_mut(py).conn = None;
    }

    /// The status with which the machine answered a broken body by itself; 0 if it has not.
    pub(crate) fn refused_with(&self, py: Python<'_>) -> u16 {
        self.state.borrow(py).failed.and_then(|error| error.status()).unwrap_or_default()
    }

    /// Waits for more bytes. `false` at the end of the body.
    pub(crate) fn more(&self, py: Python<'_>) -> PyResult<bool> {
        let conn = {
            let state = self.state.borrow(py);
            if let Some(error) = state.failed {
                return Err(raise(error));
            }
            if state.complete {
                return Ok(false);
            }
            let conn = state.conn.as_ref().map(Arc::clone);
            conn.ok_or_else(|| {
                PyValueError::new_err("the request is over, and its body was not read in time")
            })?
        };
        loop {
            match self.look(py, &conn) {
                Found::Bytes(n) => return conn.share(py, n).map(|()| true),
                Found::End => {
                    self.state.borrow_mut(py).complete = true;
                    return Ok(false);
                }
                Found::Failed(error) => {
                    conn.inner.borrow_mut(py).gone = true;
                    self.state.borrow_mut(py).failed = Some(error);
                    return Err(raise(error));
                }
                Found::Gone => {
                    conn.inner.borrow_mut(py).gone = true;
                    return Err(PyConnectionResetError::new_err("the client is gone"));
                }
                Found::Missing => self.wait(py, &conn)?,
            }
        }
    }

    /// Takes what the machine has; reads once if that is nothing.
    fn look(&self, py: Python<'_>, conn: &Conn) -> Found {
        let mut inner = conn.inner.borrow_mut(py);
        loop {
            let Some(link) = inner.http() else { return Found::Gone };
            match link.poll_event(Instant::now()) {
                Ok(Step::Event(ServerEvent::Body(data))) => {
                    let mut state = self.state.borrow_mut(py);
                    if state.start == state.buffer.len() {
                        state.buffer.clear();
                        state.start = 0;
                    }
                    state.buffer.extend_from_slice(data);
                    return Found::Bytes(data.len());
                }
                Ok(Step::Event(_) | Step::Paused) => return Found::End,
                Ok(Step::Closed) => return Found::Gone,
                Err(error) => return Found::Failed(error),
                Ok(Step::NeedInput) => {
                    if link.wants_continue() {
                        // Not possible any more once the response has begun.
                        let _ = link.inform(100, &[]);
                        let _ = inner.transmit();
                    }
                    match inner.receive() {
                        Received::Bytes(_) | Received::Eof => {}
                        Received::Blocked => return Found::Missing,
                        Received::Gone => return Found::Gone,
                    }
                }
            }
        }
    }

    fn wait(&self, py: Python<'_>, conn: &Conn) -> PyResult<()> {
        let (fd, until) = {
            let mut inner = conn.inner.borrow_mut(py);
            let until = inner.http().and_then(|link| link.poll_timeout());
            (inner.fd.clone(), until.unwrap_or_else(|| Instant::now() + STALL))
        };
        let waited = conn.wait(py, fd, Interest::Readable, until, "the request's body did not come in time");
        if until <= Instant::now() {
            let mut inner = conn.inner.borrow_mut(py);
            if let Some(Err(error)) = inner.http().map(|link| link.handle_timeout(Instant::now())) {
                drop(inner);
                self.state.borrow_mut(py).failed = Some(error);
                return Err(raise(error));
            }
        }
        waited
    }

    /// Up to `limit` bytes from the buffer.
    pub(crate) fn take<'py>(&self, py: Python<'py>, limit: usize) -> Bound<'py, PyBytes> {
        let mut state = self.state.borrow_mut(py);
        let end = state.buffer.len().min(state.start.saturating_add(limit));
        let bytes = PyBytes::new(py, &state.buffer[state.start..end]);
        state.start = end;
        if end == state.buffer.len() {
            state.buffer = Vec::new();
            state.start = 0;
        }
        bytes
    }

    fn buffered(&self, py: Python<'_>) -> usize {
        let state = self.state.borrow(py);
        state.buffer.len() - state.start
    }
}

fn raise(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Eof(_) => {
            PyConnectionAbortedError::new_err(format!("the request's body was cut short: {text}"))
        }
        Error::Timeout(_) => PyTimeoutError::new_err(text),
        _ => PyOSError::new_err(format!("the request's body is malformed: {text}")),
    }
}

/// A size argument: negative or `None` is everything.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

#[pymethods]
impl RequestBody {
    /// Up to ``size`` bytes, fewer only at the end; everything if negative.
    #[pyo3(signature = (size = None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = limit(size);
        while self.buffered(py) < limit && self.more(py)? {}
        Ok(self.take(py, limit))
    }

    /// Up to ``size`` bytes, as soon as there are any.
    #[pyo3(signature = (size = None, /))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = limit(size);
        if limit > 0 && self.buffered(py) == 0 {
            self.more(py)?;
        }
        Ok(self.take(py, limit))
    }

    /// One line, or up to ``size`` bytes of it.
    #[pyo3(signature = (size = None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = limit(size);
        let mut looked = 0;
        loop {
            let end = {
                let state = self.state.borrow(py);
                let bytes = &state.buffer[state.start..];
                let newline =
                    bytes[looked..].iter().position(|byte| *byte == b'\n').map(|at| looked + at + 1);
                looked = bytes.len();
                newline
            };
            if let Some(end) = end.or((looked >= limit).then_some(limit)) {
                return Ok(self.take(py, end.min(limit)));
            }
            if !self.more(py)? {
                return Ok(self.take(py, limit));
            }
        }
    }

    /// All lines, or as many as begin within the first ``hint`` bytes.
    #[pyo3(signature = (hint = None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let limit = hint.filter(|hint| *hint > 0).map_or(usize::MAX, isize::unsigned_abs);
        let lines = PyList::empty(py);
        let mut total = 0;
        while total < limit {
            let line = self.readline(py, None)?;
            let length = line.as_bytes().len();
            if length == 0 {
                break;
            }
            total += length;
            lines.append(line)?;
        }
        Ok(lines)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.readline(py, None)?;
        Ok(Some(line).filter(|line| !line.as_bytes().is_empty()))
    }
}
