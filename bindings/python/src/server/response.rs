//! `start_response`, `write` and `wsgi.file_wrapper`.

use std::sync::Arc;

use balrog_proto::http1::{BodyLength, Server};
use balrog_proto::{Link, Misuse};
use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::cell::GilCell;
use crate::server::connection::Conn;
use crate::server::text::bytes;

/// Pieces of a body are sent this many bytes at a time.
const PIECE: usize = 256 * 1024;
/// From so many on they are not copied; fewer leave in one system call with the head.
const UNCOPIED: usize = 32 * 1024;
/// Files are read in blocks at least as large: frameworks ask for as little as 4 KiB.
const BLOCK: usize = 64 * 1024;

/// The head of a response as the application gave it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// All names and values, one behind the other.
    text: Vec<u8>,
    /// Where each name begins, where its value does, and where that ends.
    fields: Vec<[usize; 3]>,
    /// Its `Content-Length`.
    length: Option<u64>,
    close: bool,
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    status: u16,
    started: bool,
    /// The request is over; the connection belongs to the next one.
    over: bool,
    bytes: u64,
}

/// The callable of PEP 3333.
#[pyclass(frozen, module = "balrog")]
pub(crate) struct StartResponse {
    conn: Arc<Conn>,
    head_only: bool,
    state: GilCell<State>,
}

impl StartResponse {
    pub(crate) fn new(conn: &Arc<Conn>, head_only: bool) -> Self {
        Self { conn: Arc::clone(conn), head_only, state: GilCell::new(State::default()) }
    }

    /// Status and body bytes of the response so far.
    pub(crate) fn sent(&self, py: Python<'_>) -> (u16, u64) {
        let state = self.state.borrow(py);
        (state.status, state.bytes)
    }

    /// The request is over; whoever kept `start_response` or `write` can do nothing with it.
    pub(crate) fn finish(&self, py: Python<'_>) {
        self.state.borrow_mut(py).over = true;
    }

    /// The server answered in the application's place.
    pub(crate) fn answered(&self, py: Python<'_>, status: u16, bytes: u64) {
        let mut state = self.state.borrow_mut(py);
        (state.status, state.bytes, state.started) = (status, bytes, true);
    }

    pub(crate) fn is_started(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).started
    }

    /// The status that the application chose, if it has.
    pub(crate) fn status(&self, py: Python<'_>) -> Option<u16> {
        self.state.borrow(py).head.as_ref().map(|head| head.status)
    }

    /// The head, for a response that is sent by other means.
    pub(crate) fn take_head(&self, py: Python<'_>) -> Option<Head> {
        let mut state = self.state.borrow_mut(py);
        let head = state.head.take();
        if let Some(head) = &head {
            state.started = true;
            state.status = head.status;
        }
        head
    }

    /// Queues the head. `length` is the body's, if it is known.
    pub(crate) fn start(&self, py: Python<'_>, length: Option<u64>) -> PyResult<()> {
        let Some(head) = self.take_head(py) else {
            return Err(PyAssertionError::new_err("the application has not called start_response"));
        };
        if head.status < 200 {
            return Err(PyValueError::new_err(format!(
                "{} is not the status of a final response",
                head.status
            )));
        }
        let length = match head.length.or(length) {
            Some(length) => BodyLength::Length(length),
            None => BodyLength::Unknown,
        };
        let close = head.close || self.conn.shared.is_stopping(py);
        let mut inner = self.conn.inner.borrow_mut(py);
        let Some(link) = inner.http() else {
            return Err(PyValueError::new_err("the connection is gone"));
        };
        self.conn
            .shared
            .with_date(py, |date| {
                let mut fields: Vec<(&[u8], &[u8])> = Vec::with_capacity(head.fields.len() + 1);
                fields.extend(head.fields());
                if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"date")) {
                    fields.push((b"Date", date.as_bytes()));
                }
                link.respond(head.status, &head.reason, &fields, length, close)
            })
            .map_err(|misuse| PyValueError::new_err(misuse.to_string()))
    }

    /// Sends a piece of the body, and the head before the first one.
    pub(crate) fn send(&self, py: Python<'_>, data: &[u8], length: Option<u64>) -> PyResult<()> {
        if self.state.borrow(py).over {
            return Err(PyValueError::new_err("the request is over"));
        }
        if data.is_empty() {
            return Ok(());
        }
        if !self.is_started(py) {
            self.start(py, length)?;
        }
        for piece in data.chunks(PIECE) {
            if piece.len() < UNCOPIED {
                self.queue(py, piece)?;
                self.conn.flush(py)?;
            } else {
                self.put(py, piece, |link| link.body_external(piece.len()))?;
                self.conn.flush_with(py, piece)?;
            }
        }
        Ok(())
    }

    /// Queues a piece of the body.
    pub(crate) fn queue(&self, py: Python<'_>, piece: &[u8]) -> PyResult<()> {
        self.put(py, piece, |link| link.body(piece))
    }

    fn put(
        &self,
        py: Python<'_>,
        piece: &[u8],
        put: impl FnOnce(&mut Link<Server>) -> Result<(), Misuse>,
    ) -> PyResult<()> {
        {
            let mut inner = self.conn.inner.borrow_mut(py);
            let Some(link) = inner.http() else {
                return Err(PyValueError::new_err("the connection is gone"));
            };
            put(link).map_err(|misuse| PyValueError::new_err(misuse.to_string()))?;
        }
        if !self.head_only {
            self.state.borrow_mut(py).bytes += piece.len() as u64;
        }
        Ok(())
    }
}

