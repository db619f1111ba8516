use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use balrog_sched::sync::Event;
use balrog_sched::{Canceller, Interrupt, with_deadline};

/// So many idle connections may wait on a stack at once: those of a few busy clients, for whom
/// to begin a task for each request would cost more than their stacks do.
const LINGERING: usize = 128;

/// The connections that there are.
#[derive(Debug, Default)]
pub(super) struct Registry {
    stopping: AtomicBool,
    lingering: AtomicUsize,
    connections: Mutex<Connections>,
    /// Set when a connection ended.
    ended: Event,
}

#[derive(Debug, Default)]
struct Connections {
    last: u64,
    entries: HashMap<u64, Weak<Entry>>,
}

/// A connection, as long as there is one.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    registry: Arc<Registry>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: bool,
    closed: bool,
    cancelled: bool,
    owner: Owner,
}

/// Who has the connection now.
#[derive(Debug, Default)]
enum Owner {
    #[default]
    Nobody,
    Task(Canceller),
    /// It is parked, without a task.
    Parked(Waker),
}

impl Owner {
    /// Has it look at its state.
    fn call(&self) {
        match self {
            Self::Nobody => {}
            Self::Task(canceller) => canceller.cancel(),
            Self::Parked(waker) => waker.wake_by_ref(),
        }
    }
}

/// Stops a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Registry>);

impl Handle {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self(Arc::clone(registry))
    }

    /// The server stops within a quarter of a second: it accepts no further connection, closes
    /// idle ones, finishes the requests that run, and returns.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// How many of them are idle and have no task, nor a stack. Linear in all of them.
    pub fn parked(&self) -> usize {
        let is_parked = |entry: &Arc<Entry>| matches!(entry.lock().owner, Owner::Parked(_));
        self.0.entries().iter().filter(|entry| is_parked(entry)).count()
    }
}

impl Registry {
    pub(super) fn enter(this: &Arc<Self>) -> Arc<Entry> {
        let mut connections = this.lock();
        connections.last += 1;
        let number = connections.last;
        let entry = Arc::new(Entry { number, registry: Arc::clone(this), state: Mutex::default() });
        connections.entries.insert(number, Arc::downgrade(&entry));
        entry
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether there are fewer than `most` connections; waits up to `time` for that.
    pub(super) fn has_room(&self, most: usize, time: Duration) -> io::Result<bool> {
        self.wait_for(Instant::now() + time, |count| count < most)
    }

    /// Waits for the number of connections to be right, until `until`.
    fn wait_for(&self, until: Instant, right: impl Fn(usize) -> bool) -> io::Result<bool> {
        loop {
            self.ended.clear();
            if right(self.lock().entries.len()) {
                return Ok(true);
            }
            match with_deadline(until, || self.ended.wait()) {
                Err(Interrupt::Deadline) if until <= Instant::now() => return Ok(false),
                waited => waited?,
            }
        }
    }

    /// Closes idle connections and waits for the others.
    pub(super) fn drain(&self, time: Duration) -> io::Result<()> {
        for entry in self.entries() {
            entry.close_if_idle();
        }
        if !self.wait_for(Instant::now() + time, |count| count == 0)? {
            self.cancel_all();
        }
        Ok(())
    }

    pub(super) fn cancel_all(&self) {
        for entry in self.entries() {
            entry.cancel();
        }
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().entries.values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        // Nothing that can panic runs under the lock.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// A task has the connection, which this cancels.
    pub(super) fn set_canceller(&self, canceller: Canceller) {
        let mut state = self.lock();
        if state.cancelled {
            canceller.cancel();
        }
        state.owner = Owner::Task(canceller);
    }

    /// Nobody but what `waker` wakes has the idle connection. `false`: it is to be closed.
    pub(super) fn park(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        match &mut state.owner {
            Owner::Parked(own) => own.clone_from(waker),
            owner => *owner = Owner::Parked(waker.clone()),
        }
        !state.closed && !state.cancelled
    }

    /// Room among the idle connections that wait on a stack, for a moment; `None` if there is none.
    pub(super) fn linger(&self) -> Option<Lingers<'_>> {
        let lingering = &self.registry.lingering;
        let lingers = Lingers(lingering);
        (lingering.fetch_add(1, Ordering::Relaxed) < LINGERING).then_some(lingers)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.registry.is_stopping()
    }

    /// From now on it may be closed at any time.
    pub(super) fn set_idle(&self) {
        self.lock().idle = true;
    }

    /// `false`: it was closed meanwhile.
    pub(super) fn set_busy(&self) -> bool {
        let mut state = self.lock();
        state.idle = false;
        !state.closed
    }

    fn close_if_idle(&self) {
        let mut state = self.lock();
        if state.idle {
            state.closed = true;
            state.owner.call();
        }
    }

    fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        state.owner.call();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the [lingering](Entry::linger).
pub(super) struct Lingers<'r>(&'r AtomicUsize);

impl Drop for Lingers<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().entries.remove(&self.number);
        self.registry.ended.set();
    }
}
