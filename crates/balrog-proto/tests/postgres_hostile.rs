//! Servers that break the protocol, lie or never stop: a typed error, no panic, bounded memory.

mod support;

use std::time::{Duration, Instant};

use balrog_proto::postgres::{Batch, Config, Frontend, FrontendEvent};
use balrog_proto::{Error, Link, Step, Timer};
use support::backend::{
    columns, complete, config, connecting, copy_response, error, hear, message, notice, parameter, poll,
    ready, row, sent, session, session_with,
};

/// The error that `bytes` lead to, on a session with a simple query outstanding.
fn refused(bytes: &[u8]) -> String {
    let mut link = session();
    link.query("select 1").unwrap();
    sent(&mut link);
    let outcome = hear(&mut link, bytes);
    // Hung up in order.
    assert_eq!(sent(&mut link), b"X\0\0\0\x04", "{outcome:?}");
    outcome.expect_err(&bytes.escape_ascii().to_string())
}

#[test]
fn lengths_that_cannot_be() {
    for length in [0_u32, 1, 2, 3, 0x8000_0000, u32::MAX] {
        refused(&[&b"D"[..], &length.to_be_bytes()].concat());
    }
    // Declared, and never allocated: nothing but the header has come.
    let mut link = session();
    link.query("select 1").unwrap();
    assert_eq!(hear(&mut link, b"T\x7f\xff\xff\xff"), Err("over the limit control = 4194304".into()));
    assert_eq!(refused(b"D\x7f\xff\xff\xff"), "over the limit message = 1073741824");
}

#[test]
fn unknown_messages_are_refused_by_their_first_bytes() {
    for tag in 0..=u8::MAX {
        if b"123tTnCIsGHWcZAENSDd".contains(&tag) {
            continue;
        }
        assert!(refused(&[tag, 0, 0, 0, 4]).contains("unknown type"), "{tag}");
    }
}

#[test]
fn answers_that_fit_no_question() {
    let query = |bytes: &[u8]| assert!(refused(bytes).contains("fit"), "{}", bytes.escape_ascii());
    for tag in b"123ntsdc" {
        query(&message(*tag, b""));
    }
    query(&row(&[None]));
    query(&[columns(&["a"]), columns(&["a"])].concat());
    query(&[columns(&["a"]), message(b'I', b"")].concat());
    query(&[copy_response(b'H'), complete("COPY 1")].concat());
    query(&[copy_response(b'H'), message(b'c', b""), message(b'd', b"x")].concat());
    // COPY FROM is complete only after its data is.
    query(&[copy_response(b'G'), complete("COPY 1")].concat());
    query(&[error("ERROR", "22012", "x"), complete("SELECT 1")].concat());
    // Nothing was asked.
    for bytes in [complete("SELECT 1"), ready(b'I'), row(&[]), message(b'1', b"")] {
        assert!(hear(&mut session(), &bytes).unwrap_err().contains("nothing"));
    }
    // Prepared statements, out of order.
    let mut batch = Batch::new();
    for bytes in [message(b'2', b""), complete("SELECT 0"), ready(b'I'), row(&[]), message(b't', b"\0\0")] {
        let mut link = session();
        batch.query("select 1", &[]).unwrap().sync();
        link.send(&mut batch).unwrap();
        assert!(hear(&mut link, &bytes).unwrap_err().contains("fit"));
    }
}

