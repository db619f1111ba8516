use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog_proto::Step;
use balrog_proto::postgres::{
    Batch, Bind, Choice, Column, Frontend, FrontendEvent, Parameter, Remedy, Report, Statements,
    TransactionStatus,
};

use super::connect::{Place, connect};
use super::{CancelToken, Config, Encoding, Error, Row, ServerError, ToSql, Transaction};
use crate::Interrupt;
use crate::drive::Connection;

/// How much one read takes.
pub(super) const READ: usize = 16 * 1024;
/// Notifications that nobody asked for yet; the oldest go first.
const NOTIFICATIONS: usize = 10_000;

/// How long each part of a pipeline that is given up may still run before it is cancelled, too.
const AGAIN: Duration = Duration::from_millis(100);

/// How many statements a session keeps prepared, and at which use behind the first ones.
const STATEMENTS: (usize, u32) = (100, 3);

/// A session with a database.
///
/// A query that comes again and again is prepared, and used by name from then on; if the server
/// has lost it (a pooler between, `DISCARD ALL`), it is sent as text again.
#[derive(Debug)]
pub struct Client {
    pub(super) connection: Connection<Frontend>,
    pub(super) batch: Batch,
    statements: Statements,
    place: Place,
    pub(super) notifications: VecDeque<Notification>,
    /// It cannot be used any more.
    closed: bool,
    /// How deep transactions are nested.
    pub(super) depth: u32,
}

/// What a session said by NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The channel.
    pub channel: String,
    /// What it said, or nothing.
    pub payload: String,
    /// The process that serves the session.
    pub process: i32,
}

/// What one query came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Those of a prepared statement are known before.
    columns: Option<Arc<[Column]>>,
    /// The prepared statement that was used.
    statement: Option<Arc<str>>,
    /// What went wrong with that.
    report: Vec<u8>,
    /// Rows that the last command returned or changed.
    pub(super) count: u64,
    tag: Vec<u8>,
    error: Option<Error>,
}

impl Client {
    /// Connects to where `config` says; see [`Config`] for what it can be.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Connect`] of the last host that was tried, or [`Error::Server`]
    /// when the server lets us not in.
    pub fn connect(config: &str) -> Result<Self, Error> {
        Self::with_config(config.parse::<Config>()?)
    }

    /// As [`Client::connect`].
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub fn with_config(config: impl Into<Arc<Config>>) -> Result<Self, Error> {
        connect(&config.into())
    }

    /// Of a connection whose log-in is over.
    pub(super) fn new(connection: Connection<Frontend>, place: Place) -> Self {
        Self {
            connection,
            batch: Batch::new(),
            statements: Statements::new(STATEMENTS.0, STATEMENTS.1),
            place,
            notifications: VecDeque::new(),
            closed: false,
            depth: 0,
        }
    }

    /// The rows of a query. `$1`, `$2`, … in `sql` stand for the parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] when the server refuses, [`Error::Io`] when the connection breaks or the
    /// wait is interrupted, [`Error::Closed`] after it broke.
    pub fn query(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        self.for_each(sql, parameters, |row| rows.push(row))?;
        Ok(rows)
    }

