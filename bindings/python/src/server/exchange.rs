//! One request and its response, in a task of their own.

use std::sync::Arc;

use balrog_proto::http1::BodyLength;
use balrog_proto::websocket::Refusal;
use pyo3::exceptions::{PyAssertionError, PyOSError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::hub::{Hub, Job};
use crate::server::body::RequestBody;
use crate::server::connection::{Conn, State};
use crate::server::log::Entry;
use crate::server::response::StartResponse;
use crate::server::upgrade::Upgrade;
use crate::server::websocket;
use crate::task::{Context, Task, run_as};

/// A chunked body up to this size stays in memory.
const IN_MEMORY: usize = 256 * 1024;
/// A larger one is refused (413), since it is on the disk before the application can say so.
const ON_DISK: usize = 1 << 30;

/// A request whose head is complete.
pub(crate) struct Request {
    pub(crate) environ: Py<PyDict>,
    pub(crate) body: Py<RequestBody>,
    /// An offer to speak WebSocket, or why it cannot be taken.
    pub(crate) upgrade: Option<Result<Py<Upgrade>, Refusal>>,
    pub(crate) entry: Option<Entry>,
    pub(crate) chunked: bool,
    pub(crate) head_only: bool,
}

/// What runs `request` as a task and gives the connection back.
pub(crate) fn job(conn: Arc<Conn>, request: Request) -> Job {
    Box::new(move |py, hub| {
        if let Err(error) = run(py, hub, &conn, request) {
            conn.shared.error(py, "a request could not be run", error);
            conn.cut(py);
        }
        conn.shared.end(py, hub);
        conn.give_back(py, hub);
    })
}

fn run(py: Python<'_>, hub: &'static Hub, conn: &Arc<Conn>, request: Request) -> PyResult<()> {
    let task = Bound::new(py, Task::new(&hub.remote))?;
    let context = conn.shared.context(py)?;
    let response = Bound::new(py, StartResponse::new(conn, request.head_only))?;
    run_as(py, hub, &task, Context::Own(context.unbind()), |py| {
        let exchange = Exchange { py, hub, conn, request: &request, response: &response };
        exchange.run();
        request.body.get().finish(py);
        response.get().finish(py);
        Ok(py.None())
    });
    if let Some(entry) = &request.entry {
        let (status, bytes) = response.get().sent(py);
        let status = if status == 0 { request.body.get().refused_with(py) } else { status };
        conn.shared.log(py, &conn.peer, entry, status, bytes);
    }
    Ok(())
}

struct Exchange<'a, 'py> {
    py: Python<'py>,
    hub: &'static Hub,
    conn: &'a Arc<Conn>,
    request: &'a Request,
    response: &'a Bound<'py, StartResponse>,
}

impl<'py> Exchange<'_, 'py> {
    fn run(&self) {
        if let Some(Err(refusal)) = &self.request.upgrade {
            let version: &[(&[u8], &[u8])] = &[(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13")];
            let headers = if refusal.status == 426 { version } else { &[] };
            return self.answer(refusal.status, refusal.reason, headers);
        }
        if self.request.chunked && !self.complete_body() {
            return;
        }
        let environ = self.request.environ.bind(self.py);
        let iterable = self.conn.shared.app.bind(self.py).call1((environ, self.response));
        let result = iterable.and_then(|iterable| {
            let sent = self.respond(&iterable);
            // "If the iterable returned by the application has a close() method, the server or
            // gateway must call that method upon completion of the current request".
            let closed = close(&iterable);
            match (sent, closed) {
                (Err(error), Err(second)) => {
                    self.conn.shared.error(self.py, &self.what(), second);
                    Err(error)
                }
                (sent, closed) => sent.and(closed),
            }
        });
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// Reads a chunked body to its end before the application runs.
    ///
    /// WSGI knows only `CONTENT_LENGTH`: without one, frameworks take the body for empty.
    /// `false` if the body is malformed, cut short or too long; the request has been answered.
    fn complete_body(&self) -> bool {
        match self.spool() {
            Ok(true) => true,
            Ok(false) => {
                self.answer(413, "a chunked body has at most 1 GiB here", &[]);
                false
            }
            Err(error) => {
                if !error.is_instance_of::<PyOSError>(self.py) {
                    self.fail(error);
                }
                false
            }
        }
    }

    fn spool(&self) -> PyResult<bool> {
        let py = self.py;
        let file = py.import("tempfile")?.call_method1("SpooledTemporaryFile", (IN_MEMORY,))?;
        let body = self.request.body.get();
        let mut length: usize = 0;
        while body.more(py)? {
            let data = body.take(py, usize::MAX);
            length += data.as_bytes().len();
            if length > ON_DISK {
                return Ok(false);
            }
            file.call_method1("write", (data,))?;
        }
        file.call_method1("seek", (0,))?;
        let environ = self.request.environ.bind(py);
        environ.set_item(intern!(py, "CONTENT_LENGTH"), length.to_string())?;
        environ.set_item(intern!(py, "wsgi.input"), file)?;
        Ok(true)
    }

    fn respond(&self, iterable: &Bound<'py, PyAny>) -> PyResult<()> {
        let (py, response) = (self.py, self.response.get());
        if response.status(py) == Some(101) {
            return self.switch(iterable);
        }
        if let Some(chunks) = chunks(iterable)? {
            if response.is_started(py) {
                for chunk in &chunks {
                    response.send(py, chunk.as_bytes(), None)?;
                }
            } else {
                // Everything is known, so head and body can leave in one system call.
                response.start(py, Some(chunks.iter().map(|chunk| chunk.as_bytes().len() as u64).sum()))?;
                match &chunks[..] {
                    [] => {}
                    [only] => response.send(py, only.as_bytes(), None)?,
                    many => {
                        for chunk in many {
                            response.queue(py, chunk.as_bytes())?;
                        }
                    }
                }
            }
        } else {
            let only = iterable.len().is_ok_and(|length| length == 1);
            for chunk in iterable.try_iter()? {
                let chunk = chunk?;
                let Ok(data) = chunk.cast::<PyBytes>() else {
                    return Err(not_bytes(&chunk));
                };
                let length = only.then(|| data.as_bytes().len() as u64);
                response.send(py, data.as_bytes(), length)?;
            }
            if !response.is_started(py) {
                response.start(py, if self.request.head_only { None } else { Some(0) })?;
            }
        }
        self.finish()
    }

    fn finish(&self) -> PyResult<()> {
        let finished = self
            .conn
            .inner
            .borrow_mut(self.py)
            .http()
            .map(balrog_proto::Link::<balrog_proto::http1::Server>::finish);
        if let Some(Err(misuse)) = finished {
            return Err(PyAssertionError::new_err(misuse.to_string()));
        }
        self.conn.flush(self.py)
    }

    /// The application answered 101: from now on it is a WebSocket.
    fn switch(&self, iterable: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py;
        let accepted = match &self.request.upgrade {
            Some(Ok(upgrade)) => upgrade.get().accepted(py),
            _ => None,
        };
        let Some(accepted) = accepted else {
            return Err(PyAssertionError::new_err(
                "101 needs environ['balrog.websocket'].accept(handler) to be called before",
            ));
        };
        for chunk in iterable.try_iter()? {
            chunk?;
        }
        let Some(head) = self.response.get().take_head(py) else { return Ok(()) };
        websocket::serve(py, self.hub, self.conn, &head, accepted)
    }

    /// What the application did wrong is logged; the client gets a 500, or a cut connection if
    /// its response has begun.
    fn fail(&self, error: PyErr) {
        let py = self.py;
        // The client went away or stalled: nothing that the application did.
        let client = error.is_instance_of::<PyOSError>(py) && self.conn.is_gone(py);
        if !client {
            self.conn.shared.error(py, &self.what(), error);
        }
        if self.conn.state(py) != State::Busy {
            return;
        }
        let can_answer = self.conn.inner.borrow_mut(py).http().is_some_and(|link| !link.response_started());
        if can_answer {
            self.answer(500, "Internal Server Error", &[]);
        } else {
            self.conn.cut(py);
        }
    }

    /// A plain answer of the server's own.
    fn answer(&self, status: u16, text: &str, headers: &[(&[u8], &[u8])]) {
        let py = self.py;
        let reason = match status {
            400 => "Bad Request",
            413 => "Content Too Large",
            426 => "Upgrade Required",
            _ => "Internal Server Error",
        };
        let date = self.conn.shared.with_date(py, |date| date.as_bytes().to_vec());
        let mut fields: Vec<(&[u8], &[u8])> =
            vec![(b"Content-Type", b"text/plain; charset=utf-8"), (b"Date", &date)];
        fields.extend_from_slice(headers);
        let body = format!("{text}\n");
        let stopping = self.conn.shared.is_stopping(py);
        {
            let mut inner = self.conn.inner.borrow_mut(py);
            let Some(link) = inner.http() else { return };
            let length = BodyLength::Length(body.len() as u64);
            let answered = link
                .respond(status, reason, &fields, length, stopping)
                .and_then(|()| link.body(body.as_bytes()))
                .and_then(|()| link.finish());
            if answered.is_err() {
                link.abort();
            }
        }
        self.response.get().answered(py, status, body.len() as u64);
        if self.conn.flush(py).is_err() {
            self.conn.cut(py);
        }
    }

    fn what(&self) -> String {
        let environ = self.request.environ.bind(self.py);
        let text = |key: &str| {
            environ.get_item(key).ok().flatten().map_or_else(String::new, |value| value.to_string())
        };
        format!("{} {}", text("REQUEST_METHOD"), text("REQUEST_URI"))
    }
}

/// The pieces of a response that is a plain list or tuple.
fn chunks<'py>(iterable: &Bound<'py, PyAny>) -> PyResult<Option<Vec<Bound<'py, PyBytes>>>> {
    let bytes =
        |item: Bound<'py, PyAny>| item.cast_into::<PyBytes>().map_err(|error| not_bytes(&error.into_inner()));
    if let Ok(list) = iterable.cast_exact::<PyList>() {
        list.iter().map(bytes).collect::<PyResult<_>>().map(Some)
    } else if let Ok(tuple) = iterable.cast_exact::<PyTuple>() {
        tuple.iter().map(bytes).collect::<PyResult<_>>().map(Some)
    } else {
        Ok(None)
    }
}

fn not_bytes(chunk: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("the application gave {} where bytes are due", chunk.get_type()))
}

fn close(iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = iterable.py();
    // The two that cannot have it, and that most small responses are.
    if iterable.is_exact_instance_of::<PyList>() || iterable.is_exact_instance_of::<PyTuple>() {
        return Ok(());
    }
    match iterable.getattr_opt(intern!(py, "close"))? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}
