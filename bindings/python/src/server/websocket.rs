//! WebSocket connections: the loop reads, any task or thread writes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog_proto::websocket::{Peer, PeerEvent};
use balrog_proto::{Error, Link, Step};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTimeoutError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};
use pyo3::{PyErrArguments, import_exception};

use crate::hub::Hub;
use crate::scope::deadline;
use crate::server::connection::{Conn, Protocol, READS, State};
use crate::server::response::Head;
use crate::server::socket::{Received, Sent};
use crate::server::upgrade::Accepted;
use crate::waiter::Waiter;

import_exception!(balrog.websocket, ConnectionClosed);
import_exception!(balrog.websocket, QueueFull);

/// Messages and bytes that wait for `recv`; beyond, the peer is not read any more.
const QUEUE_MESSAGES: usize = 32;
const QUEUE_BYTES: usize = 1 << 20;
/// Bytes that wait for a peer to read them; beyond, it is closed as too slow.
const UNSENT: usize = 1 << 20;

/// A message of the peer.
enum Message {
    Text(String),
    Binary(Vec<u8>),
}

impl Message {
    const fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(data) => data.len(),
        }
    }
}

/// What came and was not received yet, and how it ended.
#[derive(Default)]
pub(crate) struct Inbound {
    queue: VecDeque<Message>,
    bytes: usize,
    /// Code and reason of the end.
    closed: Option<(u16, String)>,
    /// Those who wait in `recv`.
    waiters: Vec<Py<Waiter>>,
    /// Reading stopped because the queue is full.
    paused: bool,
}

impl Inbound {
    fn push(&mut self, message: Message) {
        self.bytes += message.len();
        self.queue.push_back(message);
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_MESSAGES || self.bytes >= QUEUE_BYTES
    }
}

/// Sends 101, turns the connection into a WebSocket, and runs its handler.
pub(crate) fn serve(
    py: Python<'_>,
    hub: &'static Hub,
    conn: &Arc<Conn>,
    head: &Head,
    accepted: Accepted,
) -> PyResult<()> {
    let subprotocol = accepted.subprotocol;
    {
        let inner = &mut *conn.inner.borrow_mut(py);
        let Some(link) = inner.http() else { return Err(closed_error(1006, String::new())) };
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", accepted.accept.as_bytes()),
        ];
        if let Some(subprotocol) = &subprotocol {
            fields.push((b"Sec-WebSocket-Protocol", subprotocol.as_bytes()));
        }
        if let Some((_, extensions)) = &accepted.deflate {
            fields.push((b"Sec-WebSocket-Extensions", extensions.as_bytes()));
        }
        let ours = |name: &[u8]| name.to_ascii_lowercase().starts_with(b"sec-websocket-");
        fields.extend(head.fields().filter(|(name, _)| !ours(name)));
        link.switch_protocols(&fields).map_err(|misuse| PyValueError::new_err(misuse.to_string()))?;
        if let Protocol::Http(link) = std::mem::replace(&mut inner.protocol, Protocol::None) {
            let mut peer = Peer::server(Arc::clone(&conn.shared.websocket));
            if let Some((deflate, _)) = &accepted.deflate {
                peer = peer.deflate(deflate);
            }
            inner.protocol = Protocol::WebSocket(Box::new(link.replace(peer)));
        }
        inner.inbound = Some(Box::default());
        inner.state = State::WebSocket;
        let stopping = conn.shared.is_stopping(py);
        if let Some(link) = inner.websocket().filter(|_| stopping) {
            // The code is a valid one.
            let _ = link.close(1012, "service restart");
        }
    }
    // Frames may have come right behind the handshake.
    conn.read_messages(py, hub);
    let websocket = Bound::new(py, WebSocket { conn: Arc::clone(conn), subprotocol })?;
    let handled = accepted.handler.call1(py, (&websocket,));
    let (code, reason) = match &handled {
        Ok(_) => (1000, ""),
        // The peer is gone, and the handler need not care.
        Err(error) if error.is_instance_of::<ConnectionClosed>(py) => (1000, ""),
        Err(_) => (1011, "internal error"),
    };
    {
        let mut inner = conn.inner.borrow_mut(py);
        if let Some(link) = inner.websocket() {
            // The codes are valid ones.
            let _ = link.close(code, reason);
        }
        if let Some(inbound) = &mut inner.inbound {
            // Nobody receives any more, so nothing may hold up the closing handshake.
            inbound.queue.clear();
            inbound.bytes = 0;
        }
    }
    conn.read_messages(py, hub);
    match handled {
        Err(error) if !error.is_instance_of::<ConnectionClosed>(py) => Err(error),
        _ => Ok(()),
    }
}

