//! Prints what is said on a channel of PostgreSQL (`notify kitchen, 'soup is ready'`), and comes back
//! when the server does.
//!
//! `cargo run --bin tail -- [--mode MODE] DATABASE CHANNEL`

use std::io;
use std::time::{Duration, Instant};

use balrog::postgres::{Client, Error};
use balrog_examples::Arguments;

fn main() -> io::Result<()> {
    let Arguments { mode, rest } = Arguments::read()?;
    let [database, channel] =
        rest.try_into().map_err(|_| io::Error::other("tail takes a database and a channel"))?;
    mode.run(move || {
        loop {
            let Err(error) = tail(&database, &channel);
            if error.interrupt().is_some() || error.code() == Some("42601") {
                return Err(error.into());
            }
            eprintln!("{error}");
            balrog::sleep_until(Instant::now() + Duration::from_millis(300))?;
        }
    })?
}

fn tail(database: &str, channel: &str) -> Result<std::convert::Infallible, Error> {
    let mut db = Client::connect(database)?;
    db.batch_execute(&format!("listen {channel}"))?;
    println!("listening");
    loop {
        if let Some(said) = db.notification(None)? {
            println!("{}", said.payload);
        }
    }
}
