//! Sync-looking network I/O that blocks or runs asynchronously, as its user chooses.
//!
//! Every call here waits through the thread's backend (see `balrog_backends`): on a plain
//! thread it blocks, in a green task it lets other tasks run. There is one of each function.
#![forbid(unsafe_code)]

pub mod http;
pub mod net;
pub mod tls;

pub use balrog_sched::Interrupt;
