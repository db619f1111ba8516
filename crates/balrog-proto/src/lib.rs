//! Network protocols as pure state machines.
//!
//! Nothing here opens a socket, reads a clock, draws a random number or starts a thread: bytes
//! and the time come in as arguments, bytes and events go out. A driver owns a [`Link`] and
//! moves bytes between it and a connection, in whatever way it likes to wait.
//!
//! ```
//! use std::time::Instant;
//! use balrog_proto::http1::{BodyLength, Limits, Server, ServerEvent};
//! use balrog_proto::{Link, Step};
//!
//! let mut link = Link::new(Server::new(Limits::default()));
//! link.receive(b"GET /menu HTTP/1.1\r\nHost: kitchen.example\r\n\r\n");
//! while let Step::Event(event) = link.poll_event(Instant::now())? {
//!     if let ServerEvent::Request(head) = event {
//!         assert_eq!((head.method, head.path), ("GET", "/menu"));
//!     }
//! }
//! link.respond(200, "OK", &[], BodyLength::Length(4), false)?;
//! link.body(b"soup")?;
//! link.finish()?;
//! assert_eq!(link.transmit(), Some(&b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsoup"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod buffer;
mod entropy;
mod error;
pub mod http1;
mod link;
pub mod postgres;
pub mod websocket;

pub use buffer::{Inbox, Outbox, Segments, Tail};
pub use entropy::Entropy;
pub use error::{Error, Limit, Misuse, Phase, Rule, Timer, Violation};
pub use link::{Interest, Link, Machine, Step, Transmit};
