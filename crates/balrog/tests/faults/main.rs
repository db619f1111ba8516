//! What breaks, stalls or is cancelled under HTTP, WebSocket and TLS: each test in every mode, and
//! each leaves no descriptor behind.

mod broken;
mod interrupted;
#[path = "../support/proxy.rs"]
mod proxy;
mod server;
mod silent;
#[path = "../support/site.rs"]
mod site;
mod slow;
#[path = "../support/until.rs"]
mod until;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use balrog::{Runtime, sleep_until};

use proxy::Proxy;
use site::{At, Site};
use until::{descriptors, until};

const SOON: Duration = Duration::from_millis(50);

/// One test at a time, since it is one process whose descriptors are counted.
fn in_every_mode(body: fn() -> io::Result<()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for runtime in Runtime::all() {
        // On a thread of its own, which takes its kept connections with it.
        let run = |body: fn() -> io::Result<()>| {
            let run = move || runtime.run(body).unwrap();
            thread::spawn(run).join().unwrap_or_else(|_| panic!("in mode {runtime}"))
        };
        // What is opened once, and kept.
        run(|| Ok(sleep_until(Instant::now() + SOON)?)).unwrap();
        let before = descriptors();
        run(body).unwrap_or_else(|error| panic!("{runtime}: {error}"));
        until("no descriptor is left", || descriptors() <= before).unwrap();
    }
}

/// A site, and a proxy in front of it.
fn proxied(tls: bool) -> io::Result<(Site, Proxy, At)> {
    let site = Site::new(tls)?;
    let port = site.at.port;
    let proxy = Proxy::new(move || TcpStream::connect(("127.0.0.1", port)));
    let at = site.at.through(proxy.port);
    Ok((site, proxy, at))
}

/// A peer that a test wrote by hand, on a thread whatever the mode; it ends when this is dropped.
struct Peer {
    port: u16,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Peer {
    /// It does this with its connections, one after the other.
    fn new(speak: impl Fn(TcpStream) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (port, over) = (listener.local_addr()?.port(), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&over);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                // How that went is seen on the other side.
                let _ = stream.and_then(&speak);
            }
        });
        Ok(Self { port, over, thread: Some(thread) })
    }

    const fn at(&self) -> At {
        At { port: self.port, tls: None }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
