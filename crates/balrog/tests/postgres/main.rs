//! A real PostgreSQL, each test in every mode.

mod connection;
mod faults;
mod pipeline;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/postgres.rs"]
mod support;
#[cfg(all(
    feature = "json",
    feature = "uuid",
    feature = "jiff",
    feature = "rust_decimal",
    feature = "bigdecimal"
))]
mod types;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use balrog::postgres::{Client, Config, Error, Pool, Row};
use balrog::{Interrupt, Runtime, sleep_until, spawn, with_deadline};

use support::Server;

const SOON: Duration = Duration::from_millis(50);

/// The one server of all tests.
struct Tested {
    server: Server,
    url: String,
    /// Over TCP, with a password.
    tcp: String,
    /// The server's certificate.
    certificate: PathBuf,
}

const HBA: &str = "
local all all      trust
host  all cook     127.0.0.1/32 scram-sha-256
hostssl all waiter 127.0.0.1/32 trust
hostnossl all guest 127.0.0.1/32 trust
hostssl all chef 127.0.0.1/32 cert
";

impl Tested {
    fn get() -> &'static Self {
        static TESTED: OnceLock<Tested> = OnceLock::new();
        TESTED.get_or_init(|| {
            let folder = std::env::temp_dir().join(format!("balrog-postgres-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut arguments = vec!["ssl=on".to_owned(), "listen_addresses=127.0.0.1".to_owned()];
            arguments.push("ssl_ca_file=root.crt".to_owned());
            arguments.push(format!("port={port}"));
            connection::write_client_certificate(&folder);
            for (name, content) in [("pg_hba.conf", HBA), ("server.crt", &pem), ("server.key", &key)] {
                fs::write(folder.join(name), content).unwrap();
            }
            for name in ["pg_hba.conf", "server.crt", "server.key", "root.crt"] {
                arguments.push(format!("--file={name}={}", folder.join(name).display()));
            }
            let server = Server::start(&arguments);
            let url = format!("host={} port={port} user=postgres dbname=balrog", server.directory);
            let role = "create role cook login password 'sesame'; create role waiter login;
                create role guest login; create role chef login";
            Client::connect(&url).unwrap().batch_execute(role).unwrap();
            let tcp = format!("postgres://cook@localhost:{port}/balrog");
            Self { server, url, tcp, certificate: folder.join("server.crt") }
        })
    }
}

/// One test at a time: one of them restarts the server.
fn in_every_mode(body: fn(url: &str) -> Result<(), Error>) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for runtime in Runtime::all() {
        let url = Tested::get().url.as_str();
        runtime.run(move || body(url)).unwrap().unwrap_or_else(|error| panic!("{runtime}: {error}"));
    }
}

fn only<'a, T: balrog::postgres::FromSql<'a>>(row: &'a Row) -> T {
    row.get(0).unwrap()
}

#[test]
fn values_go_there_and_come_back() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        let row = db.query_one(
            "select $1 as a, $2 as b, $3 as c, $4 as d, $5 as e, $6 as f, $7::text as g, $8 as h, $9::text as i",
            &[&true, &-7_i16, &70_000_i32, &(1_i64 << 40), &1.5_f32, &f64::INFINITY, &"šoup", &&[0_u8, 255][..], &None::<i32>],
        )?;
        assert!(row.get::<bool>("a")?);
        assert_eq!((row.get::<i16>("b")?, row.get::<i32>("c")?, row.get::<i64>("d")?), (-7, 70_000, 1 << 40));
        assert_eq!((row.get::<f32>("e")?, row.get::<f64>("f")?), (1.5, f64::INFINITY));
        assert_eq!((row.get::<&str>("g")?, row.get::<Vec<u8>>("h")?), ("šoup", vec![0, 255]));
        assert_eq!(row.get::<Option<String>>("i")?, None);
        assert_eq!(row.get::<Option<i64>>("d")?, Some(1 << 40));
        // Strings are whatever the server needs, and anything is had as a string or parsed.
        let row = db.query_one(
            "select $1::date + 1, $2::inet, $3::jsonb -> 'dish', $4::numeric * 2, array[1, 2]",
            &[&"2026-02-28", &"10.0.0.1", &r#"{"dish": "soup"}"#, &"0.1"],
        )?;
        let texts: Vec<String> = (0..5).map(|index| row.get(index).unwrap()).collect();
        assert_eq!(texts, ["2026-03-01", "10.0.0.1", "\"soup\"", "0.2", "{1,2}"]);
        assert_eq!(row.parse::<IpAddr>(1)?, IpAddr::from([10, 0, 0, 1]));
        // What does not fit is named.
        for error in [row.get::<i32>(0).unwrap_err(), row.get::<i32>("dish").unwrap_err()] {
            assert!(matches!(error, Error::Conversion(_)), "{error}");
        }
        let error = row.get::<i32>(0).unwrap_err().to_string();
        assert!(error.contains("column 0") && error.contains("i32") && error.contains("1082"), "{error}");
        assert!(only::<Option<i32>>(&db.query_one("select null::int", &[])?).is_none());
        assert_eq!(db.query("select generate_series(1, 1000)", &[])?.len(), 1000);
        let large = "x".repeat(5_000_000);
        assert_eq!(only::<String>(&db.query_one("select $1::text", &[&large])?), large);
        Ok(())
    });
}

