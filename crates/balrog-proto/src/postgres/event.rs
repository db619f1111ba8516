use std::sync::Arc;

use crate::postgres::flow::Command;
use crate::postgres::report::Report;
use crate::postgres::rows::{Column, Format, Piece, Row, Types};
use crate::postgres::scram::KeyDerivation;
use crate::postgres::session::TransactionStatus;

/// A group of messages that is answered by one ReadyForQuery: a simple query, or everything up to a
/// [`sync`](super::Batch::sync). They are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(pub u64);

/// What the server did. Whatever answers a message comes in the order of the messages.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FrontendEvent<'b> {
    /// SCRAM needs a key; give it to [`key_derived`](crate::Link::key_derived). Nothing goes on
    /// before.
    DeriveKey(Box<KeyDerivation>),
    /// The log-in is complete: queries can be sent.
    Started,
    /// A unit is complete.
    Ready {
        /// Which one.
        unit: Unit,
        /// Where the session stands now.
        status: TransactionStatus,
    },

    /// An SQL error (ErrorResponse). The unit it is in still ends with [`Ready`](Self::Ready), unless
    /// it [is fatal](Report::is_fatal).
    ServerError(Report<'b>),
    /// A message of this unit that the server skipped because of the error before.
    Skipped(Command),
    /// A warning or a hint (NoticeResponse). Comes at any time.
    Notice(Report<'b>),
    /// NOTIFY of some session (NotificationResponse). Comes at any time.
    Notification {
        /// The process that serves the notifying session.
        process: i32,
        /// The channel.
        channel: &'b [u8],
        /// What it said, or nothing.
        payload: &'b [u8],
    },
    /// A setting has this value now (ParameterStatus). Comes at any time.
    Parameter {
        /// Which.
        name: &'b [u8],
        /// Its value.
        value: &'b [u8],
    },

    /// A statement is prepared (ParseComplete).
    Parsed,
    /// A portal is bound (BindComplete).
    Bound,
    /// A statement or a portal is closed (CloseComplete).
    Closed,
    /// The parameters of a statement; [`Columns`](Self::Columns) or [`NoColumns`](Self::NoColumns)
    /// follows (ParameterDescription).
    Parameters(Types<'b>),
    /// The columns of a statement, of a portal, or of the rows that follow (RowDescription).
    Columns(Arc<[Column]>),
    /// A statement or portal that returns no rows (NoData).
    NoColumns,
    /// A row (DataRow).
    Row(Row<'b>),
    /// A part of a row that is larger than the limit `whole`.
    Piece(Piece<'b>),
    /// A statement is complete (CommandComplete).
    Complete {
        /// What it did: `SELECT 3`, `INSERT 0 1`, `BEGIN`.
        tag: &'b [u8],
    },
    /// There was no statement in the query (EmptyQueryResponse).
    Empty,
    /// The limit of rows is reached; another execute of the portal goes on (PortalSuspended).
    Suspended,

    /// COPY FROM STDIN: the server takes [`copy_data`](crate::Link::copy_data) (CopyInResponse).
    CopyIn(CopyFormat<'b>),
    /// COPY TO STDOUT: data follows (CopyOutResponse).
    CopyOut(CopyFormat<'b>),
    /// Data goes both ways, as in replication (CopyBothResponse).
    CopyBoth(CopyFormat<'b>),
    /// Data of a COPY. One message of the server's is one row in text format, and is in one event
    /// unless it is larger than the limit `whole`.
    CopyData {
        /// At most 64 KiB of a message that is larger than `whole`, else all of it.
        data: &'b [u8],
        /// Whether the message ends here.
        last: bool,
    },
    /// The server sends no more data (CopyDone).
    CopyDone,

    /// The deadline of this unit has passed. It is to be cancelled; if it does not end within the
    /// limit `cancel_time`, the connection is over.
    DeadlinePassed(Unit),
}

/// How the data of a COPY is written: `Int8` overall format, and an `Int16` format for each column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyFormat<'b> {
    /// Text (or CSV), or binary.
    pub overall: Format,
    columns: &'b [[u8; 2]],
}

impl<'b> CopyFormat<'b> {
    pub(super) fn parse(body: &'b [u8]) -> Result<Self, crate::Error> {
        use crate::postgres::decode::{Fields, bad};
        let mut fields = Fields::new(body);
        let overall = Format::parse(fields.byte()?.into())?;
        let count = usize::from(fields.count()?);
        let (columns, rest) = fields.rest().as_chunks();
        if columns.len() != count || !rest.is_empty() {
            return Err(bad("a message's length and its count disagree"));
        }
        for code in columns {
            Format::parse(i16::from_be_bytes(*code))?;
        }
        Ok(Self { overall, columns })
    }

    /// The format of each column; all are text if `overall` is.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = Format> + use<'b> {
        self.columns.iter().map(|code| if *code == [0, 0] { Format::Text } else { Format::Binary })
    }
}
