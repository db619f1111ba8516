//! Idle connections, kept per thread: a connection never changes its thread.

use std::cell::RefCell;
use std::process;
use std::time::{Duration, Instant};

use crate::http::Request;
use crate::http::connection::Connection;

/// Servers commonly close after 60 to 75 s; a request must not meet that close.
const IDLE: Duration = Duration::from_secs(55);
/// Idle connections to one host.
const PER_HOST: usize = 100;
/// Idle connections in all.
const TOTAL: usize = 1_000;
/// How often a thread looks which of its idle connections have ended.
const SWEEP: Duration = Duration::from_secs(2);

struct Pool {
    /// Longest unused first.
    kept: Vec<(Connection, Instant)>,
    next_sweep: Instant,
    /// The process that made them.
    owner: u32,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool {
        kept: Vec::new(),
        next_sweep: Instant::now(),
        owner: process::id(),
    });
}

/// Calls `f` with the thread's pool; what it returns is dropped outside of the borrow, because
/// closing takes system calls and may do anything.
fn with<T>(f: impl FnOnce(&mut Pool) -> T) -> T {
    POOL.with(|pool| {
        let mut pool = pool.borrow_mut();
        let this = process::id();
        // After a fork the connections are the parent's: a child that used them too would read
        // the parent's responses.
        let disowned = if pool.owner == this { Vec::new() } else { std::mem::take(&mut pool.kept) };
        pool.owner = this;
        let result = f(&mut pool);
        drop(pool);
        drop(disowned);
        result
    })
}

/// A living connection for the request.
pub(crate) fn take(request: &Request<'_>) -> Option<Connection> {
    sweep();
    loop {
        // The last one used is the one least likely to have been closed.
        let (mut connection, since) = with(|pool| {
            let index = pool.kept.iter().rposition(|(connection, _)| connection.key().fits(request))?;
            Some(pool.kept.remove(index))
        })?;
        if since.elapsed() < IDLE && connection.is_alive() {
            return Some(connection);
        }
    }
}

/// Keeps a connection for the next request.
pub(crate) fn give(mut connection: Connection) {
    connection.set_reused();
    let surplus = with(|pool| {
        let key = connection.key();
        let same = pool.kept.iter().filter(|(other, _)| other.key().same_host(key));
        if same.count() >= PER_HOST {
            return Some(connection);
        }
        pool.kept.push((connection, Instant::now()));
        if pool.kept.len() > TOTAL { Some(pool.kept.remove(0).0) } else { None }
    });
    drop(surplus);
}

/// Closes those of the thread's idle connections that their servers have closed, and those that
/// have been idle for 55 s. Costs next to nothing until two seconds after the last time; the
/// thread's loop calls it, and each use of the client does.
pub fn sweep() {
    sweep_at(Instant::now());
}

fn sweep_at(now: Instant) {
    let due = POOL.with_borrow(|pool| !pool.kept.is_empty() && pool.next_sweep <= now);
    if !due {
        return;
    }
    let ended: Vec<_> = with(|pool| {
        pool.next_sweep = now + SWEEP;
        let ended = |(connection, since): &mut (Connection, Instant)| {
            now.saturating_duration_since(*since) >= IDLE || !connection.is_alive()
        };
        pool.kept.extract_if(.., ended).collect()
    });
    drop(ended);
}

/// How many connections the thread keeps.
pub fn idle_connections() -> usize {
    with(|pool| pool.kept.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn idle_connections_are_closed_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let request = Request::get("127.0.0.1", port, "/");
        let mut peers = Vec::new();
        for _ in 0..3 {
            give(Connection::open(&request, None).unwrap());
            peers.push(listener.accept().unwrap().0);
        }
        assert_eq!(idle_connections(), 3);
        peers.pop();
        let now = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        sweep_at(now + SWEEP);
        assert_eq!(idle_connections(), 2);
        // Not again before its time.
        peers.pop();
        std::thread::sleep(Duration::from_millis(20));
        sweep_at(now + SWEEP);
        assert_eq!(idle_connections(), 2);
        sweep_at(now + 2 * SWEEP);
        assert_eq!(idle_connections(), 1);
        sweep_at(now + IDLE - Duration::from_secs(1));
        assert_eq!(idle_connections(), 1);
        sweep_at(now + IDLE + SWEEP);
        assert_eq!(idle_connections(), 0);
    }
}
