//! Compression: the RFC's examples, every parameter, every split, and its limits.

use std::time::{Duration, Instant};

use balrog_proto::websocket::{Connect, Deflate, Kind, Limits, Peer, PeerEvent, Prepared};
use balrog_proto::{Link, Step};
use zlib_rs::{Inflate, InflateFlush};

use crate::numbers::Numbers;
use crate::support::{entropy, failure, frame, messages, receive, sent};

fn server(settings: &Deflate) -> Link<Peer> {
    Link::new(Peer::server(Limits::default()).deflate(settings))
}

fn client(settings: &Deflate) -> Link<Peer> {
    Link::new(Peer::client(Limits::default(), entropy(5)).deflate(settings))
}

fn eager() -> Deflate {
    Deflate { min_size: 0, ..Deflate::default() }
}

/// What a server with default settings makes of compressed messages.
fn read(pieces: &[&[u8]]) -> Vec<String> {
    receive(server(&Deflate::default()), pieces).0
}

/// A text whose parts come again, near and far.
fn text(numbers: &mut Numbers, size: usize) -> String {
    let mut text = String::new();
    while text.len() < size {
        let from = numbers.below(text.len());
        let to = (from + numbers.below(200)).min(text.len());
        match text.get(from..to).map(str::to_owned) {
            Some(again) if numbers.below(3) > 0 => text.push_str(&again),
            _ => text.extend((0..20).map(|_| ['a', 'b', '{', '"', 'é', '🦀'][numbers.below(6)])),
        }
    }
    text
}

/// RFC 7692 section 7.2.3.
#[test]
fn the_examples_of_the_rfc() {
    let hello = "Text(\"Hello\")".to_owned();
    let simple: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];
    let stored: &[u8] = &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    let last: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let two: &[u8] = &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    let cases = [
        (frame(0xc1, simple), 1),
        ([frame(0x41, &simple[..3]), frame(0x80, &simple[3..])].concat(), 1),
        ([frame(0xc1, simple), frame(0xc1, simple)].concat(), 2),
        // The second refers to the first.
        ([frame(0xc1, simple), frame(0xc1, again)].concat(), 2),
        (frame(0xc1, stored), 1),
        (frame(0xc1, last), 1),
        // Behind a final block, the window goes on.
        ([frame(0xc1, last), frame(0xc1, again)].concat(), 2),
        ([frame(0xc1, &last[..7]), frame(0xc1, again)].concat(), 2),
        (frame(0xc1, two), 1),
        // Each message says for itself whether it is compressed.
        ([frame(0xc1, simple), frame(0x81, b"Hello"), frame(0xc1, again)].concat(), 3),
    ];
    for (bytes, n) in cases {
        assert_eq!(read(&[&bytes]), vec![hello.clone(); n], "{bytes:x?}");
        for cut in 0..=bytes.len() {
            assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), vec![hello.clone(); n], "{bytes:x?} at {cut}");
        }
        assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), vec![hello.clone(); n]);
    }
    // An empty message, as the RFC writes it and in a final block.
    assert_eq!(read(&[&frame(0xc2, &[0]), &frame(0xc2, &[3, 0]), &frame(0xc2, &[0])]), ["Binary([])"; 3]);
}

#[test]
fn what_is_no_compressed_message() {
    let simple: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let continued = [frame(0x41, &simple[..3]), frame(0xc0, &simple[3..])].concat();
    for (code, bytes) in [
        (1002, continued),
        (1002, frame(0xc9, b"")),
        (1002, frame(0xc8, b"\x03\xe8")),
        (1002, frame(0xc0, b"")),
        (1002, frame(0xa1, b"a")),
        (1002, frame(0x91, b"a")),
        // A reserved block type; a distance beyond what there was; a stored length that is wrong.
        (1007, frame(0xc1, &[0x07])),
        (1007, frame(0xc2, &[0xf2, 0x00, 0x11, 0x00, 0x00])),
        (1007, frame(0xc2, &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48])),
        // Cut: nothing at all, in the middle of a code, in the middle of a stored block.
        (1007, frame(0xc2, &[])),
        (1007, frame(0xc2, &simple[..4])),
        (1007, frame(0xc2, &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48])),
    ] {
        let expected = vec![code.to_string()];
        assert_eq!(read(&[&bytes]), expected, "{bytes:x?}");
        assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), expected, "{bytes:x?}");
    }
    // Without an agreement, the bit means nothing.
    let plain = Link::new(Peer::server(Limits::default()));
    assert_eq!(receive(plain, &[&frame(0xc1, simple)]).0, ["1002"]);
}

