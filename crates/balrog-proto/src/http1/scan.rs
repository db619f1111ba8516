//! Finds where tokens and values end, eight bytes at a time: a head is looked at once, and this
//! is where.

use crate::http1::grammar::is_tchar;

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES * 0x80;
const LOW7: u64 = !HIGH;

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Index of the lowest byte whose high bit is set.
#[inline]
const fn lowest(mask: u64) -> usize {
    (mask.trailing_zeros() / 8) as usize
}

/// Where the token ends that begins at `at`: the first byte that is no `tchar`.
#[inline]
pub(crate) fn token_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = word(bytes, at) {
        let other = not_simple(word);
        if other == 0 {
            at += 8;
            continue;
        }
        at += lowest(other);
        // Nearly always the colon. A rarer `tchar` goes by the table.
        if !is_tchar(bytes[at]) {
            return at;
        }
        at += 1;
    }
    while bytes.get(at).is_some_and(|&byte| is_tchar(byte)) {
        at += 1;
    }
    at
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

/// Where a field value ends that begins at `at`: the first control character but HTAB.
#[inline]
pub(crate) fn value_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = word(bytes, at) {
        let control = control(word);
        if control == 0 {
            at += 8;
            continue;
        }
        at += lowest(control);
        if bytes[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    while bytes.get(at).is_some_and(|&byte| byte == b'\t' || !byte.is_ascii_control()) {
        at += 1;
    }
    at
}

/// High bits where a byte is a control character. The lowest is exact: a borrow can only come
/// from a byte that is one.
#[inline]
const fn control(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * 0x20);
    let delete = (word & LOW7) + ONES;
    (below_space | delete) & !word & HIGH
}

/// Where a request target ends that begins at `at`: the first byte that is no visible ASCII, or
/// is `#`.
#[inline]
pub(crate) fn target_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = word(bytes, at) {
        let hash = word ^ (ONES * b'#' as u64);
        let hash = hash.wrapping_sub(ONES) & !hash;
        let below = word.wrapping_sub(ONES * 0x21) & !word;
        let delete = (word & LOW7) + ONES;
        let other = (hash | below | delete | word) & HIGH;
        if other != 0 {
            return at + lowest(other);
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| matches!(byte, b'!'..=b'~') && byte != b'#') {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte value at every place of a word, behind and before every kind of neighbour.
    fn same(fast: fn(&[u8], usize) -> usize, member: fn(u8) -> bool, filler: u8) {
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
                        assert_eq!(fast(&bytes, 0), slow, "{bytes:x?}");
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
    fn targets_end_where_they_should() {
        same(target_end, |byte| byte.is_ascii_graphic() && byte != b'#', b'~');
        same(target_end, |byte| byte.is_ascii_graphic() && byte != b'#', b'"');
    }
}
