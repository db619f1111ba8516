//! PostgreSQL: rows of a result, and a prepared statement on its way out.

use std::hint::black_box;
use std::time::Instant;

use balrog_proto::postgres::{Batch, Bind, Config, Format, Frontend, FrontendEvent, Parameter};
use balrog_proto::{Link, Step, postgres};
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;

use crate::measure::{Path, Row};

/// What one read brings, about.
const ROWS: usize = 800;
/// A row of an orders table: 6 columns, one of them NULL, 68 bytes of values.
const COLUMNS: [Option<&[u8]>; 6] = [
    Some(b"4711"),
    Some(b"customer-0815@example.com"),
    Some(b"\x00\x00\x02\x9a\x3c\x5d\x11\x00"),
    None,
    Some(b"two soups and a salad, please"),
    Some(b"\x01\x00"),
];
const VALUES: [Parameter<'static>; 3] =
    [Parameter::Binary(b"\0\0\x12\x67"), Parameter::Text(b"two soups and a salad, please"), Parameter::Null];

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "postgres-rows",
            limit: "hand-written walk of 6 columns",
            bar: 1.5,
            stretch: 1.2,
            ours: Path::batch(ROWS, our_rows()),
            theirs: Path::batch(ROWS, hand_written_rows()),
        },
        Row {
            name: "postgres-rows-crate",
            limit: "postgres-protocol, borrowed",
            bar: 0.3,
            stretch: 0.2,
            ours: Path::batch(ROWS, our_rows()),
            theirs: Path::batch(ROWS, their_rows()),
        },
        Row {
            name: "postgres-bind-execute-sync",
            limit: "postgres-protocol, which only (de)codes",
            bar: 2.5,
            stretch: 1.5,
            ours: Path::new(our_statement()),
            theirs: Path::new(their_statement()),
        },
    ]
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Many rows, as one read brings them.
fn result() -> Vec<u8> {
    let mut row = (COLUMNS.len() as u16).to_be_bytes().to_vec();
    for value in COLUMNS {
        row.extend_from_slice(&value.map_or(u32::MAX, |value| value.len() as u32).to_be_bytes());
        row.extend_from_slice(value.unwrap_or_default());
    }
    message(b'D', &row).repeat(ROWS)
}

fn session() -> Link<Frontend> {
    let frontend = Frontend::new(Config::new("me"), &mut |bytes: &mut [u8]| bytes.fill(7));
    let mut link = Link::new(frontend.expect("a sound configuration"));
    assert!(matches!(link.poll_event(Instant::now()), Ok(Step::NeedInput)));
    link.receive(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat());
    assert!(matches!(link.poll_event(Instant::now()), Ok(Step::Event(FrontendEvent::Started))));
    link.transmitted(link.unsent());
    link
}

fn our_rows() -> impl FnMut() {
    let (result, now) = (result(), Instant::now());
    let mut link = session();
    let mut batch = Batch::new();
    batch.execute("", 0).expect("a sound name").sync();
    link.send(&mut batch).expect("a session that has begun");
    move || {
        link.receive(black_box(&result));
        let mut rows = 0;
        while let Ok(Step::Event(event)) = link.poll_event(now) {
            let FrontendEvent::Row(row) = event else { continue };
            see(row, &mut rows);
            while let Some(row) = link.next_row() {
                see(row, &mut rows);
            }
        }
        assert_eq!(rows, ROWS);
    }
}

fn see(row: postgres::Row<'_>, rows: &mut usize) {
    for value in row.values() {
        black_box(value.expect("a sound row"));
    }
    *rows += 1;
}

/// As little as can be done and still be safe: every length is checked, and every value is seen.
fn hand_written_rows() -> impl FnMut() {
    let result = result();
    let mut inbox = Vec::new();
    move || {
        inbox.clear();
        inbox.extend_from_slice(black_box(&result));
        let (mut rest, mut rows) = (&inbox[..], 0);
        while let Some((&[b'D', a, b, c, d, _, columns], after)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let Some((mut row, next)) = after.split_at_checked(length - 6) else { break };
            for _ in 0..columns {
                let Some((length, after)) = row.split_first_chunk() else { break };
                let length = i32::from_be_bytes(*length);
                if length < 0 {
                    black_box(None::<&[u8]>);
                    row = after;
                } else {
                    let Some((value, after)) = after.split_at_checked(length as usize) else { break };
                    black_box(Some(value));
                    row = after;
                }
            }
            rest = next;
            rows += 1;
        }
        assert_eq!(rows, ROWS);
    }
}

fn their_rows() -> impl FnMut() {
    let result = result();
    let mut inbox = BytesMut::new();
    let walk = |row: &DataRowBody| {
        let mut ranges = row.ranges();
        while let Ok(Some(range)) = ranges.next() {
            black_box(range.map(|range| &row.buffer()[range]));
        }
    };
    move || {
        inbox.extend_from_slice(black_box(&result));
        let mut rows = 0;
        while let Ok(Some(message)) = Message::parse(&mut inbox) {
            if let Message::DataRow(row) = message {
                walk(&row);
                rows += 1;
            }
        }
        assert_eq!(rows, ROWS);
    }
}

fn our_statement() -> impl FnMut() {
    let now = Instant::now();
    let mut link = session();
    let mut batch = Batch::new();
    let done = [message(b'2', b""), message(b'C', b"INSERT 0 1\0"), message(b'Z', b"I")].concat();
    move || {
        let bind = Bind {
            statement: "s1",
            parameters: black_box(&VALUES),
            results: &[Format::Binary],
            ..Bind::default()
        };
        let filled = batch.bind(&bind).and_then(|batch| batch.execute("", 0)).map(|batch| {
            batch.sync();
        });
        assert!(filled.is_ok() && link.send(&mut batch).is_ok());
        black_box(link.transmit());
        link.transmitted(link.unsent());
        link.receive(&done);
        while let Ok(Step::Event(_)) = link.poll_event(now) {}
    }
}

/// The same messages out, and the same answers in, without anybody who knows what belongs to what.
fn their_statement() -> impl FnMut() {
    let (mut outbox, mut inbox) = (BytesMut::new(), BytesMut::new());
    let done = [message(b'2', b""), message(b'C', b"INSERT 0 1\0"), message(b'Z', b"I")].concat();
    move || {
        let bound = frontend::bind(
            "",
            "s1",
            [1, 0, 1],
            black_box(&VALUES),
            |value, out| match value {
                Parameter::Null => Ok(IsNull::Yes),
                Parameter::Text(value) | Parameter::Binary(value) => {
                    out.extend_from_slice(value);
                    Ok(IsNull::No)
                }
            },
            [1],
            &mut outbox,
        );
        assert!(bound.is_ok() && frontend::execute("", 0, &mut outbox).is_ok());
        frontend::sync(&mut outbox);
        black_box(&outbox[..]);
        outbox.clear();
        inbox.extend_from_slice(&done);
        while let Ok(Some(message)) = Message::parse(&mut inbox) {
            drop(black_box(message));
        }
    }
}
