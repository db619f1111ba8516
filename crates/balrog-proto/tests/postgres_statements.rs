//! Against a real PostgreSQL server: prepared statements that come, go and get stale.

mod support;

use std::sync::Arc;

use balrog_proto::Step;
use balrog_proto::postgres::{
    Batch, Bind, Choice, Column, FrontendEvent, Remedy, Report, Statements, TransactionStatus,
};
use support::client::drive;
use support::{Client, server};

/// What one attempt came to: the first value of the first row, or the error and the status behind it.
type Outcome = Result<Option<String>, (Vec<u8>, TransactionStatus)>;

/// Runs `sql` as a driver would, and tells how, and how often it had to.
fn run(client: &mut Client, statements: &mut Statements, sql: &str) -> (String, Vec<&'static str>) {
    let mut ways = Vec::new();
    loop {
        let mut batch = Batch::new();
        while let Some(name) = statements.take_closed() {
            batch.close_statement(&name).unwrap();
        }
        let choice = statements.choose(sql, &[]);
        let name = match &choice {
            Choice::Unnamed => {
                ways.push("unnamed");
                batch.query(sql, &[]).unwrap();
                None
            }
            Choice::Prepare(name) => {
                ways.push("prepare");
                batch.parse(name, sql, &[]).unwrap().describe_statement(name).unwrap();
                Some(name)
            }
            Choice::Prepared(name, _) => {
                ways.push("prepared");
                Some(name)
            }
        };
        if let Some(name) = name {
            batch.bind(&Bind { statement: name, ..Bind::default() }).unwrap().execute("", 0).unwrap();
        }
        batch.sync();
        client.link.send(&mut batch).unwrap();
        let (outcome, columns) = outcome(client, statements);
        if let (Choice::Prepare(name), Some(columns)) = (&choice, columns) {
            statements.prepared(name, columns);
        }
        match (outcome, name) {
            (Ok(value), _) => return (value.unwrap_or_default(), ways),
            (Err((report, status)), Some(name)) => {
                let report = Report::parse(&report).unwrap();
                match statements.failed(name, &report, status) {
                    Remedy::Retry => {}
                    other => return (format!("{} {other:?}", report.code()), ways),
                }
            }
            (Err((report, _)), None) => return (Report::parse(&report).unwrap().code().to_owned(), ways),
        }
    }
}

fn outcome(client: &mut Client, statements: &mut Statements) -> (Outcome, Option<Arc<[Column]>>) {
    let (mut value, mut report, mut status, mut columns) = (None, None, None, None);
    drive(&mut client.link, &mut *client.stream, |step| {
        match step {
            Step::Event(FrontendEvent::Row(row)) => {
                value = row.get(0).unwrap().map(|value| String::from_utf8_lossy(value).into_owned());
            }
            Step::Event(FrontendEvent::Columns(it)) => columns = Some(it),
            Step::Event(FrontendEvent::NoColumns) => columns = Some(Arc::new([])),
            Step::Event(FrontendEvent::Complete { tag }) => statements.complete(tag),
            Step::Event(FrontendEvent::ServerError(it)) => report = Some(it.body().to_vec()),
            Step::Event(FrontendEvent::Ready { status: it, .. }) => status = Some(it),
            _ => {}
        }
        status.is_some()
    })
    .unwrap();
    (report.map_or(Ok(value), |report| Err((report, status.unwrap()))), columns)
}

fn prepared(client: &mut Client) -> String {
    client.run("select count(*) from pg_prepared_statements where name like 'balrog%'")[1].clone()
}

#[test]
fn a_statement_is_prepared_in_time_and_makes_room() {
    let mut client = Client::admin(server());
    let mut statements = Statements::new(2, 1);
    assert_eq!(run(&mut client, &mut statements, "select 1"), ("1".into(), vec!["unnamed"]));
    assert_eq!(run(&mut client, &mut statements, "select 1"), ("1".into(), vec!["prepare"]));
    assert_eq!(run(&mut client, &mut statements, "select 1"), ("1".into(), vec!["prepared"]));
    for n in 2..6 {
        for _ in 0..2 {
            run(&mut client, &mut statements, &format!("select {n}"));
        }
    }
    run(&mut client, &mut statements, "select 5");
    assert_eq!(prepared(&mut client), "row 2");
}

#[test]
fn a_statement_whose_columns_have_changed_is_prepared_again() {
    let (mut client, mut other) = (Client::admin(server()), Client::admin(server()));
    other.run("drop table if exists changing; create table changing as select 1 as a");
    let mut statements = Statements::new(10, 0);
    let sql = "select * from changing";
    assert_eq!(run(&mut client, &mut statements, sql), ("1".into(), vec!["prepare"]));
    // By somebody else, so that nothing here tells.
    other.run("alter table changing alter a type text using 'x'");
    assert_eq!(run(&mut client, &mut statements, sql), ("x".into(), vec!["prepared", "prepare"]));
    // In a transaction it is too late.
    run(&mut client, &mut statements, "begin");
    other.run("alter table changing alter a type int using 2");
    assert_eq!(run(&mut client, &mut statements, sql), ("0A000 Forgotten".into(), vec!["prepared"]));
    assert_eq!(run(&mut client, &mut statements, "rollback").0, "");
    assert_eq!(run(&mut client, &mut statements, sql), ("2".into(), vec!["prepare"]));
    // By ourselves: it is known.
    run(&mut client, &mut statements, "alter table changing alter a type text using 'y'");
    assert_eq!(run(&mut client, &mut statements, sql), ("y".into(), vec!["prepare"]));
    other.run("drop table changing");
}

#[test]
fn statements_that_are_not_there_any_more_are_prepared_again() {
    let mut client = Client::admin(server());
    let mut statements = Statements::new(10, 0);
    run(&mut client, &mut statements, "select 1");
    // Behind our back, as a pooler does when it gives us another session.
    client.run("deallocate all");
    assert_eq!(run(&mut client, &mut statements, "select 1"), ("1".into(), vec!["prepared", "prepare"]));
    // Where it is told.
    for sql in ["deallocate all", "discard all"] {
        assert_eq!(run(&mut client, &mut statements, "select 1").0, "1");
        let mut batch = Batch::new();
        batch.query(sql, &[]).unwrap().sync();
        client.link.send(&mut batch).unwrap();
        outcome(&mut client, &mut statements).0.unwrap();
        assert_eq!(run(&mut client, &mut statements, "select 1"), ("1".into(), vec!["prepare"]));
        assert_eq!(prepared(&mut client), "row 1");
    }
    // A name that is taken.
    let mut client = Client::admin(server());
    client.run("prepare balrog_9 as select 0");
    let mut statements = Statements::new(10, 0);
    for n in 0..8 {
        run(&mut client, &mut statements, &format!("select {n} + 10"));
    }
    assert_eq!(run(&mut client, &mut statements, "select 99"), ("99".into(), vec!["prepare", "prepare"]));
}

#[test]
fn nonsense_is_never_counted_as_prepared() {
    let mut client = Client::admin(server());
    let mut statements = Statements::new(10, 0);
    for _ in 0..3 {
        assert_eq!(
            run(&mut client, &mut statements, "select from from"),
            ("42601 None".into(), vec!["prepare"])
        );
    }
    assert_eq!(prepared(&mut client), "row 0");
}
