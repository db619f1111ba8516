//! HTTP/1.1 (RFC 9110, RFC 9112), both sides.
//!
//! Strict on purpose: whatever two implementations could read in two ways is refused, because
//! the difference is how requests are smuggled. A refused request is answered and the
//! connection closes; what follows it is never parsed.
//!
//! - A head is read once, line by line, as it comes; a line is judged when the control character
//!   has come that ends it, or that must not be in it. Every split of the same bytes gives the same events and the same error.
//! - A line ends in CRLF. No bare LF or CR, no folding, no space before a colon, no control
//!   characters, no second Host, Content-Length, Transfer-Encoding or Content-Type; no
//!   Content-Length beside Transfer-Encoding, no coding but `chunked`, none in HTTP/1.0.
//! - Sizes are digits and nothing else; a size line has no whitespace; trailers are a section of
//!   their own and cannot say what a head has to.
//! - Whatever may come in any amount has a limit of its own in [`Limits`].
//!
//! Where this is stricter than the RFCs ask: a folded line is refused in responses, too, which
//! RFC 9112 section 5.2 would have a user agent read as one; equal Content-Length fields or list
//! elements are refused, which section 6.3 allows to be taken as one; a chunk line has no `BWS`;
//! a minor version above 1 is answered with 505, which RFC 9110 section 2.5 would have taken as
//! 1.1. Each has been read in two ways by servers in use.
//!
//! The states of each side are drawn at [`Server`] and [`Client`], those of a body in
//! `body.rs`. A bare state word in the drawings is the machine's; an event is what
//! [`Link::poll_event`](crate::Link::poll_event) returns on the way.

mod body;
mod client;
mod encode;
mod fields;
pub(crate) mod grammar;
mod limits;
mod parse;
mod request;
mod response;
mod scan;
mod server;
mod trailers;
mod tunnel;

pub use client::{Client, ClientEvent};
pub use fields::Headers;
pub use limits::Limits;
pub use request::{Framing, RequestHead, Version};
pub use response::ResponseHead;
pub use server::{BodyLength, Server, ServerEvent};
pub use trailers::Trailers;
pub use tunnel::{Tunnel, TunnelEvent};
