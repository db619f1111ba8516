//! How many small queries a second: `postgres NAME DIRECTORY`, where DIRECTORY has the server's
//! Unix socket. Prints queries a second of one session after another, and of 16 at once.

use std::error::Error;
use std::time::{Duration, Instant};

use balrog::Runtime;
use balrog::postgres::Client;

const SESSIONS: usize = 16;
const TIME: Duration = Duration::from_secs(2);
const SQL: &str = "select id, name from dishes where id = $1";
const TABLE: &str = "create table if not exists dishes(id int primary key, name text);
    insert into dishes select i, 'soup number ' || i from generate_series(0, 999) i on conflict do nothing";

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (name, directory) = (words.next().ok_or("a name")?, words.next().ok_or("a directory")?);
    let config = format!("host={directory} user=postgres dbname=balrog");
    Client::connect(&config)?.batch_execute(TABLE)?;
    for sessions in [1, SESSIONS] {
        let config = config.clone();
        let count: u64 = match name.as_str() {
            "tokio-postgres" => tokio_postgres(&config, sessions)?,
            runtime => runtime.parse::<Runtime>()?.run(move || balrog(&config, sessions))??,
        };
        println!("{}", count as f64 / TIME.as_secs_f64());
    }
    Ok(())
}

fn balrog(config: &str, sessions: usize) -> std::io::Result<u64> {
    let mut tasks = Vec::new();
    for _ in 0..sessions {
        let mut db = Client::connect(config)?;
        tasks.push(balrog::spawn(move || -> Result<u64, balrog::postgres::Error> {
            let (until, mut count) = (Instant::now() + TIME, 0);
            while Instant::now() < until {
                let row = db.query_one(SQL, &[&((count % 1000) as i32)])?;
                assert_eq!(row.get::<i32>(0)? as u64, count % 1000);
                count += 1;
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

#[tokio::main(flavor = "current_thread")]
async fn tokio_postgres(config: &str, sessions: usize) -> Result<u64, Box<dyn Error>> {
    let local = tokio::task::LocalSet::new();
    let config = config.to_owned();
    local
        .run_until(async move {
            let mut tasks = Vec::new();
            for _ in 0..sessions {
                let (db, connection) = ::tokio_postgres::connect(&config, ::tokio_postgres::NoTls).await?;
                tokio::task::spawn_local(connection);
                tasks.push(tokio::task::spawn_local(async move {
                    // As its users are told to: prepared once.
                    let statement = db.prepare(SQL).await?;
                    let (until, mut count) = (Instant::now() + TIME, 0);
                    while Instant::now() < until {
                        let row = db.query_one(&statement, &[&((count % 1000) as i32)]).await?;
                        assert_eq!(row.get::<_, i32>(0) as u64, count % 1000);
                        count += 1;
                    }
                    Ok::<u64, ::tokio_postgres::Error>(count)
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
