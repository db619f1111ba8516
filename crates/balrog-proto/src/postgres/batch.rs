use crate::Misuse;
use crate::postgres::encode::{Body, count, int16, int32, message, string};
use crate::postgres::flow::Command;
use crate::postgres::rows::Format;

/// Messages of the extended query protocol, to be sent together by [`send`](crate::Link::send).
///
/// Each method appends one message, or refuses it and appends nothing. Names are those of prepared
/// statements and portals; the empty name is the unnamed one, which the next of its kind replaces.
///
/// ```
/// use balrog_proto::postgres::{Batch, Parameter};
///
/// let mut batch = Batch::new();
/// batch.query("insert into orders(details) values ($1) returning id", &[Parameter::Text(b"soup")])?;
/// batch.sync();
/// batch.query("select 1/0", &[])?.query("select 'skipped'", &[])?.sync();
/// batch.query("select 'not skipped'", &[])?.sync();
/// # Ok::<(), balrog_proto::Misuse>(())
/// ```
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) commands: Vec<Command>,
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// NULL.
    Null,
    /// In the text format of its type.
    Text(&'a [u8]),
    /// In the binary format of its type.
    Binary(&'a [u8]),
}

/// What Bind makes a portal of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bind<'a> {
    /// The portal.
    pub portal: &'a str,
    /// The statement.
    pub statement: &'a str,
    /// The values of its parameters, at most 65,535.
    pub parameters: &'a [Parameter<'a>],
    /// The formats of its columns: none (all text), one (for all), or one for each.
    pub results: &'a [Format],
}

impl Batch {
    /// An empty batch.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), commands: Vec::new() }
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes everything out of it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.commands.clear();
    }

    fn add(&mut self, command: Command, tag: u8, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        message(&mut self.bytes, tag, write);
        self.commands.push(command);
        self
    }

    /// A statement, from text to rows, in one round trip and with nothing left behind: unnamed
    /// [`parse`](Self::parse) and [`bind`](Self::bind), describe, execute. Results come as text.
    ///
    /// # Errors
    ///
    /// `Misuse` as for these.
    pub fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<&mut Self, Misuse> {
        let bind = Bind { parameters, ..Bind::default() };
        check_bind(&bind)?;
        self.parse("", sql, &[])?.bind(&bind)?.describe_portal("")?.execute("", 0)
    }

    /// Prepares a statement. `types` are the types of its first parameters, 0 for unknown ones.
    ///
    /// Parse: `String` statement, `String` query, `Int16` count, and an `Int32` type for each.
    ///
    /// # Errors
    ///
    /// `Misuse` for a NUL character, more than 65,535 types, or 1 GiB and more.
    pub fn parse(&mut self, statement: &str, sql: &str, types: &[u32]) -> Result<&mut Self, Misuse> {
        let size = Body::new().string(statement.as_bytes())?.string(sql.as_bytes())?;
        let types_count = count(types.len(), "a statement with more than 65,535 parameter types")?;
        size.bytes(2 + 4 * types.len()).fits()?;
        Ok(self.add(Command::Parse, b'P', |out| {
            string(out, statement.as_bytes());
            string(out, sql.as_bytes());
            int16(out, types_count);
            types.iter().for_each(|oid| int32(out, *oid));
        }))
    }

    /// Makes a portal.
    ///
    /// Bind: `String` portal, `String` statement, `Int16` count and `Int16` formats of parameters,
    /// `Int16` count and for each `Int32` length (-1 for NULL) and the value, `Int16` count and
    /// `Int16` formats of results.
    ///
    /// # Errors
    ///
    /// `Misuse` for a NUL character in a name, more than 65,535 parameters or formats, or 1 GiB and
    /// more.
    pub fn bind(&mut self, bind: &Bind<'_>) -> Result<&mut Self, Misuse> {
        let (parameters, results) = check_bind(bind)?;
        let binary = |it: &Parameter<'_>| matches!(it, Parameter::Binary(_));
        let any_binary = bind.parameters.iter().any(binary);
        Ok(self.add(Command::Bind, b'B', |out| {
            string(out, bind.portal.as_bytes());
            string(out, bind.statement.as_bytes());
            // "This can be zero to indicate that ... the parameters all use the default format (text)"
            int16(out, if any_binary { parameters } else { 0 });
            if any_binary {
                bind.parameters.iter().for_each(|it| int16(out, u16::from(binary(it))));
            }
            int16(out, parameters);
            for parameter in bind.parameters {
                match parameter {
                    Parameter::Null => int32(out, u32::MAX),
                    Parameter::Text(value) | Parameter::Binary(value) => {
                        // `check_bind` has seen that it fits.
                        int32(out, value.len() as u32);
                        out.extend_from_slice(value);
                    }
                }
            }
            int16(out, results);
            bind.results.iter().for_each(|format| int16(out, u16::from(*format == Format::Binary)));
        }))
    }

    /// Asks for the parameters and columns of a statement.
    ///
    /// # Errors
    ///
    /// `Misuse` for a NUL character.
    pub fn describe_statement(&mut self, statement: &str) -> Result<&mut Self, Misuse> {
        self.named(Command::DescribeStatement, b'D', b'S', statement)
    }

    /// Asks for the columns of a portal.
    ///
    /// # Errors
    ///
    /// `Misuse` for a NUL character.
    pub fn describe_portal(&mut self, portal: &str) -> Result<&mut Self, Misuse> {
        self.named(Command::DescribePortal, b'D', b'P', portal)
    }

    /// Drops a statement. That there is none of this name is no error.
    ///
    /// # Errors
    ///
    /// `Misuse` for a NUL character.
    pub fn close_statement(&mut self, statement: &str) -> Result<&mut Self, Misuse> {
        self.named(Command::Close, b'C', b'S', statement)
    }

    /// Drops a portal. That there is none of this name is no error.
    ///
    /// # Errors
    ///
    /// `Misuse` for a NUL character.
    pub fn close_portal(&mut self, portal: &str) -> Result<&mut Self, Misuse> {
        self.named(Command::Close, b'C', b'P', portal)
    }

    /// Describe and Close: `Byte1` kind, `String` name.
    fn named(&mut self, command: Command, tag: u8, kind: u8, name: &str) -> Result<&mut Self, Misuse> {
        Body::new().bytes(1).string(name.as_bytes())?.fits()?;
        Ok(self.add(command, tag, |out| {
            out.push(kind);
            string(out, name.as_bytes());
        }))
    }

    /// Runs a portal, for at most `rows` rows, or all if that is 0. A portal that is suspended goes on
    /// with the next execute, up to the end of the transaction.
    ///
    /// Execute: `String` portal, `Int32` rows.
    ///
    /// # Errors
    ///
    /// `Misuse` for a NUL character.
    pub fn execute(&mut self, portal: &str, rows: u32) -> Result<&mut Self, Misuse> {
        Body::new().string(portal.as_bytes())?.bytes(4).fits()?;
        Ok(self.add(Command::Execute, b'E', |out| {
            string(out, portal.as_bytes());
            int32(out, rows.min(i32::MAX as u32));
        }))
    }

    /// Makes the server send what it has so far. Without it or a [`sync`](Self::sync) it may keep it.
    pub fn flush(&mut self) -> &mut Self {
        message(&mut self.bytes, b'H', |_| ());
        self
    }

    /// Ends a unit: an implicit transaction unless a block is open, and what an error skips.
    pub fn sync(&mut self) -> &mut Self {
        self.add(Command::Sync, b'S', |_| ())
    }
}

