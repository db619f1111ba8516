//! What an owner can ask of a session, and when: what is refused changes nothing and sends nothing.

mod support;

use std::time::{Duration, Instant};

use balrog_proto::postgres::{
    Batch, Bind, Cancel, CancelKey, Choice, Config, Format, Frontend, FrontendEvent, Parameter, Statements,
    TlsRequest, Unit,
};
use balrog_proto::{Error, Link, Phase, Step, Timer};
use support::backend::{
    authentication, columns, complete, config, connecting, copy_response, hear, message, poll, ready, row,
    sent, session, session_with,
};

#[test]
fn a_cancel_request_is_not_answered() {
    let now = Instant::now();
    for size in [4, 32, 256] {
        let key = CancelKey::new(1, &vec![9; size]).unwrap();
        let mut link = Link::new(Cancel::new(key, Some(Duration::from_secs(5))));
        assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
        assert_eq!(link.unsent(), 12 + size);
        assert_eq!(link.segments().flatten().nth(3), Some(&(12_usize + size).to_be_bytes()[7]));
        link.transmitted(12 + size);
        let late = link.poll_timeout().unwrap();
        assert_eq!(link.handle_timeout(late), Err(Error::Timeout(Timer::Query)));
    }
    let mut link = Link::new(Cancel::new(CancelKey::new(1, b"abcd").unwrap(), None));
    link.poll_event(now).unwrap();
    link.receive(b"E");
    assert!(link.poll_event(now).is_err());
    for size in [0, 3, 257] {
        assert!(CancelKey::new(1, &vec![9; size]).is_err());
    }
}

#[test]
fn commands_at_the_wrong_time_change_nothing() {
    let mut batch = Batch::new();
    batch.query("select 1", &[]).unwrap().sync();
    let mut link = connecting(config());
    let now = Instant::now();
    assert!(link.query("select 1").is_err());
    assert!(link.send(&mut batch).is_err());
    assert!(link.copy_data(b"x").is_err() && link.copy_done().is_err() && link.copy_fail("x").is_err());
    assert!(link.recover(now).is_err());
    assert!(link.cancel(Unit(0)).is_err());
    assert!(!batch.is_empty());
    assert_eq!(link.unsent(), 0);
    let mut link = session();
    assert!(link.query("select '\0'").is_err());
    assert!(link.copy_data(b"x").is_err());
    assert_eq!((link.unsent(), link.running()), (0, None));
    link.recover(now).unwrap();
    assert!(link.is_idle());
    link.query("copy t from stdin").unwrap();
    hear(&mut link, &copy_response(b'G')).unwrap();
    assert!(link.query("select 1").is_err() && link.send(&mut batch).is_err());
    assert!(link.copy_fail("because\0").is_err());
    link.copy_data(b"1\n").unwrap();
    link.copy_done().unwrap();
    assert!(link.copy_data(b"x").is_err());
    link.query("select 1").unwrap();
}

#[test]
fn a_cancel_request_holds_what_comes_behind_it() {
    let mut link = session();
    let unit = link.query("select 1").unwrap();
    sent(&mut link);
    assert!(link.cancel(Unit(unit.0 + 1)).is_err(), "not the one that is running");
    let key = link.cancel(unit).unwrap();
    assert_eq!(key.secret(), b"abcd");
    assert!(link.cancel(unit).is_err(), "one is on its way");
    // A large batch waits as a small one does.
    let mut batch = Batch::new();
    let long = "x".repeat(20_000);
    batch.query(&long, &[]).unwrap().sync();
    let behind = link.send(&mut batch).unwrap();
    assert!(batch.is_empty());
    assert_eq!(link.unsent(), 0);
    assert!(link.is_unsent(behind));
    link.cancel_finished();
    assert!(sent(&mut link).len() > 20_000);
    link.cancel_finished();
    assert_eq!(link.unsent(), 0);
    // And without one, it is sent at once.
    batch.query(&long, &[]).unwrap().sync();
    link.send(&mut batch).unwrap();
    assert!(link.unsent() > 20_000);
    // What is over is not running, nor unsent.
    let mut link = session();
    let unit = link.query("select 1").unwrap();
    sent(&mut link);
    hear(&mut link, &[complete("SELECT 1"), ready(b'I')].concat()).unwrap();
    assert!(link.cancel(unit).is_err() && !link.is_unsent(unit));
    assert_eq!(link.running(), None);
}

