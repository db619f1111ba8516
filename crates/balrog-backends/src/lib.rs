//! Drivers: the places that know how to wait.
//!
//! Code above this crate does its own non-blocking system calls and, on `WouldBlock`, asks the
//! thread's current [`Backend`] to wait. What that wait is (a blocked thread, a parked Python
//! task) is the backend's business, so everything above is written once.

#![forbid(unsafe_code)]

mod backend;
mod blocking;
mod pool;
mod reactor;

pub use backend::{Backend, Interest, current, install, install_default, offload, sleep_until, wait_io};
pub use balrog_sched::Interrupt;
pub use blocking::{Blocking, poll_once};
pub use pool::execute;
pub use reactor::{Notifier, Reactor, Readiness, Ready};
