//! Ranges and multiranges, in their text format.

use std::ops::{self, Bound};

use super::types::{Failed, oid};
use super::{Encoding, FromSql, ToSql};

/// A value of a range type: `int4range`, `numrange`, `tstzrange`, …
///
/// ```
/// use balrog::postgres::Range;
///
/// let open = Range::from(9..17);
/// assert!(open.contains(&9) && !open.contains(&17));
/// assert!(Range::from(9..).contains(&1_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range<T> {
    /// Nothing is in it.
    Empty,
    /// What is between two bounds. Those of a range of integers or dates come back as `lower..upper`
    /// whatever they were, since the server says it so.
    Between(Bound<T>, Bound<T>),
}

/// A value of a multirange type (PostgreSQL 14 and later): ranges in order with gaps between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Multirange<T>(pub Vec<Range<T>>);

impl<T: PartialOrd> Range<T> {
    /// Whether `value` is in it.
    pub fn contains(&self, value: &T) -> bool {
        match self {
            Self::Empty => false,
            Self::Between(lower, upper) => {
                ops::RangeBounds::contains(&(lower.as_ref(), upper.as_ref()), value)
            }
        }
    }
}

impl<T> From<ops::Range<T>> for Range<T> {
    fn from(range: ops::Range<T>) -> Self {
        Self::Between(Bound::Included(range.start), Bound::Excluded(range.end))
    }
}

impl<T> From<ops::RangeInclusive<T>> for Range<T> {
    fn from(range: ops::RangeInclusive<T>) -> Self {
        let (start, end) = range.into_inner();
        Self::Between(Bound::Included(start), Bound::Included(end))
    }
}

impl<T> From<ops::RangeFrom<T>> for Range<T> {
    fn from(range: ops::RangeFrom<T>) -> Self {
        Self::Between(Bound::Included(range.start), Bound::Unbounded)
    }
}

impl<T> From<ops::RangeTo<T>> for Range<T> {
    fn from(range: ops::RangeTo<T>) -> Self {
        Self::Between(Bound::Unbounded, Bound::Excluded(range.end))
    }
}

impl<T> From<ops::RangeFull> for Range<T> {
    fn from(_: ops::RangeFull) -> Self {
        Self::Between(Bound::Unbounded, Bound::Unbounded)
    }
}

impl<T: ToSql> ToSql for Range<T> {
    /// For the server to find out: which of the range types it is, the element does not tell.
    fn type_oid(&self) -> u32 {
        oid::UNKNOWN
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        let Self::Between(lower, upper) = self else {
            out.extend_from_slice(b"empty");
            return Encoding::Text;
        };
        out.push(if matches!(lower, Bound::Included(_)) { b'[' } else { b'(' });
        write_bound(lower, out);
        out.push(b',');
        write_bound(upper, out);
        out.push(if matches!(upper, Bound::Included(_)) { b']' } else { b')' });
        Encoding::Text
    }
}

fn write_bound<T: ToSql>(bound: &Bound<T>, out: &mut Vec<u8>) {
    let (Bound::Included(value) | Bound::Excluded(value)) = bound else { return };
    let mut text = Vec::new();
    if value.element(&mut text) != Encoding::Null {
        quote(&text, out);
    }
}

/// `text` in quotation marks, as an element of an array or a bound of a range can be written.
pub(super) fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

impl<'a, T: for<'b> FromSql<'b>> FromSql<'a> for Range<T> {
    fn from_text(_type_oid: u32, text: &'a str) -> Result<Self, Failed> {
        match read(text)? {
            (range, "") => Ok(range),
            (_, rest) => Err(format!("{rest:?} is behind the range").into()),
        }
    }
}

impl<T: ToSql> ToSql for Multirange<T> {
    fn type_oid(&self) -> u32 {
        oid::UNKNOWN
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        out.push(b'{');
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            range.encode(out);
        }
        out.push(b'}');
        Encoding::Text
    }
}

