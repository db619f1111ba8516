//! Tasks on our own readiness loop: one thread, edge-triggered, no other thread involved.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use balrog_sched::{Driver, Executor, Interrupt, wait_until};
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
    let result = with_backend(&NativeBackend, || Executor::new(Box::new(Handle(native))).run(f));
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
        struct Forget<'a>(&'a Native, BorrowedFd<'a>, Option<usize>);
        impl Drop for Forget<'_> {
            fn drop(&mut self) {
                if let Some(key) = self.2 {
                    self.0.reactor.borrow_mut().forget(self.1.as_raw_fd(), key);
                    self.0.waiters.borrow_mut().remove(key);
                }
            }
        }
        self.forget_gone();
        let mut forget = Forget(self, fd, None);
        wait_until(
            std::future::poll_fn(|context| {
                let mut waiters = self.waiters.borrow_mut();
                let Some(key) = forget.2 else {
                    let key = waiters.insert(Waiter::Waiting(context.waker().clone()));
                    forget.2 = Some(key);
                    // One that cannot be watched is tried again by its owner, whose own system
                    // call says what is wrong.
                    let watched = self.reactor.borrow_mut().wait(fd, interest, key);
                    return if watched.is_ok() { Poll::Pending } else { Poll::Ready(()) };
                };
                match waiters.get_mut(key) {
                    Some(waiter @ Waiter::Waiting(_)) => {
                        *waiter = Waiter::Waiting(context.waker().clone());
                        Poll::Pending
                    }
                    Some(Waiter::Ready) | None => Poll::Ready(()),
                }
            }),
            deadline,
        )
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
struct Handle(Rc<Native>);

impl Driver for Handle {
    fn poll(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.forget_gone();
        match self.0.reactor.borrow_mut().poll(timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut ready = Vec::new();
        self.0.reactor.borrow_mut().take(|found| {
            if let Ready::Waiter(key) = found {
                ready.push(key);
            }
        });
        for key in ready {
            self.0.ready(key);
        }
        Ok(())
    }

    fn notifier(&self) -> Arc<dyn Fn() + Send + Sync> {
        let notifier = self.0.reactor.borrow().notifier();
        Arc::new(move || notifier.notify())
    }
}
