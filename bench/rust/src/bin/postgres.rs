//! How fast PostgreSQL is asked: `postgres NAME DIRECTORY WORK`, where DIRECTORY has the server's
//! Unix socket. Prints answers a second and the processor's microseconds in this process for each.
//!
//! WORK: `sequential`, a row by its key, one query after another; `sessions`, the same in 16 sessions
//! at once; `pipelined`, the same 100 at a time in one session, a Sync each; `rows`, results of 1,000
//! rows with 6 columns, all of whose values are read (an answer is a row).

use std::error::Error;
use std::time::{Duration, Instant};

use balrog::Runtime;
use balrog::postgres::Client;
use balrog_bench_rust::spent;
use futures_util::future::try_join_all;
use tokio_postgres::{NoTls, Statement};

const SESSIONS: usize = 16;
const PIPELINED: u64 = 100;
const ROWS: u64 = 1000;
const TIME: Duration = Duration::from_secs(2);
const SQL: &str = "select id, name from dishes where id = $1";
const ALL: &str = "select id, name, id * 1.5::float8, id % 2 = 0, id::bigint, name from dishes";
const TABLE: &str = "create table if not exists dishes(id int primary key, name text);
    insert into dishes select i, 'soup number ' || i from generate_series(0, 999) i on conflict do nothing";

#[derive(Clone, Copy)]
enum Work {
    Single,
    Pipelined,
    Rows,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory, work] = &words[..] else { return Err("NAME DIRECTORY WORK".into()) };
    let (work, sessions) = match work.as_str() {
        "sequential" => (Work::Single, 1),
        "sessions" => (Work::Single, SESSIONS),
        "pipelined" => (Work::Pipelined, 1),
        "rows" => (Work::Rows, 1),
        other => return Err(format!("no work {other}").into()),
    };
    let config = format!("host={directory} user=postgres dbname=balrog");
    Client::connect(&config)?.batch_execute(TABLE)?;
    let count = match name.as_str() {
        "tokio-postgres" => rival(&config, work, sessions)?,
        runtime => runtime.parse::<Runtime>()?.run(move || ours(&config, work, sessions))??,
    };
    println!("{} {}", count as f64 / TIME.as_secs_f64(), spent() / count as f64);
    Ok(())
}

fn ours(config: &str, work: Work, sessions: usize) -> std::io::Result<u64> {
    let mut tasks = Vec::new();
    for _ in 0..sessions {
        let mut db = Client::connect(config)?;
        tasks.push(balrog::spawn(move || -> Result<u64, balrog::postgres::Error> {
            let (until, mut count) = (Instant::now() + TIME, 0);
            while Instant::now() < until {
                count += ask(&mut db, work, count)?;
            }
            Ok(count)
        })?);
    }
    let mut sum = 0;
    for mut task in tasks {
        sum += task.join()??;
    }
    Ok(sum)
}

/// Does it once; how many answers came.
fn ask(db: &mut Client, work: Work, count: u64) -> Result<u64, balrog::postgres::Error> {
    match work {
        Work::Single => {
            let row = db.query_one(SQL, &[&((count % 1000) as i32)])?;
            assert_eq!(row.get::<i32>(0)? as u64, count % 1000);
            Ok(1)
        }
        Work::Pipelined => {
            let mut pipeline = db.pipeline()?;
            for id in 0..PIPELINED {
                pipeline.push(SQL, &[&(id as i32)])?;
            }
            for (id, answer) in (0..PIPELINED).zip(pipeline) {
                assert_eq!(answer?.rows[0].get::<i32>(0)? as u64, id);
            }
            Ok(PIPELINED)
        }
        Work::Rows => {
            let rows = db.query(ALL, &[])?;
            let mut sum = 0;
            for row in &rows {
                let (id, half): (i32, f64) = (row.get(0)?, row.get(2)?);
                let (even, big): (bool, i64) = (row.get(3)?, row.get(4)?);
                let length = row.get::<&str>(1)?.len() + row.get::<&str>(5)?.len();
                sum += checked(id, half, even, big, length);
            }
            assert_eq!(sum, ROWS);
            Ok(ROWS)
        }
    }
}

/// One, if the values of a row fit together.
fn checked(id: i32, half: f64, even: bool, big: i64, length: usize) -> u64 {
    let right = half == f64::from(id) * 1.5 && even == (id % 2 == 0) && big == i64::from(id);
    u64::from(right && length > 20)
}

#[tokio::main(flavor = "current_thread")]
async fn rival(config: &str, work: Work, sessions: usize) -> Result<u64, Box<dyn Error>> {
    let local = tokio::task::LocalSet::new();
    let config = config.to_owned();
    local
        .run_until(async move {
            let mut tasks = Vec::new();
            for _ in 0..sessions {
                let (db, connection) = tokio_postgres::connect(&config, NoTls).await?;
                tokio::task::spawn_local(connection);
                tasks.push(tokio::task::spawn_local(async move {
                    // As its users are told to: prepared once.
                    let sql = if matches!(work, Work::Rows) { ALL } else { SQL };
                    let statement = db.prepare(sql).await?;
                    let (until, mut count) = (Instant::now() + TIME, 0);
                    while Instant::now() < until {
                        count += ask_rival(&db, &statement, work, count).await?;
                    }
                    Ok::<u64, tokio_postgres::Error>(count)
                }));
            }
            let mut sum = 0;
            for task in tasks {
                sum += task.await??;
            }
            Ok(sum)
        })
        .await
}

/// As [`ask`].
async fn ask_rival(
    db: &tokio_postgres::Client,
    statement: &Statement,
    work: Work,
    count: u64,
) -> Result<u64, tokio_postgres::Error> {
    match work {
        Work::Single => {
            let row = db.query_one(statement, &[&((count % 1000) as i32)]).await?;
            assert_eq!(row.get::<_, i32>(0) as u64, count % 1000);
            Ok(1)
        }
        Work::Pipelined => {
            let answers =
                (0..PIPELINED).map(|id| async move { db.query_one(statement, &[&(id as i32)]).await });
            for (id, row) in (0..PIPELINED).zip(try_join_all(answers).await?) {
                assert_eq!(row.get::<_, i32>(0) as u64, id);
            }
            Ok(PIPELINED)
        }
        Work::Rows => {
            let rows = db.query(statement, &[]).await?;
            let mut sum = 0;
            for row in &rows {
                let length = row.get::<_, &str>(1).len() + row.get::<_, &str>(5).len();
                sum += checked(row.get(0), row.get(2), row.get(3), row.get(4), length);
            }
            assert_eq!(sum, ROWS);
            Ok(ROWS)
        }
    }
}
