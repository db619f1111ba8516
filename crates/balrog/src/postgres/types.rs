//! How values of Rust are values of PostgreSQL.

use std::error::Error;
use std::str::FromStr;

pub(super) type Failed = Box<dyn Error + Send + Sync>;

/// The types of `pg_type` whose values are taken apart here.
pub(super) mod oid {
    pub(crate) const UNKNOWN: u32 = 0;
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const BYTEA_ARRAY: u32 = 1001;
    #[cfg(any(feature = "rust_decimal", feature = "bigdecimal"))]
    pub(crate) const NUMERIC: u32 = 1700;
}

/// How the bytes of a parameter are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// There is no value.
    Null,
    /// As the type's text format.
    Text,
    /// As the type's binary format.
    Binary,
}

/// What can be a parameter of a query.
pub trait ToSql {
    /// The object ID of its type in `pg_type`; 0 leaves it to the server.
    fn type_oid(&self) -> u32;

    /// Appends its bytes to `out`.
    fn encode(&self, out: &mut Vec<u8>) -> Encoding;

    /// Appends its text format to `out`, for an element of an array.
    fn element(&self, out: &mut Vec<u8>) -> Encoding {
        self.encode(out)
    }

    /// Whether it is an array itself.
    fn is_array(&self) -> bool {
        false
    }
}

/// What the value of a column can be had as.
pub trait FromSql<'a>: Sized {
    /// Of a value in the text format of the type with this object ID.
    ///
    /// # Errors
    ///
    /// When it is none of these.
    fn from_text(type_oid: u32, text: &'a str) -> Result<Self, Failed>;

    /// Of NULL.
    ///
    /// # Errors
    ///
    /// Unless there is something for that: ask for an `Option`.
    fn from_null() -> Result<Self, Failed> {
        Err("it is NULL: ask for an Option".into())
    }
}

macro_rules! numbers {
    ($($type:ty => $oid:ident),+) => {$(
        impl ToSql for $type {
            fn type_oid(&self) -> u32 {
                oid::$oid
            }

            fn encode(&self, out: &mut Vec<u8>) -> Encoding {
                out.extend_from_slice(&self.to_be_bytes());
                Encoding::Binary
            }

            fn element(&self, out: &mut Vec<u8>) -> Encoding {
                out.extend_from_slice(self.to_string().as_bytes());
                Encoding::Text
            }
        }

        impl FromSql<'_> for $type {
            fn from_text(_type_oid: u32, text: &str) -> Result<Self, Failed> {
                Ok(text.parse()?)
            }
        }
    )+};
}
numbers!(i16 => INT2, i32 => INT4, i64 => INT8, f32 => FLOAT4, f64 => FLOAT8);

impl ToSql for bool {
    fn type_oid(&self) -> u32 {
        oid::BOOL
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        out.push(u8::from(*self));
        Encoding::Binary
    }

    fn element(&self, out: &mut Vec<u8>) -> Encoding {
        out.push(if *self { b't' } else { b'f' });
        Encoding::Text
    }
}

impl FromSql<'_> for bool {
    fn from_text(_type_oid: u32, text: &str) -> Result<Self, Failed> {
        match text {
            "t" => Ok(true),
            "f" => Ok(false),
            _ => Err("it is neither true nor false".into()),
        }
    }
}

impl ToSql for str {
    fn type_oid(&self) -> u32 {
        oid::UNKNOWN
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        out.extend_from_slice(self.as_bytes());
        Encoding::Text
    }
}

impl ToSql for String {
    fn type_oid(&self) -> u32 {
        oid::UNKNOWN
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        self.as_str().encode(out)
    }
}

impl<'a> FromSql<'a> for &'a str {
    fn from_text(_type_oid: u32, text: &'a str) -> Result<Self, Failed> {
        Ok(text)
    }
}

impl FromSql<'_> for String {
    fn from_text(_type_oid: u32, text: &str) -> Result<Self, Failed> {
        Ok(text.to_owned())
    }
}

impl ToSql for [u8] {
    fn type_oid(&self) -> u32 {
        oid::BYTEA
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        out.extend_from_slice(self);
        Encoding::Binary
    }

    fn element(&self, out: &mut Vec<u8>) -> Encoding {
        out.extend_from_slice(b"\\x");
        for byte in self {
            let digit = |half| char::from_digit(u32::from(half), 16).map_or(b'0', |digit| digit as u8);
            out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        Encoding::Text
    }
}

impl ToSql for Vec<u8> {
    fn type_oid(&self) -> u32 {
        oid::BYTEA
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        self.as_slice().encode(out)
    }

    fn element(&self, out: &mut Vec<u8>) -> Encoding {
        self.as_slice().element(out)
    }
}

impl FromSql<'_> for Vec<u8> {
    /// "The "hex" format encodes binary data as 2 hexadecimal digits per byte [...] The entire
    /// string is preceded by the sequence \x".
    fn from_text(type_oid: u32, text: &str) -> Result<Self, Failed> {
        if type_oid != oid::BYTEA {
            return Ok(text.as_bytes().to_vec());
        }
        let Some(digits) = text.strip_prefix("\\x") else { return unescape(text.as_bytes()) };
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return Err("half a byte".into()) };
        let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
        pairs.iter().map(byte).collect::<Option<_>>().ok_or_else(|| "it is not hexadecimal".into())
    }
}

