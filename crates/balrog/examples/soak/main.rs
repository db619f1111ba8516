//! HTTP, WebSocket and PostgreSQL for a long time, with everything that goes wrong on a network:
//! no answer may be wrong, and nothing may be left behind.
//!
//! `make soak` takes `SOAK_SECONDS` (600) in all, for the runtimes that are named
//! (`ARGS="native tokio"`) or every one. It goes on in rounds; after each of them everybody leaves,
//! and memory, descriptors and threads are looked at.

#[path = "../../tests/support/postgres.rs"]
mod postgres;
#[path = "../../tests/support/proxy.rs"]
mod proxy;
#[path = "../../tests/support/site.rs"]
mod site;
mod traffic;
#[path = "../../tests/support/until.rs"]
mod until;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog::{Runtime, http};

use proxy::Proxy;
use site::Site;
use traffic::{Counts, Traffic};
use until::{descriptors, until};

/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(20);
/// The rounds in which memory may still grow: at least so many, and a third of all.
const WARM: usize = 4;
/// What memory may vary by, in KiB: pieces that the allocator keeps.
const SLACK: u64 = 6 * 1024;
/// So many threads for calls that block are kept for a while (`offload`).
const POOL: u64 = 32;

fn main() -> io::Result<()> {
    let seconds = std::env::var("SOAK_SECONDS").map_or(600, |it| it.parse().expect("SOAK_SECONDS: a number"));
    let mut runtimes =
        std::env::args().skip(1).map(|name| name.parse()).collect::<io::Result<Vec<Runtime>>>()?;
    if runtimes.is_empty() {
        runtimes = Runtime::all().to_vec();
    }
    // A session whose client vanished in a transaction would keep its locks.
    let server = postgres::Server::start(&[
        "idle_in_transaction_session_timeout=5s".to_owned(),
        "listen_addresses=".to_owned(),
    ]);
    let directory = Arc::new(server.directory.clone());
    let time = Duration::from_secs(seconds) / runtimes.len() as u32;
    for runtime in runtimes {
        let directory = Arc::clone(&directory);
        // Connections that a client keeps are its thread's, and end with it.
        let thread = std::thread::spawn(move || runtime.run(move || soak(runtime, time, &directory)));
        thread.join().unwrap()??;
    }
    Ok(())
}

/// What is there between two rounds.
#[derive(Debug, Clone, Copy)]
struct Left {
    memory: u64,
    descriptors: usize,
    threads: u64,
}

impl Left {
    fn now() -> Self {
        Self { memory: status("VmRSS"), descriptors: descriptors(), threads: status("Threads") }
    }
}

fn soak(runtime: Runtime, time: Duration, directory: &str) -> io::Result<()> {
    let sites = [Site::new(false)?, Site::new(true)?];
    let socket = format!("{directory}/.s.PGSQL.5432");
    let proxies = [
        Proxy::new({
            let port = sites[0].at.port;
            move || std::net::TcpStream::connect(("127.0.0.1", port))
        }),
        Proxy::new({
            let port = sites[1].at.port;
            move || std::net::TcpStream::connect(("127.0.0.1", port))
        }),
        Proxy::new(move || UnixStream::connect(&socket)),
    ];
    let url = format!("host={directory} user=postgres dbname=balrog");
    let traffic = Arc::new(Traffic { sites: sites.each_ref().map(|site| site.at.clone()), proxies, url });
    traffic.prepare()?;
    let (begun, before, mut memory) = (Instant::now(), Left::now(), Vec::new());
    let mut total = Counts::default();
    while begun.elapsed() < time || memory.len() < WARM + 1 {
        let round = ROUND.min(time / (WARM as u32 + 1));
        total += traffic.round(memory.len() as u64, Instant::now() + round)?;
        for site in &sites {
            site.until_alone()?;
        }
        until("every kept connection is closed", || {
            http::sweep();
            http::idle_connections() == 0
        })?;
        until("no more descriptors and threads than at first", || {
            let now = Left::now();
            now.descriptors <= before.descriptors && now.threads <= before.threads + POOL
        })?;
        let left = Left::now();
        memory.push(left.memory);
        println!(
            "{runtime} {:4.0} s: {total}; {} KiB, {} descriptors, {} threads",
            begun.elapsed().as_secs_f64(),
            left.memory,
            left.descriptors,
            left.threads
        );
    }
    // The least of the last third: what was there in between may be there for a reason.
    let third = memory.len() / 3;
    let most = memory[..WARM.max(third)].iter().max().unwrap() + SLACK;
    let last = memory[memory.len() - third.max(1)..].iter().min().unwrap();
    assert!(*last <= most, "{runtime}: memory grows, {memory:?} KiB");
    assert!(total.wrong == 0, "{runtime}: {total}");
    sites.into_iter().try_for_each(Site::stop)
}

/// A number of `/proc/self/status`: `VmRSS` in KiB, `Threads`.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
