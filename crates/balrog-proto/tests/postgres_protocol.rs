//! Beside the crate postgres-protocol: the same messages out, the same readings of what comes in.

mod support;

use std::time::Instant;

use balrog_proto::postgres::{Batch, Bind, Format, FrontendEvent, Parameter};
use balrog_proto::{Link, Step};
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};
use postgres_protocol::message::frontend;
use support::backend::{
    authentication, columns, complete, config, connecting, error, hear, message, poll, ready, row, sent,
    session,
};

/// xorshift64*: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.below(256) as u8).collect()
    }

    fn name(&mut self) -> String {
        ["", "s1", "a statement", "ÄÖÜ", "x"][self.below(5)].into()
    }
}

#[test]
fn the_same_bytes_go_out() {
    let mut numbers = Numbers(0x5eed_0123_4567_89ab);
    for _ in 0..2_000 {
        let mut link = session();
        let mut batch = Batch::new();
        let mut theirs = BytesMut::new();
        for _ in 0..numbers.below(6) {
            let (a, b) = (numbers.name(), numbers.name());
            match numbers.below(8) {
                0 => {
                    let types: Vec<u32> = (0..numbers.below(4)).map(|n| n as u32 * 0x0102_0304).collect();
                    batch.parse(&a, &b, &types).unwrap();
                    frontend::parse(&a, &b, types, &mut theirs).unwrap();
                }
                1 => {
                    let values: Vec<(usize, Vec<u8>)> =
                        (0..numbers.below(5)).map(|_| (numbers.below(3), numbers.bytes(40))).collect();
                    let parameters: Vec<_> = values
                        .iter()
                        .map(|(kind, value)| match kind {
                            0 => Parameter::Null,
                            1 => Parameter::Text(value),
                            _ => Parameter::Binary(value),
                        })
                        .collect();
                    let results: Vec<_> = (0..numbers.below(3))
                        .map(|_| [Format::Text, Format::Binary][numbers.below(2)])
                        .collect();
                    let bind = Bind { portal: &a, statement: &b, parameters: &parameters, results: &results };
                    batch.bind(&bind).unwrap();
                    // We say that all are text by saying nothing.
                    let formats: Vec<i16> = values.iter().map(|(kind, _)| i16::from(*kind == 2)).collect();
                    let formats = if formats.contains(&1) { formats } else { vec![] };
                    frontend::bind(
                        &a,
                        &b,
                        formats,
                        &values,
                        |(kind, value), out| {
                            out.extend_from_slice(if *kind == 0 { &[] } else { value });
                            Ok(if *kind == 0 { IsNull::Yes } else { IsNull::No })
                        },
                        results.iter().map(|format| i16::from(*format == Format::Binary)),
                        &mut theirs,
                    )
                    .unwrap_or_else(|_| panic!("it can be bound"));
                }
                2 => {
                    batch.describe_statement(&a).unwrap().describe_portal(&b).unwrap();
                    frontend::describe(b'S', &a, &mut theirs).unwrap();
                    frontend::describe(b'P', &b, &mut theirs).unwrap();
                }
                3 => {
                    batch.close_statement(&a).unwrap().close_portal(&b).unwrap();
                    frontend::close(b'S', &a, &mut theirs).unwrap();
                    frontend::close(b'P', &b, &mut theirs).unwrap();
                }
                4 => {
                    let rows = numbers.below(100);
                    batch.execute(&a, rows as u32).unwrap();
                    frontend::execute(&a, rows as i32, &mut theirs).unwrap();
                }
                5 => {
                    batch.flush();
                    frontend::flush(&mut theirs);
                }
                _ => {
                    batch.sync();
                    frontend::sync(&mut theirs);
                }
            }
        }
        link.send(&mut batch).unwrap();
        assert_eq!(sent(&mut link), theirs);
    }
    let mut theirs = BytesMut::new();
    let mut link = session();
    link.query("copy t from stdin").unwrap();
    hear(&mut link, &support::backend::copy_response(b'G')).unwrap();
    link.copy_data(b"1\n").unwrap();
    link.copy_fail("no").unwrap();
    link.terminate();
    frontend::query("copy t from stdin", &mut theirs).unwrap();
    frontend::CopyData::new(&b"1\n"[..]).unwrap().write(&mut theirs);
    frontend::copy_fail("no", &mut theirs).unwrap();
    frontend::terminate(&mut theirs);
    assert_eq!(sent(&mut link), theirs);
}

/// What they read of the values of a row, or that they cannot.
fn their_values(row: &DataRowBody) -> Option<Vec<Option<Vec<u8>>>> {
    row.ranges().map(|range| Ok(range.map(|range| row.buffer()[range].to_vec()))).collect().ok()
}

