//! What breaks, stalls or is cancelled in between.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use balrog::postgres::{Client, Config, Error, Pool};
use balrog::{Interrupt, sleep_until, spawn, with_deadline};

use crate::proxy::{Fault, Proxy};
use crate::{SOON, Tested, in_every_mode, only};

/// A proxy in front of the server, and the configuration of what connects through it.
fn proxied() -> (Proxy, Config) {
    let (_, port) = Tested::get().tcp.rsplit_once(':').unwrap();
    let port = port.split('/').next().unwrap();
    let socket = format!("{}/.s.PGSQL.{port}", Tested::get().server.directory);
    let proxy = Proxy::new(move || UnixStream::connect(&socket));
    let url = format!("host=127.0.0.1 port={} user=postgres dbname=balrog sslmode=disable", proxy.port);
    (proxy, url.parse().unwrap())
}

const ROWS: &str = "select i, 'soup number ' || i from generate_series(1, 40) i";

/// Wherever it ends, that is an error, and never a result that is too short.
#[test]
fn a_connection_that_ends_in_the_middle_of_a_result() {
    in_every_mode(|_| {
        let (proxy, config) = proxied();
        let mut cut = 0;
        for fault in [Fault::Close, Fault::Reset] {
            for behind in (0..2_000).step_by(61) {
                let mut db = Client::with_config(config.clone())?;
                proxy.set(fault, behind);
                match db.query(ROWS, &[]) {
                    Ok(rows) => assert!(rows.len() == 40 && proxy.is_pending(), "{behind}: {}", rows.len()),
                    Err(error) => {
                        assert!(matches!(error, Error::Io(_) | Error::Closed), "{behind}: {error}");
                        assert_eq!(error.interrupt(), None);
                        assert!(db.is_closed() && matches!(db.query("select 1", &[]), Err(Error::Closed)));
                        cut += 1;
                    }
                }
                proxy.set(Fault::None, 0);
            }
        }
        assert!(cut > 30, "{cut}");
        Ok(())
    });
}

#[test]
fn a_connection_that_ends_while_logging_in() {
    in_every_mode(|_| {
        let (proxy, config) = proxied();
        for fault in [Fault::Close, Fault::Reset] {
            for behind in (0..250).step_by(29) {
                proxy.set(fault, behind);
                let error = Client::with_config(config.clone()).unwrap_err();
                assert!(matches!(error, Error::Connect(..)), "{behind}: {error}");
                assert!(!proxy.is_pending());
            }
        }
        Ok(())
    });
}

/// Half open: what the server says does not arrive any more, and neither does that it is gone.
#[test]
fn a_server_that_falls_silent_costs_the_deadline_and_then_the_connection() {
    in_every_mode(|_| {
        let (proxy, mut config) = proxied();
        config.session.limits.drain_time = Some(2 * SOON);
        let pool = Pool::with_config(config, 1, Duration::from_secs(5));
        let mut db = pool.get()?;
        db.batch_execute("begin")?;
        proxy.set(Fault::Silence, 100);
        let begun = Instant::now();
        let cut = with_deadline(begun + SOON, || db.query(ROWS, &[])).unwrap_err();
        assert_eq!(cut.interrupt(), Some(Interrupt::Deadline));
        // There is no getting back from there, and no waiting for it for long.
        let error = db.query("select 1", &[]).unwrap_err();
        assert!(matches!(&error, Error::Io(why) if why.kind() == ErrorKind::TimedOut), "{error}");
        assert!(db.is_closed());
        drop(db);
        assert_eq!(pool.idle_connections(), 0);
        assert_eq!(only::<i32>(&pool.get()?.query_one("select 1", &[])?), 1);
        assert!(begun.elapsed() < Duration::from_secs(10));
        Ok(())
    });
}

#[test]
fn bytes_that_come_one_by_one_and_rows_that_are_read_slowly() {
    in_every_mode(|url| {
        let (proxy, config) = proxied();
        proxy.set(Fault::Dribble(1), 0);
        let mut db = Client::with_config(config)?;
        assert_eq!(db.query(ROWS, &[])?.len(), 40);
        // Far more than fits between the two: the server has to wait for us.
        let mut db = Client::connect(url)?;
        let sql = "select i, repeat('x', 1000) from generate_series(1, 20000) i";
        let mut expected = 1;
        let count = db.for_each(sql, &[], |row| {
            if expected % 5000 == 0 {
                sleep_until(Instant::now() + Duration::from_millis(20)).unwrap();
            }
            assert_eq!(only::<i32>(&row), expected);
            expected += 1;
        })?;
        assert_eq!(count, 20_000);
        Ok(())
    });
}

#[test]
fn a_pool_under_load_outlives_the_restart_of_its_server() {
    in_every_mode(|url| {
        let pool = Pool::new(&format!("{url} application_name=restarted"), 4)?;
        let until = Instant::now() + 12 * SOON;
        let mut tasks = Vec::new();
        for _ in 0..12 {
            let pool = pool.clone();
            tasks.push(spawn(move || {
                let mut failed = 0;
                while Instant::now() < until {
                    let asked = pool.get().and_then(|mut db| db.query_one("select 7", &[]));
                    match asked {
                        Ok(row) => assert_eq!(only::<i32>(&row), 7),
                        Err(error) => {
                            let known = error.code().is_none_or(|code| code.starts_with("57P"));
                            assert!(known && error.interrupt().is_none(), "{error}");
                            failed += 1;
                            sleep_until(Instant::now() + Duration::from_millis(5)).unwrap();
                        }
                    }
                }
                failed
            })?);
        }
        sleep_until(Instant::now() + 3 * SOON).unwrap();
        balrog::offload(|| Tested::get().server.exchange("stop immediate"), None).unwrap();
        balrog::offload(|| Tested::get().server.exchange("start"), None).unwrap();
        let mut failed = 0;
        for mut task in tasks {
            failed += task.join().unwrap();
        }
        assert!(failed > 0, "nobody noticed");
        // Every permit is back, and no session but those of the pool is left.
        let held = (0..4).map(|_| pool.get()).collect::<Result<Vec<_>, _>>()?;
        drop(held);
        let count = "select count(*) from pg_stat_activity where application_name = 'restarted'";
        let sessions: i64 = pool.get()?.query_one(count, &[])?.get(0)?;
        assert_eq!(sessions, pool.idle_connections() as i64);
        Ok(())
    });
}

