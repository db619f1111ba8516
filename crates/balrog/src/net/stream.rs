use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use balrog_backends::{Interest, Source, offload};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, recv, send, sendmsg, socket_with,
};

use super::connect::{race, resolve};
use super::transport::{Timeouts, Transport, read_and_write};

/// A connection; see [`TcpStream`] and [`UnixStream`].
///
/// A shared reference can read and write, too, so one task may read while another writes.
pub struct Stream<S> {
    source: Arc<Source<S>>,
    /// How long its reads and writes wait.
    pub timeouts: Timeouts,
}

/// A TCP connection. Nagle's algorithm is off: what is written goes out at once.
pub type TcpStream = Stream<std::net::TcpStream>;

/// A connection between two processes of one machine.
pub type UnixStream = Stream<std::os::unix::net::UnixStream>;

impl TcpStream {
    /// Connects to `host`, a name or an address, as [`resolve`] and [`TcpStream::connect_any`] do.
    ///
    /// # Errors
    ///
    /// Theirs.
    pub fn connect(host: &str, port: u16, deadline: Option<Instant>) -> io::Result<Self> {
        Self::connect_any(resolve(host, port, deadline)?, deadline)
    }

    /// Connects to whichever of the addresses answers first. They are tried in their order, the
    /// next one when the one before has failed or 250 ms have passed (RFC 8305 section 5).
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline, else what the first address answered; an interrupt as
    /// described at [`crate::Interrupt`].
    pub fn connect_any(addresses: Vec<SocketAddr>, deadline: Option<Instant>) -> io::Result<Self> {
        race(addresses, deadline)?.try_into()
    }

    /// Who is at the other end.
    ///
    /// # Errors
    ///
    /// `NotConnected` when nobody is any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.get().peer_addr()
    }

    /// This end's address.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.get().local_addr()
    }
}

impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    fn try_from(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Messages go out whole; waiting for more to send with them only delays them.
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }
}

impl UnixStream {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// What the system reports: `NotFound`, `ConnectionRefused`, …; `TimedOut` at the deadline.
    pub fn connect(path: impl AsRef<Path>, deadline: Option<Instant>) -> io::Result<Self> {
        let path = path.as_ref();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
            Ok(()) => Ok(Self::new(socket.into())),
            // The listener's queue is full, and nothing tells when it no longer is.
            Err(Errno::AGAIN) => {
                let path = path.to_owned();
                offload(move || std::os::unix::net::UnixStream::connect(path), deadline)??.try_into()
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Two streams that are connected with each other.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        Ok((one.try_into()?, other.try_into()?))
    }
}

impl TryFrom<std::os::unix::net::UnixStream> for UnixStream {
    type Error = io::Error;

    fn try_from(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::new(stream))
    }
}

impl<S: AsFd + Send + Sync + 'static> Stream<S> {
    /// `socket` does not block.
    pub(super) fn new(socket: S) -> Self {
        Self { source: Arc::new(Source::new(socket)), timeouts: Timeouts::default() }
    }

    /// What waits for the socket while others read and write it.
    pub(super) fn source(&self) -> Arc<Source<S>> {
        Arc::clone(&self.source)
    }

    /// Whether the connection, which is idle, still is one: the peer neither closed it nor
    /// sent anything unasked.
    pub fn is_alive(&self) -> bool {
        matches!(recv(self, &mut [0][..], RecvFlags::PEEK), Err(Errno::AGAIN))
    }
}

impl<S: AsFd + Send + Sync + 'static> Transport for &Stream<S> {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| recv(*self, &mut *buffer, RecvFlags::empty()))?.0)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // A peer that is gone is an error here, and not a signal to the process.
        let flags = SendFlags::NOSIGNAL;
        Ok(match slices {
            [one] => retry_on_intr(|| send(*self, one, flags))?,
            slices => retry_on_intr(|| sendmsg(*self, slices, &mut SendAncillaryBuffer::default(), flags))?,
        })
    }

    fn shutdown(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(*self, Shutdown::Write)?)
    }

    fn wait(&mut self, interest: Interest, until: Option<Instant>) -> io::Result<()> {
        self.source.wait(interest, until)
    }

    fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
}

impl<S: AsFd + Send + Sync + 'static> Transport for Stream<S> {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).try_read(buffer)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).try_write(slices)
    }

    fn shutdown(&mut self) -> io::Result<()> {
        (&*self).shutdown()
    }

    fn wait(&mut self, interest: Interest, until: Option<Instant>) -> io::Result<()> {
        (&*self).wait(interest, until)
    }

    fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
}

read_and_write!(Stream<S>, S: AsFd + Send + Sync + 'static);
read_and_write!(&Stream<S>, S: AsFd + Send + Sync + 'static);

impl<S: AsFd + Send + Sync + 'static> AsFd for Stream<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.get().as_fd()
    }
}

impl<S: fmt::Debug> fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(5))
    }

    #[test]
    fn connects_reads_writes_and_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ours = TcpStream::connect("localhost", port, soon()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        assert!(ours.is_alive());
        ours.write_all(b"ping").unwrap();
        let mut got = [0; 4];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ping");
        ours.timeouts.read = Some(Duration::from_millis(20));
        assert_eq!(ours.read(&mut got).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(theirs);
        assert_eq!(ours.read(&mut got).unwrap(), 0);
        assert!(!ours.is_alive());
        drop(listener);
        let refused = TcpStream::connect("127.0.0.1", port, soon()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn many_slices_go_out_in_one_call() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        assert_eq!(ours.write_vectored(&slices).unwrap(), 7);
        Transport::shutdown(&mut ours).unwrap();
        let mut got = String::new();
        theirs.read_to_string(&mut got).unwrap();
        assert_eq!(got, "one two");
        drop(theirs);
        assert_eq!(ours.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_unix_socket_that_is_not_there_says_so() {
        let error = UnixStream::connect("/nowhere/at/all", soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
