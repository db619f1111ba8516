//! Many queries in one round trip.

use std::time::{Duration, Instant};

use balrog::postgres::{Answer, Client, Error, Pipeline};
use balrog::{Interrupt, spawn, with_deadline};

use crate::{SOON, in_every_mode, only};

fn number(answer: &Answer) -> i32 {
    only(&answer.rows[0])
}

/// Pushes `select $1` with numbers from `from` on.
fn push(pipeline: &mut Pipeline<'_>, from: i32, count: i32) -> Result<(), Error> {
    (from..from + count).try_for_each(|number| pipeline.push("select $1::int", &[&number]))
}

#[test]
fn answers_come_in_order_and_an_error_is_its_query_s_alone() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        db.batch_execute("create temp table dishes(name text unique)")?;
        let mut pipeline = db.pipeline()?;
        pipeline.push("insert into dishes values ($1), ($2)", &[&"soup", &"stew"])?;
        pipeline.push("insert into dishes values ($1)", &[&"soup"])?;
        pipeline.push("nonsense", &[])?;
        // Refused here, it never was a part of it.
        assert!(matches!(pipeline.push("select '\0'", &[]), Err(Error::Refused(_))));
        pipeline.push("select name from dishes order by name", &[])?;
        assert_eq!(pipeline.pending(), 4);
        assert_eq!(pipeline.next().unwrap()?.count, 2);
        assert_eq!(pipeline.next().unwrap().unwrap_err().code(), Some("23505"));
        assert_eq!(pipeline.next().unwrap().unwrap_err().code(), Some("42601"));
        let names = pipeline.next().unwrap()?;
        assert_eq!((names.count, names.rows.len()), (2, 2));
        assert_eq!((only::<&str>(&names.rows[0]), only::<&str>(&names.rows[1])), ("soup", "stew"));
        assert!(pipeline.next().is_none());
        // Taking and pushing take turns.
        for round in 0..10 {
            push(&mut pipeline, round * 10, 10)?;
            for expected in round * 10..round * 10 + 9 + round % 2 {
                assert_eq!(number(&pipeline.next().unwrap()?), expected);
            }
            pipeline.by_ref().for_each(drop);
        }
        assert_eq!(only::<i32>(&db.query_one("select 1", &[])?), 1);
        Ok(())
    });
}

#[test]
fn a_thousand_queries_cost_no_round_trip_each() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        let server =
            |db: &mut Client| -> Result<i32, Error> { db.query_one("select pg_backend_pid()", &[])?.get(0) };
        let process = server(&mut db)?;
        let mut pipeline = db.pipeline()?;
        // Nobody reads meanwhile, yet all of it is on its way before the first answer is asked for.
        pipeline.push("select pg_sleep(0.2)", &[])?;
        push(&mut pipeline, 0, 1000)?;
        assert_eq!(pipeline.pending(), 1001);
        pipeline.next().unwrap()?;
        let numbers: Result<Vec<i32>, Error> = pipeline.map(|answer| Ok(number(&answer?))).collect();
        assert_eq!(numbers?, (0..1000).collect::<Vec<_>>());
        assert_eq!(server(&mut db)?, process);
        let prepared = "select count(*) from pg_prepared_statements where statement like '%$1::int'";
        assert_eq!(only::<i64>(&db.query_one(prepared, &[])?), 1);
        Ok(())
    });
}

/// Neither side takes bytes before it has got rid of its own.
#[test]
fn much_in_both_directions_is_no_deadlock() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        let text = "x".repeat(40_000);
        let mut pipeline = db.pipeline()?;
        for _ in 0..250 {
            pipeline.push("select $1::text", &[&text])?;
        }
        let mut count = 0;
        let until = Instant::now() + Duration::from_secs(60);
        with_deadline(until, || -> Result<(), Error> {
            for answer in pipeline {
                assert_eq!(only::<&str>(&answer?.rows[0]).len(), 40_000);
                count += 1;
            }
            Ok(())
        })?;
        assert_eq!(count, 250);
        Ok(())
    });
}

