//! A recording of a connection, played again to a new machine, makes it send the same bytes.

mod support;

use std::time::{Duration, Instant};

use balrog_proto::http1::{self, BodyLength, Server, ServerEvent};
use balrog_proto::postgres::{Frontend, FrontendEvent};
use balrog_proto::websocket::{self, Peer, PeerEvent};
use balrog_proto::{Link, Machine, Recording, ReplayError, Step, Transmit, replay};
use support::backend::{authentication, columns, complete, config, ready, row};

/// What a file would have been that the driver sends by itself.
const FILE: &[u8] = b"a file";

/// Drives a link with what comes at each time, and records it; sends in pieces of 100 bytes.
fn record<M: Machine>(
    mut link: Link<M>,
    start: Instant,
    coming: &[(u64, &[u8])],
    owner: fn(&mut Link<M>, Instant),
) -> String {
    let mut recording = Recording::new(start, String::new());
    recording.note(start, "here it begins").unwrap();
    owner(&mut link, start);
    for &(millis, bytes) in coming {
        let now = start + Duration::from_millis(millis);
        if link.poll_timeout().is_some_and(|at| at <= now) {
            recording.timeout(now).unwrap();
            let _ = link.handle_timeout(now);
        } else if bytes.is_empty() {
            recording.received_eof(now).unwrap();
            link.receive_eof();
        } else {
            recording.received(now, bytes).unwrap();
            link.receive(bytes);
        }
        owner(&mut link, now);
        while let Some(transmit) = link.poll_transmit() {
            let n = match transmit {
                Transmit::Data(mut segments) => {
                    let segment = segments.next().unwrap();
                    let n = segment.len().min(100);
                    recording.sent(now, &segment[..n]).unwrap();
                    n
                }
                Transmit::External(n) => {
                    recording.sent(now, &FILE[..n]).unwrap();
                    n
                }
                Transmit::Shutdown => continue,
            };
            link.transmitted(n);
        }
    }
    recording.into_inner()
}

/// Records, plays it again, and plays what is not the same.
fn again<M: Machine>(link: impl Fn() -> Link<M>, coming: &[(u64, &[u8])], owner: fn(&mut Link<M>, Instant)) {
    let start = Instant::now();
    let recorded = record(link(), start, coming, owner);
    let play = |recorded: &str| replay(recorded, start, &mut link(), owner);
    assert_eq!(play(&recorded), Ok(()), "{recorded}");
    let sent: Vec<usize> =
        recorded.lines().enumerate().filter(|(_, line)| line.contains(" > ")).map(|(at, _)| at).collect();
    assert!(!sent.is_empty(), "{recorded}");
    let changed = |change: &dyn Fn(usize, &str) -> String| -> String {
        recorded.lines().enumerate().map(|(at, line)| change(at, line) + "\n").collect()
    };
    for at in sent {
        let is_file = recorded.lines().nth(at).is_some_and(|line| line.ends_with("a file"));
        // Another first byte, and one more at the end.
        let other = changed(&|line, text| match text.split_once(" > ") {
            Some((time, escaped)) if line == at => {
                format!("{time} > ~{}", if escaped.starts_with('\\') { escaped } else { &escaped[1..] })
            }
            _ => text.into(),
        });
        let more = changed(&|line, text| if line == at { format!("{text}~") } else { text.into() });
        let differs = |result| matches!(result, Err(ReplayError::Differs { line, .. }) if line == at + 1);
        assert_eq!(differs(play(&other)), !is_file, "{other}");
        assert!(play(&more).is_err(), "{more}");
    }
}

fn answer(link: &mut Link<Server>, now: Instant) {
    while let Ok(Step::Event(event)) = link.poll_event(now) {
        if let ServerEvent::End = event {
            link.respond(200, "OK", &[(b"X-Long", &[b'x'; 150])], BodyLength::Length(10), false).unwrap();
            link.body_external(FILE.len()).unwrap();
            link.body(b"tail").unwrap();
            link.finish().unwrap();
        }
    }
}

#[test]
fn http_with_a_file_and_a_client_that_is_too_slow() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let idle = http1::Limits::default().idle_time.unwrap().as_millis() as u64;
    again(
        || Link::new(Server::new(http1::Limits::default())),
        &[(5, &get[..9]), (6, &get[9..]), (7, get), (8 + idle, b"GET")],
        answer,
    );
}

fn echo(link: &mut Link<Peer>, now: Instant) {
    while let Ok(Step::Event(event)) = link.poll_event(now) {
        if let PeerEvent::Text(text) = event {
            let text = text.to_owned();
            link.send_text(&text).unwrap();
        }
    }
}

#[test]
fn a_websocket_with_its_masks() {
    let client = || {
        let mut next = 0_u8;
        let entropy = move |bytes: &mut [u8]| {
            bytes.iter_mut().for_each(|byte| {
                next = next.wrapping_add(37);
                *byte = next;
            });
        };
        Link::new(Peer::client(websocket::Limits::default(), Box::new(entropy)))
    };
    let coming: [(u64, &[u8]); 4] =
        [(1, b"\x81\x05hel"), (2, b"lo\x89\x00"), (3, b"\x81\x02\xc3\xa9"), (25_000, b"")];
    again(client, &coming, echo);
}

fn ask(link: &mut Link<Frontend>, now: Instant) {
    while let Ok(Step::Event(event)) = link.poll_event(now) {
        if let FrontendEvent::Started = event {
            link.query("select 1").unwrap();
        }
    }
}

#[test]
fn a_session_of_postgres() {
    let link = || Link::new(Frontend::new(config(), &mut |bytes: &mut [u8]| bytes.fill(7)).unwrap());
    let begun = [authentication(0, b""), ready(b'I')].concat();
    let answer = [columns(&["one"]), row(&[Some(b"1")]), complete("SELECT 1"), ready(b'I')].concat();
    again(link, &[(1, &begun), (2, &answer), (3, b"Z")], ask);
}

#[test]
fn what_is_no_recording_is_said() {
    let start = Instant::now();
    for (line, good) in [
        ("0.000000000 < a", true),
        ("12.345678901 > \\x00", false),
        ("0.000000000 # anything \\", true),
        ("0.000000000 <.", true),
        ("0.000000000 !", true),
        ("0.0 < a", false),
        ("0.000000000", false),
        ("x < a", false),
        ("0.000000000 ? a", false),
        ("0.000000000 < \\", false),
        ("-1.000000000 < a", false),
        ("0.00000000x < a", false),
    ] {
        let mut link = Link::new(Server::new(http1::Limits::default()));
        let result = replay(line, start, &mut link, |_, _| {});
        assert_eq!(result.is_ok(), good, "{line}");
        if line.contains('>') {
            assert_eq!(result.unwrap_err().to_string(), "line 1: \"\\x00\" was recorded, nothing is sent");
        } else if !good {
            assert_eq!(result.unwrap_err().to_string(), "line 1 is not a line of a recording");
        }
    }
}
