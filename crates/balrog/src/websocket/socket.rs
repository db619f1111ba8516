use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use balrog_backends::{Interest, Interrupt};
use balrog_proto::websocket::{Peer, PeerEvent, Prepared};
use balrog_proto::{Error, Link, Misuse, Step, Timer};

use crate::drive::Connection;
use crate::net::{Transport, Waiter};

/// How much one read takes.
const READ: usize = 16 * 1024;
/// How much a sender reads ahead of who receives.
const AHEAD: usize = 256 * 1024;
/// How long the last bytes may take to leave.
const LAST: Duration = Duration::from_secs(5);

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

/// What can be sent: text, bytes, a [`Message`], or one that was [`Prepared`] for many.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// Either, encoded before.
    Prepared(&'a Prepared),
}

/// How the peer closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// 1005 if the peer gave none (RFC 6455 section 7.1.5).
    pub code: u16,
    /// May be empty.
    pub reason: String,
}

/// An open WebSocket: the end that receives. It can send, too, and [`WebSocket::sender`] gives
/// others to other tasks of the thread (or, in blocking mode, other threads).
///
/// Pings are answered, and a silent peer is pinged, while somebody waits in
/// [`WebSocket::recv`]. Dropped without [`WebSocket::close`], it tells the peer that it goes
/// away (1001), if there is room for that.
#[derive(Debug)]
pub struct WebSocket {
    sender: Sender,
    protocol: Option<String>,
    closed: Option<CloseFrame>,
}

/// An end of a [`WebSocket`] that only sends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Nobody waits under the lock: reads and writes are tried.
    state: Mutex<State>,
    waiter: Waiter,
    /// How long the peer may take nothing of what it is sent.
    patience: Option<Duration>,
}

#[derive(Debug)]
struct State {
    connection: Connection<Peer>,
    /// Somebody waits for bytes, and has to be left to read them.
    receiving: bool,
    /// A task sends what is left of broadcasts.
    flushing: bool,
}

impl WebSocket {
    pub(super) fn new(
        connection: Connection<Peer>,
        protocol: Option<String>,
        patience: Option<Duration>,
    ) -> Self {
        let waiter = connection.stream.waiter();
        let state = Mutex::new(State { connection, receiving: false, flushing: false });
        Self { sender: Sender(Arc::new(Shared { state, waiter, patience })), protocol, closed: None }
    }

    /// The subprotocol that was agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// How the peer closed, once it has.
    pub const fn closed(&self) -> Option<&CloseFrame> {
        self.closed.as_ref()
    }

    /// Another end that sends.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// An end that sends, and this one that receives.
    pub fn split(self) -> (Sender, Self) {
        (self.sender(), self)
    }

    /// Waits for the next message. `None`: the WebSocket was closed in an orderly way.
    ///
    /// # Errors
    ///
    /// `InvalidData` when the peer broke the protocol or a limit (it was told), `UnexpectedEof`
    /// when it went without a close, `TimedOut` when it did not answer a ping; and interrupts,
    /// after which it can be called again.
    pub fn recv(&mut self) -> io::Result<Option<Message>> {
        let shared = &*self.sender.0;
        loop {
            let mut state = shared.lock();
            let connection = &mut state.connection;
            match connection.link.poll_event(Instant::now()) {
                Ok(Step::Event(PeerEvent::Text(text))) => return Ok(Some(Message::Text(text.to_owned()))),
                Ok(Step::Event(PeerEvent::Binary(data))) => {
                    return Ok(Some(Message::Binary(data.to_owned())));
                }
                Ok(Step::Event(PeerEvent::Close { code, reason, .. })) => {
                    self.closed = Some(CloseFrame { code, reason: reason.to_owned() });
                }
                Ok(Step::Event(_)) => {}
                Ok(Step::NeedInput) => {
                    drop(state);
                    shared.fill()?;
                }
                Ok(Step::Paused | Step::Closed) => {
                    drop(state);
                    shared.end();
                    return Ok(None);
                }
                Err(error) => {
                    drop(state);
                    shared.end();
                    return Err(error.into());
                }
            }
        }
    }

