use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use balrog_proto::http1::{BodyLength, Client as Machine, ClientEvent, Limits};
use balrog_proto::{Link, Step};

use crate::drive;
use crate::http::{Error, Phase, Proxy, Request};
use crate::net::{AnyStream, TcpStream, resolve};
use crate::tls::TlsConfig;

/// How much one read takes: a head is small, and many wait for one at the same time.
const fn read_size(phase: Phase) -> usize {
    if matches!(phase, Phase::Body) { 32 * 1024 } else { 4 * 1024 }
}

/// A connection to an HTTP server.
#[derive(Debug)]
pub(crate) struct Connection {
    inner: drive::Connection<Machine>,
    key: Key,
    reused: bool,
    /// The peer takes no more; what it may have answered is still to be read.
    deaf: bool,
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
        let mut tcp =
            TcpStream::connect_any(addresses, deadline).map_err(|error| Error::new(Phase::Connect, error))?;
        let Some(tls) = request.tls else { return Ok(Self::new(tcp, request)) };
        tcp.timeouts.deadline = deadline;
        if let Some(proxy) = request.proxy {
            tcp = tunnel(proxy, request, tcp)?;
        }
        let mut session = tls.connect(request.host, tcp).map_err(|error| Error::new(Phase::Tls, error))?;
        session.transport.timeouts.deadline = None;
        Ok(Self::new(session, request))
    }

    fn new(stream: impl Into<AnyStream>, request: &Request<'_>) -> Self {
        let inner = drive::Connection::new(Machine::new(Arc::clone(limits())), stream);
        Self { inner, key: Key::of(request), reused: false, deaf: false }
    }

    pub(crate) const fn link(&mut self) -> &mut Link<Machine> {
        &mut self.inner.link
    }

    pub(crate) fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        let timeouts = self.inner.stream.timeouts_mut();
        (timeouts.read, timeouts.write) = (timeout, timeout);
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
        self.inner.stream.is_alive()
    }

    /// Sends what is in the outbox. A peer that closed its reading side may still have
    /// answered, so that is found out by reading.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self.inner.flush() {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                let rest = self.inner.link.unsent();
                self.inner.link.transmitted(rest);
                self.deaf = true;
                Ok(())
            }
            sent => sent.map_err(|error| Error::new(Phase::Send, error)),
        }
    }

    /// Reads once into the link.
    pub(crate) fn fill(&mut self, phase: Phase) -> Result<(), Error> {
        self.inner.fill(read_size(phase)).map_err(|error| {
            let mut error = Error::new(phase, error);
            // A TLS server may close without saying so first: the end comes unexpectedly then.
            let closed =
                matches!(error.source.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof);
            error.unanswered = self.inner.link.is_unanswered() && closed;
            error
        })
    }

    /// What the machine refused.
    pub(crate) fn broken(&self, phase: Phase, error: balrog_proto::Error) -> Error {
        let unanswered = self.inner.link.is_unanswered() && matches!(error, balrog_proto::Error::Eof(_));
        let mut error = Error::new(phase, error.into());
        error.unanswered = unanswered;
        error
    }
}

/// "CONNECT is intended for use in requests to a proxy. The recipient can establish a tunnel"
/// (RFC 9110 section 9.3.6).
fn tunnel(proxy: &Proxy, request: &Request<'_>, tcp: TcpStream) -> Result<TcpStream, Error> {
    let failed = |error| Error::new(Phase::Proxy, error);
    let mut connection = drive::Connection::new(Machine::new(Arc::clone(limits())), tcp);
    let target = format!("{}:{}", request.host, request.port);
    let headers: Vec<(&[u8], &[u8])> =
        proxy.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let link = &mut connection.link;
    link.request("CONNECT", &target, &target, &headers, BodyLength::None).map_err(Error::misuse)?;
    let answer = connection.event(read_size(Phase::Proxy), |step| match step {
        Step::Event(ClientEvent::Informational(_)) => None,
        Step::Event(ClientEvent::Upgraded(_)) => Some(Ok(())),
        Step::Event(ClientEvent::Response(head)) => {
            let reason = String::from_utf8_lossy(head.reason);
            Some(Err(io::Error::other(format!("it answered {} {reason}", head.status))))
        }
        _ => Some(Err(io::ErrorKind::UnexpectedEof.into())),
    });
    answer.and_then(|answer| answer).map_err(failed)?;
    // In the tunnel it is for us to speak first.
    if connection.link.unread() > 0 {
        let early = "bytes came through the tunnel before TLS had begun";
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, early)));
    }
    match connection.stream {
        AnyStream::Tcp(tcp) => Ok(tcp),
        _ => unreachable!("it was made of one"),
    }
}