#[test]
fn who_gave_no_key_cannot_be_cancelled() {
    let mut link = connecting(config());
    hear(&mut link, &[authentication(0, b""), ready(b'I')].concat()).unwrap();
    let unit = link.query("select 1").unwrap();
    assert!(link.key().is_none() && link.cancel(unit).is_err());
    sent(&mut link);
    link.query("select 2").unwrap();
    assert!(link.unsent() > 0, "nothing is held back");
}

#[test]
fn recovering_twice_does_not_begin_anew() {
    let now = Instant::now();
    let mut link = session();
    link.query("select 1").unwrap();
    link.recover(now).unwrap();
    let until = link.poll_timeout();
    link.recover(now + Duration::from_secs(1)).unwrap();
    assert_eq!(link.poll_timeout(), until);
    assert_eq!(
        hear(&mut link, &[columns(&["a"]), row(&[None]), complete("SELECT 1"), ready(b'I')].concat()),
        Ok(vec!["ready 0 Idle".into()])
    );
    assert_eq!(link.poll_timeout(), None);
    // A server that goes on and on has the limit's time.
    link.query("select 1").unwrap();
    link.recover(now).unwrap();
    let end = now + Duration::from_secs(5);
    assert_eq!(link.handle_timeout(end - Duration::from_nanos(1)), Ok(()));
    assert_eq!(link.handle_timeout(end), Err(Error::Timeout(Timer::Drain)));
}

#[test]
fn no_message_is_longer_than_a_server_takes() {
    let mut link = session();
    link.query("copy t from stdin").unwrap();
    hear(&mut link, &copy_response(b'G')).unwrap();
    sent(&mut link);
    // Zeroes that nobody looks at take no memory.
    assert!(link.copy_data(&vec![0; 1 << 30]).is_err());
    assert_eq!(link.unsent(), 0);
    link.copy_data(b"1\n").unwrap();
}

#[test]
fn an_end_is_said_once() {
    let mut link = session();
    link.terminate();
    link.terminate();
    assert_eq!(sent(&mut link), b"X\0\0\0\x04");
    // A session that has not begun is cut.
    let mut link = connecting(config());
    link.terminate();
    assert_eq!(sent(&mut link), b"");
    assert!(link.is_shutdown());
    assert_eq!(poll(&mut link), Ok(vec!["over".into()]));
}

#[test]
fn how_far_it_came() {
    let ends = |link: &mut Link<Frontend>| {
        link.receive_eof();
        link.poll_event(Instant::now()).err()
    };
    // Handed over in part is handed over.
    let mut link = session();
    link.query("select 1").unwrap();
    assert_eq!(ends(&mut link), Some(Error::Eof(Phase::Unsent)));
    let mut link = session();
    link.query("select 1").unwrap();
    link.transmitted(1);
    assert_eq!(ends(&mut link), Some(Error::Eof(Phase::Open)));
    let mut small = config();
    small.limits.whole = 16;
    let mut link = session_with(small);
    link.query("select 1").unwrap();
    hear(&mut link, &[columns(&["a"]), row(&[Some(&[7; 100])])].concat()[..60]).unwrap();
    assert_eq!(ends(&mut link), Some(Error::Eof(Phase::Body)));
}

#[test]
fn formats_and_types_are_told() {
    let mut link = session();
    link.query("select").unwrap();
    let mut binary = columns(&["a"]);
    *binary.last_mut().unwrap() = 1;
    link.receive(&[binary, row(&[Some(b"x")]), columns(&[]), row(&[]), complete("SELECT 1")].concat());
    let now = Instant::now();
    let Ok(Step::Event(FrontendEvent::Columns(described))) = link.poll_event(now) else {
        panic!("no columns")
    };
    assert_eq!(described[0].format, Format::Binary);
    let Ok(Step::Event(FrontendEvent::Row(row))) = link.poll_event(now) else { panic!("no row") };
    assert!(!row.is_empty() && row.len() == 1);
    // Another format there is not.
    let mut link = session();
    link.query("select").unwrap();
    let mut odd = columns(&["a"]);
    *odd.last_mut().unwrap() = 2;
    assert!(hear(&mut link, &odd).unwrap_err().contains("neither text nor binary"));
    let mut link = session();
    link.query("select").unwrap();
    link.receive(&[columns(&[]), support::backend::row(&[])].concat());
    link.poll_event(now).unwrap();
    let Ok(Step::Event(FrontendEvent::Row(none))) = link.poll_event(now) else { panic!("no row") };
    assert!(none.is_empty() && none.values().next().is_none());
    // A description of parameters that is shorter or longer than its count.
    for body in [&b"\0\x02\0\0\0\x19"[..], b"\0\x01\0\0\0\x19\0", b"\0\0\0", b"\0"] {
        let mut link = session();
        let mut batch = Batch::new();
        batch.parse("s", "select $1", &[]).unwrap().describe_statement("s").unwrap().sync();
        link.send(&mut batch).unwrap();
        assert!(hear(&mut link, &[message(b'1', b""), message(b't', body)].concat()).is_err());
    }
}

