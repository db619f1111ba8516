//! A PostgreSQL server of our own, and a client: `Link<Frontend>` over real sockets.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod client;
pub mod server;

pub use client::Client;
pub use server::{Server, server};
