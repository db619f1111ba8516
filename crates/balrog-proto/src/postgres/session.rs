use std::fmt;

use crate::postgres::decode::{Fields, bad};
use crate::{Error, Misuse};

/// Where a session stands, as ReadyForQuery tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionStatus {
    /// Outside of a transaction block.
    #[default]
    Idle,
    /// Inside of one.
    InTransaction,
    /// Inside of one that has failed: only its end is accepted.
    Failed,
}

impl TransactionStatus {
    /// ReadyForQuery: `Byte1`, `I`, `T` or `E`.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Error> {
        match body {
            b"I" => Ok(Self::Idle),
            b"T" => Ok(Self::InTransaction),
            b"E" => Ok(Self::Failed),
            _ => Err(bad("ReadyForQuery with an unknown status")),
        }
    }
}

/// What a cancel request has to show: the process that serves the session, and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    process: i32,
    secret: Box<[u8]>,
}

impl CancelKey {
    /// A key that was kept elsewhere.
    ///
    /// # Errors
    ///
    /// `Misuse` for a secret that is not 4 to 256 bytes.
    pub fn new(process: i32, secret: &[u8]) -> Result<Self, Misuse> {
        // "The minimum and maximum key length are 4 and 256 bytes, respectively."
        if !(4..=256).contains(&secret.len()) {
            return Err(Misuse("a cancel key of less than 4 or more than 256 bytes"));
        }
        Ok(Self { process, secret: secret.into() })
    }

    /// BackendKeyData: `Int32` process, and the secret, which is an `Int32` before protocol 3.2.
    pub(super) fn parse(body: &[u8], long: bool) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        let process = fields.int32()?;
        let secret = fields.rest();
        if !long && secret.len() != 4 {
            return Err(bad("a cancel key that is not 4 bytes, as protocol 3.0 has it"));
        }
        Self::new(process, secret).map_err(|Misuse(reason)| bad(reason))
    }

    /// The process that serves the session (`pg_backend_pid()`).
    pub const fn process(&self) -> i32 {
        self.process
    }

    /// The secret.
    pub const fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for CancelKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process", &self.process).finish_non_exhaustive()
    }
}

/// What the server has reported of its settings: names and values, each with a zero behind it.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<u8>);

impl Parameters {
    fn find(&self, name: &[u8]) -> Option<(usize, &[u8])> {
        let mut fields = Fields::new(&self.0);
        loop {
            let start = self.0.len() - fields.rest().len();
            let (found, value) = (fields.string().ok()?, fields.string().ok()?);
            if found == name {
                return Some((start, value));
            }
        }
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.find(name).map(|(_, value)| value)
    }

    /// Keeps the newest value, unless all of them together become too large.
    pub(super) fn set(&mut self, name: &[u8], value: &[u8], most: usize) -> Result<(), Error> {
        if let Some((start, old)) = self.find(name) {
            if old == value {
                return Ok(());
            }
            let end = start + name.len() + old.len() + 2;
            self.0.drain(start..end);
        }
        if self.0.len() + name.len() + value.len() + 2 > most {
            return Err(Error::limit(0, "parameters", most as u64));
        }
        for string in [name, value] {
            self.0.extend_from_slice(string);
            self.0.push(0);
        }
        Ok(())
    }

    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_of_each_parameter() {
        let mut parameters = Parameters::default();
        for (name, value) in [("a", "1"), ("b", ""), ("c", "3"), ("a", "44"), ("b", "2"), ("c", "3")] {
            parameters.set(name.as_bytes(), value.as_bytes(), 14).unwrap();
        }
        let get = |name: &str| parameters.get(name.as_bytes());
        assert_eq!(
            (get("a"), get("b"), get("c"), get("d")),
            (Some(&b"44"[..]), Some(&b"2"[..]), Some(&b"3"[..]), None)
        );
        assert_eq!(parameters.0.len(), 13);
        assert!(parameters.set(b"d", b"", 15).is_err());
        assert!(parameters.set(b"", b"", 15).is_ok());
    }

    #[test]
    fn keys_of_both_protocols() {
        let key = |secret: usize| [vec![0, 0, 1, 0], vec![7; secret]].concat();
        for (size, short, long) in
            [(3, false, false), (4, true, true), (5, false, true), (256, false, true), (257, false, false)]
        {
            assert_eq!(CancelKey::parse(&key(size), false).is_ok(), short, "{size}");
            assert_eq!(CancelKey::parse(&key(size), true).is_ok(), long, "{size}");
        }
        let key = CancelKey::parse(&key(4), false).unwrap();
        assert_eq!((key.process(), key.secret()), (256, &[7; 4][..]));
        assert!(!format!("{key:?}").contains('7'));
    }
}
