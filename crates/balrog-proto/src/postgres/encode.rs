use crate::Misuse;

/// What the server accepts in one message (`PQ_LARGE_MESSAGE_LIMIT`, less than 1 GiB).
pub(super) const LARGEST: usize = 0x3fff_fffe;

/// Appends a message: its type, its length, and the body that `write` appends.
pub(super) fn message(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    untagged(out, write);
}

/// The same for the messages of the beginning, which have no type.
pub(super) fn untagged(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    // `Body` was asked before, so it fits.
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

pub(super) fn string(out: &mut Vec<u8>, string: &[u8]) {
    out.extend_from_slice(string);
    out.push(0);
}

pub(super) fn int16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn int32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// The size of a body, added up and checked before a byte of it is written: a length that wraps
/// round would let what follows be read as messages (CVE-2024-27304).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Body(usize);

impl Body {
    pub(super) const fn new() -> Self {
        Self(0)
    }

    pub(super) const fn bytes(self, n: usize) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// A zero inside would end the string early, and the rest would be read as other fields.
    pub(super) fn string(self, string: &[u8]) -> Result<Self, Misuse> {
        if memchr::memchr(0, string).is_some() {
            return Err(Misuse("a string with a NUL character"));
        }
        Ok(self.bytes(string.len()).bytes(1))
    }

    pub(super) const fn fits(self) -> Result<(), Misuse> {
        if self.0 > LARGEST { Err(Misuse("a message of 1 GiB or more")) } else { Ok(()) }
    }
}

/// `Int16` count. "More than 65,535" would wrap round.
pub(super) fn count(n: usize, what: &'static str) -> Result<u16, Misuse> {
    u16::try_from(n).map_err(|_| Misuse(what))
}
