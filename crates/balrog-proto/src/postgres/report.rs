use std::borrow::Cow;
use std::fmt;

use crate::Error;
use crate::postgres::decode::{Fields, bad};

/// An ErrorResponse or a NoticeResponse: `Byte1` field type and `String` value, any number of
/// times, and a zero.
///
/// Values are in the encoding of the session, which `client_encoding` names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Report<'b> {
    body: &'b [u8],
}

impl<'b> Report<'b> {
    /// Reads the body of a message, for example one kept from [`Report::body`].
    ///
    /// # Errors
    ///
    /// A field without an end, or no SQLSTATE, which is "always present".
    pub fn parse(body: &'b [u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(body);
        while fields.byte()? != 0 {
            fields.string()?;
        }
        fields.end()?;
        let report = Self { body };
        let state = report.field(b'C').unwrap_or_default();
        if state.len() == 5 && state.iter().all(u8::is_ascii_alphanumeric) {
            Ok(report)
        } else {
            Err(bad("an error or notice without a SQLSTATE"))
        }
    }

    /// Of a body that [`Report::parse`] accepted.
    pub(super) const fn parsed(body: &'b [u8]) -> Self {
        Self { body }
    }

    /// The body it was read from.
    pub const fn body(&self) -> &'b [u8] {
        self.body
    }

    /// All fields in the order they came, unknown types included: "Frontends should silently
    /// ignore fields of unrecognized type."
    pub fn fields(&self) -> impl Iterator<Item = (u8, &'b [u8])> + use<'b> {
        let mut fields = Fields::new(self.body);
        std::iter::from_fn(move || match fields.byte() {
            Ok(0) | Err(_) => None,
            Ok(kind) => Some((kind, fields.string().ok()?)),
        })
    }

    /// The field of this type, for example `b'n'`, the name of a violated constraint.
    pub fn field(&self, kind: u8) -> Option<&'b [u8]> {
        self.fields().find(|(it, _)| *it == kind).map(|(_, value)| value)
    }

    fn text(&self, kind: u8) -> Option<Cow<'b, str>> {
        self.field(kind).map(String::from_utf8_lossy)
    }

    /// `ERROR`, `FATAL` or `PANIC`; `WARNING`, `NOTICE`, `DEBUG`, `INFO` or `LOG`. In English; before
    /// PostgreSQL 9.6 in the language of the server.
    pub fn severity(&self) -> Cow<'b, str> {
        self.text(b'V').or_else(|| self.text(b'S')).unwrap_or_default()
    }

    /// The SQLSTATE: five digits and capital letters.
    pub fn code(&self) -> &'b str {
        self.field(b'C').and_then(|code| std::str::from_utf8(code).ok()).unwrap_or_default()
    }

    /// What happened, usually in one line.
    pub fn message(&self) -> Cow<'b, str> {
        self.text(b'M').unwrap_or_default()
    }

    /// More about it.
    pub fn detail(&self) -> Option<Cow<'b, str>> {
        self.text(b'D')
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<Cow<'b, str>> {
        self.text(b'H')
    }

    /// Where in the query, in characters from 1.
    pub fn position(&self) -> Option<u32> {
        std::str::from_utf8(self.field(b'P')?).ok()?.parse().ok()
    }

    /// Whether the server ends the session.
    pub fn is_fatal(&self) -> bool {
        let severity = self.field(b'V').or_else(|| self.field(b'S')).unwrap_or_default();
        matches!(severity, b"FATAL" | b"PANIC")
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.fields().map(|(kind, value)| (char::from(kind), String::from_utf8_lossy(value))))
            .finish()
    }
}

/// As psql prints it: `ERROR:  22012: division by zero`.
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:  {}: {}", self.severity(), self.code(), self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_an_error() {
        let body = b"SFEHLER\0VERROR\0C22012\0Mdivision by zero\0P8\0?later\0\0";
        let report = Report::parse(body).unwrap();
        assert_eq!(report.severity(), "ERROR");
        assert_eq!((report.code(), report.position()), ("22012", Some(8)));
        assert_eq!(report.to_string(), "ERROR:  22012: division by zero");
        assert_eq!((report.detail(), report.hint(), report.field(b'?')), (None, None, Some(&b"later"[..])));
        let shown = "{'S': \"FEHLER\", 'V': \"ERROR\", 'C': \"22012\", 'M': \"division by zero\", 'P': \"8\", '?': \"later\"}";
        assert_eq!(format!("{report:?}"), shown);
        let more = Report::parse(b"SERROR\0C22012\0Dwhere\0Htry \xff\0P-1\0\0").unwrap();
        assert_eq!((more.detail().as_deref(), more.hint().as_deref()), (Some("where"), Some("try \u{fffd}")));
        assert_eq!((more.position(), &*more.message()), (None, ""));
        assert_eq!(report.fields().count(), 6);
        assert!(!report.is_fatal());
        assert_eq!(Report::parse(report.body()), Ok(report));
    }

    #[test]
    fn who_is_fatal() {
        for (body, fatal) in [
            (&b"SFATAL\0C57P01\0\0"[..], true),
            (b"SFATALE\0VFATAL\0C57P01\0\0", true),
            (b"SPANIC\0C57P01\0\0", true),
            (b"SFATAL\0VERROR\0C57P01\0\0", false),
        ] {
            assert_eq!(Report::parse(body).unwrap().is_fatal(), fatal);
        }
    }

    #[test]
    fn reports_that_are_none() {
        for body in [
            &b""[..],
            b"\0",
            b"SERROR\0Mno code\0\0",
            b"SERROR\0C2201\0\0",
            b"SERROR\0C22-12\0\0",
            b"SERROR\0C22012\0",
            b"SERROR\0C22012",
            b"SERROR\0C22012\0\0more",
        ] {
            assert!(Report::parse(body).is_err(), "{}", body.escape_ascii());
        }
    }
}