#[test]
fn nothing_unsound_gets_into_a_batch() {
    let mut batch = Batch::new();
    for text in ["\0", "a\0b"] {
        assert!(batch.query(text, &[]).is_err());
        assert!(batch.parse(text, "select 1", &[]).is_err() && batch.parse("s", text, &[]).is_err());
        assert!(batch.describe_statement(text).is_err() && batch.describe_portal(text).is_err());
        assert!(batch.close_statement(text).is_err() && batch.close_portal(text).is_err());
        assert!(batch.execute(text, 0).is_err());
        let bind = |portal, statement| Bind { portal, statement, parameters: &[], results: &[] };
        assert!(batch.bind(&bind(text, "")).is_err() && batch.bind(&bind("", text)).is_err());
    }
    // a count of parameters that wraps around would bring others' values to the front.
    for (n, good) in [(65_534, true), (65_535, true), (65_536, false), (131_072, false)] {
        let parameters = vec![Parameter::Null; n];
        assert_eq!(Batch::new().query("select 1", &parameters).is_ok(), good, "{n}");
        let bind = Bind { portal: "", statement: "", parameters: &parameters, results: &[] };
        assert_eq!(Batch::new().bind(&bind).is_ok(), good, "{n}");
        assert_eq!(Batch::new().parse("", "select 1", &vec![23; n]).is_ok(), good, "{n}");
        let results = vec![Format::Text; n];
        let bind = Bind { portal: "", statement: "", parameters: &[], results: &results };
        assert_eq!(Batch::new().bind(&bind).is_ok(), good, "{n}");
    }
    assert!(batch.is_empty());
    let mut link = session();
    link.send(&mut batch).unwrap();
    assert_eq!((link.unsent(), link.is_idle()), (0, true));
}

#[test]
fn nothing_unsound_gets_into_a_start_up() {
    let refused = |set: &dyn Fn(&mut Config)| {
        let mut config = config();
        set(&mut config);
        Frontend::new(config, &mut |bytes: &mut [u8]| bytes.fill(7)).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|config| config.user = b"me\0database\0other".to_vec()));
    assert!(refused(&|config| config.user = Vec::new()));
    assert!(refused(&|config| config.database = Some(b"a\0b".to_vec())));
    assert!(refused(&|config| config.password = Some(b"a\0b".to_vec())));
    for name in [&b""[..], b"a\0b", b"user", b"database"] {
        assert!(refused(&|config| config.settings = vec![(name.to_vec(), b"x".to_vec())]));
    }
    assert!(refused(&|config| config.settings = vec![(b"a".to_vec(), b"x\0".to_vec())]));
}

#[test]
fn tls_is_asked_for_first() {
    let now = Instant::now();
    let mut link = Link::new(TlsRequest::new(false, None));
    link.receive(b"S");
    assert!(link.poll_event(now).unwrap_err().to_string().contains("before TLS"));
    // The answer has its time, and no more.
    let mut link = Link::new(TlsRequest::new(true, Some(Duration::from_secs(1))));
    link.poll_event(now).unwrap();
    assert_eq!(link.handle_timeout(now), Ok(()));
    assert_eq!(link.handle_timeout(now + Duration::from_secs(1)), Err(Error::Timeout(Timer::Connect)));
}

#[test]
fn statements_by_default_are_prepared_at_the_sixth_use() {
    let mut statements = Statements::default();
    for _ in 0..5 {
        assert_eq!(statements.choose("select 1", &[]), Choice::Unnamed);
    }
    assert!(matches!(statements.choose("select 1", &[]), Choice::Prepare(_)));
}
