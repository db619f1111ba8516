use std::ops::{Deref, DerefMut};
use std::time::Instant;

use balrog_sched::{GRACE, with_shield};

use super::{Client, Error};

/// A transaction, or a savepoint inside of one. It is used as the [`Client`] that it is on.
///
/// Dropped without a [`commit`](Self::commit), it is rolled back, also where the code is being
/// cancelled.
#[derive(Debug)]
#[must_use = "it is rolled back when it is dropped"]
pub struct Transaction<'c> {
    client: &'c mut Client,
    /// 0 for the transaction itself, else the number of the savepoint.
    depth: u32,
    ended: bool,
}

impl<'c> Transaction<'c> {
    pub(super) fn begin(client: &'c mut Client) -> Result<Self, Error> {
        let depth = client.depth;
        // From here on there may be something to roll back, whatever becomes of the answer.
        client.depth += 1;
        let begun = Self { client, depth, ended: false };
        let sql = if depth == 0 { "BEGIN".to_owned() } else { format!("SAVEPOINT balrog_{depth}") };
        begun.client.batch_execute(&sql)?;
        Ok(begun)
    }

    /// Makes what was done last.
    ///
    /// # Errors
    ///
    /// As [`Client::query`]; [`Error::Refused`] when the transaction had failed before, and was
    /// rolled back instead. If the connection breaks here, it is not known what became of it.
    pub fn commit(mut self) -> Result<(), Error> {
        let done = if self.depth == 0 {
            self.client.simple("COMMIT")
        } else {
            self.client.simple(&format!("RELEASE SAVEPOINT balrog_{}", self.depth))
        }?;
        self.end();
        if done == b"ROLLBACK" {
            return Err(Error::Refused("a statement had failed, so the transaction was rolled back"));
        }
        Ok(())
    }

    /// Undoes what was done.
    ///
    /// # Errors
    ///
    /// As [`Client::query`].
    pub fn rollback(mut self) -> Result<(), Error> {
        self.undo()
    }

    /// A savepoint: what is done from here on can be undone alone.
    ///
    /// # Errors
    ///
    /// As [`Client::query`].
    pub fn transaction(&mut self) -> Result<Transaction<'_>, Error> {
        Transaction::begin(self.client)
    }

    fn undo(&mut self) -> Result<(), Error> {
        let sql = match self.depth {
            0 => "ROLLBACK".to_owned(),
            depth => format!("ROLLBACK TO SAVEPOINT balrog_{depth}; RELEASE SAVEPOINT balrog_{depth}"),
        };
        self.end();
        self.client.batch_execute(&sql)
    }

    fn end(&mut self) {
        self.ended = true;
        self.client.depth = self.depth;
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.client.is_closed() {
            return self.end();
        }
        match with_shield(Instant::now() + GRACE, || self.undo()) {
            Ok(()) => {}
            // invalid_savepoint_specification: an interrupt came before it was made, or when it had been
            // released. The transaction around it has failed by that, so nothing can be kept by mistake.
            Err(error) if error.code() == Some("3B001") => {}
            // In a state that nobody knows it must not be used again.
            Err(_) => self.client.close(),
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client
    }
}
