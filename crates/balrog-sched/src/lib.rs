//! The scheduler core under balrog: who runs next, what it means to wait, and for how long.
//!
//! This crate knows stacks only as opaque values, and no socket, protocol or Python at all.
//! An engine (Python greenlets today) owns a [`Scheduler`], parks stacks in it and switches to
//! whatever [`Scheduler::next`] gives; [`Scopes`] are a task's deadlines, shields and
//! cancellation; [`Interrupt`] is how a wait ends that did not get what it waited for.
#![forbid(unsafe_code)]

mod interrupt;
mod scheduler;
mod scopes;
mod timers;

pub use interrupt::Interrupt;
pub use scheduler::{Runnable, Scheduler, Token, Wake};
pub use scopes::{GRACE, Limits, ScopeId, Scopes};
pub use timers::Timers;
