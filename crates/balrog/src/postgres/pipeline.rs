use std::collections::VecDeque;

use balrog_proto::postgres::Unit;

use super::client::Outcome;
use super::{Client, Error, Row, ToSql};

/// From how many unsent bytes on what was pushed goes out, as far as there is room for it.
const SEND: usize = 16 * 1024;

/// Queries that are sent without a wait for the answers of those before, so that many cost one
/// round trip. It is the iterator over their answers, in the order of the queries.
///
/// ```no_run
/// # fn names(db: &mut balrog::postgres::Client) -> Result<(), balrog::postgres::Error> {
/// let mut pipeline = db.pipeline()?;
/// for id in 1..=1000_i32 {
///     pipeline.push("select name from dishes where id = $1", &[&id])?;
/// }
/// for answer in pipeline {
///     for row in answer?.rows {
///         println!("{}", row.get::<&str>("name")?);
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Each query is a transaction of its own unless one is open, and one that fails leaves the others
/// alone. Pushing and taking answers may take turns: what was pushed is kept until the server takes
/// it, and what it answers waits in the socket until it is asked for. A prepared statement that the
/// server has lost meanwhile is an error here (SQLSTATE 26000), since what comes behind has run
/// already.
///
/// After an error that is not the server's, an interrupted wait for example, the iterator is at its
/// end. As when it is dropped early, the next use of the connection cancels what still runs and
/// drops the answers: whether the rest was done is not known.
#[derive(Debug)]
pub struct Pipeline<'c> {
    client: &'c mut Client,
    /// What was sent and not answered.
    pending: VecDeque<(Unit, Outcome)>,
}

/// What a query of a [`Pipeline`] came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The rows that it returned.
    pub rows: Vec<Row>,
    /// How many rows it returned or changed.
    pub count: u64,
}

impl Client {
    /// Begins a pipeline: see there.
    ///
    /// # Errors
    ///
    /// As [`Client::query`], if there was an interrupted query to clean up after.
    pub fn pipeline(&mut self) -> Result<Pipeline<'_>, Error> {
        self.begin()?;
        Ok(Pipeline { client: self, pending: VecDeque::new() })
    }
}

impl Pipeline<'_> {
    /// Puts a query behind the others, as [`Client::query`] takes it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the text or the parameters cannot be sent (a NUL character, more
    /// than 65,535 parameters): the others go on. [`Error::Io`] or [`Error::Closed`] when the
    /// connection broke.
    pub fn push(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<(), Error> {
        if self.pending.is_empty() {
            self.client.begin()?;
        }
        let outcome = self.client.put(sql, parameters)?;
        let unit = self.client.connection.link.send(&mut self.client.batch)?;
        self.pending.push_back((unit, outcome));
        if self.client.connection.link.unsent() < SEND {
            return Ok(());
        }
        match self.client.connection.try_flush() {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                self.pending.clear();
                Err(self.client.broken(error))
            }
            _ => Ok(()),
        }
    }

    /// How many answers are still to be taken.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}

impl Iterator for Pipeline<'_> {
    type Item = Result<Answer, Error>;

    /// Waits for the next answer; `None` when all were taken.
    fn next(&mut self) -> Option<Self::Item> {
        let (unit, outcome) = self.pending.pop_front()?;
        let mut rows = Vec::new();
        let answer = self.client.finish(outcome, &mut |row| rows.push(row));
        if self.client.is_closed() || self.client.connection.link.running() == Some(unit) {
            self.pending.clear();
        }
        Some(answer.map(|outcome| Answer { rows, count: outcome.count }).map_err(|(error, _)| error))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.pending.len()))
    }
}
