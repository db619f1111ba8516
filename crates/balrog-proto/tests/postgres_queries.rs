//! Against a real PostgreSQL server: queries, pipelines, portals, notifications, big rows.

mod support;

use std::time::{Duration, Instant};

use balrog_proto::Step;
use balrog_proto::postgres::{
    Batch, Bind, Config, Format, FrontendEvent, Parameter, Piece, TransactionStatus, Unit,
};
use support::client::{cancel, drive};
use support::{Client, server};

fn client() -> Client {
    Client::admin(server())
}

#[test]
fn simple_queries() {
    let mut client = client();
    assert_eq!(client.run(""), ["empty"]);
    assert_eq!(client.run("select 1 where false"), ["columns ?column?:23", "complete SELECT 0"]);
    assert_eq!(client.run("select"), ["columns", "row ", "complete SELECT 1"]);
    assert_eq!(
        client.run("create temp table t(a int); insert into t values (1), (2); select * from t"),
        [
            "complete CREATE TABLE",
            "complete INSERT 0 2",
            "columns a:23",
            "row 1",
            "row 2",
            "complete SELECT 2"
        ]
    );
    // The rest of the query is skipped, what came before it is undone.
    assert_eq!(
        client.run("insert into t values (3); select 1/0; select 2"),
        ["complete INSERT 0 1", "error 22012 division by zero"]
    );
    assert_eq!(client.run("select count(*) from t")[1], "row 2");
    assert_eq!(client.run("do 'begin raise notice ''hm''; end'"), ["notice 00000 hm", "complete DO"]);
    assert_eq!(
        client.run("set application_name = 'balrog'"),
        ["complete SET", "parameter application_name=balrog"]
    );
    assert_eq!(client.link.parameter("application_name"), Some(&b"balrog"[..]));
}

#[test]
fn the_status_of_the_transaction() {
    let mut client = client();
    let steps = [
        ("begin", TransactionStatus::InTransaction),
        ("select 1/0", TransactionStatus::Failed),
        ("select 1", TransactionStatus::Failed),
        ("rollback", TransactionStatus::Idle),
    ];
    for (sql, status) in steps {
        client.run(sql);
        assert_eq!(client.link.transaction_status(), status, "{sql}");
    }
}

#[test]
fn one_round_trip_for_a_statement_with_parameters() {
    let mut client = client();
    let mut batch = Batch::new();
    let parameters = [Parameter::Text(b"20"), Parameter::Null, Parameter::Binary(b"\0\0\0\x16")];
    batch.query("select $1::int + $3::int, $2::text", &parameters).unwrap().sync();
    assert_eq!(client.link.send(&mut batch), Ok(Unit(0)));
    assert!(batch.is_empty());
    assert_eq!(
        client.read(""),
        [
            "parsed",
            "bound",
            "columns ?column?:23 text:25",
            "row 42|NULL",
            "complete SELECT 1",
            "ready 0 Idle"
        ]
    );
    // Again, with results in binary.
    let bind = Bind { parameters: &parameters, results: &[Format::Binary, Format::Text], ..Bind::default() };
    batch.parse("", "select $1::int + $3::int, $2::text", &[23, 25, 23]).unwrap();
    batch.bind(&bind).unwrap().execute("", 0).unwrap().sync();
    client.link.send(&mut batch).unwrap();
    assert_eq!(
        client.read(""),
        ["parsed", "bound", r"row \x00\x00\x00*|NULL", "complete SELECT 1", "ready 1 Idle"]
    );
}

#[test]
fn prepared_statements() {
    let mut client = client();
    let mut batch = Batch::new();
    batch.parse("add", "select $1 + $2::bigint", &[23]).unwrap();
    batch.describe_statement("add").unwrap().sync();
    batch.parse("nothing", "create temp table u(a int)", &[]).unwrap();
    batch.describe_statement("nothing").unwrap().sync();
    client.link.send(&mut batch).unwrap();
    assert_eq!(
        client.read(""),
        [
            "parsed",
            "parameters [23, 20]",
            "columns ?column?:20",
            "ready 0 Idle",
            "parsed",
            "parameters []",
            "nocolumns",
            "ready 1 Idle"
        ]
    );
    let parameters = [Parameter::Text(b"1"), Parameter::Text(b"2")];
    let bind = Bind { statement: "add", parameters: &parameters, ..Bind::default() };
    for _ in 0..2 {
        batch.bind(&bind).unwrap().execute("", 0).unwrap().sync();
    }
    batch.close_statement("add").unwrap().close_statement("never was").unwrap().sync();
    batch.bind(&bind).unwrap().execute("", 0).unwrap().sync();
    assert_eq!(client.link.send(&mut batch), Ok(Unit(2)));
    let events = client.read("");
    assert_eq!(events[..4], ["bound", "row 3", "complete SELECT 1", "ready 2 Idle"]);
    assert_eq!(events[4..8], ["bound", "row 3", "complete SELECT 1", "ready 3 Idle"]);
    assert_eq!(
        events[8..],
        [
            "closed",
            "closed",
            "ready 4 Idle",
            "error 26000 prepared statement \"add\" does not exist",
            "skipped(execute)",
            "ready 5 Idle"
        ]
    );
}