fn check_bind(bind: &Bind<'_>) -> Result<(u16, u16), Misuse> {
    let parameters = count(bind.parameters.len(), "more than 65,535 parameters")?;
    let results = count(bind.results.len(), "more than 65,535 result formats")?;
    let names = Body::new().string(bind.portal.as_bytes())?.string(bind.statement.as_bytes())?;
    let formats = 6 + 2 * (bind.parameters.len() + bind.results.len());
    bind.parameters
        .iter()
        .fold(names.bytes(formats), |size, parameter| match parameter {
            Parameter::Null => size.bytes(4),
            Parameter::Text(value) | Parameter::Binary(value) => size.bytes(4).bytes(value.len()),
        })
        .fits()?;
    Ok((parameters, results))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_appends_nothing() {
        let mut batch = Batch::new();
        let many = vec![Parameter::Null; 65_536];
        assert!(batch.query("select '\0'", &[]).is_err());
        assert!(batch.query("select 1", &many).is_err());
        assert!(batch.parse("a\0", "select 1", &[]).is_err());
        assert!(batch.parse("a", "select 1", &[0; 65_536]).is_err());
        assert!(batch.bind(&Bind { portal: "\0", ..Bind::default() }).is_err());
        assert!(batch.bind(&Bind { results: &[Format::Text; 65_536], ..Bind::default() }).is_err());
        for name in ["\0", "a\0b"] {
            assert!(batch.describe_statement(name).is_err());
            assert!(batch.describe_portal(name).is_err());
            assert!(batch.close_statement(name).is_err());
            assert!(batch.close_portal(name).is_err());
            assert!(batch.execute(name, 0).is_err());
        }
        assert!(batch.is_empty() && batch.commands.is_empty());
        assert!(batch.query("select 1", &many[1..]).is_ok());
    }

    #[test]
    fn sizes_add_up_to_what_is_written() {
        let parameters = [Parameter::Null, Parameter::Text(b"ab"), Parameter::Binary(b"")];
        let bind = Bind {
            portal: "p",
            statement: "st",
            parameters: &parameters,
            results: &[Format::Binary, Format::Text],
        };
        let mut batch = Batch::new();
        batch.bind(&bind).unwrap();
        assert_eq!(
            batch.bytes,
            b"B\0\0\0\x27p\0st\0\0\x03\0\0\0\0\0\x01\0\x03\xff\xff\xff\xff\0\0\0\x02ab\0\0\0\0\0\x02\0\x01\0\0"
        );
    }

    #[test]
    fn a_message_of_a_gibibyte_is_refused_by_its_size_alone() {
        // One buffer many times: nothing of this is ever written.
        let mebibyte = vec![0; 1 << 20];
        let fits = vec![Parameter::Binary(&mebibyte); 1023];
        let bind = |parameters| check_bind(&Bind { parameters, ..Bind::default() });
        assert!(bind(&fits).is_ok());
        assert!(bind(&[&fits[..], &fits[..1]].concat()).is_err());
        let mut batch = Batch::new();
        assert!(batch.query("", &[&fits[..], &fits[..1]].concat()).is_err());
        assert!(batch.is_empty());
    }
}