#[test]
fn compressed_text_is_checked() {
    for (text, fine) in [(&b"fine \xc3\xa9"[..], true), (b"a\xc3", false), (b"a\xff and so on", false)] {
        let mut client = client(&eager());
        client.send_fragment(Kind::Binary, text, false).unwrap();
        client.send_fragment(Kind::Binary, b"", true).unwrap();
        let mut bytes = sent(&mut client);
        // Nothing but a broken client sends this as text.
        bytes[0] = 0x41;
        for size in [1, 5, 1000] {
            let seen = read(&bytes.chunks(size).collect::<Vec<_>>());
            assert_eq!(seen.last().is_some_and(|last| last == "1007"), !fine, "{text:?}: {seen:?}");
        }
    }
}

#[test]
fn every_parameter_both_ways() {
    let mut numbers = Numbers::new(3);
    for bits in 8..=15 {
        for seed in 0..4 {
            let settings = Deflate {
                server_no_context_takeover: seed & 1 != 0,
                client_no_context_takeover: seed & 2 != 0,
                server_max_window_bits: bits,
                client_max_window_bits: 23 - bits,
                level: 1 + bits % 9,
                mem_level: 1 + numbers.below(9) as u8,
                min_size: 0,
            };
            let (mut a, mut b) = (server(&settings), client(&settings));
            let now = Instant::now();
            let mut total = (0, 0);
            for _ in 0..8 {
                let size = numbers.below(20_000);
                let text = text(&mut numbers, size);
                a.send_text(&text).unwrap();
                let bytes = sent(&mut a);
                total = (total.0 + bytes.len(), total.1 + text.len());
                b.receive(&bytes);
                assert_eq!(messages(&mut b, now).unwrap(), [text.as_bytes()]);
                b.send_text(&text).unwrap();
                a.receive(&sent(&mut b));
                assert_eq!(messages(&mut a, now).unwrap(), [text.as_bytes()]);
            }
            assert!(total.0 < total.1, "{total:?} for {settings:?}");
        }
    }
}

/// What is referred to is in the agreed window: an inflater that has no larger one reads it.
#[test]
fn the_window_is_kept() {
    let mut numbers = Numbers::new(11);
    for bits in 8..=15_u8 {
        let settings = Deflate { server_max_window_bits: bits, ..eager() };
        let mut link = server(&settings);
        let mut inflate = Inflate::new(false, bits);
        for _ in 0..6 {
            let text = text(&mut numbers, 30_000);
            link.send_text(&text).unwrap();
            let bytes = sent(&mut link);
            let header = if bytes[1] == 126 { 4 } else { 10 };
            let payload = [&bytes[header..], &[0, 0, 0xff, 0xff]].concat();
            let mut read = Vec::new();
            let mut at = 0;
            // In outputs so small that everything is copied out of the window.
            let mut out = [0; 16];
            loop {
                let before = (inflate.total_in(), inflate.total_out());
                inflate.decompress(&payload[at..], &mut out, InflateFlush::NoFlush).unwrap();
                at += (inflate.total_in() - before.0) as usize;
                let n = (inflate.total_out() - before.1) as usize;
                read.extend_from_slice(&out[..n]);
                if n < out.len() {
                    break;
                }
            }
            assert_eq!(at, payload.len());
            assert_eq!(read, text.as_bytes(), "{bits} bits");
        }
    }
}

#[test]
fn small_messages_are_left_alone() {
    let settings = Deflate { min_size: 100, ..Deflate::default() };
    let mut link = server(&settings);
    for (n, compressed) in [(0, false), (99, false), (100, true), (101, true)] {
        link.send_binary(&vec![7; n]).unwrap();
        assert_eq!(sent(&mut link)[0], if compressed { 0xc2 } else { 0x82 }, "{n}");
    }
}

#[test]
fn the_message_limit_is_exact_after_decompression() {
    let mut limits = Limits::default();
    limits.message = 100_000;
    for (n, fine) in [(99_999, true), (100_000, true), (100_001, false), (100_002, false), (5_000_000, false)]
    {
        let mut numbers = Numbers::new(n as u64);
        let data: Vec<u8> = (0..n).map(|_| numbers.below(16) as u8).collect();
        let mut sender = client(&eager());
        sender.send_binary(&data[..n / 2]).unwrap();
        sender.send_fragment(Kind::Binary, &data[..n / 2], false).unwrap();
        sender.send_fragment(Kind::Binary, &data[n / 2..], true).unwrap();
        let bytes = sent(&mut sender);
        limits.frame = bytes.len();
        for size in [1, 1000, usize::MAX] {
            let mut link = Link::new(Peer::server(limits.clone()).deflate(&eager()));
            let mut failed = None;
            let mut found = 0;
            for piece in bytes.chunks(size) {
                link.receive(piece);
                match messages(&mut link, Instant::now()) {
                    Ok(messages) => found += messages.len(),
                    Err(error) => {
                        failed = Some(failure(error));
                        break;
                    }
                }
            }
            assert_eq!(failed, (!fine).then(|| "1009 message".to_owned()), "{n}");
            if fine {
                assert_eq!(found, 2);
            }
        }
    }
}

