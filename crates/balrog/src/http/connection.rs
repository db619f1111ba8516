use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use balrog_proto::http1::{BodyLength, Client as Machine, ClientEvent, Limits};
use balrog_proto::{Link, Step};

use crate::http::{Error, Phase, Proxy, Request};
use crate::net::{TcpStream, resolve};
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
    host: String,
    port: u16,
    tls: Option<TlsConfig>,
    proxy: Option<Proxy>,
    owner: u64,
}

impl Key {
    fn of(request: &Request<'_>) -> Self {
        let (host, port) = request.forwarder().unwrap_or((request.host, request.port));
        Self {
            host: host.to_owned(),
            port,
            tls: request.tls.cloned(),
            proxy: request.tunnel().cloned(),
            owner: request.owner,
        }
    }

    pub(crate) fn fits(&self, request: &Request<'_>) -> bool {
        let tls = match (&self.tls, request.tls) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.same(theirs),
            _ => false,
        };
        let (host, port) = request.forwarder().unwrap_or((request.host, request.port));
        tls && self.port == port
            && self.host.eq_ignore_ascii_case(host)
            && self.owner == request.owner
            && self.proxy.as_ref() == request.tunnel()
    }

    pub(crate) fn same_host(&self, other: &Self) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }
}

fn limits() -> &'static Arc<Limits> {
    static LIMITS: OnceLock<Arc<Limits>> = OnceLock::new();
    LIMITS.get_or_init(|| {
        let mut limits = Limits::default();
        (limits.head, limits.header_line, limits.start_line) = (65_000, 65_000, 16 * 1024);
        Arc::new(limits)
    })
}

impl Connection {
    pub(crate) fn open(request: &Request<'_>, deadline: Option<Instant>) -> Result<Self, Error> {
        let at = request.proxy.map(|proxy| (proxy.host.as_str(), proxy.port));
        let (host, port) = at.unwrap_or((request.host, request.port));
        let addresses = resolve(host, port, deadline).map_err(|error| {
            let malformed = error.kind() == io::ErrorKind::InvalidInput;
            Error::new(if malformed { Phase::Request } else { Phase::Resolve }, error)
        })?;
        let tcp =
            TcpStream::connect_any(addresses, deadline).map_err(|error| Error::new(Phase::Connect, error))?;
        let mut connection = Self {
            link: Link::new(Machine::new(Arc::clone(limits()))),
            stream: Stream::Plain(tcp),
            key: Key::of(request),
            reused: false,
            deaf: false,
        };
        let Some(tls) = request.tls else { return Ok(connection) };
        if let Some(proxy) = request.proxy {
            connection.tcp().deadline = deadline;
            connection.tunnel(proxy, request)?;
        }
        let Stream::Plain(mut tcp) = connection.stream else { return Ok(connection) };
        tcp.deadline = deadline;
        let mut session = tls.connect(request.host, tcp).map_err(|error| Error::new(Phase::Tls, error))?;
        session.sock.deadline = None;
        connection.stream = Stream::Tls(Box::new(session));
        connection.link = Link::new(Machine::new(Arc::clone(limits())));
        Ok(connection)
    }

    /// "CONNECT is intended for use in requests to a proxy. The recipient can establish a tunnel"
    /// (RFC 9110 section 9.3.6).
    fn tunnel(&mut self, proxy: &Proxy, request: &Request<'_>) -> Result<(), Error> {
        let failed = |error| Error::new(Phase::Proxy, error);
        let target = format!("{}:{}", request.host, request.port);
        let headers: Vec<(&[u8], &[u8])> =
            proxy.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        self.link.request("CONNECT", &target, &target, &headers, BodyLength::None).map_err(Error::misuse)?;
        self.flush().map_err(|error| failed(error.source))?;
        loop {
            let refused = match self.link.poll_event(Instant::now()) {
                Ok(Step::NeedInput) => {
                    self.fill(Phase::Proxy)?;
                    continue;
                }
                Ok(Step::Event(ClientEvent::Informational(_))) => continue,
                Ok(Step::Event(ClientEvent::Upgraded(_))) => break,
                Ok(Step::Event(ClientEvent::Response(head))) => {
                    let reason = String::from_utf8_lossy(head.reason);
                    io::Error::other(format!("it answered {} {reason}", head.status))
                }
                Ok(_) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) => error.into(),
            };
            return Err(failed(refused));
        }
        // In the tunnel it is for us to speak first.
        let _ = self.link.poll_event(Instant::now());
        if self.link.unread() > 0 {
            let early = "bytes came through the tunnel before TLS had begun";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, early)));
        }
        Ok(())
    }

    fn tcp(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &mut tls.sock,
        }
    }

    pub(crate) fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        let tcp = self.tcp();
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
        // Into the inbox, which is on the heap: a stack that is parked here has to be copied away.
        match self.stream.read(self.link.recv_space(read_size(phase))) {
            Ok(0) => {
                self.link.received(0);
                self.link.receive_eof();
            }
            Ok(n) => self.link.received(n),
            Err(error) => {
                self.link.received(0);
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
