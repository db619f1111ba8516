//! Waking from other threads.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use balrog_backends::Notifier;
use balrog_sched::{Token, Wake};
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::hub::Hub;

/// The door of a hub for other threads.
pub(crate) struct Remote {
    door: Mutex<Door>,
    activity: AtomicU8,
}

struct Door {
    queue: Vec<Request>,
    /// `None` when the thread has ended.
    notifier: Option<Notifier>,
}

/// Work for a stack of its own that another thread hands in.
pub(crate) type RemoteJob = Box<dyn FnOnce(Python<'_>, &'static Hub) + Send>;

/// What another thread wants of a hub.
pub(crate) enum Request {
    Wake(Token, Wake),
    Start(RemoteJob),
}

/// What a hub's thread does, as far as the interpreter's exit is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Activity {
    /// It is not in the hub's loop.
    Elsewhere,
    /// It runs the loop, and may run tasks.
    Runs,
    /// It was asked to stop for ever.
    Asked,
    /// It has, or it has ended.
    Stopped,
}

impl Remote {
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self {
            door: Mutex::new(Door { queue: Vec::new(), notifier: Some(notifier) }),
            activity: AtomicU8::new(Activity::Elsewhere as u8),
        }
    }

    pub(crate) fn wake(&self, token: Token, wake: Wake) {
        self.push(Request::Wake(token, wake));
    }

    /// Runs `job` on a stack of its own.
    pub(crate) fn start(&self, job: RemoteJob) {
        self.push(Request::Start(job));
    }

    fn push(&self, request: Request) {
        let mut door = self.door();
        let Some(notifier) = &door.notifier else { return };
        if door.queue.is_empty() {
            notifier.notify();
        }
        door.queue.push(request);
    }

    pub(crate) fn drain(&self) -> Vec<Request> {
        std::mem::take(&mut self.door().queue)
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread has ended: nobody comes to the door any more.
    pub(crate) fn close(&self) {
        self.set_activity(Activity::Runs, Activity::Elsewhere);
        self.set_activity(Activity::Asked, Activity::Stopped);
        self.door().notifier = None;
    }

    /// Says what the thread does now; a request to stop stays.
    pub(crate) fn set_activity(&self, from: Activity, to: Activity) {
        let _ = self.activity.compare_exchange(from as u8, to as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks the thread to stop for ever. `false`: it is not in the hub's loop.
    pub(crate) fn ask_to_stop(&self) -> bool {
        self.set_activity(Activity::Runs, Activity::Asked);
        if let Some(notifier) = &self.door().notifier {
            notifier.notify();
        }
        self.activity.load(Ordering::Relaxed) == Activity::Asked as u8
    }

    /// Whether the thread does nothing any more.
    pub(crate) fn has_stopped(&self) -> bool {
        self.activity.load(Ordering::Relaxed) == Activity::Stopped as u8
    }

    /// Stops the calling thread for ever if it was asked to.
    pub(crate) fn stop_if_asked(&self, py: Python<'_>) {
        if self.activity.load(Ordering::Relaxed) == Activity::Asked as u8 {
            self.activity.store(Activity::Stopped as u8, Ordering::Relaxed);
            py.detach(|| {
                loop {
                    std::thread::park();
                }
            });
        }
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
            hub.wake(py, token, wake);
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
