//! WebSocket (RFC 6455), the server's side.
//!
//! ```text
//!            close() sent              Close received
//!   Open -----------------> Closing ------------------> Closed
//!     |                                                   ^
//!     +--- Close received: echoed; violation: answered ---+
//! ```

mod frame;
mod handshake;
mod peer;
mod utf8;

pub use handshake::{Offer, Refusal, offer};
pub use peer::{Limits, Peer, PeerEvent};
