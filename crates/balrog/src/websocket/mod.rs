//! WebSocket (RFC 6455), both sides, compression (RFC 7692) included.
//!
//! ```
//! use balrog::http::server::{Request, Server};
//! use balrog::net::TcpListener;
//! use balrog::websocket::{self, Message};
//!
//! fn main() -> std::io::Result<()> {
//!     let server = Server::new();
//!     let (listener, handle) = (TcpListener::bind("127.0.0.1:0")?, server.handle());
//!     let url = format!("ws://{}/", listener.local_addr()?);
//!     let mut task = balrog::spawn(move || {
//!         server.serve(listener, |request: &mut Request<'_>| {
//!             websocket::accept(request, |mut ws| {
//!                 while let Ok(Some(message)) = ws.recv() {
//!                     let _ = ws.send(&message);
//!                 }
//!             })
//!         })
//!     })?;
//!     let mut ws = websocket::connect(&url)?;
//!     ws.send("two soups")?;
//!     assert_eq!(ws.recv()?, Some(Message::Text("two soups".into())));
//!     ws.close(1000, "")?;
//!     handle.stop();
//!     task.join()?
//! }
//! ```
//!
//! Every wait can be interrupted by a deadline or a cancellation, and the connection goes on
//! where it was: nothing is lost, and nothing is sent twice.

mod handshake;
mod rooms;
mod socket;

use std::io;

pub use balrog_proto::websocket::{Deflate, Limits, Prepared};
pub use handshake::Options;
pub use rooms::{Membership, Room, Rooms};
pub use socket::{CloseFrame, Message, Payload, Sender, WebSocket};

use crate::http::server::{Request, Response};

/// Opens a WebSocket at a `ws://` URL, with the default [`Options`].
///
/// # Errors
///
/// As [`Options::connect`].
pub fn connect(url: &str) -> io::Result<WebSocket> {
    Options::default().connect(url)
}

/// Answers a request for a WebSocket, with the default [`Options`]: to be returned by the
/// handler; then `speak` is given the WebSocket.
pub fn accept(request: &Request<'_>, speak: impl FnOnce(WebSocket) + Send + 'static) -> Response {
    Options::default().accept(request, speak)
}