fn client_of(data: &[u8]) -> Link<Peer> {
    let mut link = client(&eager());
    link.send_binary(data).unwrap();
    link
}

#[test]
fn the_ratio_limit_is_exact() {
    // At 64 KiB, so much had come.
    let zeros = vec![0; 200_000];
    let bytes = sent(&mut client_of(&zeros));
    let fails = |ratio: usize, size: usize| {
        let mut limits = Limits::default();
        limits.ratio = ratio;
        let link = Link::new(Peer::server(limits).deflate(&eager()));
        let (seen, _) = receive(link, &bytes.chunks(size).collect::<Vec<_>>());
        match seen.last().map(String::as_str) {
            Some("1009 ratio") => true,
            Some(last) => {
                assert!(last.starts_with("Binary"), "{last}");
                false
            }
            None => panic!("nothing happened"),
        }
    };
    let least = (1..2_000).find(|ratio| !fails(*ratio, usize::MAX)).unwrap();
    assert!((100..1_032).contains(&least), "{least}");
    for size in [1, 2, 3, 10, usize::MAX] {
        assert!(fails(least - 1, size), "{size}");
        assert!(!fails(least, size) && !fails(least + 1, size), "{size}");
    }
    // What is not longer than 64 KiB may have any ratio.
    let bytes = sent(&mut client_of(&vec![0; 65_535]));
    let mut limits = Limits::default();
    limits.ratio = 1;
    let link = Link::new(Peer::server(limits).deflate(&eager()));
    assert_eq!(receive(link, &[&bytes]).0.len(), 1);
}

/// a bomb of a thousand times its size ends where the limit is.
#[test]
fn a_bomb() {
    let bomb = vec![0; 64 << 20];
    let mut limits = Limits::default();
    limits.unsent = usize::MAX;
    let mut sender = Link::new(Peer::client(limits, entropy(1)).deflate(&eager()));
    sender.send_binary(&bomb).unwrap();
    let bytes = sent(&mut sender);
    assert!(bytes.len() < bomb.len() / 900, "{} bytes", bytes.len());
    for size in [1000, usize::MAX] {
        let seen = read(&bytes.chunks(size).collect::<Vec<_>>());
        assert!(seen[0] == "1009 message" || seen[0] == "1009 ratio", "{seen:?}");
    }
}

#[test]
fn any_pieces_of_any_bytes_give_the_same() {
    let mut numbers = Numbers::new(23);
    for round in 0..150 {
        let settings = Deflate { client_no_context_takeover: round % 3 == 0, ..eager() };
        let mut sender = client(&settings);
        for _ in 0..1 + numbers.below(4) {
            let size = numbers.below(3_000);
            let text = text(&mut numbers, size);
            sender.send_text(&text).unwrap();
            sender.send_fragment(Kind::Text, text.as_bytes(), false).unwrap();
            sender.ping(b"between").unwrap();
            sender.send_fragment(Kind::Text, b"end", true).unwrap();
        }
        let mut bytes = sent(&mut sender);
        for _ in 0..numbers.below(3) {
            let at = numbers.below(bytes.len());
            bytes[at] ^= 1 << numbers.below(8);
        }
        let mut limits = Limits::default();
        limits.message = 2_000 + numbers.below(2_000);
        limits.ratio = 1 + numbers.below(20);
        let open = || Link::new(Peer::server(limits.clone()).deflate(&settings));
        let whole = receive(open(), &[&bytes]);
        assert_eq!(receive(open(), &bytes.chunks(1).collect::<Vec<_>>()), whole, "round {round}");
        for _ in 0..6 {
            let size = 1 + numbers.below(300);
            assert_eq!(receive(open(), &bytes.chunks(size).collect::<Vec<_>>()), whole, "{round}: by {size}");
            let cut = numbers.below(bytes.len());
            assert_eq!(receive(open(), &[&bytes[..cut], &bytes[cut..]]), whole, "{round}: at {cut}");
        }
    }
}

