use std::fmt;

use crate::Error;
use crate::postgres::decode::{Fields, bad};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// As `psql` shows it.
    #[default]
    Text,
    /// As the type's own functions send it.
    Binary,
}

impl Format {
    /// "Currently will be zero (text) or one (binary)."
    pub(super) const fn parse(code: i16) -> Result<Self, Error> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            _ => Err(bad("a format that is neither text nor binary")),
        }
    }
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Column {
    /// Its name, in the encoding of the session.
    pub name: Box<[u8]>,
    /// The table it comes from, or 0.
    pub table: u32,
    /// The number of the column in that table, or 0.
    pub attribute: i16,
    /// The object ID of its type.
    pub type_oid: u32,
    /// `pg_type.typlen`: bytes of a value; negative if they vary.
    pub type_size: i16,
    /// `pg_attribute.atttypmod`: its meaning depends on the type; -1 for none.
    pub type_modifier: i32,
    /// How its values come. Always text in the description of a statement, which is not bound yet.
    pub format: Format,
}

/// RowDescription: the columns of a result.
///
/// `Int16` count, and for each: `String` name, `Int32` table, `Int16` attribute, `Int32` type,
/// `Int16` size, `Int32` modifier, `Int16` format.
pub(super) fn columns(body: &[u8]) -> Result<Box<[Column]>, Error> {
    /// What a column takes at least, so that a count alone reserves nothing.
    const LEAST: usize = 19;
    let mut fields = Fields::new(body);
    let count = fields.count()?;
    let mut columns = Vec::with_capacity(usize::from(count).min(body.len() / LEAST));
    for _ in 0..count {
        columns.push(Column {
            name: fields.string()?.into(),
            table: fields.oid()?,
            attribute: fields.int16()?,
            type_oid: fields.oid()?,
            type_size: fields.int16()?,
            type_modifier: fields.int32()?,
            format: Format::parse(fields.int16()?)?,
        });
    }
    fields.end()?;
    Ok(columns.into())
}

/// ParameterDescription: the types of a statement's parameters. `Int16` count, and an `Int32` type each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Types<'b> {
    oids: &'b [u8],
}

impl<'b> Types<'b> {
    pub(super) fn parse(body: &'b [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        // Here a count is unsigned in all but name: a statement has up to 65,535 parameters.
        let count = usize::from(fields.int16()? as u16);
        if fields.rest().len() == 4 * count {
            Ok(Self { oids: fields.rest() })
        } else {
            Err(bad("a message's length and its count disagree"))
        }
    }

    /// Their object IDs.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + use<'b> {
        self.oids.as_chunks().0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

impl fmt::Debug for Types<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A row of a result (DataRow), in the buffer it was received in.
///
/// `Int16` count, and for each column `Int32` length and the value. The machine looks at the count and
/// no further: whoever wants the values walks over them, once, and hears on the way if the server got
/// a length wrong. The session is then not to be trusted any more; the stream is still in step.
#[derive(Clone, Copy)]
pub struct Row<'b> {
    columns: usize,
    /// The body of the message behind the count.
    values: &'b [u8],
}

impl<'b> Row<'b> {
    #[inline]
    pub(super) const fn new(columns: usize, values: &'b [u8]) -> Self {
        Self { columns, values }
    }

    /// How many columns it has.
    pub const fn len(&self) -> usize {
        self.columns
    }

    /// Whether it has no column, as `SELECT FROM t`.
    pub const fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// How many bytes its values have together, with a length of 4 bytes for each.
    pub const fn size(&self) -> usize {
        self.values.len()
    }

    /// The value of a column, `None` for NULL. Walks there from the first one: for more than one
    /// column there is [`values`](Self::values).
    ///
    /// # Errors
    ///
    /// A violation: the row does not have what it says.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn get(&self, index: usize) -> Result<Option<&'b [u8]>, Error> {
        assert!(index < self.columns, "column {index} of {}", self.columns);
        self.values().nth(index).unwrap_or(Err(SHORT))
    }

    /// The values in order, `None` for NULL. After an error there are no more.
    #[inline]
    pub const fn values(&self) -> Values<'b> {
        Values { columns: self.columns, rest: self.values }
    }
}

/// The values of a [`Row`].
#[derive(Debug, Clone)]
pub struct Values<'b> {
    /// How many are left.
    columns: usize,
    rest: &'b [u8],
}

const SHORT: Error = bad("a row is shorter than its columns");
const LONG: Error = bad("a row is longer than its columns");

impl<'b> Iterator for Values<'b> {
    type Item = Result<Option<&'b [u8]>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.columns == 0 {
            return if self.rest.is_empty() { None } else { Some(self.fail(LONG)) };
        }
        let Some((length, behind)) = self.rest.split_first_chunk() else { return Some(self.fail(SHORT)) };
        let length = u32::from_be_bytes(*length);
        self.columns -= 1;
        match behind.split_at_checked(length as usize) {
            Some((value, rest)) => {
                self.rest = rest;
                Some(Ok(Some(value)))
            }
            // "As a special case, -1 indicates a NULL column value. No value bytes follow in the NULL
            // case." Another negative length is a large one here, and more than there is.
            None if length == u32::MAX => {
                self.rest = behind;
                Some(Ok(None))
            }
            None => Some(self.fail(SHORT)),
        }
    }
}

impl<'b> Values<'b> {
    #[cold]
    fn fail(&mut self, error: Error) -> Result<Option<&'b [u8]>, Error> {
        (self.columns, self.rest) = (0, &[]);
        Err(error)
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &[u8]| value.escape_ascii().to_string();
        f.debug_list().entries(self.values().map(|value| value.map(|value| value.map(text)))).finish()
    }
}

/// A row that is too large to be collected, in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'b> {
    /// It begins and has so many columns.
    Row(u16),
    /// The next column has so many bytes, or is NULL.
    Column(Option<usize>),
    /// The next bytes of that column, at most 64 KiB.
    Data(&'b [u8]),
    /// The row is complete.
    End,
}
