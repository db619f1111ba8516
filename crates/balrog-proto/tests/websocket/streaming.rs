//! Parts of messages, as they come.

use std::time::Instant;

use balrog_proto::websocket::{Deflate, Kind, Limits, Peer, PeerEvent};
use balrog_proto::{Error, Link, Step};

use crate::numbers::Numbers;
use crate::support::{failure, frame, sent};

/// A message put together: its kind, its bytes, and in how many parts it came.
type Message = (Kind, Vec<u8>, usize);

fn read(mut link: Link<Peer>, pieces: &[&[u8]]) -> Result<Vec<Message>, Error> {
    let mut found: Vec<Message> = Vec::new();
    let mut open = false;
    for piece in pieces {
        link.receive(piece);
        loop {
            let (kind, data, fin) = match link.poll_event(Instant::now())? {
                Step::Event(PeerEvent::TextPart { text, fin }) => (Kind::Text, text.as_bytes(), fin),
                Step::Event(PeerEvent::BinaryPart { data, fin }) => (Kind::Binary, data, fin),
                Step::Event(PeerEvent::Text(_) | PeerEvent::Binary(_)) => panic!("a whole message"),
                Step::Event(_) => continue,
                _ => break,
            };
            assert!(fin || !data.is_empty(), "a part of nothing");
            assert!(data.len() <= 64 * 1024);
            if !open {
                found.push((kind, Vec::new(), 0));
            }
            let last = found.last_mut().unwrap();
            assert_eq!(last.0, kind);
            last.1.extend_from_slice(data);
            last.2 += 1;
            open = !fin;
        }
        assert!(link.unread() < 256, "{} bytes wait", link.unread());
    }
    Ok(found)
}

fn streaming() -> Link<Peer> {
    Link::new(Peer::server(Limits::default()).streaming())
}

#[test]
fn parts_are_the_message() {
    let text = "κόσμε 🦀 ".repeat(20);
    let bytes = [
        frame(0x01, &text.as_bytes()[..3]),
        frame(0x89, b"between"),
        frame(0x00, b""),
        frame(0x80, &text.as_bytes()[3..]),
        frame(0x82, b""),
        frame(0x02, &[1; 200]),
        frame(0x80, b""),
    ]
    .concat();
    let expected = [(Kind::Text, text.into_bytes()), (Kind::Binary, vec![]), (Kind::Binary, vec![1; 200])];
    let check = |pieces: &[&[u8]]| {
        let found = read(streaming(), pieces).unwrap();
        let found: Vec<_> = found.into_iter().map(|(kind, data, _)| (kind, data)).collect();
        assert_eq!(found, expected, "{pieces:?}");
    };
    check(&[&bytes]);
    for cut in 0..=bytes.len() {
        check(&[&bytes[..cut], &bytes[cut..]]);
    }
    check(&bytes.chunks(1).collect::<Vec<_>>());
    check(&bytes.chunks(7).collect::<Vec<_>>());
}

#[test]
fn a_part_is_there_before_the_frame_is() {
    let bytes = frame(0x82, &[5; 1000]);
    let pieces = [&bytes[..500], &bytes[500..900], &bytes[900..]];
    assert_eq!(read(streaming(), &pieces).unwrap(), [(Kind::Binary, vec![5; 1000], 3)]);
}