/// What the server alone says (RFC 2616 section 13.5.1, by way of PEP 3333).
const HOP_BY_HOP: [&[u8]; 8] = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// Whether a field value has no character that ends it.
fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

fn parse(status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<Head> {
    let line = bytes(status, "the status")?;
    let code = line.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit));
    let code = code.and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
    let status = match (code, line.get(3)) {
        (Some(code @ 100..=999), None | Some(b' ')) if is_value(&line) => code,
        _ => return Err(PyValueError::new_err("the status has to be like '200 OK'")),
    };
    let reason = String::from_utf8_lossy(line.get(4..).unwrap_or_default()).into_owned();
    let mut head = Head { status, reason, text: Vec::new(), fields: Vec::new(), length: None, close: false };
    for header in headers.try_iter()? {
        let header = header?;
        let pair = header.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let Some(pair) = pair else {
            return Err(PyTypeError::new_err("a header has to be a tuple (name, value)"));
        };
        let (name, value) = (pair.get_item(0)?, pair.get_item(1)?);
        head.add(&bytes(&name, "a header's name")?, &bytes(&value, "a header's value")?)?;
    }
    Ok(head)
}

impl Head {
    /// Each name and its value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|&[name, value, end]| (&self.text[name..value], &self.text[value..end]))
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.fields.push([start, start + name.len(), self.text.len()]);
    }

    fn add(&mut self, name: &[u8], value: &[u8]) -> PyResult<()> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        if name.is_empty()
            || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
        {
            return Err(PyValueError::new_err(format!("{:?} is not the name of a header", shown())));
        }
        if !is_value(value) {
            return Err(PyValueError::new_err(format!("the value of {} has a line end or a NUL", shown())));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length =
                std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = length.and_then(|text| text.parse().ok());
            if length.is_none() || (self.length.is_some() && self.length != length) {
                return Err(PyValueError::new_err("Content-Length has to be one number"));
            }
            self.length = length;
        } else if HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)) {
            // The one wish about the connection that an application may have.
            if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if self.status == 426 && name.eq_ignore_ascii_case(b"upgrade") {
                // RFC 9110 section 15.5.22: "The server MUST send an Upgrade header field in a 426 response"
                self.push(name, value);
            } else if self.status != 101 {
                return Err(PyValueError::new_err(format!(
                    "{} is a hop-by-hop header, which only the server may set (PEP 3333)",
                    shown()
                )));
            }
        } else {
            self.push(name, value);
        }
        Ok(())
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info = None, /))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: Bound<'py, PyAny>,
        headers: Bound<'py, PyAny>,
        exc_info: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Write>> {
        let (py, this) = (slf.py(), slf.get());
        match exc_info {
            Some(info) if this.is_started(py) => {
                // Too late for another answer (PEP 3333, "The start_response() Callable").
                return Err(PyErr::from_value(info.get_item(1)?));
            }
            None if this.is_started(py) || this.status(py).is_some() => {
                return Err(PyAssertionError::new_err("start_response was called before"));
            }
            _ => {}
        }
        let head = parse(&status, &headers)?;
        this.state.borrow_mut(py).head = Some(head);
        Bound::new(py, Write(slf.clone().unbind()))
    }
}

/// The callable that `start_response` returns, for applications of old.
#[pyclass(frozen, module = "balrog")]
pub(crate) struct Write(Py<StartResponse>);

#[pymethods]
impl Write {
    #[pyo3(signature = (data, /))]
    fn __call__(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        self.0.get().send(py, data.as_bytes(), None)
    }
}

/// ``environ["wsgi.file_wrapper"]``: iterates over a file in blocks.
#[pyclass(frozen, module = "balrog")]
pub(crate) struct FileWrapper {
    file: Py<PyAny>,
    block: usize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (file, block_size = 65536, /))]
    fn new(file: Py<PyAny>, block_size: usize) -> Self {
        Self { file, block: block_size.max(BLOCK) }
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let data = self.file.bind(py).call_method1("read", (self.block,))?;
        Ok(if data.is_truthy()? { Some(data) } else { None })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let file = self.file.bind(py);
        if file.hasattr("close")? { file.call_method0("close").map(drop) } else { Ok(()) }
    }
}
