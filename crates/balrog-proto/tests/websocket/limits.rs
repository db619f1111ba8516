//! Each limit below, at and above its value, and what floods of all sorts come to.

use std::time::{Duration, Instant};

use balrog_proto::websocket::{Kind, Limits, PeerEvent};
use balrog_proto::{Error, Link, Step, Timer};

use crate::support::{MASK, events, failure, frame, plain, receive, sent, server};

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

fn error(limits: Limits, bytes: &[u8]) -> Option<String> {
    receive(server(limits), &[bytes]).0.into_iter().find(|seen| seen.starts_with("10"))
}

#[test]
fn message() {
    let limits = || limits(|limits| limits.message = 1000);
    for (n, failed) in [(999, None), (1000, None), (1001, Some("1009 message".to_owned()))] {
        let whole = frame(0x82, &vec![0; n]);
        let parts = [frame(0x01, &vec![b'a'; n - 1]), frame(0x00, b"a"), frame(0x80, b"")].concat();
        assert_eq!(error(limits(), &whole), failed, "{n}");
        assert_eq!(error(limits(), &parts), failed, "{n}");
        // It is known from the header, before the payload.
        let declared = frame(0x82, &vec![0; n]);
        let seen = receive(server(limits()), &[&declared[..8]]).0;
        assert_eq!(seen, failed.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn frame_length() {
    let limits = || limits(|limits| limits.frame = 500);
    for (n, failed) in [(499, None), (500, None), (501, Some("1009 frame".to_owned()))] {
        let bytes = [frame(0x02, b"ab"), frame(0x80, &vec![0; n])].concat();
        assert_eq!(error(limits(), &bytes), failed, "{n}");
    }
}

#[test]
fn fragments() {
    for (n, failed) in [(4_095, None), (4_096, None), (4_097, Some("1009 fragments".to_owned()))] {
        let mut bytes = frame(0x02, b"");
        (0..n - 2).for_each(|_| bytes.extend(frame(0x00, b"")));
        bytes.extend(frame(0x80, b""));
        assert_eq!(error(Limits::default(), &bytes), failed, "{n}");
    }
}

#[test]
fn unsent() {
    for (n, fine) in [(99, true), (100, true), (101, false)] {
        let mut link = server(limits(|limits| limits.unsent = 200));
        // Alone, a message may be of any length.
        link.send_binary(&[0; 98]).unwrap();
        assert_eq!(link.unsent(), 100);
        assert_eq!(link.send_binary(&vec![0; n]).is_ok(), fine, "{n}");
        assert!(link.send_fragment(Kind::Binary, &[0; 300], true).is_err());
        sent(&mut link);
        link.send_binary(&[0; 100_000]).unwrap();
    }
}

#[test]
fn pongs() {
    for (n, answered) in [(63, 63), (64, 64), (65, 64), (1000, 64)] {
        let now = Instant::now();
        let mut link = server(Limits::default());
        for number in 0..n {
            link.receive(&frame(0x89, &u16::to_be_bytes(number)));
        }
        let mut seen = Vec::new();
        events(&mut link, now, &mut seen);
        assert_eq!(seen.len(), usize::from(n));
        let pongs = sent(&mut link);
        assert_eq!(pongs.len(), answered * 4);
        assert_eq!(pongs[..4], [0x8a, 2, 0, 0]);
        // The last of the others is answered a second later.
        let later = now + Duration::from_secs(1);
        link.handle_timeout(later).unwrap();
        let waiting = if usize::from(n) > answered { plain(0x8a, &u16::to_be_bytes(n - 1)) } else { vec![] };
        assert_eq!(sent(&mut link), waiting);
        assert_eq!(link.poll_timeout(), Some(now + Duration::from_secs(25)));
    }
}

#[test]
fn a_peer_that_does_not_read_gets_one_pong_later() {
    let now = Instant::now();
    let mut link = server(Limits::default());
    link.send_binary(&vec![0; 100_000]).unwrap();
    let before = link.unsent();
    for number in 0..10_u8 {
        link.receive(&frame(0x89, &[number]));
    }
    let mut seen = Vec::new();
    events(&mut link, now, &mut seen);
    assert_eq!((seen.len(), link.unsent()), (10, before));
    sent(&mut link);
    events(&mut link, now, &mut seen);
    assert_eq!(sent(&mut link), plain(0x8a, &[9]));
}

#[test]
fn commands_tell_when_there_is_room_again() {
    let now = Instant::now();
    let mut link = server(Limits::default());
    link.send_binary(&vec![0; 300_000]).unwrap();
    assert!(link.is_congested());
    assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
    link.transmitted(200_000);
    assert!(link.is_congested());
    assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
    link.transmitted(50_000);
    assert_eq!(link.poll_event(now), Ok(Step::Event(PeerEvent::Writable)));
    assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
    assert!(!link.is_congested());
}

/// what is declared is not reserved, and what comes is not kept.
#[test]
fn floods() {
    let roomy = || limits(|limits| limits.fragments = usize::MAX);
    // A frame of almost 2^63 bytes, one of 2^63, one of the message limit of which nothing comes.
    for (length, code) in [(u64::MAX >> 1, "1009 frame"), (1 << 63, "1002")] {
        let bytes = [&[0x82, 0xff][..], &length.to_be_bytes(), &MASK].concat();
        assert_eq!(error(Limits::default(), &bytes).as_deref(), Some(code));
    }
    let huge = [&[0x82, 0xff][..], &(1_u64 << 20).to_be_bytes(), &MASK].concat();
    let (seen, _) = receive(server(Limits::default()), &[&huge]);
    assert!(seen.is_empty());
    // A million fragments of a byte: as many as are allowed, and bounded by the message then.
    let fragment = frame(0x00, b"a");
    let many = |link: &mut Link<_>| {
        link.receive(&frame(0x01, b"a"));
        for sent in 0..1_100_000_usize {
            link.receive(&fragment);
            if let Err(error) = link.poll_event(Instant::now()) {
                return (sent, failure(error));
            }
            assert!(link.unread() < 8);
        }
        (usize::MAX, String::new())
    };
    assert_eq!(many(&mut server(Limits::default())), (4_095, "1009 fragments".to_owned()));
    assert_eq!(many(&mut server(roomy())), ((1 << 20) - 1, "1009 message".to_owned()));
}

#[test]
fn what_was_failed_takes_nothing_more() {
    let mut link = server(Limits::default());
    link.receive(b"\x83");
    let failed = link.poll_event(Instant::now()).unwrap_err();
    assert!(matches!(failed, Error::Violation(_)));
    assert!(link.send_text("x").is_err() && link.ping(b"").is_err() && !link.is_open());
    assert!(link.close(1000, "").is_ok());
    assert_eq!(sent(&mut link), b"\x88\x02\x03\xea");
    link.receive(&frame(0x81, b"more"));
    assert_eq!(link.unread(), 1);
    assert_eq!(link.poll_event(Instant::now()), Err(failed));
}

#[test]
fn a_ping_behind_much_that_moves_is_no_loss() {
    let limits = Limits::default();
    let (interval, patience) = (limits.ping_interval.unwrap(), limits.pong_time);
    let start = Instant::now();
    let mut link = server(limits);
    assert!(matches!(link.poll_event(start), Ok(Step::NeedInput)));
    link.send_binary(&[0; 100_000]).unwrap();
    let mut now = start + interval;
    link.handle_timeout(now).unwrap();
    // Slowly, but it moves; then everything has gone, and the peer has the whole time to answer.
    for sent in [1, 50_000, link.unsent() - 50_001] {
        assert_eq!(link.poll_timeout(), Some(now + patience));
        link.transmitted(sent);
        now += patience;
        assert_eq!(link.handle_timeout(now), Ok(()));
    }
    now += patience;
    assert_eq!(link.handle_timeout(now), Err(Error::Timeout(Timer::Pong)));

    // What does not move at all is not waited for.
    let mut link = server(Limits::default());
    assert!(matches!(link.poll_event(start), Ok(Step::NeedInput)));
    link.send_binary(&[0; 100_000]).unwrap();
    link.transmitted(1_000);
    link.handle_timeout(start + interval).unwrap();
    assert_eq!(link.handle_timeout(start + interval + patience), Err(Error::Timeout(Timer::Pong)));
}
