//! The pieces in which bytes come make no difference, and no more work.

use std::path::{Path, PathBuf};

use crate::harness::http::{ClientSide, ServerSide};
use crate::harness::postgres::Session;
use crate::harness::websocket::PeerSide;
use crate::harness::{Seen, Subject, feed};
use crate::replay::corpus;

/// Files up to this size are cut at every pair of points, larger ones at every point.
const SMALL: usize = 64;
/// Files up to this size are cut at every point, larger ones at some hundred.
const MEDIUM: usize = 4096;

/// The seeds of a corpus. What a fuzzer has found is named by its hash, and is cut in fewer places by
/// the targets themselves.
fn seeds(name: &str) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    let is_hash = |path: &Path| path.file_name().is_some_and(|name| name.len() == 40);
    corpus(name).into_iter().filter(move |(path, _)| !is_hash(path))
}

fn every_cut<S: Subject>(name: &str, subject: &S) {
    for (path, bytes) in seeds(name) {
        every_cut_of(subject, &path, &bytes);
    }
}

/// What is seen of `bytes`, whole; cut anywhere, it is the same.
pub(crate) fn every_cut_of<S: Subject>(subject: &S, path: &Path, bytes: &[u8]) -> Seen {
    let whole = feed(subject, [bytes]);
    let check = |pieces: &[&[u8]]| {
        let seen = feed(subject, pieces.iter().copied());
        assert_eq!(seen, whole, "{} in {:?}", path.display(), pieces.iter().map(|piece| piece.len()));
    };
    check(&bytes.chunks(1).collect::<Vec<_>>());
    let step = if bytes.len() <= MEDIUM { 1 } else { bytes.len() / 257 };
    for first in (0..=bytes.len()).step_by(step) {
        let (a, rest) = bytes.split_at(first);
        check(&[a, rest]);
        if bytes.len() <= SMALL {
            for second in 0..=rest.len() {
                let (b, c) = rest.split_at(second);
                check(&[a, b, c]);
            }
        }
    }
    whole
}

#[test]
fn http_server() {
    every_cut("h1_server", &ServerSide::default());
    every_cut("h1_server", &ServerSide::telling_all());
}

#[test]
fn http_client() {
    every_cut("h1_client", &ClientSide::telling_all("GET"));
    every_cut("h1_client", &ClientSide::new("HEAD"));
}

#[test]
fn websocket_server() {
    every_cut("ws_server", &PeerSide::server());
    every_cut("ws_server", &PeerSide::server().streaming());
}

#[test]
fn websocket_client() {
    every_cut("ws_client", &PeerSide::client());
    every_cut("ws_client", &PeerSide::client().streaming());
}

#[test]
fn websocket_compression() {
    for (path, bytes) in seeds("ws_deflate") {
        every_cut_of(&PeerSide::deflating(bytes[0]), &path, &bytes[1..]);
    }
}

#[test]
fn postgres_frontend() {
    for (path, bytes) in seeds("pg_frontend") {
        every_cut_of(&Session(bytes[0]), &path, &bytes[1..]);
    }
}
