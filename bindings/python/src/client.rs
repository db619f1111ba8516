//! The HTTP client for `balrog.requests`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use balrog::http::{Client, Error, Kind, Phase, Proxy, Request, Response};
use balrog::tls::TlsConfig;
use balrog_proto::http1::{BodyLength, Version};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError, PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyString};

use crate::cell::GilCell;
use crate::interrupt::to_py_err;
use crate::wait::with_scopes;

create_exception!(
    balrog,
    HttpError,
    PyException,
    "An exchange failed. ``args`` are the phase (request, resolve, connect, proxy, tls, send, head or body), the kind (timeout, closed, protocol, certificate or other), and the message."
);

/// Whom to trust and who to be in TLS. Make one and keep it: connections of two are not shared.
#[pyclass(frozen, module = "balrog")]
struct Tls(TlsConfig);

#[pymethods]
impl Tls {
    /// ``authorities`` is a PEM file, or a directory of such as ``openssl rehash`` leaves it;
    /// ``None`` trusts anybody. ``certificate`` and ``key`` are PEM files too.
    #[new]
    #[pyo3(signature = (authorities = None, certificate = None, key = None))]
    fn new(
        authorities: Option<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> PyResult<Self> {
        let identity = certificate.as_deref().map(|chain| (chain, key.as_deref().unwrap_or(chain)));
        Ok(Self(TlsConfig::new(authorities.as_deref(), identity)?))
    }
}

/// A response whose body is read as it comes.
#[pyclass(frozen, module = "balrog")]
struct HttpResponse {
    #[pyo3(get)]
    status: u16,
    #[pyo3(get)]
    reason: String,
    /// 10 or 11.
    #[pyo3(get)]
    version: u8,
    response: GilCell<Option<Response>>,
}

#[pymethods]
impl HttpResponse {
    /// Pairs of name and value, in order, repeated ones apart.
    #[getter]
    fn headers(&self, py: Python<'_>) -> Vec<(String, String)> {
        match &*self.response.borrow(py) {
            Some(response) => {
                response.headers.iter().map(|(name, value)| (name.clone(), latin1(value))).collect()
            }
            None => Vec::new(),
        }
    }

    /// The next piece of the body, at most ``most`` bytes; empty at the end.
    #[pyo3(signature = (most = None))]
    fn read<'py>(&self, py: Python<'py>, most: Option<usize>) -> PyResult<Bound<'py, PyBytes>> {
        // Out of its cell while it waits, so that nobody else finds it borrowed.
        let Some(mut response) = self.response.borrow_mut(py).take() else {
            return Err(PyRuntimeError::new_err("another task reads this response"));
        };
        let read = response.read(most.unwrap_or(usize::MAX));
        *self.response.borrow_mut(py) = Some(response);
        read.map(|piece| PyBytes::new(py, &piece)).map_err(|error| raise(py, &error))
    }

    /// Whether the whole body was read.
    #[getter]
    fn complete(&self, py: Python<'_>) -> bool {
        self.response.borrow(py).as_ref().is_none_or(Response::is_complete)
    }

    /// Gives up the rest of the body, and its connection with it.
    fn close(&self, py: Python<'_>) {
        if let Some(response) = &mut *self.response.borrow_mut(py) {
            response.close();
        }
    }
}