    /// Calls `f` with each row of a query, as they come.
    ///
    /// # Errors
    ///
    /// As [`Client::query`].
    pub fn for_each(
        &mut self,
        sql: &str,
        parameters: &[&dyn ToSql],
        f: impl FnMut(Row),
    ) -> Result<u64, Error> {
        let mut f = f;
        loop {
            self.begin()?;
            let outcome = self.put(sql, parameters)?;
            self.connection.link.send(&mut self.batch)?;
            match self.finish(outcome, &mut f) {
                Ok(outcome) => return Ok(outcome.count),
                // The statement was lost, and nothing has happened yet.
                Err((_, Remedy::Retry)) => {}
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// The one row of a query.
    ///
    /// # Errors
    ///
    /// [`Error::Rows`] when there are none or several, and as [`Client::query`].
    pub fn query_one(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<Row, Error> {
        self.query_opt(sql, parameters)?.ok_or(Error::Rows(0))
    }

    /// The row of a query, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Rows`] when there are several, and as [`Client::query`].
    pub fn query_opt(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<Option<Row>, Error> {
        let (mut first, mut count) = (None, 0);
        self.for_each(sql, parameters, |row| {
            count += 1;
            first.get_or_insert(row);
        })?;
        if count > 1 { Err(Error::Rows(count)) } else { Ok(first) }
    }

    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    ///
    /// As [`Client::query`].
    pub fn execute(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<u64, Error> {
        self.for_each(sql, parameters, drop)
    }

    /// Runs statements without parameters, separated by semicolons, in one transaction unless
    /// they say otherwise.
    ///
    /// # Errors
    ///
    /// As [`Client::query`].
    pub fn batch_execute(&mut self, sql: &str) -> Result<(), Error> {
        self.simple(sql).map(drop)
    }

    /// As [`Client::batch_execute`]; what the last statement did.
    pub(super) fn simple(&mut self, sql: &str) -> Result<Vec<u8>, Error> {
        self.begin()?;
        self.connection.link.query(sql)?;
        Ok(self.outcome(drop)?.tag)
    }

    /// Begins a transaction, which is rolled back when it is dropped without a
    /// [`commit`](Transaction::commit).
    ///
    /// # Errors
    ///
    /// As [`Client::query`].
    pub fn transaction(&mut self) -> Result<Transaction<'_>, Error> {
        Transaction::begin(self)
    }

    /// The next notification of a channel that the session listens to (`LISTEN name`): one that
    /// has come already, else one that comes until `until`.
    ///
    /// # Errors
    ///
    /// As [`Client::query`].
    pub fn notification(&mut self, until: Option<Instant>) -> Result<Option<Notification>, Error> {
        self.begin()?;
        while self.notifications.is_empty() {
            let notifications = &mut self.notifications;
            let came = until_or(&mut self.connection, until, |step| match step {
                Step::Event(event) => note(notifications, &event).then_some(Ok(())),
                _ => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            });
            match came {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(self.notifications.pop_front())
    }

    /// What cancels a query of this session from elsewhere. `None`: the server gave no key.
    pub fn cancel_token(&self) -> Option<CancelToken> {
        let key = self.connection.link.key()?.clone();
        Some(CancelToken { place: self.place.clone(), key })
    }

    /// Whether it is of no more use.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The last value that the server reported of a setting, `server_version` for example.
    pub fn parameter(&self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.connection.link.parameter(name)?).into_owned())
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.connection.link.transaction_status() != TransactionStatus::Idle
    }

    /// Ends it.
    pub(super) const fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing has been heard of the server that ends the session.
    pub(super) fn is_alive(&mut self) -> bool {
        !self.closed && self.connection.link.is_idle() && self.connection.stream.is_alive()
    }

    /// Gets rid of what an interrupted query left, before anything else is asked.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if self.connection.link.is_idle() {
            return Ok(());
        }
        self.cancel_running();
        self.connection.link.recover(Instant::now())?;
        while !self.connection.link.is_idle() {
            let notifications = &mut self.notifications;
            let soon = Some(Instant::now() + AGAIN);
            let ready = until_or(&mut self.connection, soon, |step| match step {
                Step::Event(FrontendEvent::Ready { .. }) => Some(Ok(())),
                Step::Event(event) => {
                    note(notifications, &event);
                    None
                }
                _ => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            });
            match ready {
                Ok(Some(())) => {}
                Ok(None) => self.cancel_running(),
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// Has the server stop what it is doing for us, if it can be reached.
    fn cancel_running(&mut self) {
        if let Some(unit) = self.connection.link.running()
            && let Ok(key) = self.connection.link.cancel(unit)
        {
            let token = CancelToken { place: self.place.clone(), key };
            // Without it the query runs to its end, or the limits end the connection.
            let _ = token.cancel();
            self.connection.link.cancel_finished();
        }
    }

    /// Puts a query into the batch: as text, or by the name of its prepared statement.
    pub(super) fn put(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<Outcome, Error> {
        let mut bytes = Vec::new();
        let encoded: Vec<_> = parameters
            .iter()
            .map(|parameter| {
                let start = bytes.len();
                let encoding = parameter.encode(&mut bytes);
                (encoding, start..bytes.len())
            })
            .collect();
        let values: Vec<_> = encoded
            .into_iter()
            .map(|(encoding, range)| match encoding {
                Encoding::Null => Parameter::Null,
                Encoding::Text => Parameter::Text(&bytes[range]),
                Encoding::Binary => Parameter::Binary(&bytes[range]),
            })
            .collect();
        let types: Vec<_> = parameters.iter().map(ToSql::type_oid).collect();
        let choice = self.statements.choose(sql, &types);
        let mut outcome = Outcome::default();
        let put = |batch: &mut Batch, outcome: &mut Outcome| {
            while let Some(name) = self.statements.take_closed() {
                batch.close_statement(&name)?;
            }
            let bind = Bind { parameters: &values, ..Bind::default() };
            match choice {
                Choice::Unnamed => {
                    batch.parse("", sql, &types)?.bind(&bind)?.describe_portal("")?.execute("", 0)?
                }
                Choice::Prepare(name) => {
                    batch.parse(&name, sql, &types)?.describe_statement(&name)?;
                    batch.bind(&Bind { statement: &name, ..bind })?.execute("", 0)?;
                    outcome.statement = Some(name);
                    batch
                }
                Choice::Prepared(name, columns) => {
                    batch.bind(&Bind { statement: &name, ..bind })?.execute("", 0)?;
                    (outcome.statement, outcome.columns) = (Some(name), Some(columns));
                    batch
                }
            }
            .sync();
            Ok(())
        };
        let done: Result<(), Error> = put(&mut self.batch, &mut outcome);
        done.inspect_err(|_| self.batch.clear())?;
        Ok(outcome)
    }

    /// Waits for the end of the one unit that was sent, of the simple protocol.
    pub(super) fn outcome(&mut self, mut f: impl FnMut(Row)) -> Result<Outcome, Error> {
        self.finish(Outcome::default(), &mut f).map_err(|(error, _)| error)
    }

    /// Waits for the end of the one unit that was sent, and says what may be done if it failed.
    pub(super) fn finish(
        &mut self,
        mut outcome: Outcome,
        f: &mut impl FnMut(Row),
    ) -> Result<Outcome, (Error, Remedy)> {
        let statements = &mut self.statements;
        let notifications = &mut self.notifications;
        let ended = self.connection.event(READ, |step| {
            match step {
                Step::Event(FrontendEvent::Ready { .. }) => return Some(true),
                Step::Event(FrontendEvent::Columns(columns)) => {
                    if let Some(name) = &outcome.statement {
                        statements.prepared(name, Arc::clone(&columns));
                    }
                    outcome.columns = Some(columns);
                }
                Step::Event(FrontendEvent::NoColumns) => {
                    if let Some(name) = &outcome.statement {
                        statements.prepared(name, Arc::new([]));
                    }
                }
                Step::Event(FrontendEvent::Row(row)) => {
                    let columns = outcome.columns.get_or_insert_with(|| Arc::new([]));
                    match Row::new(columns, &row) {
                        Ok(row) => f(row),
                        Err(error) => drop(outcome.error.get_or_insert(Error::Io(error.into()))),
                    }
                }
                Step::Event(FrontendEvent::Complete { tag }) => {
                    let count = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                    let count = std::str::from_utf8(count).ok().and_then(|count| count.parse().ok());
                    outcome.count = count.unwrap_or(0);
                    statements.complete(tag);
                    outcome.tag = tag.to_vec();
                }
                Step::Event(FrontendEvent::ServerError(report)) => {
                    if outcome.error.is_none() {
                        outcome.error = Some(Error::Server(Box::new(ServerError::new(&report))));
                        outcome.report = report.body().to_vec();
                    }
                }
                Step::Event(FrontendEvent::CopyIn(_) | FrontendEvent::CopyOut(_)) => {
                    outcome.error =
                        Some(Error::Refused("COPY from and to the client is for copy_in and copy_out"));
                    // What it sends is dropped before the next use.
                    return Some(false);
                }
                Step::Event(event) => drop(note(notifications, &event)),
                _ => {
                    outcome.error.get_or_insert(Error::Closed);
                    return Some(false);
                }
            }
            None
        });
        match (ended, outcome.error.take()) {
            (Err(error), None) => Err((self.broken(error), Remedy::None)),
            (_, Some(error)) => {
                // A fatal error of the server's ends the session.
                self.closed |= matches!(error, Error::Closed | Error::Io(_))
                    || matches!(&error, Error::Server(report) if report.severity != "ERROR");
                let status = self.connection.link.transaction_status();
                let remedy = match (&outcome.statement, Report::parse(&outcome.report)) {
                    (Some(name), Ok(report)) if !self.closed => self.statements.failed(name, &report, status),
                    _ => Remedy::None,
                };
                Err((error, remedy))
            }
            (Ok(_), None) => Ok(outcome),
        }
    }

    /// Whether `error` is the end: an interrupted wait is not, the connection goes on from there.
    pub(super) fn broken(&mut self, error: io::Error) -> Error {
        self.closed |= Interrupt::of(&error).is_none();
        Error::Io(error)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // As far as it goes without a wait.
        self.connection.link.terminate();
        let _ = self.connection.try_flush();
    }
}

/// [`Connection::event`], or `None` at `until`. An enclosing deadline is still an error.
fn until_or<T>(
    connection: &mut Connection<Frontend>,
    until: Option<Instant>,
    take: impl FnMut(Step<FrontendEvent<'_>>) -> Option<io::Result<T>>,
) -> io::Result<Option<T>> {
    connection.stream.timeouts_mut().deadline = until;
    let taken = connection.event(READ, take);
    connection.stream.timeouts_mut().deadline = None;
    match taken {
        Err(error)
            if Interrupt::of(&error) == Some(Interrupt::Deadline)
                && until.is_some_and(|until| until <= Instant::now()) =>
        {
            balrog_sched::limit(None)?;
            Ok(None)
        }
        taken => taken?.map(Some),
    }
}

/// Keeps a notification. `false`: it is something else.
pub(super) fn note(notifications: &mut VecDeque<Notification>, event: &FrontendEvent<'_>) -> bool {
    let FrontendEvent::Notification { process, channel, payload } = event else { return false };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if notifications.len() == NOTIFICATIONS {
        notifications.pop_front();
    }
    notifications.push_back(Notification {
        channel: text(channel),
        payload: text(payload),
        process: *process,
    });
    true
}
