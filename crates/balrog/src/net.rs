//! TCP streams that wait through the thread's backend.

mod connect;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use balrog_backends::{Interest, wait_io};

pub use connect::resolve;

/// A connection whose reads and writes wait no longer than their time-outs.
#[derive(Debug)]
pub struct TcpStream {
    inner: std::net::TcpStream,
    /// How long a read waits for the first byte; `None`: as long as it takes.
    pub read_timeout: Option<Duration>,
    /// How long a write waits for room.
    pub write_timeout: Option<Duration>,
    /// Until when any wait may last, whatever its time-out: for an exchange as a whole.
    pub deadline: Option<Instant>,
}

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
    /// described at [`balrog_sched::Interrupt`].
    pub fn connect_any(addresses: Vec<std::net::SocketAddr>, deadline: Option<Instant>) -> io::Result<Self> {
        let inner = connect::race(addresses, deadline)?;
        // Requests go out whole; waiting for more to send with them only delays them.
        inner.set_nodelay(true)?;
        Ok(Self { inner, read_timeout: None, write_timeout: None, deadline: None })
    }

    /// Whether the connection, which is idle, still is one: the peer neither closed it nor
    /// sent anything unasked.
    pub fn is_alive(&self) -> bool {
        matches!(self.inner.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads what is there already, without a wait.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when that is nothing.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }

    fn wait(
        &self,
        interest: Interest,
        timeout: Option<Duration>,
        since: &mut Option<Instant>,
    ) -> io::Result<()> {
        let start = *since.get_or_insert_with(Instant::now);
        let until = timeout.and_then(|timeout| start.checked_add(timeout));
        let until = [until, self.deadline].into_iter().flatten().min();
        Ok(wait_io(self.inner.as_fd(), interest, until)?)
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut since = None;
        loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(Interest::Readable, self.read_timeout, &mut since)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut since = None;
        loop {
            match self.inner.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(Interest::Writable, self.write_timeout, &mut since)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connects_reads_writes_and_times_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let deadline = Some(Instant::now() + Duration::from_secs(5));
        let mut ours = TcpStream::connect("localhost", port, deadline).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        assert!(ours.is_alive());
        ours.write_all(b"ping").unwrap();
        let mut got = [0; 4];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ping");
        ours.read_timeout = Some(Duration::from_millis(20));
        assert_eq!(ours.read(&mut got).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(theirs);
        assert_eq!(ours.read(&mut got).unwrap(), 0);
        assert!(!ours.is_alive());
        drop(listener);
        let refused = TcpStream::connect("127.0.0.1", port, deadline).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