    /// Sends a message, and waits until the system has taken all of it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` once the WebSocket is closed or closing, or when more than
    /// [`Limits::unsent`](super::Limits::unsent) waits to be sent; `TimedOut` when the peer takes
    /// nothing for as long as it may be silent; what the system reports; and
    /// interrupts: the message is under way then all the same.
    pub fn send<'a>(&self, message: impl Into<Payload<'a>>) -> io::Result<()> {
        self.sender.send(message)
    }

    /// Sends a ping with at most 125 bytes. The pong is not waited for.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::send`], and `InvalidInput` for more bytes.
    pub fn ping(&self, data: &[u8]) -> io::Result<()> {
        self.sender.0.command(|link| link.ping(data))
    }

    /// Closes, and waits for the peer's answer. Messages that still come are dropped.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a code that must not be sent or a reason of over 123 bytes, and as
    /// [`WebSocket::recv`]. A peer that does not answer in time is none.
    pub fn close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        self.sender.close(code, reason)?;
        loop {
            match self.recv() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => {
                    let proto = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                    return match proto {
                        Some(Error::Timeout(Timer::Close)) => Ok(()),
                        _ => Err(error),
                    };
                }
            }
        }
    }
}

/// The messages until the WebSocket is closed, or the first error.
impl Iterator for WebSocket {
    type Item = io::Result<Message>;

    fn next(&mut self) -> Option<Self::Item> {
        self.recv().transpose()
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        let mut state = self.sender.0.lock();
        // "1001 indicates that an endpoint is "going away"".
        let _ = state.connection.link.close(1001, "");
        let _ = state.connection.try_flush();
        state.shut();
    }
}

impl Sender {
    /// As [`WebSocket::send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send<'a>(&self, message: impl Into<Payload<'a>>) -> io::Result<()> {
        let message = message.into();
        self.0.command(|link| message.put(link))
    }

    /// Begins to close; who receives sees the peer's answer. A second call does nothing.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::send`], and `InvalidInput` for a code that must not be sent or a reason
    /// of over 123 bytes.
    pub fn close(&self, code: u16, reason: &str) -> io::Result<()> {
        self.0.command(|link| link.close(code, reason))
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.0.lock().connection.link.is_open()
    }

    /// Sends without a wait: what there is no room for is sent by a task of its own. `false`:
    /// the WebSocket is closed, or so much waits to be sent that the message was not taken.
    pub(super) fn post(&self, message: &Prepared) -> bool {
        let mut state = self.0.lock();
        if state.connection.link.send_prepared(message).is_err() {
            return false;
        }
        if state.flushing {
            return true;
        }
        match state.connection.try_flush() {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                state.flushing = true;
                drop(state);
                let sender = self.clone();
                let spawned = crate::spawn(move || {
                    // A peer that is gone is seen by who receives.
                    let _ = sender.0.flush(None);
                    sender.0.lock().flushing = false;
                });
                spawned.is_ok()
            }
            Err(_) => false,
        }
    }
}

