//! A connection: who owns it at the moment, and what the loop does with it.
//!
//! ```text
//!            head complete          response sent, keep-alive
//!   Loop -------------------> Busy ---------------------------> Loop
//!    |                          | 101                  | the end
//!    |                          v                      v
//!    |                      WebSocket ------------> Flushing --> Lingering --> Closed
//!    +-- end, violation, time-out --------------------^
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog_backends::{Interest, Readiness, wait_io};
use balrog_proto::http1::{Server, ServerEvent};
use balrog_proto::websocket::Peer as WebSocketPeer;
use balrog_proto::{Error, Link, Step};
use balrog_sched::Interrupt;
use pyo3::exceptions::{PyConnectionResetError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use rustix::net::{Shutdown, shutdown, sockopt};

use crate::backend::yield_now;
use crate::cell::GilCell;
use crate::hub::{Hub, Source, SourceKey};
use crate::interrupt::to_py_err;
use crate::server::environ;
use crate::server::log::{Entry, quotable_start};
use crate::server::shared::Shared;
use crate::server::socket::{Received, Sent, discard, receive, transmit};
use crate::server::websocket::Inbound;

/// A peer that takes nothing for so long is cut off.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long the peer has to close after we did. Closing at once, with bytes of it unread, would
/// make the kernel reset the connection and the peer lose our last answer (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// How many reads of one connection the loop does in a row; then others have their turn.
pub(crate) const READS: u32 = 16;
/// How many bytes a task moves without a wait before others have their turn.
const BURST: usize = 256 * 1024;

/// The other end.
pub(crate) struct Peer {
    /// Empty for a Unix socket.
    pub(crate) address: Py<PyString>,
    pub(crate) port: Option<Py<PyString>>,
}

/// Who owns a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The loop, which reads the next request.
    Loop,
    /// A request's task.
    Busy,
    /// The loop reads; tasks write.
    WebSocket,
    /// The last bytes are being sent.
    Flushing,
    /// Everything is sent; the peer has still to close.
    Lingering,
    Closed,
}

/// What is spoken.
pub(crate) enum Protocol {
    Http(Box<Link<Server>>),
    WebSocket(Box<Link<WebSocketPeer>>),
    None,
}

/// What changes. Borrowed for moments only, never over a wait or over code of the application.
pub(crate) struct Inner {
    /// Shared with waits on it, so that the number is not used anew while somebody waits.
    pub(crate) fd: Option<Arc<OwnedFd>>,
    key: Option<SourceKey>,
    pub(crate) state: State,
    pub(crate) protocol: Protocol,
    /// What came for the handler of a WebSocket.
    pub(crate) inbound: Option<Box<Inbound>>,
    /// A read may bring something. Readiness is an edge, so it is remembered here.
    readable: bool,
    hangup: bool,
    /// The peer broke off the exchange, or let it stall: no error of the application.
    pub(crate) gone: bool,
    /// Bytes that the current task has moved without a wait.
    burst: usize,
    /// The next timer that the hub knows of.
    armed: Option<Instant>,
    /// When flushing or lingering ends.
    until: Option<Instant>,
    /// Close so that the peer cannot take what it got for the whole.
    reset: bool,
}

/// A connection of the server.
pub(crate) struct Conn {
    pub(crate) peer: Peer,
    pub(crate) shared: Arc<Shared>,
    pub(crate) environ: Arc<Py<PyDict>>,
    pub(crate) inner: GilCell<Inner>,
    id: GilCell<usize>,
}

/// A connection as the hub sees it.
struct ConnSource(Arc<Conn>);

impl Source for ConnSource {
    fn ready(self: Rc<Self>, py: Python<'_>, hub: &'static Hub, readiness: Readiness) {
        {
            let mut inner = self.0.inner.borrow_mut(py);
            inner.readable |= readiness.readable;
            inner.hangup |= readiness.hangup;
        }
        self.0.go_on(py, hub);
    }

    fn timer(self: Rc<Self>, py: Python<'_>, hub: &'static Hub) {
        self.0.timer(py, hub);
    }
}

impl Inner {
    pub(crate) fn http(&mut self) -> Option<&mut Link<Server>> {
        match &mut self.protocol {
            Protocol::Http(link) => Some(link),
            _ => None,
        }
    }

    pub(crate) fn websocket(&mut self) -> Option<&mut Link<WebSocketPeer>> {
        match &mut self.protocol {
            Protocol::WebSocket(link) => Some(link),
            _ => None,
        }
    }

