use std::error;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use balrog_proto::postgres::{self as proto, Column};

use super::types::Parsed;
use super::{Error, FromSql};

/// A row of a result.
#[derive(Clone)]
pub struct Row {
    columns: Arc<[Column]>,
    bytes: Box<[u8]>,
    values: Box<[Option<Range<u32>>]>,
}

/// Which column of a row: its number from 0, or its name.
pub trait Index: fmt::Display {
    /// The number of the column, if there is one.
    fn find(&self, columns: &[Column]) -> Option<usize>;
}

impl Index for usize {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }
}

impl Index for &str {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        columns.iter().position(|column| *column.name == *self.as_bytes())
    }
}

impl Row {
    pub(super) fn new(columns: &Arc<[Column]>, row: &proto::Row<'_>) -> Result<Self, balrog_proto::Error> {
        let mut bytes = Vec::new();
        let mut values = Vec::with_capacity(columns.len());
        for value in row.values() {
            // Messages have less than 4 GiB.
            let start = bytes.len() as u32;
            values.push(value?.map(|value| {
                bytes.extend_from_slice(value);
                start..bytes.len() as u32
            }));
        }
        Ok(Self { columns: Arc::clone(columns), bytes: bytes.into(), values: values.into() })
    }

    /// The value of a column.
    ///
    /// # Errors
    ///
    /// [`Error::Conversion`] when there is no such column, or its value is no `T`.
    pub fn get<'a, T: FromSql<'a>>(&'a self, index: impl Index) -> Result<T, Error> {
        let at = index.find(&self.columns).filter(|at| *at < self.values.len());
        let Some(at) = at else {
            let names: Vec<_> =
                self.columns.iter().map(|column| String::from_utf8_lossy(&column.name)).collect();
            return Err(Error::Conversion(format!("no column {index} among {}", names.join(", "))));
        };
        let column = &self.columns[at];
        let value = match &self.values[at] {
            None => T::from_null(),
            Some(range) => std::str::from_utf8(&self.bytes[range.start as usize..range.end as usize])
                .map_err(|_| "it is not UTF-8".into())
                .and_then(|text| T::from_text(column.type_oid, text)),
        };
        value.map_err(|why| {
            let (oid, wanted) = (column.type_oid, std::any::type_name::<T>());
            Error::Conversion(format!("column {index} (type {oid}) as {wanted}: {why}"))
        })
    }

    /// The value of a column as any type that can be parsed: an address, a UUID, a decimal.
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn parse<T>(&self, index: impl Index) -> Result<T, Error>
    where
        T: FromStr<Err: error::Error + Send + Sync + 'static>,
    {
        Ok(self.get::<Parsed<T>>(index)?.0)
    }

    /// The columns: names and types.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (column, value) in self.columns.iter().zip(&self.values) {
            let bytes = |range: &Range<u32>| &self.bytes[range.start as usize..range.end as usize];
            let value = value.as_ref().map(|range| String::from_utf8_lossy(bytes(range)));
            map.entry(&String::from_utf8_lossy(&column.name), &value);
        }
        map.finish()
    }
}
