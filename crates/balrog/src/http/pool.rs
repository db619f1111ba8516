//! Idle connections, kept per thread: a connection never changes its thread.

use std::cell::{Cell, RefCell};
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

thread_local! {
    /// Longest unused first.
    static KEPT: RefCell<Vec<(Connection, Instant)>> = const { RefCell::new(Vec::new()) };
    /// The process that made them.
    static OWNER: Cell<u32> = const { Cell::new(0) };
}

/// After a fork the connections are the parent's: a child that used them too would read the
/// parent's responses.
fn disown_after_fork() {
    let this = process::id();
    if OWNER.replace(this) != this {
        drop(KEPT.take());
    }
}

/// A living connection for the request.
pub(crate) fn take(request: &Request<'_>) -> Option<Connection> {
    disown_after_fork();
    loop {
        // The last one used is the one least likely to have been closed.
        let (mut connection, since) = KEPT.with(|kept| {
            let mut kept = kept.borrow_mut();
            let index = kept.iter().rposition(|(connection, _)| connection.key().fits(request))?;
            Some(kept.remove(index))
        })?;
        if since.elapsed() < IDLE && connection.is_alive() {
            return Some(connection);
        }
    }
}

/// Keeps a connection for the next request.
pub(crate) fn give(mut connection: Connection) {
    disown_after_fork();
    connection.set_reused();
    let surplus = KEPT.with(|kept| {
        let mut kept = kept.borrow_mut();
        let key = connection.key();
        let same =
            kept.iter().filter(|(other, _)| other.key().host == key.host && other.key().port == key.port);
        if same.count() >= PER_HOST {
            return Some(connection);
        }
        kept.push((connection, Instant::now()));
        if kept.len() > TOTAL { Some(kept.remove(0).0) } else { None }
    });
    // Closing may take a system call; nobody else's turn meanwhile.
    drop(surplus);
}