    /// Reads once, if there may be something to read.
    pub(crate) fn receive(&mut self) -> Received {
        let Some(fd) = self.fd.as_ref().filter(|_| self.readable) else { return Received::Blocked };
        let received = match &mut self.protocol {
            Protocol::Http(link) => receive(fd, link),
            Protocol::WebSocket(link) => receive(fd, link),
            Protocol::None => discard(fd),
        };
        match received {
            // After a short read the next bytes are a new edge; an end of file was one already.
            Received::Bytes(more) => self.readable = more || self.hangup,
            Received::Blocked => self.readable = false,
            Received::Eof | Received::Gone => {}
        }
        received
    }

    pub(crate) fn transmit(&mut self) -> Sent {
        self.transmit_with(&[])
    }

    fn transmit_with(&mut self, external: &[u8]) -> Sent {
        let Some(fd) = &self.fd else { return Sent::Gone };
        match &mut self.protocol {
            Protocol::Http(link) => transmit(fd, link, external),
            Protocol::WebSocket(link) => transmit(fd, link, &[]),
            Protocol::None => Sent::All,
        }
    }

    /// Calls the connection again when others had their turn.
    pub(crate) fn soon(&mut self, hub: &Hub) {
        self.again(hub, Instant::now());
    }

    /// Calls the connection again at `at`.
    pub(crate) fn again(&mut self, hub: &Hub, at: Instant) {
        if let Some(key) = self.key {
            self.armed = Some(at);
            hub.arm(key, at);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match (self.state, &self.protocol) {
            (State::Loop, Protocol::Http(link)) => link.poll_timeout(),
            (State::WebSocket, Protocol::WebSocket(link)) => link.poll_timeout(),
            (State::Flushing | State::Lingering, _) => self.until,
            _ => None,
        }
    }

    /// Sees to it that the timer comes in time. One that comes too early is no harm, so that a
    /// deadline that only moves away costs nothing.
    pub(crate) fn arm(&mut self, hub: &Hub) {
        let (Some(at), Some(key)) = (self.deadline(), self.key) else { return };
        if self.armed.is_none_or(|armed| armed > at) {
            self.armed = Some(at);
            hub.arm(key, at);
        }
    }
}

impl Conn {
    /// Takes over an accepted connection.
    pub(crate) fn open(
        py: Python<'_>,
        hub: &'static Hub,
        fd: OwnedFd,
        peer: Peer,
        shared: Arc<Shared>,
        environ: Arc<Py<PyDict>>,
    ) -> std::io::Result<()> {
        let fd = Arc::new(fd);
        let link = Box::new(Link::new(Server::new(Arc::clone(&shared.http))));
        let conn = Arc::new(Self {
            peer,
            shared: Arc::clone(&shared),
            environ,
            id: GilCell::new(0),
            inner: GilCell::new(Inner {
                fd: Some(Arc::clone(&fd)),
                key: None,
                state: State::Loop,
                protocol: Protocol::Http(link),
                inbound: None,
                readable: true,
                hangup: false,
                gone: false,
                burst: 0,
                armed: None,
                until: None,
                reset: false,
            }),
        });
        let key = hub.add_source(fd.as_fd(), Rc::new(ConnSource(Arc::clone(&conn))))?;
        *conn.id.borrow_mut(py) = shared.add(py, &conn);
        conn.inner.borrow_mut(py).key = Some(key);
        // A client that speaks at once, as nearly all do, needs no poll.
        conn.go_on(py, hub);
        Ok(())
    }

    pub(crate) fn state(&self, py: Python<'_>) -> State {
        self.inner.borrow(py).state
    }

    /// Does whatever can be done now. On the hub's thread, never waits.
    pub(crate) fn go_on(self: &Arc<Self>, py: Python<'_>, hub: &'static Hub) {
        match self.state(py) {
            State::Loop => self.read_requests(py, hub),
            State::WebSocket => self.read_messages(py, hub),
            State::Flushing => self.shut(py, hub),
            State::Lingering => self.linger(py, hub),
            State::Busy | State::Closed => {}
        }
    }

    fn read_requests(self: &Arc<Self>, py: Python<'_>, hub: &'static Hub) {
        let mut request = None;
        let mut refused = None;
        {
            let inner = &mut *self.inner.borrow_mut(py);
            // Else it is the answer to a broken body, whose request is in the log.
            let nothing_said = inner.http().is_some_and(|link| link.unsent() == 0);
            while let Some(link) = inner.http() {
                match link.poll_event(Instant::now()) {
                    Ok(Step::Event(ServerEvent::Request(head))) => {
                        request = Some(environ::request(py, self, &head));
                        inner.state = State::Busy;
                        break;
                    }
                    // Only the current request has these, and its task takes them.
                    Ok(Step::Event(_)) => {}
                    Ok(Step::NeedInput) => match inner.receive() {
                        Received::Bytes(_) | Received::Eof => {}
                        Received::Blocked => {
                            inner.arm(hub);
                            break;
                        }
                        Received::Gone => {
                            inner.protocol = Protocol::None;
                            break;
                        }
                    },
                    Ok(Step::Paused | Step::Closed) => break,
                    Err(error) => {
                        refused = self.refused(link, error).filter(|_| nothing_said);
                        break;
                    }
                }
            }
            if request.is_none() && !matches!(&inner.protocol, Protocol::Http(link) if link.wants_input()) {
                inner.state = State::Flushing;
            }
        }
        self.log_refused(py, refused.as_ref());
        match request {
            Some(Ok(request)) => self.shared.begin(py, hub, Arc::clone(self), request),
            Some(Err(error)) => {
                self.shared.error(py, "a request could not be taken in", error);
                self.cut(py);
                self.shut(py, hub);
            }
            None if self.state(py) == State::Flushing => self.shut(py, hub),
            None => {}
        }
    }