#[test]
fn arrays_go_there_and_come_back() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        let words =
            vec![Some("a \"b\" \\c".to_owned()), None, Some("NULL".to_owned()), Some("{x,y}".to_owned())];
        let row = db.query_one(
            "select $1::text[], $2::int[], $3::float8[], $4::bool[], $5::bytea[], 7 = any($6), $7::text[]",
            &[
                &words,
                &vec![vec![1_i32, 2], vec![3, 4]],
                &[1.5_f64, f64::NEG_INFINITY][..].to_vec(),
                &vec![true, false],
                &vec![vec![0_u8, 255], vec![]],
                &vec![6_i64, 7],
                &Vec::<String>::new(),
            ],
        )?;
        assert_eq!(row.get::<Vec<Option<String>>>(0)?, words);
        assert_eq!(row.get::<Vec<Vec<i32>>>(1)?, [[1, 2], [3, 4]]);
        assert_eq!(row.get::<Vec<f64>>(2)?, [1.5, f64::NEG_INFINITY]);
        assert_eq!(row.get::<Vec<bool>>(3)?, [true, false]);
        assert_eq!(row.get::<Vec<Vec<u8>>>(4)?, [vec![0, 255], vec![]]);
        assert!(row.get::<bool>(5)?);
        assert!(row.get::<Vec<String>>(6)?.is_empty());
        assert!(row.get::<Vec<String>>(0).is_err());
        Ok(())
    });
}

#[test]
fn errors_are_the_server_s_and_the_session_goes_on() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        let Err(Error::Server(error)) = db.query("select 1/0", &[]) else { panic!("it worked") };
        assert_eq!((error.code.as_str(), error.severity.as_str()), ("22012", "ERROR"));
        let error = db.query("select soup", &[]).unwrap_err();
        assert_eq!(error.code(), Some("42703"));
        let rows = db.query_one("select generate_series(1, 3)", &[]).unwrap_err();
        assert!(matches!(rows, Error::Rows(3)));
        assert!(matches!(db.query_one("select 1 where false", &[]).unwrap_err(), Error::Rows(0)));
        assert!(db.query_opt("select 1 where false", &[])?.is_none());
        assert!(matches!(db.batch_execute("copy (select 1) to stdout"), Err(Error::Refused(_))));
        assert!(matches!(
            db.batch_execute("create temp table t(a int); copy t from stdin"),
            Err(Error::Refused(_))
        ));
        assert_eq!(only::<i32>(&db.query_one("select 1", &[])?), 1);
        let error = Client::connect(&format!("{url} user=nobody_at_all")).unwrap_err();
        assert_eq!(error.code(), Some("28000"), "{error}");
        let error = Client::connect("host=/nowhere,/either").unwrap_err().to_string();
        assert!(error.contains("/either:5432"), "{error}");
        Ok(())
    });
}

#[test]
fn what_comes_often_is_prepared_and_comes_right_when_it_is_lost() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        db.batch_execute(
            "create temp table dishes(id int, name text); insert into dishes values (1, 'soup')",
        )?;
        let count = |db: &mut Client| -> Result<i64, Error> {
            db.query_one("select count(*) from pg_prepared_statements where statement like '%dishes%'", &[])?
                .get(0)
        };
        let ask = |db: &mut Client| db.query_one("select * from dishes where id = $1", &[&1_i32]);
        for _ in 0..6 {
            assert_eq!(ask(&mut db)?.get::<&str>("name")?, "soup");
            assert_eq!(db.execute("update dishes set name = $1 where id = $2", &[&"soup", &1_i32])?, 1);
        }
        assert_eq!(count(&mut db)?, 2);
        // Another type of parameter is another statement.
        assert_eq!(db.query("select * from dishes where id = $1", &[&1_i64])?.len(), 1);
        // Closed behind our back.
        db.batch_execute("do $$ begin execute 'deallocate all'; end $$")?;
        assert_eq!(ask(&mut db)?.get::<&str>("name")?, "soup");
        // A column more, by somebody else: the plan may not change its result.
        for _ in 0..6 {
            ask(&mut db)?;
        }
        db.batch_execute("do $$ begin execute 'alter table dishes add price int default 7'; end $$")?;
        assert_eq!(ask(&mut db)?.get::<i32>("price")?, 7);
        for _ in 0..6 {
            assert_eq!(ask(&mut db)?.columns().len(), 3);
        }
        // In a transaction nothing helps but to begin it again.
        db.batch_execute("do $$ begin execute 'deallocate all'; end $$")?;
        let mut transaction = db.transaction()?;
        assert_eq!(ask(&mut transaction).unwrap_err().code(), Some("26000"));
        drop(transaction);
        assert_eq!(ask(&mut db)?.get::<i32>("price")?, 7);
        Ok(())
    });
}

