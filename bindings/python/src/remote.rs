//! Waking from other threads.

use std::sync::{Arc, Mutex, PoisonError};

use balrog_backends::Notifier;
use balrog_sched::{Token, Wake};
use pyo3::Python;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::hub::Hub;

/// The door of a hub for other threads.
pub(crate) struct Remote {
    queue: Mutex<Vec<Request>>,
    notifier: Notifier,
}

/// Work for a stack of its own that another thread hands in.
pub(crate) type RemoteJob = Box<dyn FnOnce(Python<'_>, &'static Hub) + Send>;

/// What another thread wants of a hub.
pub(crate) enum Request {
    Wake(Token, Wake),
    Start(RemoteJob),
}

impl Remote {
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self { queue: Mutex::new(Vec::new()), notifier }
    }

    pub(crate) fn wake(&self, token: Token, wake: Wake) {
        self.push(Request::Wake(token, wake));
    }

    /// Runs `job` on a stack of its own.
    pub(crate) fn start(&self, job: RemoteJob) {
        self.push(Request::Start(job));
    }

    fn push(&self, request: Request) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push(request);
        if queue.len() == 1 {
            self.notifier.notify();
        }
    }

    pub(crate) fn drain(&self) -> Vec<Request> {
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Wakes one wait, from wherever it is called.
#[derive(Clone)]
pub(crate) enum Waker {
    /// A stack that is parked in a hub.
    Parked(Arc<Remote>, Token),
    /// A thread that blocks, with no hub to run.
    Thread(Arc<Event>),
}

impl Waker {
    /// Ends the wait, if it has not ended yet.
    pub(crate) fn wake(&self, py: Python<'_>) {
        match self {
            Self::Parked(remote, token) => wake(py, remote, *token, Wake::Ready),
            Self::Thread(event) => event.set(),
        }
    }

    /// The same from a thread that does not hold the interpreter.
    pub(crate) fn wake_from_outside(&self) {
        match self {
            Self::Parked(remote, token) => remote.wake(*token, Wake::Ready),
            Self::Thread(event) => event.set(),
        }
    }
}

/// Wakes a park: at once on its own thread, else through the hub's door.
pub(crate) fn wake(py: Python<'_>, remote: &Arc<Remote>, token: Token, wake: Wake) {
    match Hub::existing(py) {
        Some(hub) if Arc::ptr_eq(&hub.remote, remote) => {
            hub.scheduler.borrow_mut().wake(token, wake);
        }
        _ => remote.wake(token, wake),
    }
}

/// What a blocked thread waits on: an eventfd, so that a signal can interrupt the wait.
#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    fn set(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
