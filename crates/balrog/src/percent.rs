//! Percent-encoding (RFC 3986 section 2.1).

/// What `text` stands for; `None` when a percent sign has not two hexadecimal digits behind it.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        bytes.push((digit()? << 4 | digit()?) as u8);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_are_one_byte() {
        assert_eq!(decode("a%20b%c3%A9%00").as_deref(), Some(&b"a b\xc3\xa9\0"[..]));
        for wrong in ["%", "%2", "%g0", "%+1", "a%é"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