#[test]
fn an_error_reaches_to_the_next_sync_and_no_further() {
    let mut client = client();
    let mut batch = Batch::new();
    batch.query("select 1", &[]).unwrap().sync();
    batch.query("select 1/0", &[]).unwrap().query("select 2", &[]).unwrap().sync();
    batch.query("select 3", &[]).unwrap().sync();
    batch.query("select nonsense from nowhere", &[]).unwrap().sync();
    batch.query("select 4", &[]).unwrap().sync();
    client.link.send(&mut batch).unwrap();
    client.link.query("select 5").unwrap();
    let events = client.read("");
    let told: Vec<&str> = events
        .iter()
        .map(String::as_str)
        .filter(|it| !matches!(*it, "parsed" | "bound") && !it.starts_with("columns"))
        .collect();
    assert_eq!(
        told,
        [
            "row 1",
            "complete SELECT 1",
            "ready 0 Idle",
            // It is Bind that computes constants.
            "error 22012 division by zero",
            "skipped(describeportal)",
            "skipped(execute)",
            "skipped(parse)",
            "skipped(bind)",
            "skipped(describeportal)",
            "skipped(execute)",
            "ready 1 Idle",
            "row 3",
            "complete SELECT 1",
            "ready 2 Idle",
            "error 42P01 relation \"nowhere\" does not exist",
            "skipped(bind)",
            "skipped(describeportal)",
            "skipped(execute)",
            "ready 3 Idle",
            "row 4",
            "complete SELECT 1",
            "ready 4 Idle",
            "row 5",
            "complete SELECT 1",
            "ready 5 Idle"
        ]
    );
}

#[test]
fn messages_behind_an_error_are_skipped_even_if_they_are_sent_later() {
    let mut client = client();
    let mut batch = Batch::new();
    batch.query("select 1/0", &[]).unwrap().flush();
    client.link.send(&mut batch).unwrap();
    assert_eq!(client.read("error").last().unwrap(), "error 22012 division by zero");
    assert!(client.link.query("select 1").is_err(), "a simple query would be skipped, and end nothing");
    batch.query("select 1", &[]).unwrap();
    client.link.send(&mut batch).unwrap();
    batch.sync();
    client.link.send(&mut batch).unwrap();
    assert_eq!(
        client.read(""),
        [
            "skipped(describeportal)",
            "skipped(execute)",
            "skipped(parse)",
            "skipped(bind)",
            "skipped(describeportal)",
            "skipped(execute)",
            "ready 0 Idle"
        ]
    );
}

#[test]
fn an_error_of_the_commit_at_sync() {
    let mut client = client();
    client.run("create temp table d(a int unique deferrable initially deferred)");
    let mut batch = Batch::new();
    batch.query("insert into d values (1), (1)", &[]).unwrap().sync();
    batch.query("select count(*) from d", &[]).unwrap().sync();
    client.link.send(&mut batch).unwrap();
    let events = client.read("");
    assert!(events[3].starts_with("complete INSERT"));
    assert!(events[4].starts_with("error 23505"), "{events:?}");
    assert_eq!(events[5], "ready 1 Idle");
    assert_eq!(events[9..], ["row 0", "complete SELECT 1", "ready 2 Idle"]);
}

