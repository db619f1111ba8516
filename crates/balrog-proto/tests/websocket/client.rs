//! The client's side: what it masks, what it refuses, how it ends.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use balrog_proto::Step;
use balrog_proto::websocket::{Initiator, Kind, Limits, PeerEvent, Prepared};

use crate::support::{client, frame, plain, receive, sent};

#[test]
fn every_split_gives_the_same_messages() {
    let mut bytes = plain(0x81, "κόσμε".as_bytes());
    bytes.extend(plain(0x89, b"are you there"));
    bytes.extend(plain(0x01, "frag κ".as_bytes()));
    bytes.extend(plain(0x8a, b""));
    bytes.extend(plain(0x80, "λ".as_bytes()));
    bytes.extend(plain(0x82, &[7; 300]));
    bytes.extend(plain(0x88, b"\x03\xe8bye"));
    bytes.extend(plain(0x81, b"after the close"));
    let whole = receive(client(Limits::default()), &[&bytes]);
    assert_eq!(whole.0.len(), 6, "{:?}", whole.0);
    assert_eq!(whole.0[3], "Text(\"frag κλ\")");
    assert_eq!(whole.0[5], "Close { code: 1000, reason: \"bye\", initiator: Remote }");
    for cut in 0..=bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(receive(client(Limits::default()), &[a, b]), whole, "cut at {cut}");
    }
    let each: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(receive(client(Limits::default()), &each), whole);
}

#[test]
fn a_masked_frame_is_refused() {
    for bytes in [frame(0x81, b"a"), frame(0x89, b""), frame(0x88, b"\x03\xe8")] {
        let (seen, sent) = receive(client(Limits::default()), &[&bytes]);
        assert_eq!(seen, ["1002"]);
        assert_eq!((sent[0], sent[1]), (0x88, 0x82));
    }
}

#[test]
fn every_frame_is_masked_with_a_key_of_its_own() {
    let mut link = client(Limits::default());
    let mut keys = HashSet::new();
    let mut seen = 0;
    for round in 0..50 {
        let payload = vec![round; usize::from(round) * 7];
        link.send_binary(&payload).unwrap();
        link.send_fragment(Kind::Binary, &payload, true).unwrap();
        link.send_prepared(&Prepared::binary(&payload)).unwrap();
        link.ping(b"p").unwrap();
        let mut bytes = &sent(&mut link)[..];
        while !bytes.is_empty() {
            assert_eq!(bytes[1] & 0x80, 0x80, "a client's frame is masked");
            let (length, at) = match bytes[1] & 0x7f {
                126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
                short => (usize::from(short), 2),
            };
            let mask: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
            let data = &bytes[at + 4..at + 4 + length];
            let plain: Vec<u8> = data.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            assert!(plain == payload || plain == b"p");
            keys.insert(mask);
            seen += 1;
            bytes = &bytes[at + 4 + length..];
        }
    }
    assert_eq!((seen, keys.len()), (200, 200));
}

#[test]
fn the_server_closes_the_connection() {
    let now = Instant::now();
    let close = PeerEvent::Close { code: 1001, reason: "", initiator: Initiator::Remote };
    // It does.
    let mut link = client(Limits::default());
    link.receive(&plain(0x88, b"\x03\xe9"));
    assert_eq!(link.poll_event(now), Ok(Step::Event(close)));
    assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
    assert!(!link.is_shutdown() && link.wants_input() && !link.is_open());
    link.receive(b"\x81\x03whatever comes behind a close");
    assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
    assert_eq!(link.unread(), 0);
    link.receive_eof();
    assert_eq!(link.poll_event(now), Ok(Step::Closed));
    assert!(link.is_shutdown());
    // It does not.
    let mut link = client(Limits::default());
    link.receive(&plain(0x88, b"\x03\xe9"));
    assert_eq!(link.poll_event(now), Ok(Step::Event(close)));
    let end = now + Duration::from_secs(5);
    assert_eq!(link.poll_timeout(), Some(end));
    assert_eq!(link.handle_timeout(end), Ok(()));
    assert_eq!(link.poll_event(end), Ok(Step::Closed));
    assert!(link.is_shutdown() && link.poll_timeout().is_none());
}
