//! PostgreSQL's frontend/backend protocol, versions 3.0 and 3.2: the client's side.
//!
//! [`TlsRequest`] asks for TLS, [`Frontend`] is a session, [`Cancel`] a cancel request on a
//! connection of its own. Quotations are from the chapter "Frontend/Backend Protocol" of
//! PostgreSQL's documentation.

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