/// Sends a request and waits for the head of its response.
///
/// ``body`` is bytes, an iterable of bytes (sent chunked, or with the length given in
/// ``length``), or ``None``. Times are in seconds, ``None`` is unlimited. ``proxy`` is its host,
/// its port and header fields for it. Connections with an ``owner`` other than 0 are its own.
#[pyfunction]
#[pyo3(signature = (method, host, port, target, authority, headers, body, length, connect_timeout, read_timeout, tls, proxy, owner))]
#[allow(clippy::too_many_arguments)] // One flat call is the cheapest way into Rust.
fn http_send(
    py: Python<'_>,
    method: &str,
    host: &str,
    port: u16,
    target: &str,
    authority: &str,
    headers: Fields<'_>,
    body: Option<Bound<'_, PyAny>>,
    length: Option<u64>,
    connect_timeout: Option<f64>,
    read_timeout: Option<f64>,
    tls: Option<Bound<'_, Tls>>,
    proxy: Option<(String, u16, Fields<'_>)>,
    owner: u64,
) -> PyResult<HttpResponse> {
    let headers = fields(&headers)?;
    let proxy = match proxy {
        Some((host, port, headers)) => Some(Proxy { host, port, headers: fields(&headers)? }),
        None => None,
    };
    let headers: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let tls = tls.as_ref().map(|tls| &tls.get().0);
    let request = Request {
        tls,
        host,
        port,
        method,
        target,
        authority,
        headers: &headers,
        connect_timeout: seconds(connect_timeout)?,
        read_timeout: seconds(read_timeout)?,
        proxy: proxy.as_ref(),
        owner,
    };
    let response = match body {
        None => Client.send(&request, b""),
        Some(body) => match body.cast::<PyBytes>() {
            Ok(body) => Client.send(&request, body.as_bytes()),
            Err(_) => return stream(py, &request, body.try_iter()?, length),
        },
    };
    finish(py, response)
}

type Fields<'py> = Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

fn fields(given: &Fields<'_>) -> PyResult<Vec<(Vec<u8>, Vec<u8>)>> {
    given.iter().map(|(name, value)| Ok((bytes(name)?, bytes(value)?))).collect()
}

fn stream(
    py: Python<'_>,
    request: &Request<'_>,
    pieces: Bound<'_, PyIterator>,
    length: Option<u64>,
) -> PyResult<HttpResponse> {
    let length = length.map_or(BodyLength::Unknown, BodyLength::Length);
    let mut exchange = Client.stream(request, length).map_err(|error| raise(py, &error))?;
    for piece in pieces {
        if exchange.is_refused() {
            break;
        }
        exchange.write(&body_bytes(&piece?)?).map_err(|error| raise(py, &error))?;
    }
    finish(py, exchange.response())
}

fn finish(py: Python<'_>, response: Result<Response, Error>) -> PyResult<HttpResponse> {
    let response = response.map_err(|error| raise(py, &error))?;
    Ok(HttpResponse {
        status: response.status,
        reason: latin1(&response.reason),
        version: if response.version == Version::Http11 { 11 } else { 10 },
        response: GilCell::new(Some(response)),
    })
}

fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let kind = error.kind();
    if let Some(interrupt) = error.interrupt() {
        // A scope's deadline that has passed is the scope's to tell, not the client's.
        if kind != Kind::Timeout
            || with_scopes(py, |scopes| scopes.limits(Instant::now()).check(Instant::now())).is_err()
        {
            return to_py_err(py, interrupt);
        }
    }
    let phase = match error.phase {
        Phase::Request => "request",
        Phase::Resolve => "resolve",
        Phase::Connect => "connect",
        Phase::Proxy => "proxy",
        Phase::Tls => "tls",
        Phase::Send => "send",
        Phase::Head => "head",
        Phase::Body => "body",
    };
    let kind = match kind {
        Kind::Timeout => "timeout",
        Kind::Closed => "closed",
        Kind::Protocol => "protocol",
        Kind::Certificate => "certificate",
        Kind::Other => "other",
    };
    HttpError::new_err((phase, kind, error.to_string()))
}

/// Ends idle connections of this thread whose time has come. Called by its loop now and then.
pub(crate) fn sweep() {
    balrog::http::sweep();
}

fn seconds(value: Option<f64>) -> PyResult<Option<Duration>> {
    value
        .map(Duration::try_from_secs_f64)
        .transpose()
        .map_err(|_| PyValueError::new_err("a timeout is a number of seconds that is not negative"))
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// Bytes as they are; text as ISO-8859-1, which is how HTTP has always taken it.
fn bytes(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    let Ok(text) = value.cast::<PyString>() else {
        return value.extract::<Vec<u8>>().map_err(|_| PyTypeError::new_err("expected bytes or str"));
    };
    text.to_str()?
        .chars()
        .map(|char| u8::try_from(u32::from(char)))
        .collect::<Result<_, _>>()
        .map_err(|_| PyUnicodeEncodeError::new_err(("latin-1", text.to_string(), 0, 1, "not in ISO-8859-1")))
}

/// Bytes as they are; text, of files opened as text for example, as UTF-8.
fn body_bytes(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.to_str()?.as_bytes().to_vec()),
        Err(_) => bytes(value),
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("HttpError", m.py().get_type::<HttpError>())?;
    m.add_class::<Tls>()?;
    m.add_class::<HttpResponse>()?;
    m.add_function(wrap_pyfunction!(http_send, m)?)
}
