//! Finds where tokens and values end, eight bytes at a time: a head is looked at once, and this
//! is where.

use crate::http1::grammar::is_tchar;

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES * 0x80;
const LOW7: u64 = !HIGH;

/// Index of the lowest byte whose high bit is set.
#[inline]
const fn lowest(mask: u64) -> usize {
    (mask.trailing_zeros() / 8) as usize
}

/// The first byte that `mask` marks with its high bit, eight at a time, and then `is` by itself;
/// the length if there is none.
#[inline]
fn find(bytes: &[u8], mask: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> usize {
    let mut at = 0;
    let mut rest = bytes;
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let mask = mask(u64::from_le_bytes(*word));
        if mask != 0 {
            return at + lowest(mask);
        }
        at += 8;
        rest = tail;
    }
    at + rest.iter().position(|&byte| is(byte)).unwrap_or(rest.len())
}

/// Whether `mask` marks no byte, or those that it does mark pass `is` too.
#[inline]
fn all(bytes: &[u8], mask: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else { return bytes.iter().all(|&byte| is(byte)) };
    // The last word may overlap the one before it.
    let marked = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .fold(mask(u64::from_le_bytes(*last)), |marked, word| marked | mask(u64::from_le_bytes(*word)));
    marked == 0 || bytes.iter().all(|&byte| is(byte))
}

/// Whether every byte is a `tchar`.
#[inline]
pub(crate) fn all_token(bytes: &[u8]) -> bool {
    all(bytes, not_simple, is_tchar)
}

/// Whether no byte is a control character but HTAB.
#[inline]
pub(crate) fn all_value(bytes: &[u8]) -> bool {
    all(bytes, control, |byte| byte == b'\t' || !byte.is_ascii_control())
}

/// How long the token is that `bytes` begin with: up to the first byte that is no `tchar`.
#[inline]
pub(crate) fn token_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += find(&bytes[at..], not_simple, |byte| !is_tchar(byte));
        // Nearly always the colon. A rarer `tchar` goes by the table.
        match bytes.get(at) {
            Some(&byte) if is_tchar(byte) => at += 1,
            _ => return at,
        }
    }
}

/// High bits where a byte is neither a letter nor a hyphen. Exact.
#[inline]
const fn not_simple(word: u64) -> u64 {
    let low7 = word & LOW7;
    let lower = low7 | (ONES * 0x20);
    // No sum of two bytes below 128 carries into the next byte.
    let letter = (lower + ONES * (0x80 - b'a' as u64)) & !(lower + ONES * (0x7f - b'z' as u64));
    let hyphen = !((low7 ^ (ONES * b'-' as u64)) + LOW7);
    !((letter | hyphen) & !word) & HIGH
}

/// How long the field value is that `bytes` begin with: up to the first control character but
/// HTAB.
#[inline]
pub(crate) fn value_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += find(&bytes[at..], control, |byte| byte.is_ascii_control());
        match bytes.get(at) {
            Some(b'\t') => at += 1,
            _ => return at,
        }
    }
}

/// High bits where a byte is a control character. The lowest is exact: a borrow can only come
/// from a byte that is one.
#[inline]
const fn control(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * 0x20);
    let delete = (word & LOW7) + ONES;
    (below_space | delete) & !word & HIGH
}

/// How long the request target is that `bytes` begin with: up to the first byte that is no
/// visible ASCII, or is `#`.
#[inline]
pub(crate) fn target_end(bytes: &[u8]) -> usize {
    let other = |word: u64| {
        let hash = word ^ (ONES * b'#' as u64);
        let hash = hash.wrapping_sub(ONES) & !hash;
        let below = word.wrapping_sub(ONES * 0x21) & !word;
        let delete = (word & LOW7) + ONES;
        (hash | below | delete | word) & HIGH
    };
    find(bytes, other, |byte| !matches!(byte, b'!'..=b'~') || byte == b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte value at every place of a word, behind and before every kind of neighbour.
    fn same(fast: fn(&[u8]) -> usize, member: fn(u8) -> bool, filler: u8) {
        for length in 1..=26 {
            for at in 0..length {
                for byte in 0..=255_u8 {
                    for next in [filler, 0, b'\t', b' ', 0x1f, 0x7e, 0x7f, 0x80, 0xff, b':', b'_'] {
                        let mut bytes = vec![filler; length];
                        bytes[at] = byte;
                        if let Some(slot) = bytes.get_mut(at + 1) {
                            *slot = next;
                        }
                        let slow = bytes.iter().position(|&byte| !member(byte)).unwrap_or(length);
                        assert_eq!(fast(&bytes), slow, "{bytes:x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn tokens_end_where_they_should() {
        same(token_end, is_tchar, b'a');
    }

    #[test]
    fn values_end_where_they_should() {
        same(value_end, |byte| byte == b'\t' || !byte.is_ascii_control(), 0xff);
        same(value_end, |byte| byte == b'\t' || !byte.is_ascii_control(), b'~');
    }

    #[test]
    fn whole_tokens_and_values_are_told() {
        same(|bytes| if all_token(bytes) { bytes.len() } else { token_end(bytes) }, is_tchar, b'a');
        let member = |byte: u8| byte == b'\t' || !byte.is_ascii_control();
        same(|bytes| if all_value(bytes) { bytes.len() } else { value_end(bytes) }, member, 0xff);
        // And never no for a yes.
        for length in 0..40 {
            for byte in 0..=255_u8 {
                let bytes = vec![byte; length];
                assert_eq!(all_token(&bytes), token_end(&bytes) == length, "{bytes:x?}");
                assert_eq!(all_value(&bytes), value_end(&bytes) == length, "{bytes:x?}");
            }
        }
    }

    #[test]
    fn targets_end_where_they_should() {
        same(target_end, |byte| byte.is_ascii_graphic() && byte != b'#', b'~');
        same(target_end, |byte| byte.is_ascii_graphic() && byte != b'#', b'"');
    }
}
