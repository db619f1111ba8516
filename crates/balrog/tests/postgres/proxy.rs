//! Sits between a client and the server, and spoils what the server says.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;

/// What happens once so many more bytes of the server's have gone through, of all connections.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The connection ends.
    Close,
    /// It is reset (RST).
    Reset,
    /// Nothing more comes, and nobody says so.
    Silence,
    /// It goes on after this time.
    Pause(Duration),
    /// Each piece has so many bytes at most.
    Dribble(usize),
}

struct State {
    fault: Fault,
    /// Bytes up to it.
    left: usize,
}

/// The proxy; it lives as long as the tests.
#[derive(Clone)]
pub(crate) struct Proxy {
    state: Arc<Mutex<State>>,
    /// Where clients connect to, on 127.0.0.1.
    pub(crate) port: u16,
}

impl Proxy {
    /// In front of the server with this Unix socket.
    pub(crate) fn new(socket: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(Mutex::new(State { fault: Fault::None, left: 0 }));
        let proxy = Self { state, port: listener.local_addr().unwrap().port() };
        let ours = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                let proxy = ours.clone();
                thread::spawn(move || proxy.serve(Arc::new(client), &server));
            }
        });
        proxy
    }

    /// From now on, behind so many bytes.
    pub(crate) fn set(&self, fault: Fault, behind: usize) {
        *self.state() = State { fault, left: behind };
    }

    /// Whether the fault has not happened yet.
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self.state().fault, Fault::None)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, client: Arc<TcpStream>, server: &UnixStream) {
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (there, to_server, ended) = (Arc::clone(&client), server.try_clone().unwrap(), Arc::clone(&over));
        let requests = thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while !ended.load(Ordering::Relaxed) {
                match (&*there).read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => match (&to_server).write_all(&buffer[..n]) {
                        Ok(()) => {}
                        Err(_) => break,
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let _ = self.answers(&client, server);
        over.store(true, Ordering::Relaxed);
        let _ = server.shutdown(Shutdown::Both);
        // The last one to hold it closes it, by which it is reset.
        let _ = requests.join();
    }

    fn answers(&self, mut client: &TcpStream, mut server: &UnixStream) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let n = match server.read(&mut buffer)? {
                0 => return client.shutdown(Shutdown::Write),
                n => n,
            };
            let mut piece = &buffer[..n];
            while !piece.is_empty() {
                let (fault, now) = {
                    let mut state = self.state();
                    let now = match state.fault {
                        Fault::None => piece.len(),
                        Fault::Dribble(most) => most.min(piece.len()),
                        _ => state.left.min(piece.len()),
                    };
                    if !matches!(state.fault, Fault::Dribble(_)) {
                        state.left = state.left.saturating_sub(now);
                    }
                    let fault = if now < piece.len() { state.fault } else { Fault::None };
                    if !matches!(fault, Fault::None | Fault::Dribble(_)) {
                        state.fault = Fault::None;
                    }
                    (fault, now)
                };
                client.write_all(&piece[..now])?;
                piece = &piece[now..];
                match fault {
                    Fault::None | Fault::Dribble(_) => {}
                    Fault::Pause(time) => thread::sleep(time),
                    Fault::Close => return client.shutdown(Shutdown::Both),
                    Fault::Reset => return Ok(sockopt::set_socket_linger(client, Some(Duration::ZERO))?),
                    Fault::Silence => {
                        while server.read(&mut buffer)? > 0 {}
                        return Ok(());
                    }
                }
            }
        }
    }
}
