//! Any sequence of commands on both sides, with any delivery: what is sent arrives, and both
//! sides reach their end.

use std::time::Duration;

use balrog_proto::websocket::{Deflate, Kind, Limits, Prepared};

use crate::numbers::Numbers;
use crate::support::{Pair, Side};

/// One side's application: does something, and notes what the other has to see of it.
fn act(
    side: &mut Side,
    numbers: &mut Numbers,
    expected: &mut Vec<String>,
    fragments: &mut Option<Fragments>,
) {
    let sizes = if numbers.below(8) == 0 { 6 } else { 5 };
    let size = [0, 1, 100, 126, 5_000, 70_000][numbers.below(sizes)];
    let text: String = (0..size).map(|_| ['a', 'é', '🦀', '0'][numbers.below(4)]).collect();
    let data: Vec<u8> = (0..size).map(|_| numbers.next() as u8).collect();
    let link = &mut side.link;
    if let Some(message) = fragments {
        // Between fragments, no other message can begin.
        assert!(link.send_text("x").is_err());
        assert!(link.send_fragment(Kind::Text, b"", false).is_err());
        let fin = numbers.below(3) == 0;
        link.send_fragment(Kind::Binary, &data, fin).unwrap();
        message.0.extend_from_slice(&data);
        if fin {
            expected.push(format!("Binary({:?})", message.0));
            *fragments = None;
        }
        return;
    }
    let prepared = |message: Prepared| message.compressed(&Deflate::default());
    match numbers.below(6) {
        0 => {
            link.send_text(&text).unwrap();
            expected.push(format!("Text({text:?})"));
        }
        1 => {
            link.send_binary(&data).unwrap();
            expected.push(format!("Binary({data:?})"));
        }
        2 => {
            link.send_prepared(&prepared(Prepared::text(&text))).unwrap();
            expected.push(format!("Text({text:?})"));
        }
        3 => {
            link.send_prepared(&prepared(Prepared::binary(&data))).unwrap();
            expected.push(format!("Binary({data:?})"));
        }
        4 => {
            let data = &data[..size.min(125)];
            link.ping(data).unwrap();
            expected.push(format!("Ping({data:?})"));
        }
        _ => {
            link.send_fragment(Kind::Binary, &data, false).unwrap();
            *fragments = Some(Fragments(data));
        }
    }
}

struct Fragments(Vec<u8>);

#[test]
fn what_is_sent_arrives_and_both_end() {
    for seed in 0..120 {
        let mut numbers = Numbers::new(seed * 7919 + 1);
        let settings = Deflate {
            server_no_context_takeover: seed & 1 != 0,
            client_no_context_takeover: seed & 2 != 0,
            server_max_window_bits: 8 + (seed % 8) as u8,
            client_max_window_bits: 8 + (seed / 8 % 8) as u8,
            level: 1 + (seed % 9) as u8,
            mem_level: 1 + (seed / 9 % 9) as u8,
            min_size: [0, 100, 1000][numbers.below(3)],
        };
        let deflate = (seed % 4 != 0).then_some(&settings);
        let mut pair = Pair::new(&Limits::default(), deflate, seed);
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let (mut by_client, mut by_server) = (None, None);
        for _ in 0..numbers.below(30) {
            match numbers.below(5) {
                0 => pair.settle(),
                1 => pair.advance(Duration::from_secs(numbers.below(60) as u64)),
                2 => act(&mut pair.server, &mut numbers, &mut to_client, &mut by_server),
                _ => act(&mut pair.client, &mut numbers, &mut to_server, &mut by_client),
            }
        }
        pair.settle();
        let who = numbers.below(3);
        if who != 0 {
            pair.server.link.close(1001, "going").unwrap();
        }
        if who != 1 {
            pair.client.link.close(4000, "done").unwrap();
        }
        pair.advance(Duration::from_secs(30));
        for (name, side, expected) in
            [("server", &pair.server, &to_server), ("client", &pair.client, &to_client)]
        {
            assert!(side.over, "{seed}: the {name} is not closed: {:?}", side.seen.last());
            assert_eq!(side.seen.last().map(String::as_str), Some("closed"), "{seed}: {name}");
            assert!(side.link.is_shutdown() && side.link.poll_timeout().is_none());
            let close = &side.seen[side.seen.len() - 2];
            assert!(close.starts_with("Close"), "{seed}: {name}: {close}");
            let keepalive = |seen: &&String| {
                let ping = seen.starts_with("Ping([0, 0, 0, ") && seen.len() <= "Ping([0, 0, 0, 99])".len();
                !ping && !seen.starts_with("Pong") && *seen != "Writable" && !seen.starts_with("Close")
            };
            let seen: Vec<&String> =
                side.seen.iter().filter(keepalive).filter(|seen| *seen != "closed").collect();
            let same = seen.len() == expected.len() && seen.iter().zip(expected).all(|(a, b)| *a == b);
            let short = |event: &str| event.chars().take(60).collect::<String>();
            let short = |events: Vec<&String>| events.into_iter().map(|it| short(it)).collect::<Vec<_>>();
            assert!(same, "{seed}: {name}: {:?} is not {:?}", short(seen), short(expected.iter().collect()));
        }
        let initiators =
            |side: &Side| side.seen.iter().find(|seen| seen.starts_with("Close")).cloned().unwrap();
        if who == 1 {
            assert!(initiators(&pair.client).ends_with("code: 1001, reason: \"going\", initiator: Remote }"));
            assert!(initiators(&pair.server).ends_with("code: 1001, reason: \"\", initiator: Local }"));
        }
    }
}
