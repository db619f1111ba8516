use std::fmt::{self, Write};

use crate::Error;
use crate::postgres::decode::Fields;

/// Writes down what goes over a connection, a line a message, as libpq's `PQtrace` does (18, without
/// time stamps): direction, length, name, fields.
///
/// It only looks at bytes, so it needs no session: whoever moves them shows them to it. Passwords,
/// SASL messages and cancel keys are left out. Of a message, 64 KiB are shown at most.
///
/// ```
/// let mut trace = balrog_proto::postgres::Trace::new(true);
/// let mut lines = String::new();
/// trace.sent(b"Q\0\0\0\x0dselect 1\0S\0\0", &mut lines)?;
/// trace.sent(b"\0\x04", &mut lines)?;
/// trace.received(b"Z\0\0\0\x05I", &mut lines)?;
/// assert_eq!(lines, "F\t13\tQuery\t \"select 1\"\nF\t4\tSync\nB\t5\tReadyForQuery\t I\n");
/// # Ok::<(), std::fmt::Error>(())
/// ```
#[derive(Debug)]
pub struct Trace {
    sent: Half,
    received: Half,
}

#[derive(Debug, Default)]
struct Half {
    /// A message that is not complete yet, as far as it is shown.
    head: Vec<u8>,
    /// How much of a longer one is still to come.
    skip: usize,
    /// The next message has no type.
    untyped: bool,
}

/// What is kept of a message.
const SHOWN: usize = 64 * 1024;

impl Trace {
    /// A trace from the first byte of a connection on, or of a session that has begun.
    pub fn new(begun: bool) -> Self {
        Self { sent: Half { untyped: !begun, ..Half::default() }, received: Half::default() }
    }

    /// These bytes were sent to the server.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn sent(&mut self, bytes: &[u8], out: &mut impl Write) -> fmt::Result {
        self.sent.feed(bytes, |tag, length, body| line(out, 'F', tag, length, body))
    }

    /// These bytes came from the server. The one byte that answers SSLRequest is not to be shown.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn received(&mut self, bytes: &[u8], out: &mut impl Write) -> fmt::Result {
        self.received.feed(bytes, |tag, length, body| line(out, 'B', tag, length, body))
    }
}

impl Half {
    /// Calls `each` for each message that is complete, or as complete as it is shown.
    fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Option<u8>, usize, &[u8]) -> fmt::Result,
    ) -> fmt::Result {
        loop {
            let n = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - n, &bytes[n..]);
            let typed = usize::from(!self.untyped);
            let want = match self.head.get(typed..typed + 4) {
                None => typed + 4,
                Some(length) => typed + Fields::new(length).oid().unwrap_or(4).max(4) as usize,
            };
            let n = want.min(SHOWN).saturating_sub(self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.head.len() < want.min(SHOWN) {
                return Ok(());
            }
            if self.head.len() == typed + 4 && want == typed + 4 && n > 0 {
                // Now the length is known, which may be more than itself.
                let length = Fields::new(&self.head[typed..]).oid().unwrap_or(4) as usize;
                if length > 4 {
                    continue;
                }
            }
            self.skip = want - self.head.len();
            let tag = (!self.untyped).then(|| self.head[0]);
            each(tag, want - typed, &self.head[typed + 4..])?;
            // A start-up message is the last without a type; a request for TLS is not.
            self.untyped &= matches!(self.head.get(4..8), Some([0x04, 0xd2, ..]));
            self.head.clear();
        }
    }
}

fn line(out: &mut impl Write, way: char, tag: Option<u8>, length: usize, body: &[u8]) -> fmt::Result {
    write!(out, "{way}\t{length}\t")?;
    let mut fields = Fields::new(body);
    let shown = match tag {
        None => beginning(out, &mut fields),
        Some(tag) if way == 'F' => frontend(out, tag, &mut fields),
        Some(tag) => backend(out, tag, &mut fields),
    };
    match shown {
        Err(Broken::Out) => return Err(fmt::Error),
        // Cut for its size, or by a server that counts wrong.
        Err(Broken::Message) => out.write_str(" ...")?,
        Ok(()) if !fields.rest().is_empty() => out.write_str(" ...")?,
        Ok(()) => {}
    }
    out.write_char('\n')
}

