//! WebSocket (RFC 6455) with compression (RFC 7692), both sides.
//!
//! ```text
//!             close() sent             Close received, or close_time
//!   Open --------------------> Closing ----------------------------> Closed
//!    |                            |                                    ^  ^
//!    |                            | Close received (client)            |  |
//!    |  Close received: echoed    v                 end of file, or    |  |
//!    +-----------------------> Draining --------------------------------+  |
//!    |      (client)                                close_time            |
//!    |                                                                    |
//!    +--- Close received: echoed (server) ---------------------------------+
//!    +--- violation, limit: answered with its code; end of file; no pong --+
//! ```
//!
//! [`offer`] reads a client's handshake for a server, [`Connect`] writes it for a client and
//! checks the answer. Then [`Link::replace`](crate::Link::replace) puts a [`Peer`] in the place
//! of the HTTP machine; frames that came right behind the handshake travel with it.
//!
//! * A message that is whole in the inbox is lent from there, unmasked in place. Any other is
//!   gathered, or given on part by part ([`Peer::streaming`]).
//! * Text is checked as it comes: bytes that cannot become UTF-8 any more end the connection in
//!   the middle of a frame.
//! * Pings are answered by themselves. A silent peer is pinged.
//! * [`Limits`] bound what a peer can make us keep or do; each exceeded one is an
//!   [`Error::Limit`](crate::Error::Limit) with its name, answered by close code 1009.
//!   What a frame declares is never reserved before it comes.
//! * Compression ([`Deflate`]) needs memory in each direction, zlib's state: some 45 KiB to
//!   decompress, 150 KiB to compress. Without context takeover it is kept for the time of a
//!   message only. With it, it is given back when the peer is silent for
//!   [`Limits::ping_interval`], or by [`Peer::release`]; then the window of what came stays.

mod alive;
mod commands;
mod connect;
mod deflate;
mod extension;
mod frame;
mod handshake;
mod incoming;
mod limits;
mod outgoing;
mod peer;
mod prepared;
mod utf8;

pub use connect::{Agreed, Connect};
pub use extension::Deflate;
pub use handshake::{Offer, Refusal, offer};
pub use limits::Limits;
pub use peer::{Initiator, Kind, Peer, PeerEvent};
pub use prepared::Prepared;
