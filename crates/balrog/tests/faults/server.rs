//! What clients do to the server: it serves the next one, and keeps nothing of theirs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use balrog::http::Method;
use balrog::net::TcpListener;
use balrog::offload;
use rustix::net::sockopt;

use crate::in_every_mode;
use crate::site::Site;
use crate::until::LONG;

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Close,
    Reset,
    /// It says nothing more, and listens on.
    Half,
}

/// Talks on a thread of its own, with system calls that block.
fn client<T: Send + 'static>(
    site: &Site,
    talk: impl FnOnce(TcpStream) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let port = site.at.port;
    let talk = move || {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LONG))?;
        talk(stream)
    };
    offload(talk, None)?
}

fn leave(stream: &TcpStream, how: Leave) -> io::Result<()> {
    match how {
        Leave::Close => Ok(()),
        Leave::Reset => Ok(sockopt::set_socket_linger(stream, Some(Duration::ZERO))?),
        Leave::Half => {
            stream.shutdown(Shutdown::Write)?;
            let mut rest = Vec::new();
            let ended = { stream }.read_to_end(&mut rest);
            // Nothing is answered twice, and a request that is not whole is not answered 200.
            assert!(ended.is_err() || !rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
            Ok(())
        }
    }
}

/// A client leaves in the middle of a request, wherever that is.
#[test]
fn a_request_that_is_cut() {
    in_every_mode(|| {
        let site = Site::new(false)?;
        let request = b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nhalf of thirty";
        for how in [Leave::Close, Leave::Reset, Leave::Half] {
            for behind in (0..=request.len()).step_by(7) {
                client(&site, move |mut stream| {
                    stream.write_all(&request[..behind])?;
                    leave(&stream, how)
                })?;
            }
            site.at.echo(Method::PUT, 1, 100)?;
        }
        site.stop()
    });
}

/// Clients that reset a connection before it is accepted: neither an error of the listener nor a
/// rest of its own, which would make others wait.
#[test]
fn a_connection_that_is_reset_before_it_is_accepted() {
    in_every_mode(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let talk = move || {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            let address = stream.local_addr()?;
            leave(&stream, Leave::Reset)?;
            io::Result::Ok(address)
        };
        for _ in 0..3 {
            let address = offload(talk, None)??;
            let (mut stream, peer) = listener.accept()?;
            assert_eq!(peer, address);
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        Ok(())
    });
}

/// A client leaves in the middle of an answer, of one and of several that it asked for at once.
#[test]
fn an_answer_that_is_cut() {
    in_every_mode(|| {
        let site = Site::new(false)?;
        let request = "GET /bytes?7&3000000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
        for how in [Leave::Close, Leave::Reset] {
            for behind in [1, 100, 5_000, 1_000_000] {
                let request = request.clone();
                client(&site, move |mut stream| {
                    stream.write_all(request.as_bytes())?;
                    stream.read_exact(&mut vec![0; behind])?;
                    leave(&stream, how)
                })?;
            }
            site.at.echo(Method::PUT, 1, 100)?;
        }
        site.stop()
    });
}

/// The same of WebSockets: in the middle of a frame, and of what is sent back.
#[test]
fn a_websocket_that_is_cut() {
    in_every_mode(|| {
        let site = Site::new(false)?;
        let handshake = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        // Masked by zeros: 60,000 bytes in one frame.
        let mut frame = vec![0x82, 0xfe, 0xea, 0x60, 0, 0, 0, 0];
        frame.resize(8 + 60_000, 7);
        for how in [Leave::Close, Leave::Reset] {
            for behind in [0, 1, 3, 7, 8, 9, 30_000, frame.len()] {
                let frame = frame.clone();
                client(&site, move |mut stream| {
                    stream.write_all(handshake)?;
                    stream.write_all(&frame[..behind])?;
                    stream.read_exact(&mut [0; 12])?;
                    leave(&stream, how)
                })?;
            }
            site.at.chat(1, 2, 100)?;
        }
        site.stop()
    });
}
