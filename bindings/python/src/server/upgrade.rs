//! `environ["balrog.websocket"]`.

use balrog_proto::websocket::{Deflate, Offer};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::cell::GilCell;

/// The offer of a client to speak WebSocket, which the application may accept.
///
/// It calls ``accept(handler)`` and answers ``101 Switching Protocols``; then the server calls
/// ``handler(websocket)`` in the same task. Any other answer refuses the offer.
#[pyclass(frozen, module = "balrog")]
pub(crate) struct Upgrade {
    offer: Offer,
    accepted: GilCell<Option<(Py<PyAny>, Option<String>)>>,
}

/// What is needed to open the WebSocket.
pub(crate) struct Accepted {
    pub(crate) handler: Py<PyAny>,
    pub(crate) subprotocol: Option<String>,
    /// The value of `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    /// The compression that is agreed on, and the value of `Sec-WebSocket-Extensions`.
    pub(crate) deflate: Option<(Deflate, String)>,
}

impl Upgrade {
    pub(crate) const fn new(offer: Offer) -> Self {
        Self { offer, accepted: GilCell::new(None) }
    }

    /// What the application accepted, if it has.
    pub(crate) fn accepted(&self, py: Python<'_>) -> Option<Accepted> {
        let (handler, subprotocol) = self.accepted.borrow_mut(py).take()?;
        let deflate = self.offer.deflate(&compression());
        Some(Accepted { handler, subprotocol, accept: self.offer.accept.clone(), deflate })
    }
}

/// Each message by itself, so that a connection keeps no memory for it between two; fast, and
/// only where it pays.
fn compression() -> Deflate {
    Deflate {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        level: 1,
        min_size: 1024,
        ..Deflate::default()
    }
}

#[pymethods]
impl Upgrade {
    /// Chooses ``handler(websocket)``, and a subprotocol of those that the client offers.
    #[pyo3(signature = (handler, *, subprotocol = None))]
    fn accept(&self, handler: Bound<'_, PyAny>, subprotocol: Option<String>) -> PyResult<()> {
        if !handler.is_callable() {
            return Err(PyTypeError::new_err("the handler has to be callable"));
        }
        if let Some(chosen) = subprotocol.as_ref().filter(|chosen| !self.offer.protocols.contains(chosen)) {
            return Err(PyValueError::new_err(format!(
                "the client does not offer the subprotocol {chosen:?}"
            )));
        }
        *self.accepted.borrow_mut(handler.py()) = Some((handler.clone().unbind(), subprotocol));
        Ok(())
    }

    /// The subprotocols that the client speaks, best first.
    #[getter]
    fn subprotocols(&self) -> Vec<String> {
        self.offer.protocols.clone()
    }
}