#[test]
fn portals_and_row_limits() {
    let mut client = client();
    client.run("begin");
    let mut batch = Batch::new();
    for portal in ["a", "b"] {
        batch.parse("", "select * from generate_series(1, 5)", &[]).unwrap();
        batch.bind(&Bind { portal, ..Bind::default() }).unwrap();
    }
    batch.execute("a", 2).unwrap().execute("b", 1).unwrap().execute("a", 2).unwrap().flush();
    client.link.send(&mut batch).unwrap();
    let mut events = client.read("suspended");
    events.extend(client.read("suspended"));
    events.extend(client.read("suspended"));
    assert_eq!(
        events[4..],
        ["row 1", "row 2", "suspended", "row 1", "suspended", "row 3", "row 4", "suspended"]
    );
    batch.execute("a", 2).unwrap().describe_portal("a").unwrap().close_portal("a").unwrap();
    batch.execute("a", 2).unwrap().sync();
    client.link.send(&mut batch).unwrap();
    assert_eq!(
        client.read(""),
        [
            "row 5",
            "complete SELECT 1",
            "columns generate_series:23",
            "closed",
            "error 34000 portal \"a\" does not exist",
            "ready 1 Failed"
        ]
    );
}

#[test]
fn notifications_come_at_any_time() {
    let server = server();
    let (mut listener, mut notifier) = (client(), client());
    listener.run("listen orders");
    notifier.run("select pg_notify('orders', 'soup'), pg_notify('orders', '')");
    assert_eq!(listener.read("notification"), ["notification orders soup"]);
    assert_eq!(listener.read("notification"), ["notification orders "]);
    // Behind a result, too.
    assert_eq!(listener.run("notify orders, 'mine'").last().unwrap(), "notification orders mine");
    let _ = server;
}

#[test]
fn the_server_ends_a_session() {
    let (mut victim, mut killer) = (client(), client());
    let process = victim.link.key().unwrap().process();
    victim.link.query("select pg_sleep(60)").unwrap();
    victim.put_to_sleep(&mut killer);
    killer.run(&format!("select pg_terminate_backend({process})"));
    let events = victim.read("");
    assert!(events.last().unwrap().starts_with("error 57P01"), "{events:?}");
    assert!(matches!(victim.link.poll_event(Instant::now()), Ok(Step::Closed)));
    // An idle one hears of it as well.
    let mut idle = client();
    let process = idle.link.key().unwrap().process();
    killer.run(&format!("select pg_terminate_backend({process})"));
    assert!(idle.read("error")[0].starts_with("error 57P01"));
}

#[test]
fn a_cancel_request_hits_what_runs_and_nothing_behind_it() {
    let server = server();
    let mut admin = client();
    for tls in [false, true] {
        let mut client = client();
        let mut batch = Batch::new();
        batch.query("select pg_sleep(60)", &[]).unwrap().sync();
        let unit = client.link.send(&mut batch).unwrap();
        client.put_to_sleep(&mut admin);
        assert!(client.link.cancel(Unit(unit.0 + 1)).is_err());
        let key = client.link.cancel(unit).unwrap();
        assert!(client.link.cancel(unit).is_err(), "one at a time");
        // These wait until the request is delivered.
        batch.query("select 'behind'", &[]).unwrap().sync();
        let behind = client.link.send(&mut batch).unwrap();
        assert_eq!((client.link.unsent(), client.link.at_risk()), (0, 0));
        assert!(client.link.is_unsent(behind));
        cancel(server, tls.then(|| server.tls(false)), key).unwrap();
        client.link.cancel_finished();
        let events = client.read("");
        assert!(events[3].starts_with("error 57014"), "{events:?}");
        assert_eq!(events[4..6], [format!("ready {} Idle", unit.0), "parsed".into()]);
        assert_eq!(events[8], "row behind");
        assert!(client.link.cancel(behind).is_err());
    }
}

#[test]
fn what_is_on_its_way_behind_a_cancelled_unit_is_at_risk() {
    let mut client = client();
    let mut batch = Batch::new();
    batch.query("select pg_sleep(60)", &[]).unwrap().sync();
    let unit = client.link.send(&mut batch).unwrap();
    batch.query("select 'neighbour'", &[]).unwrap().sync();
    client.link.send(&mut batch).unwrap();
    client.put_to_sleep(&mut self::client());
    assert_eq!(client.link.at_risk(), 1);
    let key = client.link.cancel(unit).unwrap();
    cancel(server(), None, key).unwrap();
    client.link.cancel_finished();
    let events = client.read("");
    assert!(events[3].starts_with("error 57014"), "{events:?}");
    assert_eq!(events.last().unwrap(), "ready 1 Idle");
    assert!(events.iter().any(|it| it == "row neighbour"));
}