    /// For the access log: a request that came to nothing, if `error` was answered.
    fn refused(&self, link: &Link<Server>, error: Error) -> Option<(Entry, u16, u64)> {
        let status = error.status().filter(|_| self.shared.logs() && link.unsent() > 0)?;
        let entry = Entry { line: quotable_start(link.unread_bytes()), begun: Instant::now() };
        // What the machine answers with.
        Some((entry, status, format!("{error}\n").len() as u64))
    }

    fn log_refused(&self, py: Python<'_>, refused: Option<&(Entry, u16, u64)>) {
        if let Some((entry, status, bytes)) = refused {
            self.shared.log(py, &self.peer, entry, *status, *bytes);
        }
    }

    /// The request's task is done with the connection.
    pub(crate) fn give_back(self: &Arc<Self>, py: Python<'_>, hub: &'static Hub) {
        {
            let mut inner = self.inner.borrow_mut(py);
            if inner.state != State::Busy {
                return;
            }
            inner.state = State::Loop;
            let stopping = self.shared.is_stopping(py);
            if let Some(link) = inner.http().filter(|_| stopping) {
                link.close_soon();
            }
        }
        self.read_requests(py, hub);
    }

    /// Sends what there is, waiting for the peer where it has to.
    ///
    /// # Errors
    ///
    /// `ConnectionResetError` or `TimeoutError` if the peer does not take it; what interrupted
    /// the wait.
    pub(crate) fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.flush_with(py, &[])
    }

    /// The same; `external` are the bytes of the `body_external` before.
    pub(crate) fn flush_with(&self, py: Python<'_>, external: &[u8]) -> PyResult<()> {
        loop {
            let fd = {
                let inner = &mut *self.inner.borrow_mut(py);
                let unsent = inner.http().map_or(0, |link| link.unsent());
                match inner.transmit_with(external) {
                    Sent::All => {
                        inner.burst += unsent;
                        break;
                    }
                    Sent::Gone => {
                        inner.gone = true;
                        return Err(PyConnectionResetError::new_err("the client is gone"));
                    }
                    Sent::Blocked => inner.fd.clone(),
                }
            };
            let until = Instant::now() + WRITE_STALL;
            self.wait(py, fd, Interest::Writable, until, "the client does not read the response")?;
        }
        self.share(py, 0)
    }

    /// Counts bytes that a task moved, and lets others run when these were many.
    pub(crate) fn share(&self, py: Python<'_>, bytes: usize) -> PyResult<()> {
        {
            let mut inner = self.inner.borrow_mut(py);
            inner.burst += bytes;
            if inner.burst < BURST {
                return Ok(());
            }
            inner.burst = 0;
        }
        yield_now(py)
    }

    /// Waits in a task.
    pub(crate) fn wait(
        &self,
        py: Python<'_>,
        fd: Option<Arc<OwnedFd>>,
        interest: Interest,
        until: Instant,
        late: &'static str,
    ) -> PyResult<()> {
        let Some(fd) = fd else { return Err(PyConnectionResetError::new_err("the client is gone")) };
        match wait_io(fd.as_fd(), interest, Some(until)) {
            Ok(()) => {
                let mut inner = self.inner.borrow_mut(py);
                inner.readable |= interest == Interest::Readable;
                inner.burst = 0;
                Ok(())
            }
            Err(Interrupt::Deadline) if until <= Instant::now() => {
                self.inner.borrow_mut(py).gone = true;
                Err(PyTimeoutError::new_err(late))
            }
            Err(interrupt) => Err(to_py_err(py, interrupt)),
        }
    }

    /// Whether the peer broke off the exchange.
    pub(crate) fn is_gone(&self, py: Python<'_>) -> bool {
        self.inner.borrow(py).gone
    }

    /// Gives up: nothing more is sent, and the peer is to see that something is missing.
    pub(crate) fn cut(&self, py: Python<'_>) {
        let mut inner = self.inner.borrow_mut(py);
        inner.reset = true;
        if let Some(link) = inner.http() {
            link.abort();
        }
    }