#[test]
fn a_password_has_to_be_right() {
    in_every_mode(|_| {
        let mut config: Config = Tested::get().tcp.parse()?;
        config.session.password = Some(b"open it".to_vec());
        assert_eq!(Client::with_config(config).unwrap_err().code(), Some("28P01"));
        Ok(())
    });
}

#[test]
fn transactions_and_savepoints() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        db.batch_execute("create temp table dishes(name text unique)")?;
        let mut outer = db.transaction()?;
        assert_eq!(outer.execute("insert into dishes values ($1), ($2)", &[&"soup", &"stew"])?, 2);
        let mut inner = outer.transaction()?;
        inner.execute("insert into dishes values ('rice')", &[])?;
        let mut innermost = inner.transaction()?;
        assert_eq!(
            innermost.execute("insert into dishes values ('soup')", &[]).unwrap_err().code(),
            Some("23505")
        );
        drop(innermost);
        inner.execute("insert into dishes values ('fish')", &[])?;
        inner.commit()?;
        let mut other = outer.transaction()?;
        other.execute("delete from dishes", &[])?;
        other.rollback()?;
        outer.commit()?;
        let names = |db: &mut Client| -> Result<String, Error> {
            db.query_one("select string_agg(name, ' ' order by name) from dishes", &[])?.get(0)
        };
        assert_eq!(names(&mut db)?, "fish rice soup stew");
        let mut failed = db.transaction()?;
        assert!(failed.execute("insert into dishes values ('soup')", &[]).is_err());
        assert!(matches!(failed.commit(), Err(Error::Refused(_))));
        let mut dropped = db.transaction()?;
        dropped.execute("delete from dishes", &[])?;
        drop(dropped);
        assert!(!db.in_transaction());
        assert_eq!(names(&mut db)?, "fish rice soup stew");
        Ok(())
    });
}

#[test]
fn a_wait_that_is_cut_leaves_a_connection_that_answers_right() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        db.batch_execute("create temp table dishes(name text)")?;
        for number in 0..3_i32 {
            let begun = Instant::now();
            let error = with_deadline(begun + SOON, || db.query("select pg_sleep(30)", &[])).unwrap_err();
            assert_eq!(error.interrupt(), Some(Interrupt::Deadline));
            // It has been cancelled: the next answer is the next question's.
            assert_eq!(only::<i32>(&db.query_one("select $1 + 1", &[&number])?), number + 1);
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        let cut = with_deadline(Instant::now() + SOON, || {
            let mut transaction = db.transaction()?;
            transaction.execute("insert into dishes values ('soup')", &[])?;
            transaction.query("select pg_sleep(30)", &[])?;
            transaction.commit()
        });
        assert_eq!(cut.unwrap_err().interrupt(), Some(Interrupt::Deadline));
        assert!(!db.in_transaction());
        assert_eq!(only::<i64>(&db.query_one("select count(*) from dishes", &[])?), 0);
        Ok(())
    });
}

#[test]
fn a_query_is_cancelled_from_elsewhere() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        let token = db.cancel_token().unwrap();
        let mut task = spawn(move || {
            sleep_until(Instant::now() + SOON).unwrap();
            token.cancel()
        })?;
        assert_eq!(db.query("select pg_sleep(30)", &[]).unwrap_err().code(), Some("57014"));
        task.join().unwrap()?;
        assert_eq!(only::<i32>(&db.query_one("select 1", &[])?), 1);
        Ok(())
    });
}