impl Sender {
    /// The peer is too slow: it is told so if it listens, and who receives sees the end.
    pub(super) fn give_up(&self) {
        let mut state = self.0.lock();
        let connection = &mut state.connection;
        // "1013 [...] Try Again Later"
        let _ = connection.link.close(1013, "");
        let _ = connection.try_flush();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command(&self, command: impl FnOnce(&mut Link<Peer>) -> Result<(), Misuse>) -> io::Result<()> {
        command(&mut self.lock().connection.link)?;
        self.flush(None)
    }

    /// Sends everything. Reads meanwhile if nobody else does: a peer that has to get rid of its
    /// own bytes before it takes ours must not be waited for in vain.
    ///
    /// Who only sends never looks whether a ping was answered, so the peer is lost, too, when it
    /// takes nothing for as long.
    fn flush(&self, until: Option<Instant>) -> io::Result<()> {
        let mut stands: Option<(u64, Option<Instant>)> = None;
        loop {
            let mut state = self.lock();
            match state.connection.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let mut interest = Interest::Writable;
            let State { connection, receiving, .. } = &mut *state;
            if !*receiving && connection.link.wants_input() && connection.link.unread() < AHEAD {
                match connection.try_fill(READ) {
                    Ok(()) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => interest = Interest::Both,
                    // Who receives sees it.
                    Err(_) => {}
                }
            }
            let sent = connection.link.sent();
            drop(state);
            let (_, lost) = match stands {
                Some(at) if at.0 == sent => at,
                _ => *stands.insert((sent, self.patience.map(|patience| Instant::now() + patience))),
            };
            let waited = self.waiter.wait(interest, [until, lost].into_iter().flatten().min());
            match waited {
                Err(error) if Interrupt::of(&error) == Some(Interrupt::Deadline) => {
                    let now = Instant::now();
                    let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
                    if passed(until) || !passed(lost) {
                        return Err(error);
                    }
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the peer takes nothing of what it is sent",
                    ));
                }
                waited => waited?,
            }
        }
    }

    /// Reads once, or lets a deadline of the machine pass.
    fn fill(&self) -> io::Result<()> {
        let (interest, until) = {
            let mut state = self.lock();
            let connection = &mut state.connection;
            let interest = match connection.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Interest::Both,
                // What cannot be sent any more does not keep us from reading what came.
                _ => Interest::Readable,
            };
            match connection.try_fill(READ) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that is gone has closed, in its way; the machine says what that means.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    connection.link.receive_eof();
                    return Ok(());
                }
                result => return result,
            }
            let until = connection.link.poll_timeout();
            state.receiving = true;
            (interest, until)
        };
        let waited = self.waiter.wait(interest, until);
        let mut state = self.lock();
        state.receiving = false;
        match waited {
            Err(error) if Interrupt::of(&error) == Some(Interrupt::Deadline) => {
                let now = Instant::now();
                if until.is_none_or(|until| until > now) {
                    return Err(error);
                }
                let kept = state.connection.link.handle_timeout(now);
                let _ = state.connection.try_flush();
                // An enclosing deadline that passed too is met by the next wait.
                Ok(kept?)
            }
            waited => waited,
        }
    }

    /// Sends the last bytes, if they can be sent, and shuts the stream down.
    fn end(&self) {
        let _ = self.flush(Some(Instant::now() + LAST));
        // The peer sees the end, whoever still has a sender.
        self.lock().shut();
    }
}

impl State {
    /// Shuts the sending side down, without a wait.
    fn shut(&mut self) {
        let stream = &mut self.connection.stream;
        stream.timeouts_mut().deadline = Some(Instant::now());
        let _ = stream.shutdown();
    }
}

impl Payload<'_> {
    fn put(self, link: &mut Link<Peer>) -> Result<(), Misuse> {
        match self {
            Self::Text(text) => link.send_text(text),
            Self::Binary(data) => link.send_binary(data),
            Self::Prepared(message) => link.send_prepared(message),
        }
    }

    /// Encoded for many.
    pub(super) fn prepare(self) -> Prepared {
        match self {
            Self::Text(text) => Prepared::text(text),
            Self::Binary(data) => Prepared::binary(data),
            Self::Prepared(message) => message.clone(),
        }
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Payload<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(data: &'a [u8]) -> Self {
        Self::Binary(data)
    }
}

impl<'a> From<&'a Vec<u8>> for Payload<'a> {
    fn from(data: &'a Vec<u8>) -> Self {
        Self::Binary(data)
    }
}

impl<'a> From<&'a Message> for Payload<'a> {
    fn from(message: &'a Message) -> Self {
        match message {
            Message::Text(text) => Self::Text(text),
            Message::Binary(data) => Self::Binary(data),
        }
    }
}

impl<'a> From<&'a Prepared> for Payload<'a> {
    fn from(message: &'a Prepared) -> Self {
        Self::Prepared(message)
    }
}
