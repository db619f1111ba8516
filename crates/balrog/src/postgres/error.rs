use std::{error, fmt, io};

use balrog_proto::Misuse;
use balrog_proto::postgres::Report;

use crate::Interrupt;

/// What went wrong with a database.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The configuration makes no sense: which part, and what it could be.
    Config(String),
    /// No connection could be made: to whom, and why not.
    Connect(String, io::Error),
    /// The connection broke, or a wait was interrupted.
    Io(io::Error),
    /// The server refused what it was asked. The session goes on, unless the connection is closed.
    Server(Box<ServerError>),
    /// A value is not what it was asked for as.
    Conversion(String),
    /// The number of rows is not the one that was asked for.
    Rows(u64),
    /// The connection is over; make another.
    Closed,
    /// The session is inside of a COPY or a transaction that does not allow this.
    Refused(&'static str),
}

/// An error that the server reports (ErrorResponse), field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`.
    pub severity: String,
    /// The SQLSTATE, five characters: `23505` is a unique violation.
    pub code: String,
    /// What happened.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What could be done.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
    /// The schema, table, column, type and constraint that it is about.
    pub schema: Option<String>,
    /// See `schema`.
    pub table: Option<String>,
    /// See `schema`.
    pub column: Option<String>,
    /// See `schema`.
    pub constraint: Option<String>,
}

impl ServerError {
    pub(super) fn new(report: &Report<'_>) -> Self {
        let field = |kind| report.field(kind).map(|value: &[u8]| String::from_utf8_lossy(value).into_owned());
        Self {
            severity: report.severity().into_owned(),
            code: report.code().to_owned(),
            message: report.message().into_owned(),
            detail: field(b'D'),
            hint: field(b'H'),
            position: report.position(),
            schema: field(b's'),
            table: field(b't'),
            column: field(b'c'),
            constraint: field(b'n'),
        }
    }
}

impl Error {
    /// The SQLSTATE, if the server refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.code),
            _ => None,
        }
    }

    /// The interrupt that ended a wait, if one did.
    pub fn interrupt(&self) -> Option<Interrupt> {
        match self {
            Self::Io(error) | Self::Connect(_, error) => Interrupt::of(error),
            _ => None,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.code)?;
        for (name, more) in [("detail", &self.detail), ("hint", &self.hint)] {
            if let Some(more) = more {
                write!(f, "; {name}: {more}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(what) => write!(f, "the database's configuration: {what}"),
            Self::Connect(whom, why) => write!(f, "no connection to PostgreSQL at {whom}: {why}"),
            Self::Io(error) => write!(f, "the connection to PostgreSQL: {error}"),
            Self::Server(error) => error.fmt(f),
            Self::Conversion(what) => f.write_str(what),
            Self::Rows(0) => f.write_str("the query gave no row"),
            Self::Rows(count) => write!(f, "the query gave {count} rows, where one was asked for"),
            Self::Closed => f.write_str("the connection to PostgreSQL is closed"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl error::Error for ServerError {}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io(error) | Self::Connect(_, error) => Some(error),
            Self::Server(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Misuse> for Error {
    fn from(misuse: Misuse) -> Self {
        Self::Refused(misuse.0)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match (error.interrupt(), error) {
            // Whoever was interrupted while connecting has to see it, too.
            (Some(interrupt), _) => interrupt.into(),
            (None, Error::Io(error)) => error,
            (None, error) => Self::other(error),
        }
    }
}
