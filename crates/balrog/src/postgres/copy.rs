use std::io::{self, Read, Write};

use balrog_proto::Step;
use balrog_proto::postgres::FrontendEvent;

use super::client::{READ, note};
use super::{Client, Error, ServerError};

/// How much a COPY may leave unsent before it waits for the server.
const AHEAD: usize = 64 * 1024;

/// Data on its way into a table: write it in the format that the COPY says.
///
/// Dropped without [`finish`](Self::finish), nothing of it is kept.
#[derive(Debug)]
#[must_use = "nothing is kept without finish"]
pub struct CopyIn<'c>(&'c mut Client);

/// Data on its way out of a query or a table. Read to its end, the connection goes on; dropped
/// before, what is left is thrown away first.
#[derive(Debug)]
pub struct CopyOut<'c> {
    client: &'c mut Client,
    left: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl Client {
    /// Begins a `COPY … FROM STDIN`.
    ///
    /// # Errors
    ///
    /// As [`Client::query`], and [`Error::Refused`] when `sql` is something else.
    pub fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, Error> {
        self.copy(sql, true)?;
        Ok(CopyIn(self))
    }

    /// Begins a `COPY … TO STDOUT`.
    ///
    /// # Errors
    ///
    /// As [`Client::copy_in`].
    pub fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, Error> {
        self.copy(sql, false)?;
        Ok(CopyOut { client: self, left: Vec::new(), taken: 0, ended: false })
    }

    fn copy(&mut self, sql: &str, inwards: bool) -> Result<(), Error> {
        const OTHER: Error = Error::Refused("this is no COPY from, or to, the client");
        self.begin()?;
        self.connection.link.query(sql)?;
        let notifications = &mut self.notifications;
        let begun = self.connection.event(READ, |step| match step {
            Step::Event(FrontendEvent::CopyIn(_)) if inwards => Some(Ok(())),
            Step::Event(FrontendEvent::CopyOut(_)) if !inwards => Some(Ok(())),
            Step::Event(FrontendEvent::ServerError(report)) => {
                Some(Err(Error::Server(Box::new(ServerError::new(&report)))))
            }
            // What it brings is dropped before the next use.
            Step::Event(FrontendEvent::Notification { .. }) => {
                if let Step::Event(event) = step {
                    note(notifications, &event);
                }
                None
            }
            Step::Event(FrontendEvent::Notice(_) | FrontendEvent::Parameter { .. }) => None,
            Step::Event(_) => Some(Err(OTHER)),
            _ => Some(Err(Error::Closed)),
        });
        match begun {
            Ok(Err(Error::Closed)) => {
                self.close();
                Err(Error::Closed)
            }
            Ok(begun) => begun,
            Err(error) => Err(self.broken(error)),
        }
    }
}

impl CopyIn<'_> {
    /// Ends it; how many rows came in.
    ///
    /// # Errors
    ///
    /// As [`Client::query`]: that is where the server says what is wrong with the data.
    pub fn finish(self) -> Result<u64, Error> {
        self.0.connection.link.copy_done()?;
        Ok(self.0.outcome(drop)?.count)
    }
}

impl Write for CopyIn<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.connection.link.copy_data(data)?;
        if self.0.connection.link.unsent() >= AHEAD {
            self.flush()?;
        }
        Ok(data.len())
    }

    /// Sends what was written.
    fn flush(&mut self) -> io::Result<()> {
        self.0.connection.flush().map_err(|error| self.0.broken(error).into())
    }
}

impl CopyOut<'_> {
    /// What comes next, empty at the end.
    fn piece(&mut self) -> Result<Vec<u8>, Error> {
        let notifications = &mut self.client.notifications;
        let piece = self.client.connection.event(READ, |step| match step {
            Step::Event(FrontendEvent::CopyData { data, .. }) => {
                (!data.is_empty()).then(|| Ok(data.to_vec()))
            }
            Step::Event(FrontendEvent::CopyDone) => Some(Ok(Vec::new())),
            Step::Event(FrontendEvent::ServerError(report)) => {
                Some(Err(Error::Server(Box::new(ServerError::new(&report)))))
            }
            Step::Event(event) => {
                note(notifications, &event);
                None
            }
            _ => Some(Err(Error::Closed)),
        });
        let piece = piece.map_err(|error| self.client.broken(error))?;
        if matches!(piece, Err(Error::Closed)) {
            self.client.close();
        }
        let piece = piece?;
        if piece.is_empty() {
            self.client.outcome(drop)?;
        }
        Ok(piece)
    }
}

impl Read for CopyOut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.left.len() && !self.ended {
            (self.left, self.taken) = (self.piece()?, 0);
            self.ended = self.left.is_empty();
        }
        let rest = &self.left[self.taken..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.taken += n;
        Ok(n)
    }
}
