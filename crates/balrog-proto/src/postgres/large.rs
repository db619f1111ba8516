//! Rows and COPY data that are too large to be collected.

use std::ops::Range;

use crate::postgres::decode::bad;
use crate::{Error, Inbox};

/// Pieces are this large, but for the last one of a value: the same ones come out however the
/// bytes came in.
const PIECE: usize = 64 * 1024;

/// A message that is being reported in pieces: what is left of it.
#[derive(Debug)]
pub(super) enum Large {
    Copy { left: usize },
    Row { columns: u16, column: Option<usize>, left: usize },
}

/// The next piece. Ranges are of the inbox, and are used up with the event.
#[derive(Debug)]
pub(super) enum Part {
    Copy(Range<usize>, bool),
    Row(u16),
    Column(Option<usize>),
    Data(Range<usize>),
    End,
}

impl Large {
    /// The next part, once it is there, and how many bytes it uses up. `None` is the end of the
    /// message.
    pub(super) fn next(&mut self, inbox: &Inbox) -> Result<Option<(Part, usize)>, Error> {
        match self {
            Self::Copy { left } => {
                let n = PIECE.min(*left);
                if inbox.len() < n {
                    return Ok(None);
                }
                *left -= n;
                Ok(Some((Part::Copy(0..n, *left == 0), n)))
            }
            Self::Row { column: Some(of_column), left, .. } if *of_column > 0 => {
                let n = PIECE.min(*of_column);
                if inbox.len() < n {
                    return Ok(None);
                }
                (*of_column, *left) = (*of_column - n, *left - n);
                Ok(Some((Part::Data(0..n), n)))
            }
            Self::Row { columns: 0, left, .. } => {
                if *left > 0 {
                    Err(bad("a row is longer than its columns"))
                } else {
                    Ok(Some((Part::End, 0)))
                }
            }
            Self::Row { columns, column, left } => {
                const SHORT: Error = bad("a row is shorter than its columns");
                *left = left.checked_sub(4).ok_or(SHORT)?;
                let Some(length) = inbox.bytes().first_chunk() else {
                    *left += 4;
                    return Ok(None);
                };
                *column = match i32::from_be_bytes(*length) {
                    -1 => None,
                    length => Some(usize::try_from(length).map_err(|_| SHORT)?),
                };
                if column.is_some_and(|length| length > *left) {
                    return Err(SHORT);
                }
                *columns -= 1;
                Ok(Some((Part::Column(*column), 4)))
            }
        }
    }

    /// Whether the message has ended.
    pub(super) const fn is_over(&self, part: &Part) -> bool {
        matches!(part, Part::Copy(_, true) | Part::End)
    }
}
