//! TCP streams that wait through the thread's backend.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use balrog_backends::{Interest, offload, wait_io};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

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
    /// Connects to `host`, a name or an address, trying each of its addresses in turn.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline, else what the last address answered; an interrupt as
    /// described at [`balrog_sched::Interrupt`].
    pub fn connect(host: &str, port: u16, deadline: Option<Instant>) -> io::Result<Self> {
        let addresses = resolve(host, port, deadline)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        let count = addresses.len();
        for (index, address) in addresses.into_iter().enumerate() {
            // An address that does not answer must leave time for the others.
            let left = (count - index) as u32;
            let until =
                deadline.map(|at| Instant::now() + at.saturating_duration_since(Instant::now()) / left);
            match connect_to(address, until) {
                Ok(stream) => return Ok(stream),
                Err(error)
                    if balrog_sched::Interrupt::of(&error)
                        .is_some_and(|it| it != balrog_sched::Interrupt::Deadline) =>
                {
                    return Err(error);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether the connection, which is idle, still is one: the peer neither closed it nor
    /// sent anything unasked.
    pub fn is_alive(&self) -> bool {
        matches!(self.inner.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
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

/// The addresses of a host name; looked up off the scheduler's thread, with a deadline.
fn resolve(host: &str, port: u16, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = bare.to_owned();
    offload(move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect), deadline)?
}

fn connect_to(address: SocketAddr, deadline: Option<Instant>) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            wait_io(socket.as_fd(), Interest::Writable, deadline)?;
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let inner = std::net::TcpStream::from(socket);
    // Requests go out whole; waiting for more to send with them only delays them.
    inner.set_nodelay(true)?;
    Ok(TcpStream { inner, read_timeout: None, write_timeout: None, deadline: None })
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
