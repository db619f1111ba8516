/// Checks UTF-8 that comes in pieces, and tells as soon as it is wrong.
#[derive(Debug, Default)]
pub(crate) struct Validator {
    /// The beginning of a character that goes on in the next piece.
    tail: [u8; 4],
    len: usize,
}

impl Validator {
    /// Whether everything up to the end of `bytes` can still become UTF-8.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let [first, rest @ ..] = bytes else { return true };
            self.tail[self.len] = *first;
            self.len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.tail[..self.len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match simdutf8::compat::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let rest = &bytes[error.valid_up_to()..];
                self.tail[..rest.len()].copy_from_slice(rest);
                self.len = rest.len();
                true
            }
        }
    }

    /// Whether the text may end here.
    pub(crate) const fn is_complete(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_std_for_every_split() {
        for bytes in [
            &b"plain"[..],
            "κόσμε \u{10ffff}é".as_bytes(),
            b"\xf4\x90\x80\x80",
            b"\xed\xa0\x80",
            b"a\xc3",
            b"\xce\xba\xff",
        ] {
            for cut in 0..=bytes.len() {
                let mut validator = Validator::default();
                let fed = validator.feed(&bytes[..cut]) && validator.feed(&bytes[cut..]);
                assert_eq!(
                    fed && validator.is_complete(),
                    std::str::from_utf8(bytes).is_ok(),
                    "{bytes:?} at {cut}"
                );
            }
        }
    }

    #[test]
    fn fails_at_the_first_wrong_byte() {
        let mut validator = Validator::default();
        assert!(validator.feed(b"\xf4"));
        assert!(!validator.feed(b"\x90"));
    }
}
