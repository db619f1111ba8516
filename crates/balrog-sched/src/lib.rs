//! The scheduler core under balrog: what it means to wait, and for how long.
//!
//! This crate knows tasks, deadlines and cancellation. It knows no socket, no protocol
//! and no Python; `balrog-backends` adds readiness, the bindings add Python stacks.

mod interrupt;

pub use interrupt::Interrupt;
