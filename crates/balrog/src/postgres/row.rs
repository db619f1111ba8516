use std::error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use balrog_proto::postgres::{self as proto, Column};

use super::types::Parsed;
use super::{Error, FromSql};

/// A row of a result.
#[derive(Clone)]
pub struct Row {
    columns: Arc<[Column]>,
    /// Where the value of each column ends, [`END`] bytes each, and the values behind that: one
    /// allocation a row.
    bytes: Box<[u8]>,
    /// How many values there are.
    len: usize,
}

/// Bytes of a value's end.
const END: usize = size_of::<u32>();
/// The flag of a value's end that says NULL. Messages are shorter than that.
const NULL: u32 = 1 << 31;

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
        let len = row.len();
        // Each value has a length of as many bytes as its end, so that is the room for all.
        let mut bytes = Vec::with_capacity(row.size());
        bytes.resize(END * len, 0);
        for (at, value) in row.values().enumerate() {
            let null = match value? {
                Some(value) => {
                    bytes.extend_from_slice(value);
                    0
                }
                None => NULL,
            };
            let end = bytes.len() as u32 | null;
            bytes[END * at..][..END].copy_from_slice(&end.to_ne_bytes());
        }
        Ok(Self { columns: Arc::clone(columns), bytes: bytes.into(), len })
    }

    /// The value of column `at`, which there is; `None` for NULL.
    fn value(&self, at: usize) -> Option<&[u8]> {
        let ends = self.bytes[..END * self.len].as_chunks().0;
        let end = u32::from_ne_bytes(ends[at]);
        let start = match at {
            0 => END * self.len,
            _ => (u32::from_ne_bytes(ends[at - 1]) & !NULL) as usize,
        };
        (end & NULL == 0).then(|| &self.bytes[start..end as usize])
    }

    /// The value of a column.
    ///
    /// # Errors
    ///
    /// [`Error::Conversion`] when there is no such column, or its value is no `T`.
    pub fn get<'a, T: FromSql<'a>>(&'a self, index: impl Index) -> Result<T, Error> {
        let at = index.find(&self.columns).filter(|at| *at < self.len);
        let Some(at) = at else {
            let names: Vec<_> =
                self.columns.iter().map(|column| String::from_utf8_lossy(&column.name)).collect();
            return Err(Error::Conversion(format!("no column {index} among {}", names.join(", "))));
        };
        let column = &self.columns[at];
        let value = match self.value(at) {
            None => T::from_null(),
            Some(value) => std::str::from_utf8(value)
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
        for (column, at) in self.columns.iter().zip(0..self.len) {
            let value = self.value(at).map(String::from_utf8_lossy);
            map.entry(&String::from_utf8_lossy(&column.name), &value);
        }
        map.finish()
    }
}