#[test]
fn bodies_that_do_not_fit_their_message() {
    let t = columns(&["a"]);
    for bytes in [
        // RowDescription
        message(b'T', b""),
        message(b'T', b"\xff\xff"),
        message(b'T', b"\0\x01a\0\0\0\0\0"),
        message(b'T', b"\0\0x"),
        message(b'T', b"\0\x01a"),
        message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x02"),
        message(b'T', b"\x7f\xff"),
        // CommandComplete, EmptyQueryResponse, ReadyForQuery
        message(b'C', b"SELECT 1"),
        message(b'C', b"SELECT 1\0x"),
        message(b'I', b"x"),
        [complete("SELECT 1"), message(b'Z', b"")].concat(),
        [complete("SELECT 1"), message(b'Z', b"X")].concat(),
        [complete("SELECT 1"), message(b'Z', b"II")].concat(),
        // NoticeResponse, ErrorResponse, NotificationResponse, ParameterStatus
        message(b'N', b"Mtext\0\0"),
        message(b'E', b"SERROR\0Mno code\0\0"),
        message(b'E', b"SERROR\0C2201\0\0"),
        message(b'E', b""),
        message(b'A', b"\0\0\0\x01a\0b"),
        message(b'A', b"\0\0\0"),
        message(b'A', b"\0\0\0\x01a\0b\0c"),
        message(b'S', b"name\0value"),
        message(b'S', b"name"),
        message(b'S', b"name\0value\0more\0"),
        // COPY
        message(b'H', b"\0\0\x01"),
        message(b'H', b"\x02\0\0"),
        message(b'H', b"\0\0\x01\0\x02"),
        message(b'H', b"\0\0\x01\0\0\0"),
        message(b'H', b"\0\xff\xff"),
        message(b'G', b""),
        // DataRow, by its count
        [&t[..], &message(b'D', b"")].concat(),
        [&t[..], &message(b'D', b"\0")].concat(),
        [&t[..], &message(b'D', b"\xff\xff")].concat(),
        [&t[..], &row(&[None, None])].concat(),
        [&t[..], &row(&[Some(b"x")]), &row(&[None, None])].concat(),
        [&t[..], &row(&[])].concat(),
    ] {
        let why = refused(&bytes);
        assert!(why.contains("PostgreSQL"), "{why}");
    }
}

#[test]
fn rows_that_do_not_have_what_they_say() {
    let good = row(&[Some(b"x"), None]);
    for (body, why) in [
        (&b"\0\x02"[..], "shorter"),
        (b"\0\x02\0", "shorter"),
        (b"\0\x02\0\0\0\x05abcd", "shorter"),
        (b"\0\x02\0\0\0\x04abcd", "shorter"),
        (b"\0\x02\0\0\0\x03abcd", "shorter"),
        (b"\0\x02\0\0\0\x01a\0\0\0\x01", "shorter"),
        (b"\0\x02\0\0\0\x01a\xff\xff\xff\xfe", "shorter"),
        (b"\0\x02\x80\0\0\0abcdefgh", "shorter"),
        (b"\0\x02\x7f\xff\xff\xffabcdefgh", "shorter"),
        (b"\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\0", "longer"),
        (b"\0\x02\0\0\0\x01a\0\0\0\x01bc", "longer"),
    ] {
        let mut link = session();
        link.query("select 1").unwrap();
        link.receive(&[columns(&["a", "b"]), good.clone(), message(b'D', body), good.clone()].concat());
        let now = Instant::now();
        assert!(matches!(link.poll_event(now), Ok(Step::Event(FrontendEvent::Columns(_)))));
        let values = |link: &mut Link<Frontend>| match link.poll_event(now) {
            Ok(Step::Event(FrontendEvent::Row(row))) => {
                assert_eq!(row.len(), 2);
                assert_eq!(row.get(1).is_ok(), row.values().take(2).all(|value| value.is_ok()));
                row.values()
                    .map(|value| value.map(|value| value.map(<[u8]>::to_vec)))
                    .collect::<Result<Vec<_>, _>>()
            }
            other => panic!("{other:?}"),
        };
        let sound = Ok(vec![Some(b"x".to_vec()), None]);
        assert_eq!(values(&mut link), sound);
        let error = values(&mut link).unwrap_err().to_string();
        assert!(error.contains(why), "{}: {error}", body.escape_ascii());
        // The stream is still in step.
        assert_eq!(values(&mut link), sound);
    }
}