impl Conn {
    /// Takes in what came, sends what has to be sent. On the hub's thread, never waits.
    pub(crate) fn read_messages(self: &Arc<Self>, py: Python<'_>, hub: &'static Hub) {
        let (over, waiters) = {
            let inner = &mut *self.inner.borrow_mut(py);
            if inner.state != State::WebSocket {
                return;
            }
            let mut over = inner.feed(hub);
            if inner.transmit() == Sent::Gone {
                over = true;
            }
            let mut waiters = Vec::new();
            if let Some(inbound) = &mut inner.inbound {
                if over && inbound.closed.is_none() {
                    inbound.closed = Some((1006, String::new()));
                }
                if inbound.closed.is_some() || !inbound.queue.is_empty() {
                    waiters = std::mem::take(&mut inbound.waiters);
                }
            }
            if !over {
                inner.arm(hub);
            }
            (over, waiters)
        };
        for waiter in waiters {
            waiter.get().end(py);
        }
        if over {
            self.shut(py, hub);
        }
    }
}

/// So many pings of one turn are a flood, which is then read no further for a while.
const PINGS: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(50);

impl crate::server::connection::Inner {
    /// Turns bytes into messages until there are no more, or no more are wanted. `true`: over.
    fn feed(&mut self, hub: &Hub) -> bool {
        let (mut reads, mut pings) = (0, 0);
        loop {
            if pings == PINGS {
                // Read on at once, it would keep the thread busy and get nothing for it.
                self.again(hub, Instant::now() + PAUSE);
                return false;
            }
            let (Protocol::WebSocket(link), Some(inbound)) = (&mut self.protocol, &mut self.inbound) else {
                return true;
            };
            inbound.paused = inbound.is_full();
            if inbound.paused {
                return false;
            }
            match link.poll_event(Instant::now()) {
                Ok(Step::Event(PeerEvent::Text(text))) => inbound.push(Message::Text(text.to_owned())),
                Ok(Step::Event(PeerEvent::Binary(data))) => inbound.push(Message::Binary(data.to_owned())),
                // Messages come whole, and nobody here waits for room to send.
                Ok(Step::Event(PeerEvent::Ping(_))) => pings += 1,
                Ok(Step::Event(
                    PeerEvent::Pong(_)
                    | PeerEvent::TextPart { .. }
                    | PeerEvent::BinaryPart { .. }
                    | PeerEvent::Writable,
                )) => {}
                Ok(Step::Event(PeerEvent::Close { code, reason, .. })) => {
                    inbound.closed.get_or_insert((code, reason.to_owned()));
                }
                Ok(Step::NeedInput | Step::Paused) if reads == READS => {
                    self.soon(hub);
                    return false;
                }
                Ok(Step::NeedInput | Step::Paused) => match self.receive() {
                    Received::Bytes(_) | Received::Eof => reads += 1,
                    Received::Blocked => return false,
                    Received::Gone => return true,
                },
                Ok(Step::Closed) => return true,
                Err(error) => {
                    inbound.closed.get_or_insert(ending(error));
                    return true;
                }
            }
        }
    }
}

/// How an error of the protocol looks to the handler: the code that we sent for it, or 1006
/// when nothing could be sent (RFC 6455 section 7.1.5).
fn ending(error: Error) -> (u16, String) {
    (error.code().unwrap_or(1006), error.to_string())
}

