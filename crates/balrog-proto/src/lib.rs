//! Network protocols as pure state machines: HTTP/1.1, WebSocket and PostgreSQL, one shape for
//! all.
//!
//! Nothing here opens a socket, reads a clock, draws a random number or starts a thread: bytes
//! and the time come in as arguments, bytes and events go out. There is no `unsafe`, and
//! nothing is imported from a host.
//!
//! A [`Machine`] knows a protocol. A [`Link`] is a machine with its buffers, and all that a
//! driver sees. What the owner of a connection can say is on the link of that machine:
//!
//! ```
//! # use std::time::Instant;
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
//!
//! # Driving a machine
//!
//! One rule: after any input or command, ask [`Link::poll_event`] until it gives no event, do
//! what [`Link::poll_transmit`] says, then wait for what [`Link::interest`] says, until
//! [`Link::poll_timeout`]. This is a whole driver, for every machine, over whatever reads and
//! writes; it is called when there is no event:
//!
//! ```
//! use std::io::{self, IoSlice, Read, Write};
//! use std::time::Instant;
//! use balrog_proto::{Link, Machine, Transmit};
//!
//! /// Sends, waits and receives once. `false`: the connection is over, or the machine waits for
//! /// its owner.
//! fn drive<M: Machine>(link: &mut Link<M>, stream: &mut (impl Read + Write)) -> io::Result<bool> {
//!     while let Some(transmit) = link.poll_transmit() {
//!         match transmit {
//!             Transmit::Data(segments) => {
//!                 let mut slices = [IoSlice::new(b""); 16];
//!                 let n = segments.io_slices(&mut slices);
//!                 let sent = stream.write_vectored(&slices[..n])?;
//!                 link.transmitted(sent);
//!             }
//!             Transmit::External(_) => unreachable!("only where a command asked for it"),
//!             Transmit::Shutdown => {} // shut the socket's sending side down
//!         }
//!     }
//!     if !link.interest().read {
//!         return Ok(false);
//!     }
//!     // The socket's own time-out would be `link.poll_timeout()`.
//!     match stream.read(link.recv_space(16 * 1024))? {
//!         0 => link.receive_eof(),
//!         n => link.received(n),
//!     }
//!     link.handle_timeout(Instant::now())?;
//!     Ok(true)
//! }
//! # let _: fn(&mut Link<balrog_proto::http1::Server>, &mut std::net::TcpStream) -> io::Result<bool> = drive;
//! ```
//!
//! The directory `examples` has one over sockets, time-outs included, and a program for each
//! machine.
//!
//! # When something went wrong
//!
//! A machine does nothing but what its input makes it do. So a driver that writes down what went
//! over the wire, by a [`Recording`], has written down the whole case: [`replay`] plays it again,
//! in a test for example. For what the messages of PostgreSQL mean there is
//! [`postgres::Trace`].
//!
//! # What every machine promises
//!
//! - The same bytes give the same events and the same error, in whatever pieces they come.
//! - Every byte is looked at a bounded number of times; memory is bounded by named limits;
//!   nothing that comes in makes it panic. Empty buffers own no storage.
//! - A command that is not allowed is a [`Misuse`]: nothing was sent, nothing has changed.
//! - The first [`Error`] is final: its answer is in the outbox already, every later call repeats
//!   it, and nothing behind what caused it is read.
#![forbid(unsafe_code)]

mod buffer;
mod entropy;
mod error;
pub mod http1;
mod link;
pub mod postgres;
mod recording;
pub mod websocket;

pub use buffer::{Inbox, Outbox, Segments, Tail};
pub use entropy::Entropy;
pub use error::{Error, Limit, Misuse, Phase, Rule, Timer, Violation};
pub use link::{Interest, Link, Machine, Step, Transmit};
pub use recording::{Recording, ReplayError, replay};