    /// Ends the connection in good order: the rest is sent, then the peer closes.
    pub(crate) fn shut(self: &Arc<Self>, py: Python<'_>, hub: &'static Hub) {
        let now = Instant::now();
        let done = {
            let inner = &mut *self.inner.borrow_mut(py);
            if inner.state == State::Closed {
                return;
            }
            if inner.state != State::Flushing || inner.until.is_none() {
                inner.state = State::Flushing;
                inner.until = Some(now + WRITE_STALL);
            }
            let eof = match &inner.protocol {
                Protocol::Http(link) => link.is_eof(),
                Protocol::WebSocket(link) => link.is_eof(),
                Protocol::None => true,
            };
            match inner.transmit() {
                Sent::Gone => true,
                _ if inner.reset => true,
                Sent::Blocked => false,
                Sent::All if eof => true,
                Sent::All => {
                    inner.state = State::Lingering;
                    inner.until = Some(now + LINGER);
                    // The buffers are not needed any more.
                    inner.protocol = Protocol::None;
                    inner.fd.as_ref().is_none_or(|fd| shutdown(fd, Shutdown::Write).is_err())
                }
            }
        };
        if done {
            return self.close(py, hub);
        }
        match self.state(py) {
            State::Lingering => self.linger(py, hub),
            _ => self.inner.borrow_mut(py).arm(hub),
        }
    }

    fn linger(self: &Arc<Self>, py: Python<'_>, hub: &'static Hub) {
        {
            let mut inner = self.inner.borrow_mut(py);
            for _ in 0..READS {
                match inner.receive() {
                    Received::Bytes(_) => {}
                    Received::Blocked => return inner.arm(hub),
                    Received::Eof | Received::Gone => {
                        drop(inner);
                        return self.close(py, hub);
                    }
                }
            }
            if inner.until.is_none_or(|until| until > Instant::now()) {
                return inner.soon(hub);
            }
        }
        self.close(py, hub);
    }

    fn close(&self, py: Python<'_>, hub: &'static Hub) {
        let (fd, key) = {
            let mut inner = self.inner.borrow_mut(py);
            inner.state = State::Closed;
            inner.protocol = Protocol::None;
            if let Some(fd) = inner.fd.as_ref().filter(|_| inner.reset) {
                let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
            }
            (inner.fd.take(), inner.key.take())
        };
        if let (Some(fd), Some(key)) = (fd, key) {
            hub.remove_source(fd.as_fd(), key);
            drop(fd);
            self.shared.remove(py, *self.id.borrow(py));
        }
    }

    fn timer(self: &Arc<Self>, py: Python<'_>, hub: &'static Hub) {
        let now = Instant::now();
        let mut refused = None;
        let over = {
            let inner = &mut *self.inner.borrow_mut(py);
            inner.armed = None;
            let due = inner.deadline().is_some_and(|at| at <= now);
            let over = due
                && match &mut inner.protocol {
                    Protocol::Http(link) if inner.state == State::Loop => {
                        let error = link.handle_timeout(now).err();
                        refused = error.and_then(|error| self.refused(link, error));
                        error.is_some()
                    }
                    Protocol::WebSocket(link) if inner.state == State::WebSocket => {
                        link.handle_timeout(now).is_err()
                    }
                    _ => true,
                };
            if !over {
                inner.arm(hub);
            } else if inner.state == State::WebSocket {
                // No answer to a ping or to a close: what is still to be sent goes nowhere.
                inner.reset = true;
            }
            over
        };
        self.log_refused(py, refused.as_ref());
        match self.state(py) {
            State::Flushing | State::Lingering if over => self.close(py, hub),
            State::Loop if over => self.shut(py, hub),
            // Sends the ping, or finds that it is over.
            State::WebSocket => self.read_messages(py, hub),
            State::Lingering => self.linger(py, hub),
            _ => {}
        }
    }

    /// The server stops.
    pub(crate) fn stop(self: &Arc<Self>, py: Python<'_>, hub: &'static Hub) {
        match self.state(py) {
            State::Loop => {
                // What has come already is still served.
                self.read_requests(py, hub);
                let mut inner = self.inner.borrow_mut(py);
                if inner.state == State::Loop {
                    if let Some(link) = inner.http() {
                        link.close_soon();
                    }
                    drop(inner);
                    self.read_requests(py, hub);
                }
            }
            State::WebSocket => {
                if let Some(link) = self.inner.borrow_mut(py).websocket() {
                    // The code is a valid one.
                    let _ = link.close(1012, "service restart");
                }
                self.read_messages(py, hub);
            }
            _ => {}
        }
    }
}