fn closed_error(code: u16, reason: String) -> PyErr {
    ConnectionClosed::new_err(ClosedArguments(code, reason))
}

struct ClosedArguments(u16, String);

impl PyErrArguments for ClosedArguments {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        let pair = (self.0, self.1).into_pyobject(py);
        pair.map_or_else(|_| py.None(), |pair| pair.into_any().unbind())
    }
}

/// An open WebSocket. ``send``, ``ping`` and ``close`` may be called from any task and thread;
/// ``recv`` belongs to the thread that serves the connection.
#[pyclass(frozen, weakref, module = "balrog.websocket")]
pub(crate) struct WebSocket {
    conn: Arc<Conn>,
    subprotocol: Option<String>,
}

impl WebSocket {
    /// Queues a frame by `command`, and sends it as far as the peer takes it now.
    fn command(
        &self,
        py: Python<'_>,
        size: usize,
        command: impl FnOnce(&mut Link<Peer>) -> Result<(), balrog_proto::Misuse>,
    ) -> PyResult<()> {
        let full = {
            let inner = &mut *self.conn.inner.borrow_mut(py);
            let closed = || {
                let closed = inner.inbound.as_ref().and_then(|inbound| inbound.closed.clone());
                let (code, reason) = closed.unwrap_or((1006, String::new()));
                closed_error(code, reason)
            };
            let Protocol::WebSocket(link) = &mut inner.protocol else { return Err(closed()) };
            if inner.state != State::WebSocket || !link.is_open() {
                return Err(closed());
            }
            let full = link.unsent() > 0 && link.unsent() + size > UNSENT;
            if full {
                // The code is a valid one.
                let _ = link.close(1013, "too slow");
            } else {
                command(link).map_err(|misuse| PyValueError::new_err(misuse.to_string()))?;
            }
            // That the peer is gone is for the loop to find out; it gets an event for it.
            let _ = inner.transmit();
            full
        };
        if !full {
            return Ok(());
        }
        if let Some(hub) = Hub::existing(py).filter(|hub| self.conn.shared.is_of(hub)) {
            // Starts the time that the peer has to answer the close.
            self.conn.read_messages(py, hub);
        }
        Err(QueueFull::new_err("the peer does not read what it is sent"))
    }

    /// The next message, or how it ended.
    fn next(&self, py: Python<'_>) -> Option<Result<Message, (u16, String)>> {
        let mut inner = self.conn.inner.borrow_mut(py);
        let inbound = inner.inbound.as_mut()?;
        if let Some(message) = inbound.queue.pop_front() {
            inbound.bytes -= message.len();
            return Some(Ok(message));
        }
        inbound.closed.clone().map(Err)
    }

    fn receive<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Result<Bound<'py, PyAny>, (u16, String)>> {
        let until = deadline(timeout)?;
        loop {
            match self.next(py) {
                Some(Err(closed)) => return Ok(Err(closed)),
                Some(Ok(message)) => {
                    self.resume(py)?;
                    return Ok(Ok(match message {
                        Message::Text(text) => PyString::new(py, &text).into_any(),
                        Message::Binary(data) => PyBytes::new(py, &data).into_any(),
                    }));
                }
                None => {}
            }
            let waiter = Py::new(py, Waiter::create())?;
            if let Some(inbound) = &mut self.conn.inner.borrow_mut(py).inbound {
                inbound.waiters.push(waiter.clone_ref(py));
            }
            let waited = waiter.get().wait_until(py, until);
            if let Some(inbound) = &mut self.conn.inner.borrow_mut(py).inbound {
                inbound.waiters.retain(|other| !other.is(&waiter));
            }
            if !waited? {
                let seconds = timeout.unwrap_or_default();
                return Err(PyTimeoutError::new_err(format!("no message came within {seconds} s")));
            }
        }
    }

    /// Goes on reading if a full queue had stopped that.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        let paused = self.conn.inner.borrow(py).inbound.as_ref().is_some_and(|inbound| inbound.paused);
        if !paused {
            return Ok(());
        }
        let hub = Hub::existing(py).filter(|hub| self.conn.shared.is_of(hub));
        let Some(hub) = hub else {
            return Err(PyRuntimeError::new_err("recv() belongs to the thread that serves the connection"));
        };
        self.conn.read_messages(py, hub);
        Ok(())
    }
}