impl<'a, T: for<'b> FromSql<'b>> FromSql<'a> for Multirange<T> {
    fn from_text(_type_oid: u32, text: &'a str) -> Result<Self, Failed> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let mut rest = inner.ok_or("it is no multirange")?;
        let mut ranges = Vec::new();
        while !rest.is_empty() {
            let (range, behind) = read(rest)?;
            ranges.push(range);
            rest = match behind.strip_prefix(',') {
                Some(more) if !more.is_empty() => more,
                None if behind.is_empty() => behind,
                _ => return Err("it is no multirange".into()),
            };
        }
        Ok(Self(ranges))
    }
}

/// "(lower-bound,upper-bound)", each parenthesis perhaps a bracket, each bound perhaps not there; or
/// "empty". What is behind comes back, too.
fn read<T: for<'b> FromSql<'b>>(text: &str) -> Result<(Range<T>, &str), Failed> {
    const WRONG: &str = "it is no range";
    if let Some(rest) = text.strip_prefix("empty") {
        return Ok((Range::Empty, rest));
    }
    let included = text.starts_with('[');
    let rest = text.strip_prefix(['[', '(']).ok_or(WRONG)?;
    let (lower, rest) = read_bound(rest).ok_or(WRONG)?;
    let (upper, end) = read_bound(rest.strip_prefix(',').ok_or(WRONG)?).ok_or(WRONG)?;
    let rest = end.strip_prefix([']', ')']).ok_or(WRONG)?;
    let bound = |value: Option<String>, included| -> Result<Bound<T>, Failed> {
        Ok(match value {
            None => Bound::Unbounded,
            Some(value) if included => Bound::Included(T::from_text(oid::UNKNOWN, &value)?),
            Some(value) => Bound::Excluded(T::from_text(oid::UNKNOWN, &value)?),
        })
    };
    Ok((Range::Between(bound(lower, included)?, bound(upper, end.starts_with(']'))?), rest))
}

/// A bound, if there is one, up to the comma, parenthesis or bracket behind it. "A double-quoted string,
/// in which \ and " are written with a \ before or doubled"; `""` alone is an empty one.
fn read_bound(text: &str) -> Option<(Option<String>, &str)> {
    let (mut value, mut any, mut within) = (String::new(), false, false);
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            ',' | ')' | ']' if !within => return Some((any.then_some(value), &text[at..])),
            '\\' => value.push(letters.next()?.1),
            '"' if within && letters.next_if(|(_, next)| *next == '"').is_some() => value.push('"'),
            '"' => within = !within,
            letter => value.push(letter),
        }
        any = true;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Option<Range<String>> {
        Range::from_text(0, text).ok()
    }

    #[test]
    fn bounds_are_unquoted() {
        let between = |lower: &str, upper: &str| Some(Range::from(lower.to_owned()..upper.to_owned()));
        assert_eq!(range("[a,b)"), between("a", "b"));
        assert_eq!(range(r#"["a,""b\"\\",")]")"#), between("a,\"b\"\\", ")]"));
        assert_eq!(range(r#"["","")"#), between("", ""));
        assert_eq!(range("(,)"), Some(Range::from(..)));
        assert_eq!(range("empty"), Some(Range::Empty));
        for wrong in ["", "a,b", "[a", "[a)", "[a,b", "[a,b)c", "[\"a,b)", "[a,\\", "emptyness", "[a,b,c)"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
        let many = |text| Multirange::<i32>::from_text(0, text).ok();
        assert_eq!(many("{[1,2),[3,)}"), Some(Multirange(vec![(1..2).into(), (3..).into()])));
        assert_eq!(many("{}"), Some(Multirange(vec![])));
        for wrong in ["", "[1,2)", "{[1,2),}", "{[1,2)[3,4)}", "{,}"] {
            assert_eq!(many(wrong), None, "{wrong}");
        }
    }
}
