use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};

use balrog_backends::{Interest, Source};

use super::Timeouts;

/// Datagrams.
#[derive(Debug)]
pub struct UdpSocket {
    source: Source<std::net::UdpSocket>,
    /// How long it waits to send and to receive.
    pub timeouts: Timeouts,
}

impl UdpSocket {
    /// A socket at `address`; port 0 is any free one.
    ///
    /// # Errors
    ///
    /// `AddrInUse`, `PermissionDenied`, ….
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        std::net::UdpSocket::bind(address)?.try_into()
    }

    /// Sends to `address` from now on, and receives from there alone.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn connect(&self, address: impl ToSocketAddrs) -> io::Result<()> {
        self.source.get().connect(address)
    }

    /// Sends a datagram to whom the socket is connected with.
    ///
    /// # Errors
    ///
    /// What the system reports, `TimedOut`, and interrupts.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.retry(Interest::Writable, |socket| socket.send(datagram))
    }

    /// Sends a datagram to `address`.
    ///
    /// # Errors
    ///
    /// As [`UdpSocket::send`].
    pub fn send_to(&self, datagram: &[u8], address: SocketAddr) -> io::Result<usize> {
        self.retry(Interest::Writable, |socket| socket.send_to(datagram, address))
    }

    /// Receives a datagram; what is longer than `buffer` is cut.
    ///
    /// # Errors
    ///
    /// As [`UdpSocket::send`].
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(Interest::Readable, |socket| socket.recv(buffer))
    }

    /// Receives a datagram and learns who sent it.
    ///
    /// # Errors
    ///
    /// As [`UdpSocket::send`].
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.retry(Interest::Readable, |socket| socket.recv_from(buffer))
    }

    /// This end's address.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.get().local_addr()
    }

    fn retry<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(&std::net::UdpSocket) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut until = None;
        loop {
            match call(self.source.get()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let until = *until.get_or_insert_with(|| self.timeouts.until(interest));
                    self.source.wait(interest, until)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl TryFrom<std::net::UdpSocket> for UdpSocket {
    type Error = io::Error;

    fn try_from(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { source: Source::new(socket), timeouts: Timeouts::default() })
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.get().as_fd()
    }
}
