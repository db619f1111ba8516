use crate::{Error, Inbox, Rule, Violation};

/// Bytes before the body of a message: `Byte1` type, `Int32` length that counts itself.
pub(super) const HEADER: usize = 5;

/// "The first byte of a message identifies the message type, and the next four bytes specify the
/// length of the rest of the message (this length count includes itself, but not the message-type
/// byte)." (Overview of messaging) So the least is 4.
const LENGTH_ITSELF: usize = 4;

/// The type of the message at the front and how long its body is, once its header is there.
pub(super) fn header(inbox: &Inbox) -> Result<Option<(u8, usize)>, Error> {
    let Some(&[tag, a, b, c, d]) = inbox.bytes().first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]);
    if length > i32::MAX as u32 {
        return Err(bad("a message length is negative"));
    }
    match (length as usize).checked_sub(LENGTH_ITSELF) {
        Some(body) => Ok(Some((tag, body))),
        None => Err(bad("a message is shorter than its own length")),
    }
}

/// A server that breaks the protocol. There is no message to tell it so: we hang up.
pub(super) const fn bad(reason: &'static str) -> Error {
    Error::Violation(Violation { reason, rule: Rule::Postgres, code: 0 })
}

const SHORT: Error = bad("a message ends inside a field");

/// Reads a message's body field by field. Whatever is missing is a violation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    pub(super) const fn new(body: &'b [u8]) -> Self {
        Self { rest: body }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some((chunk, rest)) = self.rest.split_first_chunk() else { return Err(SHORT) };
        self.rest = rest;
        Ok(*chunk)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        self.chunk().map(|[byte]| byte)
    }

    pub(super) fn int16(&mut self) -> Result<i16, Error> {
        self.chunk().map(i16::from_be_bytes)
    }

    pub(super) fn int32(&mut self) -> Result<i32, Error> {
        self.chunk().map(i32::from_be_bytes)
    }

    pub(super) fn oid(&mut self) -> Result<u32, Error> {
        self.chunk().map(u32::from_be_bytes)
    }

    /// `Int16` that counts what follows, so never below zero.
    pub(super) fn count(&mut self) -> Result<u16, Error> {
        let count = self.int16()?;
        u16::try_from(count).map_err(|_| bad("a count is negative"))
    }

    /// `String`: bytes up to a zero, in the encoding that `client_encoding` names.
    pub(super) fn string(&mut self) -> Result<&'b [u8], Error> {
        let end = memchr::memchr(0, self.rest).ok_or(SHORT)?;
        let (string, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Ok(string)
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'b [u8], Error> {
        let (bytes, rest) = self.rest.split_at_checked(n).ok_or(SHORT)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Everything that is left.
    pub(super) const fn rest(self) -> &'b [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(bad("a message is longer than its fields")) }
    }
}

/// A message that is its header and no more.
pub(super) fn empty(body: &[u8]) -> Result<(), Error> {
    Fields::new(body).end()
}
