//! Frames (RFC 6455 section 5): the header both ways, and the mask.

use crate::Error;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The frame ends its message.
pub(crate) const FIN: u8 = 0x80;
/// The first reserved bit, which marks a compressed message (RFC 7692 section 6).
pub(crate) const RSV1: u8 = 0x40;

/// The longest header: two bytes, a length of eight, a mask of four.
pub(crate) const MAX_HEADER: usize = 14;

/// The most that a control frame carries (RFC 6455 section 5.5).
pub(crate) const MAX_CONTROL: usize = 125;

/// Payloads from this size on are worth aligning, and to what.
const LONG: usize = 512;
const VECTOR: usize = 32;

/// A frame header (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) compressed: bool,
    pub(crate) opcode: u8,
    /// Zero, which changes nothing, in a server's frames.
    pub(crate) mask: [u8; 4],
    pub(crate) length: u64,
}

impl Header {
    pub(crate) const fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// The header at the beginning of `bytes` and its size; `None` if bytes are missing.
    ///
    /// `masked`: whether the sender has to mask; `reserved`: the reserved bits that an agreed
    /// extension gives a meaning.
    #[inline]
    pub(crate) fn parse(bytes: &[u8], masked: bool, reserved: u8) -> Result<Option<(Self, usize)>, Error> {
        let [first, second, rest @ ..] = bytes else {
            // The first byte alone can be wrong already.
            return bytes.first().map_or(Ok(None), |first| check_first(*first, reserved).map(|()| None));
        };
        let (first, second) = (*first, *second);
        check_first(first, reserved)?;
        // "a server MUST close the connection upon receiving a frame that is not masked [...] A
        // client MUST close a connection if it detects a masked frame."
        if (second & 0x80 != 0) != masked {
            return Err(wrong_mask(masked));
        }
        let (fin, opcode, short) = (first & FIN != 0, first & 0x0f, second & 0x7f);
        // "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be
        // fragmented."
        if opcode & 8 != 0 && (short as usize > MAX_CONTROL || !fin) {
            return Err(bad("a control frame is fragmented or too long", "RFC 6455 section 5.5"));
        }
        if opcode & 8 != 0 && first & RSV1 != 0 {
            return Err(bad("a control frame is marked as compressed", "RFC 7692 section 6.1"));
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
        if (short == 126 && length < 126) || (short == 127 && (length <= 0xffff || length >> 63 != 0)) {
            return Err(bad("a frame's length is not in its shortest form", "RFC 6455 section 5.2"));
        }
        let (mask, rest) = if masked {
            let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (*mask, rest)
        } else {
            ([0; 4], rest)
        };
        let header = Self { fin, compressed: first & RSV1 != 0, opcode, mask, length };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

#[inline]
fn check_first(first: u8, reserved: u8) -> Result<(), Error> {
    // "If a nonzero value is received and none of the negotiated extensions defines the meaning
    // of such a nonzero value, the receiving endpoint MUST _Fail the WebSocket Connection_."
    if first & 0x70 & !reserved != 0 {
        return Err(bad("a reserved bit is set", "RFC 6455 section 5.2"));
    }
    // Opcodes 3 to 7 and 11 to 15 are reserved.
    if matches!(first & 0x0f, 3..=7 | 11..) {
        return Err(bad("the opcode is reserved", "RFC 6455 section 5.2"));
    }
    Ok(())
}

/// Appends the header of a frame. `first` has the opcode, FIN and RSV1.
#[inline]
pub(crate) fn write_header(out: &mut Vec<u8>, first: u8, length: usize, mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match length {
        short @ 0..=125 => out.extend_from_slice(&[first, masked | short as u8]),
        medium @ 126..=0xffff => {
            let [high, low] = (medium as u16).to_be_bytes();
            out.extend_from_slice(&[first, masked | 126, high, low]);
        }
        long => {
            out.extend_from_slice(&[first, masked | 127]);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
}

/// Appends a frame.
#[inline]
pub(crate) fn write(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    out.reserve(MAX_HEADER + payload.len());
    write_header(out, first, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask, 0);
    }
}

/// Masks, or unmasks, bytes that stand at `offset` in their frame (RFC 6455 section 5.3).
/// Eight at a time, which the compiler turns into vectors.
#[inline]
pub(crate) fn apply_mask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let key = u32::from_le_bytes(mask).rotate_right(8 * (offset % 4) as u32);
    if bytes.len() < LONG {
        return xor(bytes, key);
    }
    // Behind a header the payload begins anywhere; vectors that lie across two cache lines cost.
    let begin = bytes.as_ptr().align_offset(VECTOR).min(bytes.len());
    let (begin, rest) = bytes.split_at_mut(begin);
    xor(begin, key);
    xor(rest, key.rotate_right(8 * (begin.len() % 4) as u32));
}

#[inline]
fn xor(bytes: &mut [u8], key: u32) {
    let wide = u64::from(key) << 32 | u64::from(key);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_le_bytes(*chunk) ^ wide).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide.to_le_bytes()) {
        *byte ^= key;
    }
}

/// The codes that an endpoint may send (RFC 6455 section 7.4.2, and its registry).
pub(crate) const fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cold]
fn wrong_mask(masked: bool) -> Error {
    bad(
        if masked { "a client's frame is not masked" } else { "a server's frame is masked" },
        "RFC 6455 section 5.1",
    )
}

#[cold]
fn bad(reason: &'static str, rule: &'static str) -> Error {
    Error::violation(1002, reason, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmasking_in_pieces_equals_unmasking_at_once() {
        let plain: Vec<u8> = (0..=255).cycle().take(2 * LONG + 7).collect();
        let mask = [1, 2, 3, 250];
        let masked: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        for cut in 0..=plain.len() {
            let mut bytes = masked.clone();
            let (a, b) = bytes.split_at_mut(cut);
            apply_mask(a, mask, 0);
            apply_mask(b, mask, cut);
            assert_eq!(bytes, plain);
        }
    }

    #[test]
    fn headers_come_back_as_they_were_written() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 1 << 40] {
            for mask in [None, Some([9, 8, 7, 6])] {
                for first in [FIN | TEXT, BINARY, RSV1 | TEXT, CONTINUATION] {
                    let mut bytes = Vec::new();
                    write_header(&mut bytes, first, length, mask);
                    assert!(bytes.len() <= MAX_HEADER);
                    let header = Header {
                        fin: first & FIN != 0,
                        compressed: first & RSV1 != 0,
                        opcode: first & 0x0f,
                        mask: mask.unwrap_or_default(),
                        length: length as u64,
                    };
                    let parse = |bytes: &[u8]| Header::parse(bytes, mask.is_some(), RSV1);
                    assert_eq!(parse(&bytes), Ok(Some((header, bytes.len()))));
                    for cut in 0..bytes.len() {
                        assert_eq!(parse(&bytes[..cut]), Ok(None), "{length} cut at {cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn close_codes() {
        let may = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999];
        let may_not = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX];
        assert!(may.into_iter().all(is_close_code));
        assert!(!may_not.into_iter().any(is_close_code));
    }
}
