//! PostgreSQL's frontend/backend protocol, versions 3.0 and 3.2: the client's side.
//!
//! [`TlsRequest`] asks for TLS, [`Frontend`] is a session, [`Cancel`] a cancel request on a
//! connection of its own. [`Batch`] collects messages of the extended query protocol, [`Statements`]
//! knows what is prepared, [`Trace`] writes down what went over the wire. Quotations in the source
//! are from the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation; message formats
//! stand at the code that reads or writes them.
//!
//! # A session
//!
//! ```text
//!   TlsRequest --'S'--> TLS --+                        (or TLS at once, with ALPN, see ALPN)
//!       |                     |
//!       +--'N', if allowed----+--> Frontend: the first poll_event sends the start-up message
//!                                     |
//!            DeriveKey <--> key_derived (SCRAM only; Paused in between)
//!                                     |
//!                                  Started
//!                                     |
//!        +--> idle --query/send--> units in progress --Ready of the last one--> idle
//!        |                            |     |  ^
//!        |                            |     |  +-- copy_data ... copy_done | copy_fail
//!        |                            |     +----- CopyIn
//!        +--Ready of the last one-- recover
//!
//!   terminate, an error, or a fatal ServerError: Closed
//! ```
//!
//! A **unit** is what one ReadyForQuery answers: a simple query, or all messages up to a
//! [`sync`](Batch::sync). Any number of them can be on their way. An SQL error ends its unit and no
//! other: what the server skips of it is told, message by message, by [`FrontendEvent::Skipped`].
//! [`Notice`](FrontendEvent::Notice), [`Notification`](FrontendEvent::Notification) and
//! [`Parameter`](FrontendEvent::Parameter) come at any time, idle or not.
//!
//! ```
//! use std::time::Instant;
//! use balrog_proto::postgres::{Batch, Config, Frontend, FrontendEvent, Parameter};
//! use balrog_proto::{Link, Step};
//!
//! let now = Instant::now();
//! let mut entropy = |bytes: &mut [u8]| bytes.fill(7); // the generator of the system, please
//! let mut link = Link::new(Frontend::new(Config::new("me"), &mut entropy)?);
//! assert!(matches!(link.poll_event(now)?, Step::NeedInput));
//! link.transmitted(link.unsent()); // the start-up message
//! link.receive(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
//! assert!(matches!(link.poll_event(now)?, Step::Event(FrontendEvent::Started)));
//!
//! let mut batch = Batch::new();
//! batch.query("select $1::text", &[Parameter::Text(b"soup")])?.sync();
//! link.send(&mut batch)?;
//! link.transmitted(link.unsent());
//! link.receive(b"1\0\0\0\x042\0\0\0\x04T\0\0\0\x1d\0\x01text\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
//! link.receive(b"D\0\0\0\x0e\0\x01\0\0\0\x04soupC\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I");
//! let mut rows = 0;
//! while let Step::Event(event) = link.poll_event(now)? {
//!     if let FrontendEvent::Row(row) = event {
//!         assert_eq!(row.get(0)?, Some(&b"soup"[..]));
//!         rows += 1;
//!     }
//! }
//! assert_eq!((rows, link.is_idle()), (1, true));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! `examples/postgres_query.rs` does it over a socket.
//!
//! # What holds whatever the server does
//!
//! * **Log-in.** [`Config::require_auth`] and [`Config::channel_binding`] are demands, not offers: a
//!   server that asks for less, or for nothing, or says early that all is well, is left. A password in
//!   clear text needs TLS. Nothing that came before TLS counts as said within it.
//! * **Memory.** [`Limits`] bounds each message by its header, before its body takes room. Rows and COPY
//!   data above `whole` come in pieces of 64 KiB. Nothing is reserved by a declared length.
//! * **Deadlock.** The machine always wants to read, above all while it has something to write.
//! * **In step.** An answer is accepted if it fits the oldest question (see `flow.rs` for the table), or
//!   the connection is over. [`recover`](crate::Link::recover) drops results in bounded bytes and time.
//! * **Cancel.** Only the running unit can be cancelled, and while the request is on its way nothing more
//!   is sent: it cannot hit what comes behind. [`at_risk`](crate::Link::at_risk) counts what was sent
//!   before.

mod auth;
mod batch;
mod cancel;
mod commands;
mod config;
mod decode;
mod encode;
mod event;
mod flow;
mod frontend;
mod large;
mod report;
mod rows;
mod scram;
mod session;
mod startup;
mod statements;
mod timers;
mod tls;
mod trace;

pub use batch::{Batch, Bind, Parameter};
pub use cancel::Cancel;
pub use config::{AuthMethods, Channel, ChannelBinding, Config, Limits, Protocol};
pub use event::{CopyFormat, FrontendEvent, Unit};
pub use flow::Command;
pub use frontend::Frontend;
pub use report::Report;
pub use rows::{Column, Format, Piece, Row, Types, Values};
pub use scram::{KeyDerivation, SaltedPassword};
pub use session::{CancelKey, TransactionStatus};
pub use statements::{Choice, Remedy, Statements};
pub use tls::{ALPN, TlsAnswer, TlsRequest};
pub use trace::Trace;
