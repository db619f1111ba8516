//! A PostgreSQL server of our own, and a client: `Link<Frontend>` over real sockets. And servers of
//! paper, for what a real one does not do.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses a part of it")]

pub mod backend;
pub mod client;
pub mod server;

pub use client::Client;
pub use server::{Server, server};
