//! System calls on a connection's descriptor.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use balrog_proto::{Link, Machine, Transmit};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// One read takes so much at most.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// Every connection of the thread reads through this one, so that an idle one has no buffer.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes; `true` if there may be more.
    Bytes(bool),
    /// The peer sends nothing more.
    Eof,
    /// Nothing yet.
    Blocked,
    /// The connection is gone.
    Gone,
}

/// What became of the bytes to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All are sent.
    All,
    /// The peer does not take more now.
    Blocked,
    /// The connection is gone.
    Gone,
}

/// Reads once into `link`.
pub(crate) fn receive<M: Machine>(fd: &OwnedFd, link: &mut Link<M>) -> Received {
    BUFFER.with_borrow_mut(|buffer| {
        let received = read(fd, buffer);
        match received {
            Ok(0) => {
                link.receive_eof();
                Received::Eof
            }
            Ok(n) => {
                link.receive(&buffer[..n]);
                Received::Bytes(n == buffer.len())
            }
            Err(Errno::AGAIN) => {
                link.shrink();
                Received::Blocked
            }
            Err(_) => Received::Gone,
        }
    })
}

/// Reads and forgets, once.
pub(crate) fn discard(fd: &OwnedFd) -> Received {
    BUFFER.with_borrow_mut(|buffer| match read(fd, buffer) {
        Ok(0) => Received::Eof,
        Ok(_) => Received::Bytes(true),
        Err(Errno::AGAIN) => Received::Blocked,
        Err(_) => Received::Gone,
    })
}

fn read(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(fd, &mut *buffer, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            result => return result.map(|(_, n)| n),
        }
    }
}

/// Sends what `link` has for the peer, as far as it goes without waiting. `external` are the
/// bytes that the link knows only the number of.
pub(crate) fn transmit<M: Machine>(fd: &OwnedFd, link: &mut Link<M>, external: &[u8]) -> Sent {
    loop {
        let (bytes, flags) = match link.poll_transmit() {
            // A head and its body are to share a packet.
            Some(Transmit::Data(mut segments)) if !external.is_empty() => {
                (segments.next().unwrap_or_default(), SendFlags::NOSIGNAL | SendFlags::MORE)
            }
            Some(Transmit::Data(mut segments)) => (segments.next().unwrap_or_default(), SendFlags::NOSIGNAL),
            Some(Transmit::External(left)) => {
                // Whoever had them has given up.
                let Some(at) = external.len().checked_sub(left) else { return Sent::Gone };
                (&external[at..], SendFlags::NOSIGNAL)
            }
            Some(Transmit::Shutdown) | None => return Sent::All,
        };
        match send(fd, bytes, flags) {
            Ok(n) => link.transmitted(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Sent::Blocked,
            Err(_) => return Sent::Gone,
        }
    }
}
