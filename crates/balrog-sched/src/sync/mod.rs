//! The primitives of `std::sync` for code that may run in tasks: right between tasks, between
//! threads, and between both.
//!
//! All of them queue first come, first served. What a waiter gets is handed over to it; one
//! that was interrupted meanwhile hands it on. None is poisoned by a panic.
//!
//! `std::sync::Mutex` would do harm in a task that waits while it holds it: the next task of
//! the thread would block the thread, the first task with it.

mod barrier;
mod channel;
mod condvar;
mod event;
mod mutex;
mod once;
mod semaphore;
mod waiters;

pub use barrier::Barrier;
pub use channel::{Receiver, RecvError, SendError, Sender, channel};
pub use condvar::Condvar;
pub use event::Event;
pub use mutex::{Mutex, MutexGuard};
pub use once::Once;
pub use semaphore::{Permit, Semaphore};