#[test]
fn the_same_rows_come_in() {
    let mut numbers = Numbers(0x0123_4567_89ab_cdef);
    let (mut sound, mut broken) = (0, 0);
    for _ in 0..20_000 {
        let values: Vec<_> =
            (0..1 + numbers.below(4)).map(|_| (numbers.below(4) > 0).then(|| numbers.bytes(30))).collect();
        let mut bytes = row(&values.iter().map(|value| value.as_deref()).collect::<Vec<_>>());
        // Half of them get a few wrong bytes, behind the header and the count.
        for _ in 0..numbers.below(4).saturating_sub(1) {
            let at = 7 + numbers.below(bytes.len() - 7);
            bytes[at] = [0, 1, 3, 0x80, 0xff][numbers.below(5)];
        }
        let mut link = session();
        let mut batch = Batch::new();
        batch.execute("", 0).unwrap().sync();
        link.send(&mut batch).unwrap();
        link.receive(&bytes);
        let Ok(Step::Event(FrontendEvent::Row(ours))) = link.poll_event(Instant::now()) else {
            panic!("a row by its header");
        };
        let ours: Result<Vec<_>, _> =
            ours.values().map(|value| value.map(|value| value.map(<[u8]>::to_vec))).collect();
        let Ok(Some(Message::DataRow(theirs))) = Message::parse(&mut BytesMut::from(&bytes[..])) else {
            panic!("a row for them too");
        };
        match (ours, their_values(&theirs)) {
            (Ok(ours), theirs) => {
                sound += 1;
                // Any negative length is NULL for them.
                assert_eq!(Some(ours), theirs);
            }
            (Err(_), None) => broken += 1,
            (Err(error), Some(_)) => {
                broken += 1;
                let negative = "a length below -1 that they take for NULL, or bytes behind the last value";
                let text = error.to_string();
                assert!(text.contains("shorter") || text.contains("longer"), "{text}: {negative}");
            }
        }
    }
    assert!(sound > 5_000 && broken > 2_000, "{sound} sound, {broken} broken");
}

#[test]
fn the_same_errors_and_descriptions_come_in() {
    let bytes = error("ERROR", "22012", "division by zero");
    let Ok(Some(Message::ErrorResponse(theirs))) = Message::parse(&mut BytesMut::from(&bytes[..])) else {
        panic!("an error for them too");
    };
    let mut fields: ErrorFields<'_> = theirs.fields();
    let mut link = session();
    link.query("select 1/0").unwrap();
    link.receive(&bytes);
    let Ok(Step::Event(FrontendEvent::ServerError(ours))) = link.poll_event(Instant::now()) else {
        panic!("an error");
    };
    for (kind, value) in ours.fields() {
        let theirs = fields.next().unwrap().unwrap();
        assert_eq!((theirs.type_(), theirs.value_bytes()), (kind, value));
    }
    assert!(fields.next().unwrap().is_none());

    let bytes = columns(&["a", "bb", ""]);
    let Ok(Some(Message::RowDescription(theirs))) = Message::parse(&mut BytesMut::from(&bytes[..])) else {
        panic!("a description for them too");
    };
    let mut link = session();
    link.query("select 1").unwrap();
    link.receive(&bytes);
    let Ok(Step::Event(FrontendEvent::Columns(ours))) = link.poll_event(Instant::now()) else {
        panic!("a description");
    };
    let mut fields = theirs.fields();
    for column in &*ours {
        let theirs = fields.next().unwrap().unwrap();
        assert_eq!(theirs.name().as_bytes(), &*column.name);
        assert_eq!(
            (theirs.table_oid(), theirs.column_id(), theirs.type_oid(), theirs.type_size()),
            (column.table, column.attribute, column.type_oid, column.type_size)
        );
        assert_eq!((theirs.type_modifier(), theirs.format()), (column.type_modifier, 0));
    }
}

/// Their client and ours prove the same password to the same server.
#[test]
fn the_same_proofs() {
    let mut link = connecting(config());
    hear(&mut link, &authentication(5, b"\x2a\x3d\x8f\xe0")).unwrap();
    let expected = md5_hash(b"me", b"sesame", *b"\x2a\x3d\x8f\xe0");
    assert_eq!(sent(&mut link), message(b'p', format!("{expected}\0").as_bytes()));

    let mut theirs = sasl::ScramSha256::new(b"sesame", sasl::ChannelBinding::unsupported());
    let first = String::from_utf8(theirs.message().to_vec()).unwrap();
    let their_nonce = first.rsplit_once("r=").unwrap().1.to_owned();
    // A server that knows the verifier: what it accepts of one, with the other's nonce.
    let mut link: Link<_> = connecting(config());
    hear(&mut link, &authentication(10, b"SCRAM-SHA-256\0\0")).unwrap();
    let ours = String::from_utf8(sent(&mut link)).unwrap();
    let our_nonce = ours.rsplit_once("r=").unwrap().1.to_owned();
    let challenge = |nonce: &str| format!("r={nonce}server,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
    theirs.update(challenge(&their_nonce).as_bytes()).unwrap();
    assert_eq!(
        hear(&mut link, &authentication(11, challenge(&our_nonce).as_bytes())),
        Ok(vec!["derive".into()])
    );
    let ours = String::from_utf8(sent(&mut link)[5..].to_vec()).unwrap();
    let theirs = String::from_utf8(theirs.message().to_vec()).unwrap();
    let verify = |message: &str, nonce: &str| {
        let (last, proof) = message.rsplit_once(",p=").unwrap();
        let auth_message = format!("n=,r={nonce},{},{last}", challenge(nonce));
        support::backend::check_proof(b"sesame", &auth_message, proof)
    };
    verify(&theirs, &their_nonce);
    let signature = verify(&ours, &our_nonce);
    let last = [
        authentication(12, format!("v={signature}").as_bytes()),
        authentication(0, b""),
        ready(b'I'),
        complete("never asked for"),
    ];
    link.receive(&last[..3].concat());
    assert_eq!(poll(&mut link), Ok(vec!["started".into()]));
    assert!(hear(&mut link, &last[3]).is_err());
}
