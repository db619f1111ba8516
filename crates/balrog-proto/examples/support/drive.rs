//! A driver for any machine over a socket of the standard library.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use balrog_proto::{Link, Machine, Transmit};

/// Sends what the link has to send, then waits for bytes from the peer or the link's deadline.
/// To be called when [`Link::poll_event`] gives no event. `false`: the connection is over.
pub(crate) fn drive<M: Machine>(link: &mut Link<M>, mut stream: &TcpStream) -> io::Result<bool> {
    while let Some(transmit) = link.poll_transmit() {
        match transmit {
            Transmit::Data(segments) => {
                let mut slices = [IoSlice::new(&[]); 16];
                let n = segments.io_slices(&mut slices);
                let sent = stream.write_vectored(&slices[..n])?;
                link.transmitted(sent);
            }
            // It fails if the peer has cut the connection; then nothing is left to shut down.
            Transmit::Shutdown => drop(stream.shutdown(Shutdown::Write)),
            Transmit::External(_) => return Err(ErrorKind::Unsupported.into()),
        }
    }
    if !link.wants_input() {
        return Ok(false);
    }
    let left = link.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
    stream.set_read_timeout(left.map(|left| left.max(Duration::from_millis(1))))?;
    match stream.read(link.recv_space(64 * 1024)) {
        Ok(0) => {
            link.received(0);
            link.receive_eof();
        }
        Ok(n) => link.received(n),
        Err(error) => {
            link.received(0);
            match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                // Nothing more comes; whether that is too early is for the machine to say.
                ErrorKind::ConnectionReset => link.receive_eof(),
                _ => return Err(error),
            }
        }
    }
    link.handle_timeout(Instant::now())?;
    Ok(true)
}
