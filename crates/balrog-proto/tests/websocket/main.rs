//! WebSocket: the machine in both roles, its handshakes, compression, and what others make of it.

mod client;
mod corpus;
mod deflate;
mod differential;
mod handshake;
mod limits;
mod numbers;
mod pair;
mod server;
mod streaming;
mod support;
mod time;
