//! Sits between a client and a server, and spoils what one of them says.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

/// How soon one direction sees that the other one is over.
const TICK: Duration = Duration::from_millis(5);
/// How long a silent connection is kept once there is nobody to tell of it.
const HALF_OPEN: Duration = Duration::from_secs(12);

/// What happens once so many more bytes have gone through, of all connections.
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

/// Whose bytes count, and are spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Client,
    Server,
}

struct State {
    fault: Fault,
    of: Of,
    /// Bytes up to it.
    left: usize,
}

/// The proxy; it ends when this is dropped, and its connections by themselves.
pub(crate) struct Proxy {
    state: Arc<Mutex<State>>,
    /// Where clients connect to, on 127.0.0.1.
    pub(crate) port: u16,
    over: Arc<AtomicBool>,
}

/// Both ends of a connection. A descriptor is all that they need, so the type may be either's.
struct Ends {
    client: UnixStream,
    server: UnixStream,
    over: AtomicBool,
}

impl Ends {
    /// Calls `attempt` until it comes to something, or everything is over.
    fn retry(&self, mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if self.over.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

impl Proxy {
    /// In front of whom `connect` connects with.
    pub(crate) fn new<S: Into<OwnedFd>>(connect: impl Fn() -> io::Result<S> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { fault: Fault::None, of: Of::Server, left: 0 }));
        let over = Arc::new(AtomicBool::new(false));
        let (ours, ended) = (Arc::clone(&state), Arc::clone(&over));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = connect() else { continue };
                let (state, server) = (Arc::clone(&ours), server.into());
                thread::spawn(move || serve(&state, client, server.into()));
            }
        });
        Self { state, port, over }
    }

    /// From now on, behind so many bytes of the server's.
    pub(crate) fn set(&self, fault: Fault, behind: usize) {
        self.set_of(Of::Server, fault, behind);
    }

    /// From now on, behind so many bytes of this side's.
    pub(crate) fn set_of(&self, of: Of, fault: Fault, behind: usize) {
        *self.state() = State { fault, of, left: behind };
    }

    /// Whether the fault has not happened yet.
    #[allow(dead_code, reason = "not everybody who has this module asks")]
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self.state().fault, Fault::None)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(state: &Arc<Mutex<State>>, client: TcpStream, server: UnixStream) {
    client.set_nodelay(true).unwrap();
    let client: UnixStream = OwnedFd::from(client).into();
    for end in [&client, &server] {
        end.set_read_timeout(Some(TICK)).unwrap();
        end.set_write_timeout(Some(TICK)).unwrap();
    }
    let ends = Arc::new(Ends { client, server, over: AtomicBool::new(false) });
    let (ours, theirs) = (Arc::clone(state), Arc::clone(&ends));
    let requests = thread::spawn(move || {
        if !matches!(pump(&ours, Of::Client, &theirs), Ok(())) {
            theirs.over.store(true, Ordering::Relaxed);
        }
    });
    let _ = pump(state, Of::Server, &ends);
    ends.over.store(true, Ordering::Relaxed);
    // The last one to hold them closes them, by which they may be reset.
    let _ = requests.join();
}

/// Passes on what `of` says. `Ok`: it has said everything.
fn pump(state: &Mutex<State>, of: Of, ends: &Ends) -> io::Result<()> {
    let (mut from, mut to) = match of {
        Of::Client => (&ends.client, &ends.server),
        Of::Server => (&ends.server, &ends.client),
    };
    let broken = || Err(io::ErrorKind::ConnectionAborted.into());
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = ends.retry(|| from.read(&mut buffer))?;
        if n == 0 {
            return to.shutdown(Shutdown::Write);
        }
        let mut piece = &buffer[..n];
        while !piece.is_empty() {
            let (fault, now) = lock(state).next(of, piece.len());
            let (mut first, rest) = piece.split_at(now);
            while !first.is_empty() {
                first = &first[ends.retry(|| to.write(first))?..];
            }
            piece = rest;
            match fault {
                Fault::None | Fault::Dribble(_) => {}
                Fault::Pause(time) => thread::sleep(time),
                Fault::Close => {
                    to.shutdown(Shutdown::Both)?;
                    return broken();
                }
                Fault::Reset => {
                    sockopt::set_socket_linger(to, Some(Duration::ZERO))?;
                    return broken();
                }
                Fault::Silence => {
                    while ends.retry(|| from.read(&mut buffer))? > 0 {}
                    let until = Instant::now() + HALF_OPEN;
                    while Instant::now() < until && !ends.over.load(Ordering::Relaxed) {
                        thread::sleep(TICK);
                    }
                    return broken();
                }
            }
        }
    }
}

impl State {
    /// What happens to `length` bytes of `of`'s, behind so many of them.
    fn next(&mut self, of: Of, length: usize) -> (Fault, usize) {
        if self.of != of {
            return (Fault::None, length);
        }
        let now = match self.fault {
            Fault::None => length,
            Fault::Dribble(most) => most.min(length),
            _ => self.left.min(length),
        };
        if !matches!(self.fault, Fault::Dribble(_)) {
            self.left = self.left.saturating_sub(now);
        }
        let fault = if now < length { self.fault } else { Fault::None };
        if !matches!(fault, Fault::None | Fault::Dribble(_)) {
            self.fault = Fault::None;
        }
        (fault, now)
    }
}
