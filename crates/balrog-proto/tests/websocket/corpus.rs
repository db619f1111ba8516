//! The corpus of handshakes, and of frames that come right behind them, in every split.

use std::time::Instant;

use balrog_proto::http1::{self, BodyLength, Server, ServerEvent};
use balrog_proto::websocket::{self, Deflate, Limits, Peer};
use balrog_proto::{Link, Step};
use serde_json::Value;

/// Of what may be refused or read without its broken part, what we refuse: fields outside of their
/// grammar. A parameter with a value that it must not have declines its extension only.
const MALFORMED: &[&str] =
    &["protocol-not-token", "protocol-8bit", "deflate-bits-empty", "deflate-semicolons", "deflate-unclosed"];

/// What became of a connection.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// No WebSocket: the status.
    Refused(u16),
    /// What the application got, and what failed the connection.
    Open { events: Vec<String>, failed: Option<String>, extensions: Option<String> },
}

/// The first request on a connection, and what comes behind it.
fn run(pieces: &[&[u8]]) -> Outcome {
    let now = Instant::now();
    let mut link = Link::new(Server::new(http1::Limits::default()));
    let mut pieces = pieces.iter();
    let offered = loop {
        match link.poll_event(now) {
            Ok(Step::Event(ServerEvent::Request(head))) => break websocket::offer(&head),
            Ok(_) => match pieces.next() {
                Some(piece) => link.receive(piece),
                None => link.receive_eof(),
            },
            Err(error) => return Outcome::Refused(error.code().unwrap()),
        }
    };
    let offer = match offered {
        Ok(Some(offer)) => offer,
        Ok(None) => return Outcome::Refused(404),
        Err(refusal) => {
            link.respond(refusal.status, "", &[], BodyLength::None, true).unwrap();
            return Outcome::Refused(refusal.status);
        }
    };
    link.switch_protocols(&[(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]).unwrap();
    let (peer, extensions) = match offer.deflate(&Deflate::default()) {
        Some((deflate, answer)) => (Peer::server(Limits::default()).deflate(&deflate), Some(answer)),
        None => (Peer::server(Limits::default()), None),
    };
    let mut link = link.replace(peer);
    let mut events = Vec::new();
    let failed = loop {
        match link.poll_event(now) {
            Ok(Step::Event(event)) => events.push(format!("{event:?}")),
            Ok(_) => match pieces.next() {
                Some(piece) => link.receive(piece),
                None => break None,
            },
            Err(error) => break Some(error.to_string()),
        }
    };
    Outcome::Open { events, failed, extensions }
}

fn every_cut(id: &str, bytes: &[u8]) -> Outcome {
    let whole = run(&[bytes]);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(run(&single), whole, "{id} byte by byte");
    let step = bytes.len() / 500 + 1;
    for cut in (0..=bytes.len()).step_by(step) {
        assert_eq!(run(&[&bytes[..cut], &bytes[cut..]]), whole, "{id} cut at {cut}");
    }
    whole
}

#[test]
fn every_case_has_its_outcome() {
    let given = include_str!("../../../../tests/corpora/ws-handshake.json");
    let neighbours = include_str!("../../../../tests/corpora/ws-handshake-neighbours.json");
    let read = |text: &str| -> Vec<Value> { serde_json::from_str(text).unwrap() };
    let mut wrong = Vec::new();
    for case in [read(given), read(neighbours)].iter().flatten() {
        let text = |name: &str| case[name].as_str().unwrap();
        let frames: Vec<u8> = (0..text("after_the_handshake").len() / 2)
            .map(|at| u8::from_str_radix(&text("after_the_handshake")[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let mut head: Vec<u8> = text("head").chars().map(|char| u8::try_from(char).unwrap()).collect();
        if text("id") == "head-2mb" {
            // The corpus gives its beginning.
            head.resize(100_000, b'a');
        }
        let outcome = every_cut(text("id"), &[head, frames.clone()].concat());
        let good = match (text("expect"), &outcome) {
            ("open", Outcome::Open { events, failed, extensions }) => {
                assert_eq!(extensions.is_some(), text("head").contains("permessage-deflate"), "{case}");
                failed.is_none() && events.is_empty() == frames.is_empty()
            }
            ("open-or-refuse", Outcome::Open { failed, extensions, .. }) => {
                !MALFORMED.contains(&text("id")) && failed.is_none() && extensions.is_none()
            }
            ("open-or-refuse", Outcome::Refused(400)) => MALFORMED.contains(&text("id")),
            ("refuse", Outcome::Refused(400..500 | 505)) => true,
            ("fail", Outcome::Open { events, failed, .. }) => {
                // At most the close before it.
                failed.is_some() && events.is_empty() || text("id") == "text-after-close" && events.len() == 1
            }
            _ => false,
        };
        if !good {
            wrong.push(format!("{case}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
