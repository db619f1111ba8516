/// Checks UTF-8 that comes in pieces, and tells as soon as it is wrong.
#[derive(Debug, Default)]
pub(crate) struct Validator {
    /// The beginning of a character that goes on in the next piece.
    tail: [u8; 4],
    len: u8,
}

/// What a piece of text adds: the end of a character that began before, and the characters that
/// are whole in it.
pub(crate) type Piece<'b> = (Option<char>, &'b str);

impl Validator {
    /// The text in `bytes`, without the beginning of a character at its end; `None` if this can
    /// become no UTF-8 any more.
    pub(crate) fn feed<'b>(&mut self, bytes: &'b [u8]) -> Option<Piece<'b>> {
        let (begun, bytes) = self.complete(bytes)?;
        if self.len > 0 {
            return Some((None, ""));
        }
        let (whole, rest) = bytes.split_at(bytes.len() - incomplete(bytes));
        let text = simdutf8::basic::from_utf8(whole).ok()?;
        if !rest.is_empty() {
            // Some beginnings go on to nothing: those of overlong forms, of surrogates, of what
            // is beyond U+10FFFF.
            std::str::from_utf8(rest).err().filter(|error| error.error_len().is_none())?;
            self.tail[..rest.len()].copy_from_slice(rest);
            // Three at most.
            self.len = rest.len() as u8;
        }
        Some((begun, text))
    }

    /// Whether the text may end here.
    pub(crate) const fn is_complete(&self) -> bool {
        self.len == 0
    }

    /// Takes the bytes of the character that began in an earlier piece.
    fn complete<'b>(&mut self, mut bytes: &'b [u8]) -> Option<(Option<char>, &'b [u8])> {
        while self.len > 0 {
            let [first, rest @ ..] = bytes else { break };
            self.tail[usize::from(self.len)] = *first;
            self.len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.tail[..usize::from(self.len)]) {
                Ok(text) => {
                    self.len = 0;
                    return Some((text.chars().next(), bytes));
                }
                Err(error) if error.error_len().is_some() => return None,
                Err(_) => {}
            }
        }
        Some((None, bytes))
    }
}

/// How many bytes at the end begin a character that needs more.
fn incomplete(bytes: &[u8]) -> usize {
    for (back, byte) in bytes.iter().rev().take(3).enumerate() {
        match byte {
            0x80..=0xbf => {}
            0xc0.. => {
                let needs = match byte {
                    0xc0..=0xdf => 2,
                    0xe0..=0xef => 3,
                    _ => 4,
                };
                return if needs > back + 1 { back + 1 } else { 0 };
            }
            _ => return 0,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a validator makes of these pieces.
    fn read(pieces: &[&[u8]]) -> Option<String> {
        let mut validator = Validator::default();
        let mut text = String::new();
        for piece in pieces {
            let (begun, whole) = validator.feed(piece)?;
            text.extend(begun);
            text.push_str(whole);
        }
        validator.is_complete().then_some(text)
    }

    const CASES: [&[u8]; 14] = [
        b"",
        b"plain",
        "κόσμε \u{10ffff}é".as_bytes(),
        "\u{7ff}\u{800}\u{ffff}\u{10000}".as_bytes(),
        b"\xf4\x90\x80\x80",
        b"\xed\xa0\x80",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc0\xaf",
        b"\xf8\x88\x80\x80\x80",
        b"a\xc3",
        b"\x80\x80\x80\x80",
        b"\xce\xba\xff",
        b"\xf0\x9f\x98\x80\xf0\x9f\x98",
    ];

    #[test]
    fn agrees_with_std_for_every_split() {
        for bytes in CASES {
            let expected = std::str::from_utf8(bytes).ok().map(str::to_owned);
            for cut in 0..=bytes.len() {
                assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), expected, "{bytes:?} at {cut}");
                for second in cut..=bytes.len() {
                    let pieces = [&bytes[..cut], &bytes[cut..second], &bytes[second..]];
                    assert_eq!(read(&pieces), expected, "{bytes:?} at {cut} and {second}");
                }
            }
        }
    }

    #[test]
    fn fails_at_the_first_wrong_byte() {
        for bytes in CASES {
            // std tells where the valid part ends, and how long the wrong sequence is.
            let Err(error) = std::str::from_utf8(bytes) else { continue };
            let Some(length) = error.error_len() else { continue };
            let wrong = error.valid_up_to() + length;
            let mut validator = Validator::default();
            let failed = bytes.iter().position(|byte| validator.feed(&[*byte]).is_none());
            // The byte that shows that the sequence is wrong may be the one behind it.
            assert!(failed.is_some_and(|at| at == wrong || at == wrong - 1), "{bytes:?}: {failed:?}");
        }
    }

    #[test]
    fn every_sequence_of_four_bytes_near_a_border() {
        let borders = [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1];
        let more = [0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff];
        let all: Vec<u8> = borders.into_iter().chain(more).collect();
        for &a in &all {
            for &b in &all {
                for &c in &all {
                    for &d in &all {
                        let bytes = [a, b, c, d];
                        let expected = std::str::from_utf8(&bytes).ok().map(str::to_owned);
                        assert_eq!(read(&[&bytes[..1], &bytes[1..3], &bytes[3..]]), expected, "{bytes:?}");
                        assert_eq!(read(&[&bytes]), expected, "{bytes:?}");
                    }
                }
            }
        }
    }
}