#[test]
fn what_is_cut_or_dropped_leaves_a_session_that_answers_right() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        let begun = Instant::now();
        // Several that would each last: each is cancelled.
        let mut pipeline = db.pipeline()?;
        push(&mut pipeline, 0, 5)?;
        for _ in 0..3 {
            pipeline.push("select pg_sleep(30)", &[])?;
        }
        push(&mut pipeline, 5, 5)?;
        for expected in 0..5 {
            assert_eq!(number(&pipeline.next().unwrap()?), expected);
        }
        let cut = with_deadline(Instant::now() + SOON, || pipeline.next()).unwrap().unwrap_err();
        assert_eq!(cut.interrupt(), Some(Interrupt::Deadline));
        assert!(pipeline.next().is_none(), "it goes on after an interrupt");
        // It can be used anew.
        push(&mut pipeline, 40, 2)?;
        assert_eq!(number(&pipeline.next().unwrap()?), 40);
        // Dropped with an answer on its way.
        drop(pipeline);
        assert_eq!(only::<i32>(&db.query_one("select 7", &[])?), 7);
        // Another task cancels one of its queries: its error, and no other's.
        let token = db.cancel_token().unwrap();
        let mut task = spawn(move || {
            balrog::sleep_until(Instant::now() + SOON).unwrap();
            token.cancel()
        })?;
        let mut pipeline = db.pipeline()?;
        pipeline.push("select pg_sleep(30)", &[])?;
        push(&mut pipeline, 0, 1)?;
        assert_eq!(pipeline.next().unwrap().unwrap_err().code(), Some("57014"));
        assert_eq!(number(&pipeline.next().unwrap()?), 0);
        task.join().unwrap()?;
        // In a transaction an error ends what is behind it.
        let mut transaction = db.transaction()?;
        let mut pipeline = transaction.pipeline()?;
        pipeline.push("select 1/0", &[])?;
        push(&mut pipeline, 0, 1)?;
        assert_eq!(pipeline.next().unwrap().unwrap_err().code(), Some("22012"));
        assert_eq!(pipeline.next().unwrap().unwrap_err().code(), Some("25P02"));
        drop(transaction);
        // COPY is for copy_in.
        let mut pipeline = db.pipeline()?;
        pipeline.push("copy (select 1) to stdout", &[])?;
        push(&mut pipeline, 0, 1)?;
        assert!(matches!(pipeline.next(), Some(Err(Error::Refused(_)))));
        assert!(pipeline.next().is_none());
        assert!(!db.in_transaction());
        assert_eq!(only::<i32>(&db.query_one("select 8", &[])?), 8);
        assert!(begun.elapsed() < Duration::from_secs(15));
        Ok(())
    });
}

#[test]
fn a_server_that_goes_ends_it_with_one_error() {
    in_every_mode(|url| {
        let (mut db, mut killer) = (Client::connect(url)?, Client::connect(url)?);
        let process: i32 = db.query_one("select pg_backend_pid()", &[])?.get(0)?;
        let mut pipeline = db.pipeline()?;
        push(&mut pipeline, 0, 1)?;
        pipeline.push("select pg_sleep(30)", &[])?;
        push(&mut pipeline, 1, 100)?;
        assert_eq!(number(&pipeline.next().unwrap()?), 0);
        killer.query("select pg_terminate_backend($1)", &[&process])?;
        let error = pipeline.next().unwrap().unwrap_err();
        assert!(error.code() == Some("57P01") || matches!(error, Error::Io(_) | Error::Closed), "{error}");
        assert!(pipeline.next().is_none());
        assert!(matches!(pipeline.push("select 1", &[]), Err(Error::Closed)));
        assert!(db.is_closed());
        Ok(())
    });
}