/// Of `bytea_output` escape: `\\` is a backslash, `\ooo` the byte with this octal number.
fn unescape(mut text: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        let (byte, rest) = match rest {
            _ if byte != b'\\' => (byte, rest),
            [b'\\', rest @ ..] => (b'\\', rest),
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                (((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'), rest)
            }
            _ => return Err("a backslash that stands for nothing".into()),
        };
        bytes.push(byte);
        text = rest;
    }
    Ok(bytes)
}

impl<T: ToSql> ToSql for Option<T> {
    fn type_oid(&self) -> u32 {
        // Of a value that is not there, only the server knows the type.
        self.as_ref().map_or(oid::UNKNOWN, ToSql::type_oid)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        self.as_ref().map_or(Encoding::Null, |value| value.encode(out))
    }

    fn element(&self, out: &mut Vec<u8>) -> Encoding {
        self.as_ref().map_or(Encoding::Null, |value| value.element(out))
    }

    fn is_array(&self) -> bool {
        self.as_ref().is_some_and(ToSql::is_array)
    }
}

impl<'a, T: FromSql<'a>> FromSql<'a> for Option<T> {
    fn from_text(type_oid: u32, text: &'a str) -> Result<Self, Failed> {
        T::from_text(type_oid, text).map(Some)
    }

    fn from_null() -> Result<Self, Failed> {
        Ok(None)
    }
}

impl<T: ToSql + ?Sized> ToSql for &T {
    fn type_oid(&self) -> u32 {
        (**self).type_oid()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        (**self).encode(out)
    }

    fn element(&self, out: &mut Vec<u8>) -> Encoding {
        (**self).element(out)
    }

    fn is_array(&self) -> bool {
        (**self).is_array()
    }
}

/// Types whose text format here is the server's.
#[cfg(any(feature = "json", feature = "uuid", feature = "rust_decimal", feature = "bigdecimal"))]
macro_rules! texts {
    ($($feature:literal: $type:ty as $oid:ident by $parse:expr;)+) => {$(
        #[cfg(feature = $feature)]
        impl ToSql for $type {
            fn type_oid(&self) -> u32 {
                oid::$oid
            }

            fn encode(&self, out: &mut Vec<u8>) -> Encoding {
                out.extend_from_slice(self.to_string().as_bytes());
                Encoding::Text
            }
        }

        #[cfg(feature = $feature)]
        impl FromSql<'_> for $type {
            fn from_text(_type_oid: u32, text: &str) -> Result<Self, Failed> {
                Ok($parse(text)?)
            }
        }
    )+};
}
#[cfg(any(feature = "json", feature = "uuid", feature = "rust_decimal", feature = "bigdecimal"))]
texts! {
    "json": serde_json::Value as UNKNOWN by str::parse::<serde_json::Value>;
    "uuid": uuid::Uuid as UNKNOWN by str::parse::<uuid::Uuid>;
    // Exact, or an error: never rounded.
    "rust_decimal": rust_decimal::Decimal as NUMERIC by rust_decimal::Decimal::from_str_exact;
    "bigdecimal": bigdecimal::BigDecimal as NUMERIC by str::parse::<bigdecimal::BigDecimal>;
}

/// A value that may be one of the infinite ones, which most types of Rust do not have: a date, a
/// time with a date, a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrInfinity<T> {
    /// `-infinity`, before all others.
    NegInfinity,
    /// One that is not infinite.
    Finite(T),
    /// `infinity`, behind all others.
    Infinity,
}

impl<T: ToSql> ToSql for OrInfinity<T> {
    fn type_oid(&self) -> u32 {
        match self {
            Self::Finite(value) => value.type_oid(),
            _ => oid::UNKNOWN,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        match self {
            Self::Finite(value) => value.encode(out),
            Self::Infinity => "infinity".encode(out),
            Self::NegInfinity => "-infinity".encode(out),
        }
    }

    fn element(&self, out: &mut Vec<u8>) -> Encoding {
        match self {
            Self::Finite(value) => value.element(out),
            infinite => infinite.encode(out),
        }
    }
}

impl<'a, T: FromSql<'a>> FromSql<'a> for OrInfinity<T> {
    fn from_text(type_oid: u32, text: &'a str) -> Result<Self, Failed> {
        match text {
            "infinity" | "Infinity" => Ok(Self::Infinity),
            "-infinity" | "-Infinity" => Ok(Self::NegInfinity),
            text => T::from_text(type_oid, text).map(Self::Finite),
        }
    }
}

/// For [`Row::parse`](super::Row::parse).
pub(super) struct Parsed<T>(pub(super) T);

impl<T: FromStr<Err: Error + Send + Sync + 'static>> FromSql<'_> for Parsed<T> {
    fn from_text(_type_oid: u32, text: &str) -> Result<Self, Failed> {
        Ok(Self(text.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_both_formats() {
        let read = |text| Vec::<u8>::from_text(oid::BYTEA, text).ok();
        assert_eq!(read("\\x00fF"), Some(vec![0, 255]));
        assert_eq!(read(r"a\\b\000\377"), Some(b"a\\b\0\xff".to_vec()));
        for wrong in [r"\x0", r"\xgg", r"\", r"\12", r"\400", r"\8"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