#[test]
fn the_short_way_to_a_row_gives_the_same_rows_and_never_an_error() {
    let rows =
        [row(&[Some(b"a")]), row(&[Some(b"b")]), row(&[None]), complete("SELECT 3"), ready(b'I')].concat();
    let mut link = session();
    link.query("select 1").unwrap();
    assert!(link.next_row().is_none());
    link.receive(&[&columns(&["a"])[..], &rows].concat());
    let now = Instant::now();
    assert!(link.next_row().is_none());
    link.poll_event(now).unwrap();
    assert!(link.next_row().is_none(), "the first row is an event");
    let mut seen = vec![format!("{:?}", link.poll_event(now).unwrap())];
    while let Some(row) = link.next_row() {
        seen.push(format!("{row:?}"));
    }
    assert_eq!(seen, [r#"Event(Row([Ok(Some("a"))]))"#, r#"[Ok(Some("b"))]"#, "[Ok(None)]"]);
    assert_eq!(poll(&mut link).unwrap(), ["complete SELECT 3", "ready 0 Idle"]);
    assert!(link.next_row().is_none());
    // Not for rows that nobody wants, nor behind an end.
    for end in [|link: &mut Link<Frontend>| link.recover(Instant::now()).unwrap(), Link::terminate] {
        let mut link = session();
        link.query("select 1").unwrap();
        link.receive(&[&columns(&["a"])[..], &rows].concat());
        link.poll_event(now).unwrap();
        link.poll_event(now).unwrap();
        end(&mut link);
        assert!(link.next_row().is_none());
    }
    // Another number of columns is for `poll_event` to judge.
    let mut link = session();
    link.query("select 1").unwrap();
    link.receive(&[columns(&["a"]), row(&[None]), row(&[])].concat());
    link.poll_event(now).unwrap();
    link.poll_event(now).unwrap();
    assert!(link.next_row().is_none());
    assert!(poll(&mut link).unwrap_err().contains("description"));
    assert!(link.next_row().is_none());
}

#[test]
fn large_rows_that_do_not_fit_their_message() {
    let mut small = config();
    small.limits.whole = 16;
    let outcome = |body: &[u8]| {
        let mut link = session_with(small.clone());
        link.query("select 1").unwrap();
        hear(&mut link, &[columns(&["a", "b"]), message(b'D', body)].concat())
    };
    let good = [&b"\0\x02\0\0\0\x0a0123456789\xff\xff\xff\xff"[..]].concat();
    assert_eq!(
        outcome(&good).unwrap()[1..],
        ["piece(row(2))", "piece(column(some(10)))", "data 10", "piece(column(none))", "piece(end)"]
    );
    for body in [
        &b"\0\x01\0\0\0\x0d0123456789012"[..],
        b"\xff\xff\0\0\0\x0d0123456789012",
        b"\0\x02\0\0\0\x0d0123456789012",
        b"\0\x02\0\0\0\x0e0123456789012",
        b"\0\x02\xff\xff\xff\xfe0123456789012",
        b"\0\x02\xff\xff\xff\xff\xff\xff\xff\xff0123456789012",
        b"\0\x02\0\0\0\x0a0123456789\0\0\0\x01",
        b"\0\x02\0\0\0\x0a0123456789\0\0\0",
    ] {
        assert!(outcome(body).is_err(), "{}", body.escape_ascii());
    }
}

#[test]
fn everything_may_come_in_pieces() {
    for whole in 0..3 {
        let mut config = config();
        config.limits.whole = whole;
        let mut link = session_with(config.clone());
        link.query("select").unwrap();
        let events = hear(&mut link, &[columns(&[]), row(&[]), complete("SELECT 1")].concat()).unwrap();
        let row = if whole < 2 { vec!["piece(row(0))", "piece(end)"] } else { vec!["row "] };
        assert_eq!(events[1..events.len() - 1], row);
        for body in [&b""[..], b"\0"] {
            let mut link = session_with(config.clone());
            link.query("select").unwrap();
            // What follows is not its body.
            let bytes = [columns(&[]), message(b'D', body), complete("SELECT 1")].concat();
            assert!(hear(&mut link, &bytes).unwrap_err().contains("ends inside"));
        }
        let mut link = session_with(config);
        link.query("copy t to stdout").unwrap();
        let data = [copy_response(b'H'), message(b'd', b""), message(b'd', b"abc")].concat();
        assert_eq!(hear(&mut link, &data).unwrap()[1..], ["copied  true", "copied abc true"]);
    }
    // Nothing comes behind the end that we make, not even the rest of a row.
    let mut config = config();
    config.limits.whole = 8;
    let mut link = session_with(config);
    link.query("select 1").unwrap();
    let long = [columns(&["a"]), row(&[Some(&[7; 100])])].concat();
    hear(&mut link, &long[..60]).unwrap();
    link.terminate();
    assert_eq!(hear(&mut link, &long[60..]).unwrap(), ["over"]);
}

/// The answers to a COPY FROM whose Sync was sent with it, in each order that there is, and in one
/// that there is not.
#[test]
fn copy_in_behind_its_sync() {
    let begin = || {
        let mut link = session();
        let mut batch = Batch::new();
        batch.query("copy t from stdin", &[]).unwrap().sync();
        link.send(&mut batch).unwrap();
        let begun =
            [message(b'1', b""), message(b'2', b""), message(b'n', b""), copy_response(b'G')].concat();
        assert_eq!(hear(&mut link, &begun).unwrap().len(), 4);
        sent(&mut link);
        link
    };
    let failed = || error("ERROR", "22P02", "no");
    let closed = || message(b'3', b"");
    let fence = [&b"S\0\0\0\x04"[..], b"C\0\0\0\x12Pbalrog fence\0", b"S\0\0\0\x04"].concat();
    for (ended, answers, events) in [
        (true, vec![complete("COPY 1"), ready(b'I'), closed(), ready(b'I')], Ok("complete COPY 1")),
        (true, vec![failed(), ready(b'I'), closed(), ready(b'I')], Ok("error 22P02 no")),
        (true, vec![failed(), ready(b'I'), ready(b'I'), closed(), ready(b'I')], Ok("error 22P02 no")),
        (false, vec![failed(), ready(b'I'), closed(), ready(b'I')], Ok("error 22P02 no")),
        (false, vec![failed(), ready(b'I'), ready(b'I'), closed(), ready(b'I')], Ok("error 22P02 no")),
        (true, vec![complete("COPY 1"), closed()], Err("fit")),
        (true, vec![complete("COPY 1"), ready(b'I'), ready(b'I'), ready(b'I')], Err("nothing")),
        (true, vec![complete("COPY 1"), ready(b'I'), closed(), closed()], Err("fit")),
        (true, vec![ready(b'I')], Err("fit")),
    ] {
        let mut link = begin();
        if ended {
            link.copy_done().unwrap();
            assert_eq!(sent(&mut link), [&b"c\0\0\0\x04"[..], &fence].concat());
        }
        let outcome = hear(&mut link, &answers.concat());
        match events {
            Ok(first) => {
                assert_eq!(outcome.unwrap(), [first, "ready 0 Idle"]);
                assert!(link.is_idle());
                assert!(ended || sent(&mut link) == fence);
                assert_eq!(link.query("select 1").unwrap().0, 1);
            }
            Err(why) => assert!(outcome.unwrap_err().contains(why)),
        }
    }
}

#[test]
fn what_an_error_skips() {
    let mut link = session();
    let mut batch = Batch::new();
    batch.query("select 1/0", &[]).unwrap();
    batch.close_statement("s").unwrap().sync();
    batch.execute("", 0).unwrap().sync();
    link.send(&mut batch).unwrap();
    assert_eq!(link.running().map(|unit| unit.0), Some(0));
    let answers = [message(b'1', b""), error("ERROR", "22012", "x"), ready(b'I')].concat();
    assert_eq!(
        hear(&mut link, &answers).unwrap(),
        [
            "parsed",
            "error 22012 x",
            "skipped(describeportal)",
            "skipped(execute)",
            "skipped(close)",
            "ready 0 Idle"
        ]
    );
    assert_eq!(link.running().map(|unit| unit.0), Some(1));
    // What was skipped has no answer any more.
    assert!(hear(&mut link, &message(b'3', b"")).unwrap_err().contains("fit"));
}

#[test]
fn limits_at_their_edges() {
    type Set = fn(&mut Config);
    // What is set to 64 bytes, whether a query is outstanding, and what sends so many.
    let startup: Set = |config| config.limits.startup = 64;
    let control: Set = |config| config.limits.control = 64;
    let data: Set = |config| config.limits.message = 64;
    let parameters: Set = |config| config.limits.parameters = 64;
    let text = |n: usize| "x".repeat(n);
    let error_of = |n: usize| error("ERROR", "22012", &text(n - 24));
    assert_eq!(error_of(64).len(), 64 + 5);
    for (name, set, bytes) in [
        ("control", control, [error_of(63), error_of(64), error_of(65)]),
        ("control", control, [62, 63, 64].map(|n| complete(&text(n)))),
        ("message", data, [57, 58, 59].map(|n| [columns(&["a"]), row(&[Some(text(n).as_bytes())])].concat())),
        (
            "message",
            data,
            [63, 64, 65].map(|n| [copy_response(b'H'), message(b'd', text(n).as_bytes())].concat()),
        ),
        ("parameters", parameters, [60, 61, 62].map(|n| parameter("a", &text(n)))),
    ] {
        for (bytes, ok) in bytes.iter().zip([true, true, false]) {
            let mut config = config();
            set(&mut config);
            let mut link = session_with(config);
            link.query("select 1").unwrap();
            let outcome = hear(&mut link, bytes);
            assert_eq!(outcome.is_ok(), ok, "{name} {outcome:?}");
            assert!(ok || outcome.unwrap_err().contains(&format!("over the limit {name} = 64")));
        }
    }
    for (n, ok) in [(63, true), (64, true), (65, false)] {
        let mut config = config();
        startup(&mut config);
        let outcome = hear(&mut connecting(config), &error("FATAL", "28000", &text(n - 24)));
        assert_eq!(outcome.is_ok(), ok, "{outcome:?}");
    }
    for (n, ok) in [(9, true), (10, true), (11, false)] {
        let mut config = config();
        config.limits.startup_messages = 10;
        let outcome = hear(&mut connecting(config), &notice("never ends").repeat(n));
        assert_eq!(outcome.is_ok(), ok, "{outcome:?}");
    }
    // What is dropped of abandoned results: this query's are 100 bytes.
    let result =
        [columns(&["a"]), row(&[Some(text(42).as_bytes())]), complete("SELECT 1"), ready(b'I')].concat();
    assert_eq!(result.len(), 100);
    for (drain, ok) in [(99, false), (100, true), (101, true)] {
        let mut config = config();
        config.limits.drain = drain;
        let mut link = session_with(config);
        link.query("select 1").unwrap();
        link.recover(Instant::now()).unwrap();
        let outcome = hear(&mut link, &result);
        assert_eq!(outcome.is_ok(), ok, "{drain}: {outcome:?}");
    }
}

#[test]
fn endless_notices_and_settings_cost_no_memory() {
    let mut config = config();
    config.limits.parameters = 4096;
    let mut link = session_with(config);
    link.query("select 1").unwrap();
    let flood = [notice("again"), parameter("application_name", "x"), parameter("TimeZone", "UTC")].concat();
    for _ in 0..10_000 {
        assert_eq!(hear(&mut link, &flood).unwrap().len(), 3);
        assert_eq!(link.unread(), 0);
    }
    // New ones every time: up to a limit.
    let outcome =
        (0..10_000).try_for_each(|n| hear(&mut link, &parameter(&format!("p{n}"), "x")).map(|_| ()));
    assert!(outcome.unwrap_err().contains("parameters"));
}

#[test]
fn deadlines() {
    let now = Instant::now();
    let mut link = connecting(config());
    let at = link.poll_timeout().expect("logging in has a deadline");
    assert!(at > now + Duration::from_secs(9) && at < now + Duration::from_secs(11));
    assert_eq!(link.handle_timeout(at - Duration::from_millis(1)), Ok(()));
    assert_eq!(link.handle_timeout(at), Err(Error::Timeout(Timer::Connect)));
    assert_eq!(link.handle_timeout(now), Err(Error::Timeout(Timer::Connect)));
    assert_eq!(session().poll_timeout(), None);
    // A query: told once, then bounded.
    let mut link = session();
    let unit = link.query("select 1").unwrap();
    link.set_deadline(unit, Some(now));
    assert_eq!(link.poll_timeout(), Some(now));
    link.handle_timeout(now).unwrap();
    assert_eq!(poll(&mut link), Ok(vec!["deadlinepassed(unit(0))".into()]));
    assert_eq!(poll(&mut link), Ok(vec![]));
    let end = now + Duration::from_secs(5);
    assert_eq!(link.poll_timeout(), Some(end));
    assert_eq!(link.handle_timeout(end - Duration::from_millis(1)), Ok(()));
    assert_eq!(link.handle_timeout(end), Err(Error::Timeout(Timer::Query)));
    // In the middle of a row that comes and comes.
    let mut small = config();
    small.limits.whole = 16;
    let mut link = session_with(small);
    let unit = link.query("select 1").unwrap();
    link.set_deadline(unit, Some(now));
    let long = [columns(&["a"]), row(&[Some(&[7; 1_000])])].concat();
    hear(&mut link, &long[..200]).unwrap();
    link.handle_timeout(now).unwrap();
    assert_eq!(poll(&mut link), Ok(vec!["deadlinepassed(unit(0))".into()]));
    assert_eq!(hear(&mut link, &long[200..]), Ok(vec!["data 1000".into(), "piece(end)".into()]));
    // Over in time: nothing is left of it.
    let mut link = session();
    let unit = link.query("select 1").unwrap();
    link.set_deadline(unit, Some(now));
    link.handle_timeout(now).unwrap();
    hear(&mut link, &[complete("SELECT 1"), ready(b'I')].concat()).unwrap();
    assert_eq!(link.poll_timeout(), None);
    link.set_deadline(unit, Some(now));
    assert_eq!(link.poll_timeout(), None);
    // Without a time to cancel, there is only the event.
    let mut config = config();
    config.limits.cancel_time = None;
    let mut link = session_with(config);
    let unit = link.query("select 1").unwrap();
    link.set_deadline(unit, Some(now));
    link.handle_timeout(now).unwrap();
    assert_eq!(link.poll_timeout(), None);
}

#[test]
fn how_a_connection_can_end() {
    let end = |link: &mut Link<Frontend>| {
        link.receive_eof();
        poll(link)
    };
    assert!(end(&mut connecting(config())).unwrap_err().contains("head"));
    assert!(end(&mut session()).unwrap_err().contains("before a message"));
    let mut link = session();
    let unit = link.query("select 1").unwrap();
    assert!(link.is_unsent(unit));
    link.receive_eof();
    let error = link.poll_event(Instant::now()).unwrap_err();
    assert!(error.safe_to_retry(), "{error}");
    // One byte of it gone, and who knows.
    let mut link = session();
    let unit = link.query("select 1").unwrap();
    sent(&mut link);
    assert!(!link.is_unsent(unit));
    link.receive_eof();
    assert!(!link.poll_event(Instant::now()).unwrap_err().safe_to_retry());
    let mut link = session();
    link.query("select 1").unwrap();
    hear(&mut link, &columns(&["a"])[..7]).unwrap();
    assert!(end(&mut link).unwrap_err().contains("body"));
    // After a fatal error, and after we ended it, an end is an end.
    let mut link = session();
    assert_eq!(hear(&mut link, &error_message()).unwrap(), ["error 57P01 down", "over"]);
    assert_eq!(end(&mut link), Ok(vec!["over".into()]));
    let mut link = session();
    link.terminate();
    assert_eq!(sent(&mut link), b"X\0\0\0\x04");
    assert_eq!(end(&mut link), Ok(vec!["over".into()]));
    assert!(!link.interest().read);
}

fn error_message() -> Vec<u8> {
    error("FATAL", "57P01", "down")
}
