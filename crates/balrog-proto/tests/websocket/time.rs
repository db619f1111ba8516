//! Keepalive, the round trip, and closing, in virtual time.

use std::time::{Duration, Instant};

use balrog_proto::websocket::{Limits, PeerEvent};
use balrog_proto::{Error, Step, Timer};

use crate::support::{Pair, frame, sent, server};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn silence_is_pinged_then_ends() {
    let start = Instant::now();
    let mut link = server(Limits::default());
    assert!(matches!(link.poll_event(start), Ok(Step::NeedInput)));
    assert_eq!(link.poll_timeout(), Some(start + 25 * SECOND));
    // Too early, nothing happens.
    link.handle_timeout(start + 24 * SECOND).unwrap();
    assert_eq!(link.unsent(), 0);
    link.handle_timeout(start + 25 * SECOND).unwrap();
    assert_eq!(sent(&mut link), b"\x89\x04\x00\x00\x00\x01");
    assert_eq!(link.machine().round_trip(), None);
    link.receive(&frame(0x8a, b"\x00\x00\x00\x01"));
    assert!(matches!(link.poll_event(start + 30 * SECOND), Ok(Step::Event(PeerEvent::Pong(_)))));
    assert_eq!(link.machine().round_trip(), Some(5 * SECOND));
    assert_eq!(link.poll_timeout(), Some(start + 55 * SECOND));
    link.handle_timeout(start + 55 * SECOND).unwrap();
    assert_eq!(sent(&mut link), b"\x89\x04\x00\x00\x00\x02");
    assert_eq!(link.poll_timeout(), Some(start + 65 * SECOND));
    assert_eq!(link.handle_timeout(start + 65 * SECOND), Err(Error::Timeout(Timer::Pong)));
    // Whoever is not there is told nothing.
    assert_eq!(sent(&mut link), b"");
    assert!(link.is_shutdown());
}

#[test]
fn anything_that_comes_is_a_sign_of_life() {
    let start = Instant::now();
    let big = frame(0x82, &[0; 1000]);
    for (sign, rest) in [(&frame(0x8a, b"other")[..], &b""[..]), (&big[..500], &big[500..])] {
        let mut link = server(Limits::default());
        link.receive(&big[..20]);
        link.receive(b"");
        assert!(link.poll_event(start).is_ok());
        link.receive(&big[20..]);
        while let Ok(Step::Event(_)) = link.poll_event(start) {}
        link.handle_timeout(start + 25 * SECOND).unwrap();
        assert_eq!(sent(&mut link).len(), 6);
        link.receive(sign);
        while let Ok(Step::Event(_)) = link.poll_event(start + 34 * SECOND) {}
        // A pong that answers nothing tells no time, but somebody is there.
        assert_eq!(link.machine().round_trip(), None);
        assert_eq!(link.poll_timeout(), Some(start + 59 * SECOND));
        // More of the same frame, too.
        if !rest.is_empty() {
            link.receive(&rest[..1]);
            assert!(link.poll_event(start + 40 * SECOND).is_ok());
            assert_eq!(link.poll_timeout(), Some(start + 65 * SECOND));
        }
    }
}

#[test]
fn both_sides_keep_each_other_alive() {
    let mut pair = Pair::new(&Limits::default(), None, 1);
    pair.advance(10 * 60 * SECOND);
    assert!(pair.server.link.is_open() && pair.client.link.is_open());
    assert_eq!(pair.server.link.machine().round_trip(), Some(Duration::ZERO));
    assert!(pair.server.seen.len() >= 20, "{:?}", pair.server.seen);
}

#[test]
fn without_an_interval_there_is_no_time() {
    let mut limits = Limits::default();
    limits.ping_interval = None;
    let mut link = server(limits);
    assert!(matches!(link.poll_event(Instant::now()), Ok(Step::NeedInput)));
    assert_eq!(link.poll_timeout(), None);
}

#[test]
fn a_close_that_is_not_answered_ends() {
    let start = Instant::now();
    let mut link = server(Limits::default());
    assert!(link.poll_event(start).is_ok());
    link.close(1001, "").unwrap();
    assert!(link.poll_event(start).is_ok());
    assert_eq!(link.poll_timeout(), Some(start + 5 * SECOND));
    // Neither pings nor messages put it off.
    link.receive(&frame(0x89, b"x"));
    link.receive(&frame(0x81, b"crossed"));
    while let Ok(Step::Event(_)) = link.poll_event(start + SECOND) {}
    assert_eq!(sent(&mut link), b"\x88\x02\x03\xe9");
    assert_eq!(link.poll_timeout(), Some(start + 5 * SECOND));
    assert_eq!(link.handle_timeout(start + 5 * SECOND), Err(Error::Timeout(Timer::Close)));
    assert!(link.is_shutdown());
}