/// Something that waits for the server in its own way. What it inserts, it inserts twice or never.
type Work = fn(&mut Client) -> Result<(), Error>;

const WORKS: [(&str, Work); 6] = [
    ("query", |db| db.query(ROWS, &[]).map(drop)),
    ("prepared", |db| (0..5_i64).try_for_each(|id| db.execute("select $1 + 1", &[&id]).map(drop))),
    ("pipeline", |db| {
        let mut pipeline = db.pipeline()?;
        for id in 0..5_i32 {
            pipeline.push("select $1, pg_sleep(0)", &[&id])?;
        }
        pipeline.try_for_each(|answer| answer.map(drop))
    }),
    ("transaction", |db| {
        let mut transaction = db.transaction()?;
        transaction.execute("insert into cut values (1)", &[])?;
        let mut inner = transaction.transaction()?;
        inner.execute("insert into cut values (2)", &[])?;
        inner.commit()?;
        transaction.commit()
    }),
    ("copy in", |db| {
        let mut copy = db.copy_in("copy cut from stdin")?;
        copy.write_all(b"1\n2\n")?;
        copy.finish().map(drop)
    }),
    ("copy out", |db| {
        let mut copy = db.copy_out("copy (select generate_series(1, 30)) to stdout")?;
        Ok(copy.read_to_end(&mut Vec::new()).map(drop)?)
    }),
];

/// The server pauses behind every few bytes in turn, and the work is interrupted while it does: by a
/// deadline and by a cancellation in turn. Every time the session is left as if nothing had been.
#[test]
fn interrupted_at_every_wait() {
    in_every_mode(|_| {
        let (proxy, config) = proxied();
        let mut db = Client::with_config(config)?;
        db.batch_execute("create temp table cut(id int)")?;
        for (name, work) in WORKS {
            let (mut interrupted, mut behind) = (0, 1);
            for turn in 0.. {
                proxy.set(Fault::Pause(Duration::from_millis(20)), behind);
                let soon = Instant::now() + Duration::from_millis(6);
                let result = if turn % 2 == 0 {
                    with_deadline(soon, || work(&mut db))
                } else {
                    let mut task = spawn(move || {
                        let result = work(&mut db);
                        (db, result)
                    })?;
                    sleep_until(soon).unwrap();
                    task.cancel();
                    let result;
                    (db, result) = task.join().unwrap();
                    result
                };
                // Interrupted early on a busy machine, it says nothing.
                let over = result.is_ok() && proxy.is_pending();
                proxy.set(Fault::None, 0);
                if let Err(error) = result {
                    assert!(error.interrupt().is_some(), "{name} at {behind}: {error}");
                    interrupted += 1;
                }
                assert!(!db.is_closed(), "{name} at {behind}");
                let row = db
                    .query_one("select $1, count(*) from cut", &[&(behind as i64)])
                    .unwrap_or_else(|error| panic!("{name} at {behind}: {error}"));
                assert_eq!(row.get::<i64>(0)?, behind as i64, "{name} at {behind}");
                assert_eq!(row.get::<i64>(1)? % 2, 0, "{name} at {behind}: a half of it");
                assert!(!db.in_transaction(), "{name} at {behind}");
                if over {
                    break;
                }
                // Answers are from 30 bytes to a few thousand.
                behind += 3 + behind / 8;
            }
            assert!(interrupted > 2, "{name}: {interrupted}");
        }
        Ok(())
    });
}

/// While it connects, too: the permit comes back.
#[test]
fn a_pool_is_interrupted_at_every_wait() {
    in_every_mode(|_| {
        let (proxy, config) = proxied();
        let mut interrupted = 0;
        for behind in (1..450).step_by(37) {
            let pool = Pool::with_config(config.clone(), 1, Duration::from_secs(5));
            proxy.set(Fault::Pause(Duration::from_millis(20)), behind);
            let ask = |pool: &Pool| pool.get()?.query_one("select 1", &[]);
            let result = with_deadline(Instant::now() + Duration::from_millis(6), || ask(&pool));
            proxy.set(Fault::None, 0);
            if let Err(error) = result {
                // As an error of I/O, too.
                let interrupt = error.interrupt();
                assert!(interrupt.is_some(), "{behind}: {error}");
                assert_eq!(Interrupt::of(&error.into()), interrupt);
                interrupted += 1;
            }
            assert!(pool.idle_connections() <= 1);
            for _ in 0..2 {
                assert_eq!(only::<i32>(&ask(&pool)?), 1, "{behind}");
            }
            assert_eq!(pool.idle_connections(), 1);
        }
        assert!(interrupted > 2, "{interrupted}");
        Ok(())
    });
}
