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

/// Where a column's value is in the body of a DataRow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cell {
    start: u32,
    /// [`NULL`] for no value.
    len: u32,
}

/// "As a special case, -1 indicates a NULL column value."
const NULL: u32 = u32::MAX;

/// Finds the values of a DataRow: `Int16` count, and for each `Int32` length and the value.
///
/// One walk checks every length, so that a row which is reported is sound, and nothing has to be
/// walked again.
pub(super) fn cells(body: &[u8], cells: &mut Vec<Cell>) -> Result<(), Error> {
    const SHORT: Error = bad("a row is shorter than its columns");
    let Some((count, mut rest)) = body.split_first_chunk() else { return Err(SHORT) };
    let count = usize::try_from(i16::from_be_bytes(*count)).map_err(|_| bad("a count is negative"))?;
    // Each takes four bytes at least, so that a count alone reserves nothing.
    if count > rest.len() / 4 {
        return Err(SHORT);
    }
    cells.resize(count, Cell::default());
    for cell in cells {
        let Some((len, values)) = rest.split_first_chunk() else { return Err(SHORT) };
        let len = u32::from_be_bytes(*len);
        *cell = Cell { start: (body.len() - values.len()) as u32, len };
        rest = if len == NULL {
            values
        } else {
            // A negative length is a large one here.
            values.get(len as usize..).ok_or(SHORT)?
        };
    }
    if rest.is_empty() { Ok(()) } else { Err(bad("a row is longer than its columns")) }
}

/// A row of a result, in the buffer it was received in.
#[derive(Clone, Copy)]
pub struct Row<'b> {
    body: &'b [u8],
    cells: &'b [Cell],
}

impl<'b> Row<'b> {
    pub(super) const fn new(body: &'b [u8], cells: &'b [Cell]) -> Self {
        Self { body, cells }
    }

    /// How many columns it has.
    pub const fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether it has no column, as `SELECT FROM t`.
    pub const fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The value of a column, `None` for NULL.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn get(&self, index: usize) -> Option<&'b [u8]> {
        self.value(self.cells[index])
    }

    /// The values in order, `None` for NULL.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&'b [u8]>> + use<'b> {
        let row = *self;
        self.cells.iter().map(move |cell| row.value(*cell))
    }

    fn value(self, cell: Cell) -> Option<&'b [u8]> {
        if cell.len == NULL {
            return None;
        }
        self.body.get(cell.start as usize..)?.get(..cell.len as usize)
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|value| value.map(|value| value.escape_ascii().to_string())))
            .finish()
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
