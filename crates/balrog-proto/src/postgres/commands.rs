//! What the owner of a session does.

use std::time::Instant;

use crate::postgres::batch::Batch;
use crate::postgres::config::Protocol;
use crate::postgres::encode::{Body, message, string};
use crate::postgres::event::Unit;
use crate::postgres::flow::Command;
use crate::postgres::frontend::{ABANDONED, Frontend};
use crate::postgres::rows::Row;
use crate::postgres::scram::SaltedPassword;
use crate::postgres::session::{CancelKey, TransactionStatus};
use crate::{Link, Misuse};

impl Link<Frontend> {
    fn open(&self) -> Result<(), Misuse> {
        if self.machine.startup.is_some() {
            return Err(Misuse("the session has not begun"));
        }
        if self.machine.closed {
            return Err(Misuse("the session is over"));
        }
        Ok(())
    }

    /// Whether messages other than COPY data can be sent.
    fn ready(&self) -> Result<(), Misuse> {
        self.open()?;
        // The server would take them for an error in the data.
        if self.machine.flow.takes_data() { Err(Misuse("a COPY FROM STDIN is in progress")) } else { Ok(()) }
    }

    /// The key that [`DeriveKey`](super::FrontendEvent::DeriveKey) asked for.
    ///
    /// # Errors
    ///
    /// `Misuse` if none was asked for.
    pub fn key_derived(&mut self, key: &SaltedPassword) -> Result<(), Misuse> {
        let Some(startup) = self.machine.startup.as_mut().filter(|startup| startup.is_deriving()) else {
            return Err(Misuse("no key was asked for"));
        };
        startup.derived(key, &mut self.outbox).map_err(|_| Misuse("no key was asked for"))
    }

    /// Sends a simple query: any number of statements, without parameters, results as text.
    ///
    /// Query: `String` query.
    ///
    /// # Errors
    ///
    /// `Misuse`, and nothing is sent: the session has not begun or is over; a COPY FROM STDIN or a
    /// batch without its sync is in progress; a NUL character; 1 GiB or more.
    pub fn query(&mut self, sql: &str) -> Result<Unit, Misuse> {
        self.ready()?;
        if self.machine.flow.is_open() {
            return Err(Misuse("a batch has no sync yet"));
        }
        Body::new().string(sql.as_bytes())?.fits()?;
        self.machine.expect(Command::Query, &self.outbox);
        self.machine.write(&mut self.outbox, |out| message(out, b'Q', |out| string(out, sql.as_bytes())));
        Ok(Unit(self.machine.flow.begun - 1))
    }

    /// Sends the messages of `batch` and empties it. Returns the unit of the first one; each sync
    /// begins the next. Answers that nobody has asked for yet do not matter: that is pipelining.
    ///
    /// # Errors
    ///
    /// `Misuse`, and nothing is sent: the session has not begun or is over, or a COPY FROM STDIN is in
    /// progress.
    pub fn send(&mut self, batch: &mut Batch) -> Result<Unit, Misuse> {
        self.ready()?;
        let unit = Unit(self.machine.flow.begun);
        // The first message of a unit tells where it begins, to within what is sent together.
        for command in batch.commands.drain(..) {
            self.machine.expect(command, &self.outbox);
        }
        if batch.bytes.len() > OWNED && self.machine.held.is_none() {
            self.outbox.push_owned(std::mem::take(&mut batch.bytes));
        } else {
            self.machine.write(&mut self.outbox, |out| out.extend_from_slice(&batch.bytes));
            batch.bytes.clear();
        }
        Ok(unit)
    }