#[test]
fn copy_in_and_out() {
    in_every_mode(|url| {
        const ROWS: u64 = 100_000;
        let mut db = Client::connect(url)?;
        db.batch_execute("create temp table dishes(id int primary key, name text)")?;
        let mut copy = db.copy_in("copy dishes from stdin (format csv)")?;
        for number in 0..ROWS {
            writeln!(copy, "{number},\"soup, hot\"")?;
        }
        assert_eq!(copy.finish()?, ROWS);
        let mut out = db.copy_out("copy (select name from dishes where id < 90000 order by id) to stdout")?;
        let mut text = String::new();
        out.read_to_string(&mut text)?;
        assert!(text.lines().all(|line| line == "soup, hot") && text.lines().count() == 90_000);
        assert_eq!(out.read(&mut [0])?, 0);
        // Begun and left: nothing is kept, nothing comes later.
        let mut left = db.copy_in("copy dishes from stdin")?;
        left.write_all(b"1000000\tstew\n")?;
        drop(left);
        assert_eq!(only::<i64>(&db.query_one("select count(*) from dishes", &[])?), 100_000);
        let mut left = db.copy_out("copy dishes to stdout")?;
        assert_eq!(left.read(&mut [0; 4])?, 4);
        drop(left);
        assert_eq!(only::<i32>(&db.query_one("select 1", &[])?), 1);
        let mut wrong = db.copy_in("copy dishes from stdin")?;
        wrong.write_all(b"soup\n")?;
        assert_eq!(wrong.finish().unwrap_err().code(), Some("22P02"));
        let mut fails = db.copy_out("copy (select 1 / (3 - i) from generate_series(1, 9) i) to stdout")?;
        assert!(fails.read_to_end(&mut Vec::new()).is_err());
        assert!(matches!(db.copy_in("select 1"), Err(Error::Refused(_))));
        assert!(matches!(db.copy_out("copy dishes from stdin"), Err(Error::Refused(_))));
        assert_eq!(db.copy_in("copy stews from stdin").unwrap_err().code(), Some("42P01"));
        assert_eq!(only::<i32>(&db.query_one("select 1", &[])?), 1);
        Ok(())
    });
}

#[test]
fn notifications_come() {
    in_every_mode(|url| {
        let (mut db, mut other) = (Client::connect(url)?, Client::connect(url)?);
        db.batch_execute("listen kitchen")?;
        assert_eq!(db.notification(Some(Instant::now() + SOON))?, None);
        other.query("select pg_notify('kitchen', $1)", &[&"soup"])?;
        other.batch_execute("notify kitchen, 'stew'; notify garden")?;
        let until = Some(Instant::now() + Duration::from_secs(20));
        for dish in ["soup", "stew"] {
            let came = db.notification(until)?.unwrap();
            assert_eq!((came.channel.as_str(), came.payload.as_str()), ("kitchen", dish));
        }
        assert_eq!(db.notification(Some(Instant::now() + SOON))?, None);
        Ok(())
    });
}

#[test]
fn a_pool_lends_no_more_than_it_may() {
    in_every_mode(|url| {
        let pool = Pool::new(&format!("{url} application_name=pool"), 3)?;
        let mut tasks = Vec::new();
        for number in 0..30_i32 {
            let pool = pool.clone();
            tasks.push(spawn(move || -> Result<i64, Error> {
                let mut db = pool.get()?;
                // Left in the middle of a transaction on purpose.
                db.batch_execute("begin")?;
                let sql = "select $1, count(*), pg_sleep(0.01) from pg_stat_activity where application_name = 'pool'";
                let row = db.query_one(sql, &[&number])?;
                assert_eq!(row.get::<i32>(0)?, number);
                row.get(1)
            })?);
        }
        for mut task in tasks {
            assert!(task.join().unwrap()? <= 3);
        }
        assert!(pool.idle_connections() <= 3);
        assert!(!pool.get()?.in_transaction());
        let small = Pool::with_config(url.parse::<Config>()?, 1, SOON);
        let held = small.get()?;
        let Err(Error::Io(error)) = small.get().map(drop) else { panic!("two of one") };
        assert_eq!((error.kind(), Interrupt::of(&error)), (std::io::ErrorKind::TimedOut, None));
        drop(held);
        small.get().map(drop)
    });
}

#[test]
fn a_server_that_restarts_ends_its_sessions_and_not_the_pool() {
    in_every_mode(|url| {
        let pool = Pool::new(url, 2)?;
        let mut db = pool.get()?;
        let process: i32 = db.query_one("select pg_backend_pid()", &[])?.get(0)?;
        // Killed in mid-query by somebody else.
        let mut killer = Client::connect(url)?;
        let mut task = spawn(move || {
            sleep_until(Instant::now() + SOON).unwrap();
            killer.query("select pg_terminate_backend($1)", &[&process]).map(drop)
        })?;
        let error = db.query("select pg_sleep(30)", &[]).unwrap_err();
        assert!(error.code() == Some("57P01") || matches!(error, Error::Io(_)), "{error}");
        task.join().unwrap()?;
        assert!(matches!(db.query("select 1", &[]), Err(Error::Closed)));
        drop(db);
        // An idle connection that dies in the pool is not lent.
        drop(pool.get()?);
        assert_eq!(pool.idle_connections(), 1);
        Tested::get().server.exchange("stop immediate");
        assert!(matches!(pool.get().map(drop), Err(Error::Connect(..))));
        Tested::get().server.exchange("start");
        assert_eq!(only::<i32>(&pool.get()?.query_one("select 1", &[])?), 1);
        Ok(())
    });
}