/// The memory of both directions is given back, and the next messages still refer to the last.
#[test]
fn a_silent_peer_costs_the_window_only() {
    let mut now = Instant::now();
    let mut numbers = Numbers::new(31);
    let settings = Deflate { client_max_window_bits: 15, ..eager() };
    let (mut a, mut b) = (server(&settings), client(&settings));
    let first = text(&mut numbers, 50_000).into_bytes();
    for round in 0..6 {
        b.send_binary(&first[round * 1000..round * 1000 + 20_000]).unwrap();
        a.receive(&sent(&mut b));
        assert_eq!(messages(&mut a, now).unwrap().len(), 1);
        a.send_binary(&first[round * 1000..]).unwrap();
        b.receive(&sent(&mut a));
        assert_eq!(messages(&mut b, now).unwrap().len(), 1);
        if round % 2 == 0 {
            // By the time, as a silent peer; the ping does not disturb the other side.
            now += Duration::from_secs(25);
            a.handle_timeout(now).unwrap();
            b.receive(&sent(&mut a));
            assert!(matches!(b.poll_event(now), Ok(Step::Event(PeerEvent::Ping(_)))));
            a.receive(&sent(&mut b));
            assert!(messages(&mut a, now).unwrap().is_empty());
        } else {
            a.release();
        }
        // The client keeps all, and refers to what the server has seen before.
        b.send_binary(&first[round * 1000..round * 1000 + 20_000]).unwrap();
        let again = sent(&mut b);
        assert!(again.len() < 2_000, "{} bytes", again.len());
        a.receive(&again);
        assert_eq!(messages(&mut a, now).unwrap(), [&first[round * 1000..round * 1000 + 20_000]]);
    }
}

#[test]
fn prepared_messages_go_between_others() {
    let mut numbers = Numbers::new(41);
    let now = Instant::now();
    for (bits, takes) in [(15, true), (12, true), (11, false), (8, false)] {
        let settings = Deflate { server_max_window_bits: bits, ..eager() };
        let (mut a, mut b) = (server(&settings), client(&settings));
        let mut expected = Vec::new();
        for round in 0..20 {
            let size = 2_000 + numbers.below(1_000);
            let text = text(&mut numbers, size);
            // All messages are alike, so that each would refer to the one before.
            let message = Prepared::text(&text).compressed(&Deflate::default());
            if round % 3 == 0 {
                a.send_prepared(&message).unwrap();
                let bytes = sent(&mut a);
                assert_eq!(bytes[0], if takes { 0xc1 } else { 0x81 });
                b.receive(&bytes);
                expected.push(text.clone().into_bytes());
            }
            a.send_text(&text).unwrap();
            b.receive(&sent(&mut a));
            expected.push(text.into_bytes());
        }
        assert_eq!(messages(&mut b, now).unwrap(), expected);
    }
    // Who has not agreed to it is sent the plain one; who is a client masks it.
    let message = Prepared::binary(&[1; 5_000]).compressed(&Deflate::default());
    let mut plain = Link::new(Peer::server(Limits::default()));
    plain.send_prepared(&message).unwrap();
    assert_eq!(sent(&mut plain)[..4], [0x82, 126, 0x13, 0x88]);
    let mut masked = client(&Deflate::default());
    masked.send_prepared(&message).unwrap();
    let bytes = sent(&mut masked);
    assert!(bytes[0] == 0xc2 && bytes[1] & 0x80 != 0 && bytes.len() < 100);
}

#[test]
fn windows_are_brought_into_their_range() {
    // RFC 7692 section 7.1.2.1: "an integer value between 8 to 15".
    for (bits, said) in [(0, 8), (7, 8), (16, 15), (255, 15)] {
        let settings = Deflate { server_max_window_bits: bits, client_max_window_bits: bits, ..eager() };
        let fields = Connect::new(&mut *entropy(2)).deflate(settings).fields();
        let offer = &fields.iter().find(|(name, _)| *name == "Sec-WebSocket-Extensions").unwrap().1;
        let named = |name: &str| match said {
            15 => !offer.contains(&format!("{name}=")),
            said => offer.contains(&format!("{name}={said}")),
        };
        assert!(named("server_max_window_bits") && named("client_max_window_bits"), "{bits}: {offer}");
    }
}

#[test]
fn a_peer_shows_its_settings_and_no_message() {
    let mut link = Link::new(Peer::server(Limits::default()).deflate(&eager()));
    link.send_text(&"a secret ".repeat(100)).unwrap();
    let shown = format!("{link:?}");
    assert!(shown.contains("Compressor") && shown.contains("Decompressor"), "{shown}");
    let shown = format!("{:?}", Peer::client(Limits::default(), entropy(1)));
    assert!(shown.contains("Entropy"), "{shown}");
}
