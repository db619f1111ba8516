use std::io::{self, IoSlice, Read, Write};
use std::time::Instant;

use balrog_backends::Interest;
use rustls::Connection;

use crate::net::{Timeouts, Transport, read_and_write};

/// An encrypted connection over another stream.
#[derive(Debug)]
pub struct TlsStream<T> {
    session: Connection,
    /// What the records go over.
    pub transport: T,
}

impl<T: Transport> TlsStream<T> {
    /// Does the handshake.
    ///
    /// # Errors
    ///
    /// `InvalidData` when the peer's certificate or its messages are not sound, and what the
    /// transport reports.
    pub(super) fn handshake(session: Connection, transport: T) -> io::Result<Self> {
        let mut stream = Self { session, transport };
        while stream.session.is_handshaking() {
            stream.flush()?;
            if stream.session.wants_read() {
                crate::net::retry(&mut stream, Interest::Readable, Self::receive)?;
            }
        }
        stream.flush()?;
        Ok(stream)
    }

    /// The session: what was negotiated, the peer's certificates.
    pub const fn session(&self) -> &Connection {
        &self.session
    }

    /// The `tls-server-end-point` of the session (RFC 5929), which a log-in inside of it can be bound
    /// to. `None` when the peer's certificate defines none, as with a signature by Ed25519.
    pub fn server_end_point(&self) -> Option<Vec<u8>> {
        super::end_point::of(self.session.peer_certificates()?.first()?)
    }

    /// Whether nothing has come that was not read, the end included.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.session
            .process_new_packets()
            .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
    }

    /// Takes in what the transport has, once.
    fn receive(&mut self) -> io::Result<()> {
        let n = self.session.read_tls(&mut Attempt(&mut self.transport))?;
        if let Err(error) = self.session.process_new_packets() {
            // The peer is told why, if it still listens.
            let _ = self.send();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if n == 0 && self.session.is_handshaking() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Attempt(&mut self.transport))?;
        }
        Ok(())
    }
}

impl<T: Transport> Transport for TlsStream<T> {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Without the peer's good-bye an end is `UnexpectedEof`: it may be a cut.
                result => return result,
            }
            // An answer to the peer, such as new keys, must not wait for the next write.
            match self.send() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            self.receive()?;
        }
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // Records that did not go out yet come first, so that they cannot pile up.
        self.send()?;
        let n = self.session.writer().write_vectored(slices)?;
        match self.send() {
            // They are the stream's now; whoever waits next sends them.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(n),
            sent => sent.map(|()| n),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.transport.try_flush()
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        self.flush()?;
        self.transport.shutdown()
    }

    fn wait(&mut self, interest: Interest, until: Option<Instant>) -> io::Result<()> {
        let interest = if self.session.wants_write() && interest == Interest::Readable {
            Interest::Both
        } else {
            interest
        };
        self.transport.wait(interest, until)
    }

    fn timeouts(&self) -> Timeouts {
        self.transport.timeouts()
    }
}

read_and_write!(TlsStream<T>, T: Transport);

/// A transport as rustls sees it: what would block is an error.
struct Attempt<'a, T>(&'a mut T);

impl<T: Transport> Read for Attempt<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl<T: Transport> Write for Attempt<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
