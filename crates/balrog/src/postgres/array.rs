//! Arrays, in their text format: "array values are written within curly braces, separated by the
//! delimiter character". A level more of braces is a dimension more.

use super::range::quote;
use super::types::{Failed, oid};
use super::{Encoding, FromSql, ToSql};

impl<T: ToSql> ToSql for [T] {
    /// For the server to find out: an empty array has no element that could tell.
    fn type_oid(&self) -> u32 {
        oid::UNKNOWN
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        out.push(b'{');
        let mut text = Vec::new();
        for (index, value) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            text.clear();
            if value.element(&mut text) == Encoding::Null {
                out.extend_from_slice(b"NULL");
            } else if text.first() == Some(&b'{') && value.is_array() {
                out.extend_from_slice(&text);
            } else {
                quote(&text, out);
            }
        }
        out.push(b'}');
        Encoding::Text
    }

    fn is_array(&self) -> bool {
        true
    }
}

impl<T: ToSql> ToSql for Vec<T> {
    fn type_oid(&self) -> u32 {
        self.as_slice().type_oid()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        self.as_slice().encode(out)
    }

    fn is_array(&self) -> bool {
        true
    }
}

impl<'a, T: for<'b> FromSql<'b>> FromSql<'a> for Vec<T> {
    fn from_text(type_oid: u32, text: &'a str) -> Result<Self, Failed> {
        let wrong = || Failed::from("it is no array");
        let element = if type_oid == oid::BYTEA_ARRAY { oid::BYTEA } else { type_oid };
        // Bounds other than from 1 are written before: `[0:1]={1,2}`.
        let braces = if text.starts_with('[') { text.split_once("]=").ok_or_else(wrong)?.1 } else { text };
        let inner = braces.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).ok_or_else(wrong)?;
        let mut values = Self::new();
        let mut rest = inner;
        while !rest.is_empty() {
            let (value, quoted, end) = next(rest).ok_or_else(wrong)?;
            values.push(if value == "NULL" && !quoted {
                T::from_null()?
            } else {
                T::from_text(element, &value)?
            });
            rest = match &rest[end..] {
                "" => "",
                more => more.strip_prefix(',').filter(|more| !more.is_empty()).ok_or_else(wrong)?,
            };
        }
        Ok(values)
    }
}

/// The first element, whether it was quoted, and where it ends. One that is an array itself is
/// left as it is.
fn next(text: &str) -> Option<(String, bool, usize)> {
    let mut letters = text.char_indices();
    let mut value = String::new();
    if !text.starts_with('"') {
        let (mut depth, mut within) = (0_u32, false);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => {
                    value.push(letter);
                    value.push(letters.next()?.1);
                    continue;
                }
                '"' => within = !within,
                '{' if !within => depth += 1,
                '}' if !within => depth = depth.checked_sub(1)?,
                ',' if !within && depth == 0 => return Some((value, false, at)),
                _ => {}
            }
            value.push(letter);
        }
        return (depth == 0 && !within).then_some((value, false, text.len()));
    }
    letters.next();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, true, at + 1)),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'b> FromSql<'b>>(text: &str) -> Option<Vec<T>> {
        Vec::from_text(0, text).ok()
    }

    #[test]
    fn arrays_are_taken_apart() {
        assert_eq!(read::<i32>("{1,-2}"), Some(vec![1, -2]));
        assert_eq!(read::<i32>("[0:1]={1,2}"), Some(vec![1, 2]));
        assert_eq!(read::<i32>("{}"), Some(vec![]));
        assert_eq!(read::<Vec<i32>>("{{1,2},{3,4}}"), Some(vec![vec![1, 2], vec![3, 4]]));
        let texts = read::<Option<String>>(r#"{a,"b,c",NULL,"NULL","\"\\","","{}"}"#).unwrap();
        let texts: Vec<_> = texts.iter().map(Option::as_deref).collect();
        assert_eq!(texts, [Some("a"), Some("b,c"), None, Some("NULL"), Some("\"\\"), Some(""), Some("{}")]);
        let nested = read::<Vec<String>>(r#"{{"}",a},{"\"",b}}"#).unwrap();
        assert_eq!(nested, [["}", "a"], ["\"", "b"]]);
        for bad in ["", "1,2", "{1,2", "{1,}", "{\"a}", "{{1}", "{1}}", "[1={1}", "{\"a\"b}", "{a\\"] {
            assert_eq!(read::<String>(bad), None, "{bad}");
        }
    }
}
