//! Runs a statement with its parameters and prints what comes, over a socket of the standard library:
//!
//! ```text
//! PGPASSWORD=… cargo run --example postgres_query -- HOST:PORT USER DATABASE 'select $1::int + 1' 41
//! ```
//! Without TLS, so only where nobody listens.

mod support;

use std::error::Error;
use std::fs::File;
use std::net::TcpStream;
use std::time::Instant;

use balrog_proto::postgres::{Batch, Config, Frontend, FrontendEvent, KeyDerivation, Parameter};
use balrog_proto::{Link, Step};
use support::{Urandom, drive};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, user, database, sql, values @ ..] = &arguments[..] else {
        return Err("arguments: HOST:PORT USER DATABASE SQL [VALUE]...".into());
    };
    let mut config = Config::new(user.as_str());
    config.database = Some(database.clone().into_bytes());
    config.password = std::env::var("PGPASSWORD").ok().map(String::into_bytes);
    let stream = TcpStream::connect(address)?;
    let mut link = Link::new(Frontend::new(config, &mut Urandom(File::open("/dev/urandom")?))?);

    let mut status = Ok(());
    loop {
        let mut job: Option<Box<KeyDerivation>> = None;
        let (mut started, mut ready) = (false, false);
        match link.poll_event(Instant::now())? {
            Step::Event(FrontendEvent::DeriveKey(it)) => job = Some(it),
            Step::Event(FrontendEvent::Started) => started = true,
            Step::Event(FrontendEvent::Ready { .. }) => ready = true,
            Step::Event(FrontendEvent::Row(row)) => {
                for value in row.values() {
                    print!("{}\t", value?.map_or("NULL".into(), String::from_utf8_lossy));
                }
                println!();
            }
            Step::Event(FrontendEvent::Complete { tag }) => println!("{}", String::from_utf8_lossy(tag)),
            Step::Event(FrontendEvent::ServerError(report)) => status = Err(report.to_string()),
            Step::Event(_) => {}
            Step::NeedInput | Step::Paused => {
                drive(&mut link, &stream)?;
            }
            Step::Closed => return Ok(status?),
        }
        if let Some(job) = job {
            // A millisecond; a server with other clients would do it on a thread of its own.
            link.key_derived(&job.finish())?;
        }
        if started {
            let values: Vec<_> = values.iter().map(|value| Parameter::Text(value.as_bytes())).collect();
            let mut batch = Batch::new();
            batch.query(sql, &values)?.sync();
            link.send(&mut batch)?;
        }
        if ready {
            link.terminate();
            drive(&mut link, &stream)?;
            return Ok(status?);
        }
    }
}
