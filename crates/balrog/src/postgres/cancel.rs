use std::time::{Duration, Instant};

use balrog_proto::Step;
use balrog_proto::postgres::{Cancel, CancelKey};

use super::Error;
use super::connect::Place;
use crate::drive::Connection;

/// How long the server may take with a cancel request.
const TIME: Duration = Duration::from_secs(5);

/// Cancels what a connection is doing, from any task or thread.
#[derive(Debug, Clone)]
pub struct CancelToken {
    pub(super) place: Place,
    pub(super) key: CancelKey,
}

impl CancelToken {
    /// Asks the server, over a connection of its own, to cancel what the session is doing now:
    /// that fails with SQLSTATE 57014. If nothing is in progress, nothing happens.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub fn cancel(&self) -> Result<(), Error> {
        let deadline = Instant::now() + TIME;
        let (stream, _) = self.place.open(Some(deadline))?;
        let mut connection = Connection::new(Cancel::new(self.key.clone(), Some(TIME)), stream);
        Ok(connection.event(64, |step| match step {
            Step::Event(never) => match never {},
            _ => Some(()),
        })?)
    }
}
