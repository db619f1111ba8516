//! The server's side: frames in every split, and what is refused with which code.

use std::time::{Duration, Instant};

use balrog_proto::Step;
use balrog_proto::websocket::{Initiator, Limits, PeerEvent};

use crate::support::{self, MASK, frame, server};

fn receive(pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    support::receive(server(Limits::default()), pieces)
}

#[test]
fn every_split_gives_the_same_messages() {
    let mut bytes = frame(0x81, "κόσμε".as_bytes());
    bytes.extend(frame(0x89, b"are you there"));
    bytes.extend(frame(0x01, "frag κ".as_bytes()));
    bytes.extend(frame(0x8a, b""));
    bytes.extend(frame(0x00, &"λ".as_bytes()[..1]));
    bytes.extend(frame(0x80, &"λ".as_bytes()[1..]));
    bytes.extend(frame(0x82, &[7; 300]));
    bytes.extend(frame(0x88, b"\x03\xe8bye"));
    bytes.extend(frame(0x81, b"after the close"));
    let whole = receive(&[&bytes]);
    assert_eq!(whole.0.len(), 7, "{:?}", whole.0);
    assert_eq!(whole.0[0], "Text(\"κόσμε\")");
    assert_eq!(whole.0[3], "Text(\"frag κλ\")");
    assert_eq!(whole.0[5], "Close { code: 1000, reason: \"bye\", initiator: Remote }");
    assert_eq!(whole.1, [&b"\x8a\x0dare you there"[..], b"\x88\x02\x03\xe8"].concat());
    for cut in 0..=bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(receive(&[a, b]), whole, "cut at {cut}");
    }
    let each: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(receive(&each), whole);
}

#[test]
fn violations_are_answered_with_their_code() {
    let unmasked = b"\x81\x01a".to_vec();
    let long = |n: u64| [&b"\x82\xff"[..], &n.to_be_bytes(), &MASK].concat();
    let cases: &[(u16, Vec<u8>)] = &[
        (1002, unmasked),
        (1002, frame(0xc1, b"a")),
        (1002, frame(0x83, b"a")),
        (1002, frame(0x8b, b"a")),
        (1002, frame(0x09, b"a")),
        (1002, frame(0x89, &[0; 126])),
        (1002, frame(0x80, b"a")),
        (1002, [frame(0x01, b"a"), frame(0x81, b"b")].concat()),
        (1002, frame(0x88, b"\x03")),
        (1002, frame(0x88, b"\x03\xed")),
        (1002, frame(0x88, b"\x00\x00")),
        (1002, long(1 << 63)),
        (1002, long(5)),
        (1002, [&b"\x81\xfe\x00\x05"[..], &MASK].concat()),
        (1007, frame(0x81, b"\xff")),
        (1007, frame(0x81, b"a\xc3")),
        (1007, frame(0x88, b"\x03\xe8\xff")),
        (1009, long((1 << 20) + 1)),
        (1009, long((1 << 63) - 1)),
    ];
    for (code, bytes) in cases {
        let (seen, sent) = receive(&[bytes, &frame(0x81, b"never read")]);
        assert_eq!(seen.len(), 1, "{bytes:x?}: {seen:?}");
        assert!(seen[0].starts_with(&code.to_string()), "{bytes:x?}: {seen:?}");
        assert_eq!(sent, [&b"\x88\x02"[..], &code.to_be_bytes()].concat(), "{bytes:x?}");
    }
}

#[test]
fn bad_text_fails_inside_its_frame() {
    let bytes = frame(0x81, b"ok\xf4\x90 and a long rest");
    let (seen, _) = receive(&[&bytes[..6 + 4]]);
    assert_eq!(seen, ["1007"]);
}

#[test]
fn closing_waits_for_the_answer_and_sends_nothing_more() {
    let now = Instant::now();
    let mut link = server(Limits::default());
    link.close(1012, "restart").unwrap();
    link.close(1000, "").unwrap();
    assert!(link.send_text("late").is_err());
    assert!(link.close(1005, "").is_err());
    link.receive(&frame(0x81, b"crossed"));
    assert!(matches!(link.poll_event(now), Ok(Step::NeedInput)));
    assert_eq!(link.poll_timeout(), Some(now + Duration::from_secs(5)));
    link.receive(&frame(0x88, b"\x03\xf4"));
    assert_eq!(
        link.poll_event(now),
        Ok(Step::Event(PeerEvent::Close { code: 1012, reason: "", initiator: Initiator::Local }))
    );
    assert_eq!(link.poll_event(now), Ok(Step::Closed));
    let sent: Vec<u8> = link.segments().flatten().copied().collect();
    assert_eq!(sent, b"\x88\x09\x03\xf4restart");
}
