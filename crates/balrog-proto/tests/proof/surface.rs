//! What people see of the crate besides its machines: texts, and what is kept out of them.

use std::collections::HashSet;
use std::time::Instant;

use balrog_proto::http1::{BodyLength, Limits, Server, ServerEvent};
use balrog_proto::postgres::{Batch, Config, Frontend, FrontendEvent, Parameter};
use balrog_proto::websocket::Kind;
use balrog_proto::{Error, Link, Phase, Step, Timer};

use crate::harness::Subject;
use crate::harness::websocket::PeerSide;

#[test]
fn every_error_has_a_text_of_its_own() {
    let phases = [Phase::Unsent, Phase::Idle, Phase::Head, Phase::Body, Phase::Open];
    let timers = [
        Timer::Head,
        Timer::Idle,
        Timer::Body,
        Timer::Drain,
        Timer::Pong,
        Timer::Close,
        Timer::Connect,
        Timer::Query,
    ];
    let errors = phases.map(Error::Eof).into_iter().chain(timers.map(Error::Timeout));
    let texts: HashSet<String> = errors.map(|error| error.to_string()).collect();
    assert_eq!(texts.len(), phases.len() + timers.len());
    assert!(texts.iter().all(|text| text.len() > 10));
}

#[test]
fn no_secret_is_shown() {
    let mut config = Config::new("me");
    config.password = Some(b"sesame".to_vec());
    config.limits.scram_iterations = 5_000;
    let mut entropy = |bytes: &mut [u8]| bytes.fill(7);
    let mut link = Link::new(Frontend::new(config, &mut entropy).unwrap());
    let now = Instant::now();
    assert!(matches!(link.poll_event(now), Ok(Step::NeedInput)));
    link.receive(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
    assert!(matches!(link.poll_event(now), Ok(Step::NeedInput)));
    let sent: Vec<u8> = link.segments().flatten().copied().collect();
    let sent = String::from_utf8_lossy(&sent);
    let nonce = sent.split("r=").nth(1).unwrap();
    let challenge = format!("r={nonce}x,s=c2FsdA==,i=4096");
    let mut message = vec![b'R'];
    message.extend_from_slice(&(challenge.len() as u32 + 8).to_be_bytes());
    message.extend_from_slice(b"\0\0\0\x0b");
    message.extend_from_slice(challenge.as_bytes());
    link.receive(&message);
    let Ok(Step::Event(FrontendEvent::DeriveKey(job))) = link.poll_event(now) else { panic!("no challenge") };
    let shown = format!("{job:?}");
    assert!(shown.contains("4096") && !shown.contains("sesame"), "{shown}");
    let key = job.finish();
    assert_eq!(format!("{key:?}"), "SaltedPassword(..)");
    let shown = format!("{link:?}");
    assert!(!shown.contains("sesame"), "{shown}");
    assert!(!shown.contains("115, 101, 115, 97, 109, 101"), "{shown}");
}

#[test]
fn a_batch_can_be_begun_anew() {
    let mut batch = Batch::new();
    batch.query("select $1", &[Parameter::Text(b"x")]).unwrap().sync();
    assert!(!batch.is_empty());
    batch.clear();
    assert!(batch.is_empty());
}

#[test]
fn control_frames_have_their_sizes() {
    let mut link = PeerSide::client().open();
    assert!(link.ping(&[0; 126]).is_err());
    link.ping(&[0; 125]).unwrap();
    assert!(link.close(1000, &"x".repeat(124)).is_err());
    assert!(link.is_open());
    link.close(1000, &"x".repeat(123)).unwrap();
    assert!(link.send_fragment(Kind::Text, b"", true).is_err());
}

#[test]
fn a_link_tells_where_it_is() {
    let now = Instant::now();
    let mut link = Link::new(Server::new(Limits::default()));
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    link.receive(head);
    link.receive(b"abcGET");
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Request(_)))));
    // What an event lends is not unread any more.
    assert_eq!(link.unread_bytes(), b"abcGET");
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::Body(b"abc")))));
    assert_eq!(link.unread_bytes(), b"GET");
    assert!(matches!(link.poll_event(now), Ok(Step::Event(ServerEvent::End))));
    assert_eq!(link.position(), head.len() as u64 + 3);
    link.set_water(10, 100);
    link.respond(200, "OK", &[], BodyLength::Length(200), false).unwrap();
    link.body(&[0; 200]).unwrap();
    assert!(link.is_congested());
    link.transmitted(link.unsent() - 9);
    assert!(!link.is_congested());
}
