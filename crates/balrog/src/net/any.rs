use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use balrog_backends::{Interest, Source};
use balrog_sched::LocalFuture;

use super::transport::{Timeouts, Transport, read_and_write};
use super::{TcpStream, UnixStream};
use crate::tls::TlsStream;

/// A stream of whichever kind a protocol runs over.
#[derive(Debug)]
pub enum AnyStream {
    /// TCP in the clear.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AnyStream {
    /// The TCP stream under it, if there is one.
    pub const fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(&tls.transport),
            Self::Unix(_) => None,
        }
    }

    /// How long its waits may last, to be changed.
    pub const fn timeouts_mut(&mut self) -> &mut Timeouts {
        match self {
            Self::Tcp(tcp) => &mut tcp.timeouts,
            Self::Unix(unix) => &mut unix.timeouts,
            Self::Tls(tls) => &mut tls.transport.timeouts,
        }
    }

    /// Whether the connection, which is idle, still is one: the peer neither closed it nor
    /// sent anything unasked.
    pub fn is_alive(&mut self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_alive(),
            Self::Unix(unix) => unix.is_alive(),
            Self::Tls(tls) => tls.is_quiet() && tls.transport.is_alive(),
        }
    }

    /// What waits for the socket while others read and write it.
    pub(crate) fn waiter(&self) -> Waiter {
        match self {
            Self::Tcp(tcp) => Waiter::Tcp(tcp.source()),
            Self::Unix(unix) => Waiter::Unix(unix.source()),
            Self::Tls(tls) => Waiter::Tcp(tls.transport.source()),
        }
    }

    /// [`Source::ready`] for reading, after a read said `WouldBlock`. `None` also while something is
    /// still to be written.
    pub(crate) fn readable(&self) -> io::Result<Option<LocalFuture<()>>> {
        match self {
            Self::Tcp(tcp) => tcp.source().ready(Interest::Readable),
            Self::Unix(unix) => unix.source().ready(Interest::Readable),
            Self::Tls(tls) if tls.session().wants_write() => Ok(None),
            Self::Tls(tls) => tls.transport.source().ready(Interest::Readable),
        }
    }

    fn transport(&mut self) -> &mut dyn Transport {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Unix(unix) => unix,
            Self::Tls(tls) => &mut **tls,
        }
    }
}

/// Waits for an [`AnyStream`] that is shared, without having it.
#[derive(Debug)]
pub(crate) enum Waiter {
    Tcp(Arc<Source<std::net::TcpStream>>),
    Unix(Arc<Source<std::os::unix::net::UnixStream>>),
}

impl Waiter {
    /// [`Transport::wait`].
    pub(crate) fn wait(&self, interest: Interest, until: Option<Instant>) -> io::Result<()> {
        match self {
            Self::Tcp(source) => source.wait(interest, until),
            Self::Unix(source) => source.wait(interest, until),
        }
    }
}

impl Transport for AnyStream {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read(buffer),
            other => other.transport().try_read(buffer),
        }
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(slices),
            other => other.transport().try_write(slices),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        self.transport().try_flush()
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.transport().shutdown()
    }

    fn wait(&mut self, interest: Interest, until: Option<Instant>) -> io::Result<()> {
        self.transport().wait(interest, until)
    }

    fn timeouts(&self) -> Timeouts {
        match self {
            Self::Tcp(tcp) => tcp.timeouts,
            Self::Unix(unix) => unix.timeouts,
            Self::Tls(tls) => tls.transport.timeouts,
        }
    }
}

read_and_write!(AnyStream);

impl From<TcpStream> for AnyStream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for AnyStream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl From<TlsStream<TcpStream>> for AnyStream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(stream))
    }
}
