//! Tasks on our own readiness loop: one thread, edge-triggered, no other thread involved.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use balrog_sched::{Driver, Executor, Interrupt, LocalFuture, wait_until};
use slab::Slab;

use crate::Interest;
use crate::backend::{Backend, Pollable, Registered, with_backend};
use crate::reactor::{Notifier, Reactor, Ready};

/// Runs `f` as a task of this thread, and the tasks that it spawns, until `f` returns.
///
/// # Errors
///
/// When the process is out of descriptors or memory.
pub fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let reactor = Reactor::new()?;
    let gone = Arc::new(Gone {
        any: AtomicBool::new(false),
        sources: Mutex::default(),
        notifier: reactor.notifier(),
    });
    let native = Rc::new(Native { reactor: RefCell::new(reactor), waiters: RefCell::default(), gone });
    let before = NATIVE.replace(Some(Rc::clone(&native)));
    let result = with_backend(&NativeBackend, || {
        let handle = Handle { native, ready: Cell::default() };
        Executor::new(Box::new(handle)).run(f)
    });
    NATIVE.set(before);
    result
}

/// The backend of code under [`run`].
#[derive(Debug)]
struct NativeBackend;

struct Native {
    reactor: RefCell<Reactor<usize, ()>>,
    waiters: RefCell<Slab<Waiter>>,
    gone: Arc<Gone>,
}

enum Waiter {
    Waiting(Waker),
    Ready,
}

thread_local! {
    static NATIVE: RefCell<Option<Rc<Native>>> = const { RefCell::new(None) };
}

/// The loop of this thread. None at the thread's end, where other thread-locals may still drop
/// sources of ours.
fn native() -> Option<Rc<Native>> {
    NATIVE.try_with(|native| native.borrow().clone()).ok().flatten()
}

impl Backend for NativeBackend {
    fn wait_io(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Result<(), Interrupt> {
        native().ok_or(Interrupt::Closed)?.wait(fd, interest, deadline)
    }

    fn register(&self, io: Pollable) -> io::Result<Option<Arc<dyn Registered>>> {
        let Some(native) = native() else { return Ok(None) };
        native.forget_gone();
        native.reactor.borrow_mut().add_source(io.as_fd(), ())?;
        Ok(Some(Arc::new(Watched { io, gone: Arc::clone(&native.gone) })))
    }
}

impl Native {
    fn wait(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Result<(), Interrupt> {
        wait_until(Waiting::new(self, fd, interest), deadline)
    }

    /// Ends the watch of what other threads dropped, before a number of theirs is used again.
    fn forget_gone(&self) {
        if self.gone.any.swap(false, Ordering::AcqRel) {
            let sources = std::mem::take(&mut *self.gone.lock());
            for io in sources {
                self.forget(&io);
            }
        }
    }

    fn forget(&self, io: &Pollable) {
        let waiting = self.reactor.borrow_mut().remove_source(io.as_fd());
        for key in waiting.into_iter().flatten() {
            self.ready(key);
        }
    }

    fn ready(&self, key: usize) {
        let before =
            self.waiters.borrow_mut().get_mut(key).map(|waiter| std::mem::replace(waiter, Waiter::Ready));
        if let Some(Waiter::Waiting(waker)) = before {
            waker.wake();
        }
    }
}

/// A wait for a descriptor that the loop watches.
struct Waiting<N: Deref<Target = Native>, F: AsFd> {
    native: N,
    fd: F,
    key: usize,
}

impl<N: Deref<Target = Native>, F: AsFd> Waiting<N, F> {
    /// Watches from now on: readiness is an edge, which may come before the first poll.
    fn new(native: N, fd: F, interest: Interest) -> Self {
        native.forget_gone();
        let key = native.waiters.borrow_mut().insert(Waiter::Waiting(Waker::noop().clone()));
        // One that cannot be watched is tried again by its owner, whose own system call says
        // what is wrong.
        let watched = native.reactor.borrow_mut().wait(fd.as_fd(), interest, key);
        if watched.is_err() {
            native.ready(key);
        }
        Self { native, fd, key }
    }
}

impl<N: Deref<Target = Native> + Unpin, F: AsFd + Unpin> Future for Waiting<N, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.native.waiters.borrow_mut().get_mut(self.key) {
            Some(Waiter::Waiting(waker)) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            Some(Waiter::Ready) | None => Poll::Ready(()),
        }
    }
}

impl<N: Deref<Target = Native>, F: AsFd> Drop for Waiting<N, F> {
    fn drop(&mut self) {
        self.native.reactor.borrow_mut().forget(self.fd.as_fd().as_raw_fd(), self.key);
        self.native.waiters.borrow_mut().remove(self.key);
    }
}

/// A source of a [`Native`] loop.
struct Watched {
    io: Pollable,
    gone: Arc<Gone>,
}

/// Sources that were dropped on other threads; still open, so that their numbers are theirs.
struct Gone {
    any: AtomicBool,
    sources: Mutex<Vec<Pollable>>,
    notifier: Notifier,
}

impl Gone {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pollable>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// The loop that watches it, if that is this thread's.
    fn native(&self) -> Option<Rc<Native>> {
        native().filter(|native| Arc::ptr_eq(&native.gone, &self.gone))
    }
}

impl Registered for Watched {
    fn wait(&self, interest: Interest, deadline: Option<Instant>) -> Result<(), Interrupt> {
        self.native().ok_or(Interrupt::Closed)?.wait(self.io.as_fd(), interest, deadline)
    }

    fn ready(self: Arc<Self>, interest: Interest) -> LocalFuture<()> {
        match self.native() {
            Some(native) => Box::pin(Waiting::new(native, self, interest)),
            // The loop has ended: nobody will wait long.
            None => Box::pin(std::future::ready(())),
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        match self.native() {
            Some(native) => native.forget(&self.io),
            None => {
                self.gone.lock().push(self.io.clone());
                self.gone.any.store(true, Ordering::Release);
                self.gone.notifier.notify();
            }
        }
    }
}

/// The loop as the outside of an [`Executor`].
struct Handle {
    native: Rc<Native>,
    /// Who is ready; kept for its room.
    ready: Cell<Vec<usize>>,
}

impl Driver for Handle {
    fn poll(&self, timeout: Option<Duration>) -> io::Result<()> {
        let native = &self.native;
        native.forget_gone();
        match native.reactor.borrow_mut().poll(timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut ready = self.ready.take();
        native.reactor.borrow_mut().take(|found| {
            if let Ready::Waiter(key) = found {
                ready.push(key);
            }
        });
        // With nothing else borrowed: a waker of others' may run any code of theirs.
        ready.drain(..).for_each(|key| native.ready(key));
        self.ready.set(ready);
        Ok(())
    }

    fn notifier(&self) -> Arc<dyn Fn() + Send + Sync> {
        let notifier = self.native.reactor.borrow().notifier();
        Arc::new(move || notifier.notify())
    }
}
