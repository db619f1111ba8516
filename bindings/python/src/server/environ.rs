//! The WSGI environ of a request (PEP 3333).

use std::sync::Arc;
use std::time::Instant;

use balrog_proto::http1::{Framing, RequestHead, Version};
use balrog_proto::websocket;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::server::body::RequestBody;
use crate::server::connection::Conn;
use crate::server::exchange::Request;
use crate::server::log::{Entry, quotable};
use crate::server::response::FileWrapper;
use crate::server::text::{latin1, percent_decoded};
use crate::server::upgrade::Upgrade;

/// What is the same for every request of a listener.
pub(crate) fn base(py: Python<'_>, name: &str, port: &str) -> PyResult<Py<PyDict>> {
    let environ = PyDict::new(py);
    environ.set_item("SCRIPT_NAME", "")?;
    environ.set_item("SERVER_NAME", name)?;
    environ.set_item("SERVER_PORT", port)?;
    environ.set_item("SERVER_SOFTWARE", concat!("balrog/", env!("CARGO_PKG_VERSION")))?;
    environ.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
    environ.set_item("wsgi.url_scheme", "http")?;
    environ.set_item("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
    environ.set_item("wsgi.multithread", false)?;
    environ.set_item("wsgi.multiprocess", false)?;
    environ.set_item("wsgi.run_once", false)?;
    environ.set_item("wsgi.input_terminated", true)?;
    environ.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
    Ok(environ.unbind())
}

/// The environ of this request, and what the exchange needs besides.
///
/// Runs no Python code, since the connection is borrowed.
pub(crate) fn request(py: Python<'_>, conn: &Arc<Conn>, head: &RequestHead<'_>) -> PyResult<Request> {
    let environ = conn.environ.bind(py).copy()?;
    let method = match head.method {
        "GET" => intern!(py, "GET").clone(),
        "POST" => intern!(py, "POST").clone(),
        other => PyString::new(py, other),
    };
    environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
    environ.set_item(intern!(py, "PATH_INFO"), latin1(py, &percent_decoded(head.path))?)?;
    environ.set_item(intern!(py, "QUERY_STRING"), PyString::new(py, head.query))?;
    environ.set_item(intern!(py, "REQUEST_URI"), PyString::new(py, head.target))?;
    let protocol = match head.version {
        Version::Http10 => intern!(py, "HTTP/1.0"),
        Version::Http11 => intern!(py, "HTTP/1.1"),
    };
    environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol)?;
    environ.set_item(intern!(py, "REMOTE_ADDR"), &conn.peer.address)?;
    if let Some(port) = &conn.peer.port {
        environ.set_item(intern!(py, "REMOTE_PORT"), port)?;
    }
    for (name, value) in head.headers.iter() {
        add_header(py, conn, &environ, name, value)?;
    }
    if let Some(authority) = head.authority {
        // "the server MUST ignore the received Host header field and instead replace it with
        // the host information of the request-target" (RFC 9112 section 3.2.2).
        environ.set_item(intern!(py, "HTTP_HOST"), PyString::new(py, authority))?;
    }
    let body = Py::new(py, RequestBody::new(conn, head.framing))?;
    environ.set_item(intern!(py, "wsgi.input"), &body)?;
    let upgrade = match websocket::offer(head) {
        Ok(Some(offer)) => {
            let upgrade = Py::new(py, Upgrade::new(offer))?;
            environ.set_item(intern!(py, "balrog.websocket"), &upgrade)?;
            Some(Ok(upgrade))
        }
        Ok(None) => None,
        Err(refusal) => Some(Err(refusal)),
    };
    let entry = conn.shared.logs().then(|| Entry { line: request_line(head), begun: Instant::now() });
    Ok(Request {
        environ: environ.unbind(),
        body,
        upgrade,
        entry,
        chunked: head.framing == Framing::Chunked,
        head_only: head.method == "HEAD",
    })
}

fn request_line(head: &RequestHead<'_>) -> String {
    let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    quotable(format!("{} {} {version}", head.method, head.target).as_bytes())
}

fn add_header(
    py: Python<'_>,
    conn: &Conn,
    environ: &Bound<'_, PyDict>,
    name: &str,
    value: &[u8],
) -> PyResult<()> {
    // `X_Real_IP` and `X-Real-IP` would be one key: a proxy's header could be forged.
    if name.contains('_') {
        return Ok(());
    }
    let key = conn.shared.header_key(py, name);
    let value = latin1(py, value)?;
    // SAFETY: all three are live objects; the result is borrowed from the dictionary, or null
    // with an exception set.
    let there = unsafe {
        let there = ffi::PyDict_SetDefault(environ.as_ptr(), key.as_ptr(), value.as_ptr());
        Bound::from_borrowed_ptr_or_err(py, there)?
    };
    if there.is(&value) {
        return Ok(());
    }
    let separator = if name.eq_ignore_ascii_case("cookie") { "; " } else { "," };
    let there = there.cast::<PyString>()?;
    environ.set_item(&key, there.add(separator)?.add(value)?)
}
