//! The fuzz targets: what each does with its bytes. A panic is a finding.

use super::http::{ClientSide, ServerSide};
use super::postgres::Session;
use super::websocket::PeerSide;
use super::{backend, conversation, differential, exchange, server_model};
use super::{check_pieces, feed};

/// A target, and the corpus that it shares with others: a directory in `fuzz/corpus`.
pub struct Target {
    pub name: &'static str,
    pub corpus: &'static str,
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "h1_server", corpus: "h1_server", run: h1_server },
    Target { name: "h1_server_split", corpus: "h1_server", run: h1_server_split },
    Target { name: "h1_client", corpus: "h1_client", run: h1_client },
    Target { name: "h1_client_split", corpus: "h1_client", run: h1_client_split },
    Target { name: "h1_server_diff", corpus: "h1_server", run: h1_server_diff },
    Target { name: "h1_client_diff", corpus: "h1_client", run: h1_client_diff },
    Target { name: "ws_server", corpus: "ws_server", run: ws_server },
    Target { name: "ws_server_split", corpus: "ws_server", run: ws_server_split },
    Target { name: "ws_server_diff", corpus: "ws_server", run: ws_server_diff },
    Target { name: "ws_client", corpus: "ws_client", run: ws_client },
    Target { name: "ws_client_split", corpus: "ws_client", run: ws_client_split },
    Target { name: "ws_deflate", corpus: "ws_deflate", run: ws_deflate },
    Target { name: "ws_deflate_split", corpus: "ws_deflate", run: ws_deflate_split },
    Target { name: "ws_pair", corpus: "ws_pair", run: ws_pair },
    Target { name: "pg_frontend", corpus: "pg_frontend", run: pg_frontend },
    Target { name: "pg_frontend_split", corpus: "pg_frontend", run: pg_frontend_split },
    Target { name: "pg_pair", corpus: "pg_pair", run: pg_pair },
    Target { name: "h1_pair", corpus: "h1_pair", run: h1_pair },
    Target { name: "h1_ops", corpus: "h1_ops", run: h1_ops },
];

/// Choices of a plan that a client and a server carry out.
pub fn h1_pair(bytes: &[u8]) {
    exchange::carry_out(bytes);
}

/// Choices of commands to a server.
pub fn h1_ops(bytes: &[u8]) {
    server_model::run(bytes);
}

pub use differential::frames as ws_server_diff;
pub use differential::request_head as h1_server_diff;
pub use differential::response_head as h1_client_diff;

pub fn h1_server(bytes: &[u8]) {
    feed(&ServerSide::default(), [bytes]);
    feed(&ServerSide::telling_all(), [bytes]);
}

pub fn h1_server_split(bytes: &[u8]) {
    check_pieces(&ServerSide::default(), bytes);
    check_pieces(&ServerSide::telling_all(), bytes);
}

pub fn h1_client(bytes: &[u8]) {
    feed(&ClientSide::telling_all("GET"), [bytes]);
    feed(&ClientSide::new("HEAD"), [bytes]);
}

pub fn h1_client_split(bytes: &[u8]) {
    check_pieces(&ClientSide::new("GET"), bytes);
    check_pieces(&ClientSide::telling_all("GET"), bytes);
}

pub fn ws_server(bytes: &[u8]) {
    feed(&PeerSide::server(), [bytes]);
    feed(&PeerSide::server().streaming(), [bytes]);
}

pub fn ws_server_split(bytes: &[u8]) {
    check_pieces(&PeerSide::server(), bytes);
    check_pieces(&PeerSide::server().streaming(), bytes);
}

pub fn ws_client(bytes: &[u8]) {
    feed(&PeerSide::client(), [bytes]);
    feed(&PeerSide::client().streaming(), [bytes]);
}

pub fn ws_client_split(bytes: &[u8]) {
    check_pieces(&PeerSide::client(), bytes);
    check_pieces(&PeerSide::client().streaming(), bytes);
}

/// The first byte chooses the role and the parameters.
pub fn ws_deflate(bytes: &[u8]) {
    if let Some((choice, frames)) = bytes.split_first() {
        feed(&PeerSide::deflating(*choice), [frames]);
    }
}

pub fn ws_deflate_split(bytes: &[u8]) {
    if let Some((choice, frames)) = bytes.split_first() {
        check_pieces(&PeerSide::deflating(*choice), frames);
    }
}

/// Choices of what two peers say to each other.
pub fn ws_pair(bytes: &[u8]) {
    conversation::hold(bytes);
}

/// The first byte chooses what the owner does.
pub fn pg_frontend(bytes: &[u8]) {
    if let Some((choice, messages)) = bytes.split_first() {
        feed(&Session(*choice), [messages]);
    }
}

pub fn pg_frontend_split(bytes: &[u8]) {
    if let Some((choice, messages)) = bytes.split_first() {
        check_pieces(&Session(*choice), messages);
    }
}

/// Choices of what a session asks for, and what its server answers.
pub fn pg_pair(bytes: &[u8]) {
    backend::hold_session(bytes);
}