enum Broken {
    Message,
    Out,
}

impl From<Error> for Broken {
    fn from(_: Error) -> Self {
        Self::Message
    }
}

impl From<fmt::Error> for Broken {
    fn from(_: fmt::Error) -> Self {
        Self::Out
    }
}

type Shown = Result<(), Broken>;

fn beginning(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    match fields.oid()? {
        0x04d2_162e => {
            out.write_str("CancelRequest\t")?;
            int32(out, fields)?;
            secret(out, fields)
        }
        0x04d2_162f => Ok(out.write_str("SSLRequest")?),
        version => {
            write!(out, "StartupMessage\t {} {}", version >> 16, version & 0xffff)?;
            while fields.rest() != b"\0" {
                string(out, fields)?;
            }
            fields.byte()?;
            Ok(())
        }
    }
}

fn frontend(out: &mut impl Write, tag: u8, fields: &mut Fields<'_>) -> Shown {
    let name = match tag {
        b'B' => "Bind\t",
        b'C' => "Close\t",
        b'D' => "Describe\t",
        b'E' => "Execute\t",
        b'H' => "Flush",
        b'P' => "Parse\t",
        b'Q' => "Query\t",
        b'S' => "Sync",
        b'X' => "Terminate",
        b'c' => "CopyDone",
        b'd' => "CopyData\t",
        b'f' => "CopyFail\t",
        b'p' => "PasswordMessage\t",
        tag => return Ok(write!(out, "Unknown message: {tag:02x}")?),
    };
    out.write_str(name)?;
    match tag {
        b'B' => {
            string(out, fields)?;
            string(out, fields)?;
            counted(out, fields, int16)?;
            counted(out, fields, value)?;
            counted(out, fields, int16)
        }
        b'C' | b'D' => {
            byte(out, fields)?;
            string(out, fields)
        }
        b'E' => {
            string(out, fields)?;
            int32(out, fields)
        }
        b'P' => {
            string(out, fields)?;
            string(out, fields)?;
            counted(out, fields, int32)
        }
        b'Q' | b'f' => string(out, fields),
        b'd' => bytes(out, fields),
        b'p' => secret(out, fields),
        _ => Ok(()),
    }
}

fn backend(out: &mut impl Write, tag: u8, fields: &mut Fields<'_>) -> Shown {
    let name = match tag {
        b'1' => "ParseComplete",
        b'2' => "BindComplete",
        b'3' => "CloseComplete",
        b'A' => "NotificationResponse\t",
        b'C' => "CommandComplete\t",
        b'D' => "DataRow\t",
        b'E' => "ErrorResponse\t",
        b'G' => "CopyInResponse\t",
        b'H' => "CopyOutResponse\t",
        b'I' => "EmptyQueryResponse",
        b'K' => "BackendKeyData\t",
        b'N' => "NoticeResponse\t",
        b'R' => return authentication(out, fields),
        b'S' => "ParameterStatus\t",
        b'T' => "RowDescription\t",
        b'W' => "CopyBothResponse\t",
        b'Z' => "ReadyForQuery\t",
        b'c' => "CopyDone",
        b'd' => "CopyData\t",
        b'n' => "NoData",
        b's' => "PortalSuspended",
        b't' => "ParameterDescription\t",
        b'v' => "NegotiateProtocolVersion\t",
        tag => return Ok(write!(out, "Unknown message: {tag:02x}")?),
    };
    out.write_str(name)?;
    match tag {
        b'A' => {
            int32(out, fields)?;
            string(out, fields)?;
            string(out, fields)
        }
        b'C' => string(out, fields),
        b'D' => counted(out, fields, value),
        b'E' | b'N' => report(out, fields),
        b'G' | b'H' | b'W' => {
            byte(out, fields)?;
            counted(out, fields, int16)
        }
        b'K' => {
            int32(out, fields)?;
            secret(out, fields)
        }
        b'S' => {
            string(out, fields)?;
            string(out, fields)
        }
        b'T' => counted(out, fields, |out, fields| {
            string(out, fields)?;
            int32(out, fields)?;
            int16(out, fields)?;
            int32(out, fields)?;
            int16(out, fields)?;
            int32(out, fields)?;
            int16(out, fields)
        }),
        b'Z' => byte(out, fields),
        b'd' => bytes(out, fields),
        b't' => counted(out, fields, int32),
        b'v' => {
            int32(out, fields)?;
            let count = fields.int32()?;
            write!(out, " {count}")?;
            (0..count).try_for_each(|_| string(out, fields))
        }
        _ => Ok(()),
    }
}

