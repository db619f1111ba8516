use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use balrog_backends::{Interest, Source};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with, sockopt};

use super::{TcpStream, UnixStream};

/// How to listen.
#[derive(Debug, Clone, Copy)]
pub struct Listen {
    /// How many connections may wait to be accepted; the system has a limit of its own
    /// (`net.core.somaxconn`). Default: 1,024.
    pub backlog: u32,
    /// Whether several listeners, one a thread, share the address: the system spreads the
    /// connections (`SO_REUSEPORT`). Default: no.
    pub reuse_port: bool,
}

impl Default for Listen {
    fn default() -> Self {
        Self { backlog: 1024, reuse_port: false }
    }
}

impl Listen {
    /// Listens at the first of the addresses that can be had.
    ///
    /// # Errors
    ///
    /// `AddrInUse`, `PermissionDenied`, … for the last of them.
    pub fn tcp(self, address: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        for address in address.to_socket_addrs()? {
            match self.bind(address) {
                Ok(socket) => return Ok(TcpListener(Source::new(socket.into()))),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to listen at")))
    }

    fn bind(self, address: SocketAddr) -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // A server that starts again must not wait for the connections of the one before.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, self.reuse_port)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, self.backlog.try_into().unwrap_or(i32::MAX))?;
        Ok(socket)
    }
}

/// Accepts TCP connections.
#[derive(Debug)]
pub struct TcpListener(Source<std::net::TcpListener>);

impl TcpListener {
    /// Listens at `address` with the defaults of [`Listen`]; port 0 is any free one.
    ///
    /// # Errors
    ///
    /// As [`Listen::tcp`].
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Listen::default().tcp(address)
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// What the system reports (`EMFILE`: out of descriptors), and interrupts. A peer that was
    /// gone before it was accepted is passed over.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept_until(None)
    }

    /// As [`TcpListener::accept`], until `deadline`.
    ///
    /// # Errors
    ///
    /// `TimedOut`, and as [`TcpListener::accept`].
    pub fn accept_until(&self, deadline: Option<Instant>) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer) = accept(&self.0, deadline)?;
        let peer = peer.ok_or(Errno::AFNOSUPPORT)?.try_into()?;
        Ok((std::net::TcpStream::from(socket).try_into()?, peer))
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get().local_addr()
    }
}

impl TryFrom<std::net::TcpListener> for TcpListener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(Source::new(listener)))
    }
}

/// Accepts connections at a path.
#[derive(Debug)]
pub struct UnixListener(Source<std::os::unix::net::UnixListener>);

impl UnixListener {
    /// Listens at `path`, which must not be there yet and stays when the listener is dropped.
    ///
    /// # Errors
    ///
    /// `AddrInUse`, `PermissionDenied`, ….
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        std::os::unix::net::UnixListener::bind(path)?.try_into()
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::accept`].
    pub fn accept(&self) -> io::Result<UnixStream> {
        self.accept_until(None)
    }

    /// As [`UnixListener::accept`], until `deadline`.
    ///
    /// # Errors
    ///
    /// `TimedOut`, and as [`TcpListener::accept`].
    pub fn accept_until(&self, deadline: Option<Instant>) -> io::Result<UnixStream> {
        std::os::unix::net::UnixStream::from(accept(&self.0, deadline)?.0).try_into()
    }
}

impl TryFrom<std::os::unix::net::UnixListener> for UnixListener {
    type Error = io::Error;

    fn try_from(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(Source::new(listener)))
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get().as_fd()
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get().as_fd()
    }
}

/// A connection, and whose it is: a peer that has reset it by now cannot be asked any more.
fn accept<L: AsFd + Send + Sync + 'static>(
    source: &Source<L>,
    deadline: Option<Instant>,
) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        match retry_on_intr(|| acceptfrom_with(source.get(), flags)) {
            Ok(accepted) => return Ok(accepted),
            Err(Errno::AGAIN) => source.wait(Interest::Readable, deadline)?,
            Err(Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
