//! Listening sockets.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog_backends::Readiness;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use rustix::io::Errno;
use rustix::net::{SocketAddr, SocketAddrAny, SocketFlags, acceptfrom_with};

use crate::hub::{Hub, Source, SourceKey};
use crate::server::connection::{Conn, Peer};
use crate::server::log;
use crate::server::shared::Shared;

/// How long accepting pauses when there is no descriptor left, or no room.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections on the hub's own stack.
pub(crate) struct Listener {
    fd: RefCell<Option<OwnedFd>>,
    key: Cell<Option<SourceKey>>,
    shared: Arc<Shared>,
    environ: Arc<Py<PyDict>>,
    /// The queue was left with connections in it.
    paused: Cell<bool>,
}

impl Listener {
    pub(crate) fn start(
        hub: &'static Hub,
        fd: OwnedFd,
        shared: Arc<Shared>,
        environ: Py<PyDict>,
    ) -> PyResult<Rc<Self>> {
        let listener = Rc::new(Self {
            fd: RefCell::new(None),
            key: Cell::new(None),
            shared,
            environ: Arc::new(environ),
            paused: Cell::new(false),
        });
        let key = hub.add_source(fd.as_fd(), Rc::<Self>::clone(&listener))?;
        *listener.fd.borrow_mut() = Some(fd);
        listener.key.set(Some(key));
        if listener.shared.logs() {
            hub.arm(key, Instant::now() + log::DELAY);
        }
        Ok(listener)
    }

    /// Takes what has been queued before, then closes.
    pub(crate) fn stop(&self, py: Python<'_>, hub: &'static Hub) {
        self.accept(py, hub);
        if let (Some(fd), Some(key)) = (self.fd.borrow_mut().take(), self.key.take()) {
            hub.remove_source(fd.as_fd(), key);
        }
    }

    fn accept(&self, py: Python<'_>, hub: &'static Hub) {
        loop {
            if self.shared.is_full(py) {
                return self.pause(hub);
            }
            let accepted = match &*self.fd.borrow() {
                Some(fd) => acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC),
                None => return,
            };
            match accepted {
                Ok((fd, address)) => {
                    let conn = Conn::open(
                        py,
                        hub,
                        fd,
                        peer(py, address),
                        Arc::clone(&self.shared),
                        Arc::clone(&self.environ),
                    );
                    if conn.is_err() {
                        return self.pause(hub);
                    }
                }
                Err(Errno::AGAIN) => return self.paused.set(false),
                // accept(2): out of descriptors or memory; it would fail again at once.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.pause(hub),
                // The peer has gone already, or an error of the network that belongs to it.
                Err(_) => {}
            }
        }
    }

    fn pause(&self, hub: &'static Hub) {
        self.paused.set(true);
        // With an access log a timer is under way anyway.
        if let Some(key) = self.key.get().filter(|_| !self.shared.logs()) {
            hub.arm(key, Instant::now() + PAUSE);
        }
    }
}

impl Source for Listener {
    fn ready(self: Rc<Self>, py: Python<'_>, hub: &'static Hub, _readiness: Readiness) {
        self.accept(py, hub);
    }

    fn timer(self: Rc<Self>, py: Python<'_>, hub: &'static Hub) {
        if self.paused.get() {
            self.accept(py, hub);
        }
        if self.shared.logs() {
            self.shared.write_log(py);
            if let Some(key) = self.key.get() {
                hub.arm(key, Instant::now() + log::DELAY);
            }
        }
    }
}

fn peer(py: Python<'_>, address: Option<SocketAddrAny>) -> Peer {
    let text = |text: &str| PyString::new(py, text).unbind();
    match address.and_then(|address| SocketAddr::try_from(address).ok()) {
        Some(address) => {
            Peer { address: text(&address.ip().to_string()), port: Some(text(&address.port().to_string())) }
        }
        None => Peer { address: text(""), port: None },
    }
}