fn authentication(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    match fields.int32()? {
        0 => Ok(out.write_str("AuthenticationOk")?),
        3 => Ok(out.write_str("AuthenticationCleartextPassword")?),
        5 => {
            out.write_str("AuthenticationMD5Password\t")?;
            secret(out, fields)
        }
        10 => {
            out.write_str("AuthenticationSASL\t")?;
            while fields.rest() != b"\0" {
                string(out, fields)?;
            }
            fields.byte()?;
            Ok(())
        }
        11 => {
            out.write_str("AuthenticationSASLContinue\t")?;
            secret(out, fields)
        }
        12 => {
            out.write_str("AuthenticationSASLFinal\t")?;
            secret(out, fields)
        }
        kind => Ok(write!(out, "Unknown authentication message {kind}")?),
    }
}

/// Fields of a type and a value, up to a zero, which is shown.
fn report(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    loop {
        let ended = fields.rest().first() == Some(&0);
        byte(out, fields)?;
        if ended {
            return Ok(());
        }
        string(out, fields)?;
    }
}

fn counted<W: Write>(
    out: &mut W,
    fields: &mut Fields<'_>,
    mut each: impl FnMut(&mut W, &mut Fields<'_>) -> Shown,
) -> Shown {
    let count = fields.int16()? as u16;
    write!(out, " {count}")?;
    (0..count).try_for_each(|_| each(out, fields))
}

fn int16(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    Ok(write!(out, " {}", fields.int16()? as u16)?)
}

fn int32(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    Ok(write!(out, " {}", fields.int32()?)?)
}

fn byte(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    out.write_char(' ')?;
    escaped(out, fields.byte()?)
}

fn string(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    Ok(write!(out, " \"{}\"", String::from_utf8_lossy(fields.string()?))?)
}

/// `Int32` length, -1 for none, and the value.
fn value(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    let length = fields.int32()?;
    write!(out, " {length}")?;
    if let Ok(length) = usize::try_from(length) {
        quoted(out, fields.take(length)?)?;
    }
    Ok(())
}

fn bytes(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    quoted(out, fields.take(fields.rest().len())?)
}

fn quoted(out: &mut impl Write, bytes: &[u8]) -> Shown {
    out.write_str(" '")?;
    bytes.iter().try_for_each(|byte| escaped(out, *byte))?;
    Ok(out.write_char('\'')?)
}

fn escaped(out: &mut impl Write, byte: u8) -> Shown {
    match byte {
        b' '..=b'~' => out.write_char(char::from(byte))?,
        byte => write!(out, "\\x{byte:02x}")?,
    }
    Ok(())
}

/// What is not to be written down.
fn secret(out: &mut impl Write, fields: &mut Fields<'_>) -> Shown {
    fields.take(fields.rest().len())?;
    Ok(out.write_str(" (not shown)")?)
}
