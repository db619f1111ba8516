//! Drivers: the places that know how to wait.
//!
//! Code above this crate does its own non-blocking system calls and, on `WouldBlock`, asks the
//! thread's current [`Backend`] to wait. What that wait is (a blocked thread, a parked Python
//! task) is the backend's business, so everything above is written once.

// Nowhere but where tokio asks for the promise that a descriptor stays open (`tokio.rs`).
#![deny(unsafe_code)]

#[cfg(feature = "async-io")]
pub mod async_io;
mod backend;
mod blocking;
pub mod native;
mod pool;
mod reactor;
mod source;
mod tasks;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use backend::{
    Backend, Interest, Pollable, Registered, current, install, install_default, offload, sleep_until,
    wait_io, with_backend,
};
pub use balrog_sched::Interrupt;
pub use blocking::{Blocking, poll_once};
pub use pool::execute;
pub use reactor::{Notifier, Reactor, Readiness, Ready};
pub use source::Source;
pub use tasks::On;
