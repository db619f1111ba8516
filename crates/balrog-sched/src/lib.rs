//! The scheduler under balrog: stackful tasks, who runs next, what it means to wait and how long.
//!
//! Synchronous-looking code meets the outside world in one way: it [`wait`]s. On a plain thread
//! that blocks; in a [`Task`] it suspends the stack and gives the thread to others. This crate
//! knows no socket, no protocol and no Python.
//!
//! ```
//! use balrog_sched::{Executor, Park, spawn, yield_now};
//!
//! fn count(to: u32) -> Result<u32, balrog_sched::Interrupt> {
//!     (0..to).try_fold(0, |sum, n| yield_now().map(|()| sum + n))
//! }
//!
//! // Blocking, on this thread:
//! assert_eq!(count(4), Ok(6));
//! // The same function as two tasks that take turns on one thread:
//! let both = Executor::new(Box::new(Park)).run(|| {
//!     let mut other = spawn(|| count(5)).unwrap();
//!     (count(4), other.join().unwrap())
//! });
//! assert_eq!(both.unwrap(), (Ok(6), Ok(10)));
//! ```
//!
//! * [`Task`] is a future, so any executor can run it; [`Executor`] is our own.
//! * [`Runtime`] is what a task needs of its executor: a place for new tasks, and timers.
//! * [`Scopes`] are a task's deadlines, shields and cancellation; [`Interrupt`] is how a wait
//!   ends that did not get what it waited for.
//! * [`scope`] and [`sync`] are structured concurrency and the primitives of `std::sync`, right
//!   between tasks and threads.
//! * [`Scheduler`] is the queue of an engine that brings stacks of its own (Python's).
//!
//! **A task never changes its thread.** Compiled code keeps addresses of thread-locals over any
//! call, so a stack that went on elsewhere would use the locals of two threads at once. More
//! cores are used by more threads, each with an executor.

mod cancel;
mod executor;
mod interrupt;
mod join;
mod local;
mod oneshot;
mod overflow;
mod runtime;
mod scheduler;
mod scope;
mod scopes;
mod stack;
pub mod sync;
mod task;
mod timers;
mod wait;

pub use cancel::Canceller;
pub use executor::{Driver, Executor, Park};
pub use interrupt::Interrupt;
pub use join::{Deferred, JoinError, JoinHandle, Panic, deferred, spawn};
pub use local::{Locals, TaskLocal};
pub use runtime::{LocalFuture, Runtime, runtime, sleep_until, timer, with_runtime};
pub use scheduler::{Runnable, Scheduler, Token, Wake};
pub use scope::{Scope, scope};
pub use scopes::{GRACE, Limits, ScopeId, Scopes};
pub use stack::{DEFAULT_STACK_SIZE, MIN_STACK_SIZE};
pub use task::{Builder, Task, task};
pub use timers::Timers;
pub use wait::{
    Suspender, in_task, limit, limits, wait, wait_until, with_deadline, with_shield, with_suspender,
    yield_now,
};
