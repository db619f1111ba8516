use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use balrog_sched::LocalFuture;

use crate::Interest;
use crate::backend::{Backend, Pollable, Registered, current};

/// A non-blocking descriptor that is waited on again and again, such as a connection.
///
/// The backend of the first wait watches it from then on; under another one, after it went to
/// another thread say, it is watched anew.
pub struct Source<T> {
    io: Arc<T>,
    registration: Mutex<Option<Registration>>,
}

struct Registration {
    /// Which backend: its address, and the thread that it was met on.
    backend: (usize, ThreadId),
    registered: Option<Arc<dyn Registered>>,
}

impl<T: AsFd + Send + Sync + 'static> Source<T> {
    /// A source that nothing watches yet.
    pub fn new(io: T) -> Self {
        Self { io: Arc::new(io), registration: Mutex::new(None) }
    }

    /// What system calls are made on.
    pub fn get(&self) -> &T {
        &self.io
    }

    /// Waits until it is ready for `interest`. To be called only after a system call said
    /// `WouldBlock`, since readiness is an edge. May return too early.
    ///
    /// # Errors
    ///
    /// The deadline, an [`Interrupt`](crate::Interrupt), or what the system says to watching it.
    pub fn wait(&self, interest: Interest, deadline: Option<Instant>) -> io::Result<()> {
        let backend = current();
        match self.registered(backend)? {
            Some(registered) => registered.wait(interest, deadline)?,
            None => backend.wait_io(self.io.as_fd(), interest, deadline)?,
        }
        Ok(())
    }

    /// [`Source::wait`] as a future for the executor of the code here, with no stack that waits:
    /// for the many that are idle. `None` where waits block their thread.
    ///
    /// # Errors
    ///
    /// What the system says to watching it.
    pub fn ready(&self, interest: Interest) -> io::Result<Option<LocalFuture<()>>> {
        Ok(self.registered(current())?.map(|registered| registered.ready(interest)))
    }

    fn registered(&self, backend: &'static dyn Backend) -> io::Result<Option<Arc<dyn Registered>>> {
        let here = (std::ptr::from_ref(backend).addr(), std::thread::current().id());
        // Nothing waits, and nothing of others runs, under the lock.
        let mut registration = self.registration.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registration) = &*registration
            && registration.backend == here
        {
            return Ok(registration.registered.clone());
        }
        // First the old one ends: a descriptor is watched once.
        *registration = None;
        let registered = backend.register(Pollable::new(Arc::clone(&self.io)))?;
        *registration = Some(Registration { backend: here, registered: registered.clone() });
        Ok(registered)
    }
}

impl<T: fmt::Debug> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.io).finish()
    }
}