#[pymethods]
impl WebSocket {
    /// The next message: ``str`` for text, ``bytes`` for binary.
    ///
    /// Waits as long as it takes, or raises ``TimeoutError`` after ``timeout`` seconds. Raises
    /// ``ConnectionClosed`` once the connection is closed and everything that came is received.
    #[pyo3(signature = (timeout = None))]
    fn recv<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        self.receive(py, timeout)?.map_err(|(code, reason)| closed_error(code, reason))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.receive(py, None)?.map_err(|(code, reason)| match code {
            1000 | 1001 | 1005 => PyStopIteration::new_err(()),
            _ => closed_error(code, reason),
        })
    }

    /// Sends a text (``str``) or binary (``bytes``, ``bytearray``) message. Never waits: what the
    /// peer does not take at once is sent later, up to 1 MiB; beyond that it raises
    /// ``QueueFull`` and closes the connection (1013). Raises ``ConnectionClosed``.
    fn send(&self, py: Python<'_>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(text) = message.cast::<PyString>() {
            let text = text.to_str()?;
            return self.command(py, text.len(), |link| link.send_text(text));
        }
        if let Ok(data) = message.cast::<PyBytes>() {
            let data = data.as_bytes();
            return self.command(py, data.len(), |link| link.send_binary(data));
        }
        if let Ok(data) = message.cast::<PyByteArray>() {
            let data = data.to_vec();
            return self.command(py, data.len(), |link| link.send_binary(&data));
        }
        Err(PyTypeError::new_err(format!("a message is str or bytes, not {}", message.get_type())))
    }

    /// Sends a ping with up to 125 bytes.
    #[pyo3(signature = (data = None))]
    fn ping(&self, py: Python<'_>, data: Option<&[u8]>) -> PyResult<()> {
        let data = data.unwrap_or_default();
        self.command(py, data.len(), |link| link.ping(data))
    }

    /// Begins to close; a second call does nothing. Does not wait for the peer's answer.
    #[pyo3(signature = (code = 1000, reason = ""))]
    fn close(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        let mut inner = self.conn.inner.borrow_mut(py);
        if let Some(link) = inner.websocket() {
            link.close(code, reason).map_err(|misuse| PyValueError::new_err(misuse.to_string()))?;
            let _ = inner.transmit();
            if let Some(hub) = Hub::existing(py).filter(|hub| self.conn.shared.is_of(hub)) {
                drop(inner);
                // Starts the time that the peer has to answer.
                self.conn.read_messages(py, hub);
            }
        }
        Ok(())
    }

    /// Whether nothing can be sent any more.
    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        let mut inner = self.conn.inner.borrow_mut(py);
        inner.state != State::WebSocket || !inner.websocket().is_some_and(|link| link.is_open())
    }

    /// The code of the close, once it is closed: the peer's, 1005 if it gave none, 1006 if the
    /// connection broke.
    #[getter]
    fn close_code(&self, py: Python<'_>) -> Option<u16> {
        let inner = self.conn.inner.borrow(py);
        inner.inbound.as_ref()?.closed.as_ref().map(|(code, _)| *code)
    }

    /// The reason of the close, once it is closed; may be empty.
    #[getter]
    fn close_reason(&self, py: Python<'_>) -> Option<String> {
        let inner = self.conn.inner.borrow(py);
        inner.inbound.as_ref()?.closed.as_ref().map(|(_, reason)| reason.clone())
    }

    /// The subprotocol that was agreed on, or ``None``.
    #[getter]
    fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }
}