#[test]
fn text_is_checked_in_parts() {
    for text in [&b"a\xc3"[..], b"a\xc3(", b"\xf4\x90\x80\x80", b"ok\xed\xa0\x80ok"] {
        let bytes = frame(0x81, text);
        for cut in 6..bytes.len() {
            let found = read(streaming(), &[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(found.map_err(failure), Err("1007".to_owned()), "{text:?} at {cut}");
        }
    }
}

#[test]
fn the_limits_hold() {
    let mut limits = Limits::default();
    limits.message = 1000;
    for (n, fine) in [(999, true), (1000, true), (1001, false)] {
        let link = Link::new(Peer::server(limits.clone()).streaming());
        let bytes = [frame(0x02, &vec![0; n - 1]), frame(0x80, b"a")].concat();
        assert_eq!(read(link, &[&bytes]).map_err(failure).err(), (!fine).then(|| "1009 message".to_owned()));
    }
}

#[test]
fn compressed_messages_come_in_bounded_parts() {
    let settings = Deflate::default();
    let mut numbers = Numbers::new(7);
    for size in [0, 1, 100, 16 * 1024, 16 * 1024 + 1, 300_000] {
        let text: String = (0..size).map(|_| char::from(b'a' + numbers.below(4) as u8)).collect();
        let random: Vec<u8> = (0..size).map(|_| numbers.next() as u8).collect();
        let zeros = vec![0; size];
        let mut client = Link::new(
            Peer::client(Limits::default(), crate::support::entropy(3))
                .deflate(&Deflate { min_size: 0, ..settings.clone() }),
        );
        client.send_text(&text).unwrap();
        client.send_fragment(Kind::Binary, &random[..size / 3], false).unwrap();
        client.send_fragment(Kind::Binary, &random[size / 3..], true).unwrap();
        client.send_binary(&zeros).unwrap();
        let bytes = sent(&mut client);
        for piece in [1, 999, usize::MAX] {
            let link = Link::new(Peer::server(Limits::default()).deflate(&settings).streaming());
            let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
            let found = read(link, &pieces).unwrap();
            let data: Vec<&[u8]> = found.iter().map(|(_, data, _)| &data[..]).collect();
            assert_eq!(data, [text.as_bytes(), &random, &zeros], "{size} in pieces of {piece}");
            assert!(found[2].2 >= size.div_ceil(16 * 1024), "{} parts", found[2].2);
        }
    }
}

/// Where a piece of the output ends, a character or a block may not.
#[test]
fn compressed_parts_end_anywhere() {
    let last: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let link = || Link::new(Peer::server(Limits::default()).deflate(&Deflate::default()).streaming());
    // An empty final block before it, which gives nothing.
    let empty_before = [&[0x03, 0x00][..], last].concat();
    for payload in [last, &empty_before] {
        let found = read(link(), &[&frame(0xc1, payload)]).unwrap();
        assert_eq!((&found[0].1[..], found.len()), (&b"Hello"[..], 1));
    }
    for skew in 0..4 {
        // Four bytes a character: at a skew, 64 KiB are in the middle of one.
        let text = format!("{}{}", "x".repeat(skew), "🦀".repeat(50_000));
        let mut client = Link::new(
            Peer::client(Limits::default(), crate::support::entropy(3)).deflate(&Deflate::default()),
        );
        client.send_text(&text).unwrap();
        let bytes = sent(&mut client);
        for size in [1, 100, usize::MAX] {
            let found = read(link(), &bytes.chunks(size).collect::<Vec<_>>()).unwrap();
            assert!(found.len() == 1 && found[0].1 == text.as_bytes(), "{skew} by {size}");
        }
    }
}

/// What came before the limit was broken is looked at, however much came at once.
#[test]
fn text_that_is_none_is_told_before_a_limit_behind_it() {
    let settings = Deflate { min_size: 0, ..Deflate::default() };
    let mut client =
        Link::new(Peer::client(Limits::default(), crate::support::entropy(3)).deflate(&settings));
    client.send_binary(&[&[0xff][..], &[b'a'; 2_000]].concat()).unwrap();
    let binary = sent(&mut client);
    let mut text = binary.clone();
    text[0] ^= 0x03;
    let mut limits = Limits::default();
    limits.message = 1_000;
    for (bytes, error) in [(text, "1007"), (binary, "1009 message")] {
        for size in [1, usize::MAX] {
            let link = Link::new(Peer::server(limits.clone()).deflate(&settings).streaming());
            let found = read(link, &bytes.chunks(size).collect::<Vec<_>>());
            assert_eq!(found.map_err(failure), Err(error.to_owned()), "by {size}");
        }
    }
}