#[test]
fn a_deadline_leads_to_a_cancel_request() {
    let server = server();
    let mut client = client();
    let unit = client.link.query("select pg_sleep(60)").unwrap();
    client.link.set_deadline(unit, Some(Instant::now() + Duration::from_millis(100)));
    let events = client.read("deadlinepassed");
    assert_eq!(events.last().unwrap(), "deadlinepassed(unit(0))");
    let key = client.link.cancel(unit).unwrap();
    cancel(server, None, key).unwrap();
    client.link.cancel_finished();
    assert!(client.read("")[1].starts_with("error 57014"));
    assert_eq!(client.link.poll_timeout(), None);
    // A server that does not react in time is left.
    let mut config = Config::new("postgres");
    config.limits.cancel_time = Some(Duration::from_millis(100));
    let mut client = Client::local(server, config).unwrap();
    let unit = client.link.query("select pg_sleep(60)").unwrap();
    client.link.set_deadline(unit, Some(Instant::now() + Duration::from_millis(100)));
    let events = client.read("");
    assert_eq!(events.last().unwrap(), "failed: the query did not end in time");
    assert!(client.link.is_shutdown());
}

#[test]
fn abandoned_results_are_read_to_their_end() {
    let mut client = client();
    let mut batch = Batch::new();
    batch.query("select repeat('x', 10000) from generate_series(1, 100)", &[]).unwrap().sync();
    batch.query("select 1/0", &[]).unwrap().sync();
    // No sync yet.
    batch.query("select 2", &[]).unwrap();
    client.link.send(&mut batch).unwrap();
    client.read("row");
    client.link.recover(Instant::now()).unwrap();
    assert_eq!(client.read(""), ["ready 0 Idle", "ready 1 Idle", "ready 2 Idle"]);
    assert_eq!((client.run("select 3")[1].as_str(), client.link.poll_timeout()), ("row 3", None));
}

#[test]
fn abandoned_results_have_bounds() {
    let server = server();
    let mut config = Config::new("postgres");
    config.limits.drain = 100_000;
    let mut client = Client::local(server, config.clone()).unwrap();
    client.link.query("select repeat('x', 10000) from generate_series(1, 11)").unwrap();
    client.link.recover(Instant::now()).unwrap();
    assert_eq!(client.read(""), ["failed: over the limit drain = 100000"]);
    config.limits.drain_time = Some(Duration::from_millis(100));
    let mut client = Client::local(server, config).unwrap();
    client.link.query("select pg_sleep(60)").unwrap();
    client.link.recover(Instant::now()).unwrap();
    let events = client.read("");
    assert!(events[0].starts_with("failed: the rest"), "{events:?}");
}

#[test]
fn both_sides_may_write_without_end() {
    // 16 MiB of queries whose answers are as long: nobody could write all of it before reading.
    let mut client = client();
    let text = vec![b'x'; 1 << 20];
    let mut batch = Batch::new();
    for _ in 0..16 {
        batch.query("select $1::text", &[Parameter::Text(&text)]).unwrap().sync();
    }
    client.link.send(&mut batch).unwrap();
    let mut units = 0;
    let mut bytes = 0;
    while units < 16 {
        drive(&mut client.link, &mut *client.stream, |step| match step {
            Step::Event(FrontendEvent::Ready { .. }) => true,
            Step::Event(FrontendEvent::Row(row)) => {
                bytes += row.get(0).unwrap().unwrap().len();
                false
            }
            Step::Event(FrontendEvent::Piece(Piece::Data(data))) => {
                bytes += data.len();
                false
            }
            _ => false,
        })
        .unwrap();
        units += 1;
    }
    assert_eq!(bytes, 16 << 20);
}

#[test]
fn a_row_larger_than_the_limit_comes_in_pieces() {
    let mut client = client();
    let limit = 1 << 20;
    // Two bytes for the count, four for each length, five for the second column.
    for (size, pieces) in [(limit - 19, 0), (limit - 18, 17)] {
        client.link.query(&format!("select repeat('x', {size}), 'abcde', null")).unwrap();
        let events = client.read("");
        let data = events.iter().filter(|it| it.starts_with("data")).count();
        if pieces == 0 {
            assert!(
                events.iter().any(|it| it.starts_with("row xxx") && it.ends_with("|abcde|NULL")),
                "{size}"
            );
        } else {
            assert_eq!(data, pieces);
            assert_eq!(events[1], "piece(row(3))");
            assert_eq!(events[2], format!("piece(column(some({size})))"));
            assert_eq!(events[3], "data 65536");
            assert_eq!(
                events[events.len() - 6..events.len() - 2],
                ["piece(column(some(5)))", "data 5", "piece(column(none))", "piece(end)"]
            );
        }
    }
}
