//! The HTTP server: a task for each connection, or in blocking mode a thread. One that is idle has
//! no task, and a few hundred bytes.
//!
//! ```
//! use balrog::http::server::{Request, Server};
//! use balrog::net::TcpListener;
//!
//! let server = Server::new();
//! let handle = server.handle();
//! # handle.stop(); // The example does not go on for ever.
//! server.serve(TcpListener::bind("127.0.0.1:0")?, |request: &mut Request<'_>| {
//!     format!("{} {}\n", request.method(), request.path())
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Which request goes where is for the handler to say. It is called by as many connections as
//! there are at once, and may wait like any other code. If it panics, the client is answered
//! 500, and a line about it goes to stderr; a connection that breaks ends alone.

mod body;
mod connection;
mod date;
mod idle;
mod registry;
mod request;
mod response;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog_backends::Interrupt;
use balrog_proto::http1::Limits;
use balrog_sched::LocalFuture;

pub use body::{Body, BodyWriter, Upgraded};
pub use registry::Handle;
pub use request::Request;
pub use response::{IntoResponse, Response};

use crate::net::{AnyStream, TcpListener, TcpStream};
use crate::tls::TlsAcceptor;
use connection::Connection;
use registry::{Entry, Registry};

/// How soon the listener sees that it is to stop.
const TICK: Duration = Duration::from_millis(250);
/// How long the listener rests when the process is out of descriptors or memory.
const REST: Duration = Duration::from_millis(50);

/// Listens at `address` and answers every request by `handler`, until the code around it is
/// cancelled. [`Server`] has options and a [`Handle`] to stop it by.
///
/// # Errors
///
/// As [`Server::serve`], and when the address cannot be had.
pub fn serve<R: IntoResponse>(
    address: impl ToSocketAddrs,
    handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
) -> io::Result<()> {
    Server::new().serve(TcpListener::bind(address)?, handler)
}

/// How to serve.
#[derive(Debug)]
pub struct Server {
    options: Options,
    registry: Arc<Registry>,
}

#[derive(Debug)]
struct Options {
    limits: Arc<Limits>,
    tls: Option<TlsAcceptor>,
    connections: usize,
    write_timeout: Duration,
    drain_time: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server with the defaults.
    pub fn new() -> Self {
        let options = Options {
            limits: Arc::default(),
            tls: None,
            connections: if balrog_sched::in_task() { 10_000 } else { 512 },
            write_timeout: Duration::from_secs(30),
            drain_time: Duration::from_secs(30),
        };
        Self { options, registry: Arc::default() }
    }

    /// What a client may take of us, times included (see [`Limits`]).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = Arc::new(limits);
        self
    }

    /// Speaks TLS.
    #[must_use]
    pub fn tls(mut self, acceptor: TlsAcceptor) -> Self {
        self.options.tls = Some(acceptor);
        self
    }

    /// How many connections there may be at once; further ones wait to be accepted (10,000, and
    /// 512 where the server is made on a plain thread).
    #[must_use]
    pub const fn connections(mut self, most: usize) -> Self {
        self.options.connections = most;
        self
    }

    /// How long a client may take nothing of what it is sent (30 s).
    #[must_use]
    pub const fn write_timeout(mut self, time: Duration) -> Self {
        self.options.write_timeout = time;
        self
    }

    /// How long requests may run on once the server is to stop (30 s); after that tasks are
    /// cancelled, and threads left behind.
    #[must_use]
    pub const fn drain_time(mut self, time: Duration) -> Self {
        self.options.drain_time = time;
        self
    }

    /// What stops it, from anywhere.
    pub fn handle(&self) -> Handle {
        Handle::new(&self.registry)
    }

    /// Answers every request by `handler`, until it is stopped: then no connection is accepted
    /// any more, idle ones are closed, and requests that run are finished.
    ///
    /// The responses to requests that came in one piece (pipelining) leave together.
    ///
    /// # Errors
    ///
    /// When the code here is interrupted. Trouble with single connections is none.
    pub fn serve<R: IntoResponse>(
        self,
        listener: TcpListener,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> io::Result<()> {
        let Self { options, registry } = self;
        let most = options.connections;
        let drain_time = options.drain_time;
        let service = Arc::new(Service { options, handler });
        while !registry.is_stopping() {
            if !registry.has_room(most, TICK)? {
                continue;
            }
            match listener.accept_until(Some(Instant::now() + TICK)) {
                Ok((stream, peer)) => {
                    if let Err(error) = start(&service, &registry, stream, peer) {
                        eprintln!("balrog: no task for a connection from {peer}: {error}");
                    }
                }
                Err(error) if Interrupt::of(&error) == Some(Interrupt::Deadline) => {
                    // The tick's, or that of the code around.
                    balrog_sched::limit(None)?;
                }
                Err(error) if Interrupt::of(&error).is_some() => {
                    registry.cancel_all();
                    return Err(error);
                }
                Err(error) => {
                    eprintln!("balrog: cannot accept a connection: {error}");
                    balrog_sched::sleep_until(Instant::now() + REST)?;
                }
            }
        }
        drop(listener);
        registry.drain(drain_time)
    }
}

struct Service<F> {
    options: Options,
    handler: F,
}

fn start<F, R>(
    service: &Arc<Service<F>>,
    registry: &Arc<Registry>,
    stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<()>
where
    F: Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    let entry = Registry::enter(registry);
    let begin = {
        let (service, entry) = (Arc::clone(service), Arc::clone(&entry));
        move || service.connection(stream, peer, entry)
    };
    spawn(service, &entry, begin)
}

/// Runs `begin`, and what it leaves idle, in a task that `entry` cancels.
fn spawn<F, R>(
    service: &Arc<Service<F>>,
    entry: &Arc<Entry>,
    begin: impl FnOnce() -> io::Result<Option<(Connection, LocalFuture<()>)>> + Send + 'static,
) -> io::Result<()>
where
    F: Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    let service = Arc::clone(service);
    let task = balrog_sched::spawn(move || {
        // However it ends, only this connection does.
        if let Ok(Some((connection, until))) = begin() {
            idle::park(service, connection, until);
        }
    })?;
    entry.set_canceller(task.canceller());
    Ok(())
}

impl<F, R> Service<F>
where
    F: Fn(&mut Request<'_>) -> R,
    R: IntoResponse,
{
    fn connection(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        entry: Arc<Entry>,
    ) -> io::Result<Option<(Connection, LocalFuture<()>)>> {
        stream.timeouts.write = Some(self.options.write_timeout);
        let stream: AnyStream = match &self.options.tls {
            None => stream.into(),
            Some(tls) => {
                stream.timeouts.read = self.options.limits.first_time;
                let mut stream: AnyStream = tls.accept(stream)?.into();
                stream.timeouts_mut().read = None;
                stream
            }
        };
        Connection::new(stream, peer, &self.options.limits, entry).run(&self.handler)
    }
}
