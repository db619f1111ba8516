//! HTTP/1.1 (RFC 9110, RFC 9112).
//!
//! Strict on purpose: whatever two implementations could read in two ways is refused, because
//! the difference is how requests are smuggled. A refused request is answered and the
//! connection closes; what follows it is never parsed.
//!
//! ```text
//!            head complete            body complete            response finished
//!   Head ---------------------> Body ---------------> Paused ----------------------> Head
//!    |        Request event       |      End event       |     (keep-alive)
//!    +---- violation, limit, end of file, time-out ------+----> Closed, for good
//! ```

mod body;
mod client;
mod encode;
pub(crate) mod grammar;
mod head;
mod limits;
mod server;

pub use body::{BodyDecoder, Decoded};
pub use client::{Client, ClientEvent, ResponseHead};
pub use encode::write_chunk;
pub use head::{Field, Framing, Headers, RequestHead, Version};
pub use limits::Limits;
pub use server::{BodyLength, Server, ServerEvent};
