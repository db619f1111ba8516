use crate::Error;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A frame header (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) mask: [u8; 4],
    pub(crate) length: u64,
}

impl Header {
    pub(crate) const fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// The header at the beginning of `bytes` and its size; `None` if bytes are missing.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let [first, second, rest @ ..] = bytes else {
            // The first byte alone can be wrong already.
            return bytes.first().map_or(Ok(None), |first| check_first(*first).map(|()| None));
        };
        check_first(*first)?;
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        // "a server MUST close the connection upon receiving a frame that is not masked"
        if second & 0x80 == 0 {
            return Err(bad("a client's frame is not masked", "RFC 6455 section 5.1"));
        }
        let short = second & 0x7f;
        // "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be
        // fragmented."
        if opcode & 8 != 0 && (short > 125 || !fin) {
            return Err(bad("a control frame is fragmented or too long", "RFC 6455 section 5.5"));
        }
        let (length, rest) = match short {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        // "the minimal number of bytes MUST be used to encode the length"; the highest bit of
        // the long form "MUST be 0"
        if (short == 126 && length < 126) || (short == 127 && length <= 0xffff) || length >> 63 != 0 {
            return Err(bad("a frame's length is not in its shortest form", "RFC 6455 section 5.2"));
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        Ok(Some((Self { fin, opcode, mask: *mask, length }, bytes.len() - rest.len())))
    }
}

fn check_first(first: u8) -> Result<(), Error> {
    if first & 0x70 != 0 {
        return Err(bad("a reserved bit is set", "RFC 6455 section 5.2"));
    }
    match first & 0x0f {
        CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG => Ok(()),
        _ => Err(bad("the opcode is reserved", "RFC 6455 section 5.2")),
    }
}

/// Appends a whole unmasked frame.
pub(crate) fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        medium @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Unmasks bytes that stand at `offset` in their frame. Eight at a time, which the compiler
/// turns into vectors.
pub(crate) fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = mask;
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

fn bad(reason: &'static str, rule: &'static str) -> Error {
    Error::violation(1002, reason, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmasking_in_pieces_equals_unmasking_at_once() {
        let plain: Vec<u8> = (0..=255).collect();
        let mask = [1, 2, 3, 250];
        let masked: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        for cut in 0..=plain.len() {
            let mut bytes = masked.clone();
            let (a, b) = bytes.split_at_mut(cut);
            unmask(a, mask, 0);
            unmask(b, mask, cut);
            assert_eq!(bytes, plain);
        }
    }
}