    /// The next row, if the last event was a [`Row`](super::FrontendEvent::Row) and the next is one that
    /// is here already. It is what [`poll_event`](Self::poll_event) would give, by a shorter way; `None`
    /// says nothing but to ask that.
    #[inline]
    pub fn next_row(&mut self) -> Option<Row<'_>> {
        let values = self.machine.next_row(&self.inbox)?;
        Some(self.machine.view_row(&self.inbox, values))
    }

    /// Sends data of a COPY FROM STDIN, in pieces as they come.
    ///
    /// # Errors
    ///
    /// `Misuse` if the server does not take any (any more), or for 1 GiB or more.
    pub fn copy_data(&mut self, data: &[u8]) -> Result<(), Misuse> {
        self.takes_data()?;
        Body::new().bytes(data.len()).fits()?;
        self.machine.write(&mut self.outbox, |out| message(out, b'd', |out| out.extend_from_slice(data)));
        Ok(())
    }

    /// The data is complete.
    ///
    /// # Errors
    ///
    /// `Misuse` if the server does not take any (any more).
    pub fn copy_done(&mut self) -> Result<(), Misuse> {
        self.takes_data()?;
        self.machine.write(&mut self.outbox, |out| message(out, b'c', |_| ()));
        self.machine.end_copy_in(&mut self.outbox);
        Ok(())
    }

    /// The data cannot be completed: the COPY fails with this reason, and nothing is stored.
    ///
    /// # Errors
    ///
    /// `Misuse` if the server does not take any (any more), or for a NUL character.
    pub fn copy_fail(&mut self, reason: &str) -> Result<(), Misuse> {
        self.takes_data()?;
        Body::new().string(reason.as_bytes())?.fits()?;
        self.machine.fail_copy(reason, &mut self.outbox);
        Ok(())
    }

    fn takes_data(&self) -> Result<(), Misuse> {
        self.open()?;
        if self.machine.flow.takes_data() { Ok(()) } else { Err(Misuse("no COPY FROM STDIN is in progress")) }
    }

    /// Ends the session: in order, at once, whatever is in progress.
    pub fn terminate(&mut self) {
        if self.open().is_ok() {
            message(&mut self.outbox.tail(), b'X', |_| ());
        }
        (self.machine.closed, self.machine.quick) = (true, 0);
        self.outbox.shutdown();
    }

    /// Drops all results of what was sent, so that the session can be used for something else: closes
    /// an open batch, fails a COPY FROM STDIN, reads to the end. From then on the only events are
    /// [`Ready`](super::FrontendEvent::Ready) and what comes at any time. What the server does with
    /// the statements does not change; to stop them, cancel too.
    ///
    /// The limits `drain` and `drain_time` bound it; when one is hit, the connection is over.
    ///
    /// # Errors
    ///
    /// `Misuse` if the session has not begun or is over.
    pub fn recover(&mut self, now: Instant) -> Result<(), Misuse> {
        self.open()?;
        if self.machine.flow.takes_data() {
            self.machine.fail_copy(ABANDONED, &mut self.outbox);
        }
        if self.machine.flow.is_open() {
            self.machine.sync(&mut self.outbox);
        }
        if !self.machine.flow.is_idle() && self.machine.drain.is_none() {
            self.machine.quick = 0;
            let limits = &self.machine.config.limits;
            let position = self.inbox.position() + self.machine.used as u64;
            self.machine.drain = Some(position.saturating_add(limits.drain));
            self.machine.timers.drain = limits.drain_time.map(|time| now + time);
        }
        Ok(())
    }

    /// Wants `unit` to be over at `at`. If it is not,
    /// [`DeadlinePassed`](super::FrontendEvent::DeadlinePassed) tells the owner to cancel it, and after
    /// the limit `cancel_time` the connection is over. One unit has a deadline at a time; `None` takes
    /// it back.
    pub fn set_deadline(&mut self, unit: Unit, at: Option<Instant>) {
        let at = at.filter(|_| unit.0 >= self.machine.flow.done);
        self.machine.timers.set_query(at.map(|at| (unit, at)));
    }

    /// What [`Cancel`](super::Cancel) needs to cancel `unit`, which must be the one that the server is
    /// working on. Until [`cancel_finished`](Self::cancel_finished), nothing more is sent on this
    /// link: a request that arrives late hits what is running then.
    ///
    /// # Errors
    ///
    /// `Misuse` if another unit is running, if it is complete, if the server gave no key, or if a cancel
    /// request is on its way.
    pub fn cancel(&mut self, unit: Unit) -> Result<CancelKey, Misuse> {
        self.open()?;
        if self.running() != Some(unit) {
            return Err(Misuse("this is not the unit that is running"));
        }
        if self.machine.held.is_some() {
            return Err(Misuse("a cancel request is on its way"));
        }
        let key = self.machine.key.clone().ok_or(Misuse("the server gave no key to cancel with"))?;
        self.machine.held = Some(Vec::new());
        Ok(key)
    }

    /// The cancel request has reached the server, or never will: what waited for that is sent.
    pub fn cancel_finished(&mut self) {
        if let Some(held) = self.machine.held.take() {
            self.outbox.push_owned(held);
        }
    }

    /// The unit that the server is working on: the oldest that is not complete.
    pub fn running(&self) -> Option<Unit> {
        let flow = &self.machine.flow;
        (!flow.is_idle()).then_some(Unit(flow.done))
    }

    /// How many units were begun behind the running one and have been handed to the connection, in
    /// part at least. A cancel request may hit the first of them, if the running one ends before.
    pub fn at_risk(&self) -> usize {
        let sent = self.outbox.position();
        self.machine.starts.iter().skip(1).filter(|start| **start < sent).count()
    }

    /// Whether not a byte of `unit` has been handed to the connection: it can be sent again elsewhere.
    pub fn is_unsent(&self, unit: Unit) -> bool {
        let Some(index) = unit.0.checked_sub(self.machine.flow.done) else { return false };
        let start = usize::try_from(index).ok().and_then(|index| self.machine.starts.get(index));
        start.is_none_or(|start| *start >= self.outbox.position())
    }

    /// Whether everything that was sent is answered.
    pub fn is_idle(&self) -> bool {
        self.machine.flow.is_idle()
    }

    /// Where the session stood at the last [`Ready`](super::FrontendEvent::Ready).
    pub const fn transaction_status(&self) -> TransactionStatus {
        self.machine.status
    }

    /// The last value that the server reported of a setting, `server_version` for example.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.machine.parameters.get(name.as_bytes())
    }

    /// The key of this session, with the number of the process that serves it.
    pub const fn key(&self) -> Option<&CancelKey> {
        self.machine.key.as_ref()
    }

    /// The protocol that is spoken.
    pub fn protocol(&self) -> Protocol {
        self.machine.startup.as_ref().map_or(self.machine.protocol, |startup| startup.protocol())
    }
}

/// Batches from here on are not copied behind what is already queued.
const OWNED: usize = 16 * 1024;
