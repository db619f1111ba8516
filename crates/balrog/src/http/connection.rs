use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use balrog_proto::Link;
use balrog_proto::http1::{Client as Machine, Limits};

use crate::http::{Error, Phase, Request};
use crate::net::TcpStream;
use crate::tls::{TlsConfig, TlsStream};

/// How much one read takes: a head is small, and many wait for one at the same time.
const fn read_size(phase: Phase) -> usize {
    if matches!(phase, Phase::Body) { 32 * 1024 } else { 4 * 1024 }
}

/// A connection to an HTTP server.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) link: Link<Machine>,
    stream: Stream,
    key: Key,
    reused: bool,
    /// The peer takes no more; what it may have answered is still to be read.
    deaf: bool,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// Connections with equal keys can take each other's requests.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<TlsConfig>,
}

impl Key {
    pub(crate) fn fits(&self, request: &Request<'_>) -> bool {
        let same = match (&self.tls, request.tls) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.same(theirs),
            _ => false,
        };
        same && self.port == request.port && self.host.eq_ignore_ascii_case(request.host)
    }
}

impl Connection {
    pub(crate) fn open(request: &Request<'_>, deadline: Option<Instant>) -> Result<Self, Error> {
        let tcp = TcpStream::connect(request.host, request.port, deadline)
            .map_err(|error| Error::new(Phase::Connect, error))?;
        let stream = match request.tls {
            None => Stream::Plain(tcp),
            Some(tls) => {
                let mut tcp = tcp;
                tcp.deadline = deadline;
                let mut session =
                    tls.connect(request.host, tcp).map_err(|error| Error::new(Phase::Tls, error))?;
                session.sock.deadline = None;
                Stream::Tls(Box::new(session))
            }
        };
        let mut limits = Limits::default();
        (limits.head, limits.header_line, limits.start_line) = (64_000, 32 * 1024, 16 * 1024);
        let key = Key { host: request.host.to_owned(), port: request.port, tls: request.tls.cloned() };
        Ok(Self { link: Link::new(Machine::new(limits)), stream, key, reused: false, deaf: false })
    }

    pub(crate) fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        let tcp = match &mut self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &mut tls.sock,
        };
        (tcp.read_timeout, tcp.write_timeout) = (timeout, timeout);
    }

    pub(crate) const fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) const fn is_reused(&self) -> bool {
        self.reused
    }

    pub(crate) fn set_reused(&mut self) {
        self.reused = true;
    }

    pub(crate) const fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Whether the connection, which is idle, can take a request: nothing unasked has come,
    /// neither to the socket nor to what the TLS session has taken in already.
    pub(crate) fn is_alive(&mut self) -> bool {
        match &mut self.stream {
            Stream::Plain(tcp) => tcp.is_alive(),
            Stream::Tls(tls) => {
                let quiet = tls
                    .conn
                    .process_new_packets()
                    .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed());
                quiet && tls.sock.is_alive()
            }
        }
    }

    /// Sends what is in the outbox. A peer that closed its reading side may still have
    /// answered, so that is found out by reading.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        while let Some(bytes) = self.link.transmit() {
            match self.stream.write(bytes) {
                Ok(n) => self.link.transmitted(n),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
                {
                    let rest = self.link.unsent();
                    self.link.transmitted(rest);
                    self.deaf = true;
                    return Ok(());
                }
                Err(error) => return Err(Error::new(Phase::Send, error)),
            }
        }
        self.stream.flush().map_err(|error| Error::new(Phase::Send, error))
    }

    /// Reads once into the link.
    pub(crate) fn fill(&mut self, phase: Phase) -> Result<(), Error> {
        // On the heap: a stack that is parked here has to be copied away.
        let mut buffer = vec![0; read_size(phase)];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.link.receive_eof(),
            Ok(n) => self.link.receive(&buffer[..n]),
            Err(error) => {
                let mut error = Error::new(phase, error);
                // A TLS server may close without saying so first: the end comes unexpectedly then.
                let closed = matches!(
                    error.source.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                );
                error.unanswered = self.link.is_unanswered() && closed;
                return Err(error);
            }
        }
        Ok(())
    }

    /// What the machine refused.
    pub(crate) fn broken(&self, phase: Phase, error: balrog_proto::Error) -> Error {
        let unanswered = self.link.is_unanswered() && matches!(error, balrog_proto::Error::Eof(_));
        let mut error = Error::new(phase, error.into());
        error.unanswered = unanswered;
        error
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            // Not `StreamOwned`'s own write: that drops an error of the socket, and with it a
            // cancellation.
            Self::Tls(tls) => {
                let n = tls.conn.writer().write(bytes)?;
                while tls.conn.wants_write() {
                    tls.conn.write_tls(&mut tls.sock)?;
                }
                Ok(n)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
