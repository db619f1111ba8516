//! permessage-deflate (RFC 7692 section 7.2): messages through zlib, with what it may use bounded.

use std::fmt;

use zlib_rs::{DeflateConfig, DeflateFlush, Inflate, InflateFlush, Method, Status, Strategy};

use crate::websocket::{Deflate, Limits};
use crate::{Error, Misuse};

/// "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload of the message": every
/// message ends there, and it is not sent.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// An output that is not longer stays for the next message.
const KEEP: usize = 128 * 1024;
/// How often the ratio is looked at, in decompressed bytes. At these points zlib has read the
/// same input in whatever pieces it came.
const RATIO_STEP: u64 = 64 * 1024;
/// How much is decompressed at once for a reader of parts.
const PART: usize = 16 * 1024;

/// Compresses what is sent.
pub(crate) struct Compressor {
    zlib: Option<zlib_rs::Deflate>,
    config: DeflateConfig,
    bits: u8,
    takeover: bool,
    min_size: usize,
    /// The peer's window has something that ours has not.
    stale: bool,
    /// Initialised once and reused; `compress` tells how much of it counts.
    out: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(settings: &Deflate, bits: u8, takeover: bool) -> Self {
        // zlib knows no window of 256 bytes. Run lengths alone refer one byte back, which is in
        // any window.
        let strategy = if bits == 8 { Strategy::Rle } else { Strategy::Default };
        let config = DeflateConfig {
            level: i32::from(settings.level.clamp(1, 9)),
            method: Method::Deflated,
            window_bits: -i32::from(bits.max(9)),
            mem_level: i32::from(settings.mem_level.clamp(1, 9)),
            strategy,
        };
        Self {
            zlib: None,
            config,
            bits,
            takeover,
            min_size: settings.min_size,
            stale: false,
            out: Vec::new(),
        }
    }

    /// How far back it refers, as a power of two.
    pub(crate) const fn bits(&self) -> u8 {
        self.bits
    }

    /// Messages from so many bytes on are worth it.
    pub(crate) const fn min_size(&self) -> usize {
        self.min_size
    }

    /// The payload of a message, or of a fragment of it; `fin`: of the last one.
    pub(crate) fn compress(&mut self, mut input: &[u8], fin: bool) -> Result<&[u8], Misuse> {
        let zlib = self.zlib.get_or_insert_with(|| zlib_rs::Deflate::new_with_config(self.config));
        if std::mem::take(&mut self.stale) {
            zlib.reset();
        }
        let mut filled = 0;
        if self.out.len() > KEEP {
            self.out = Vec::new();
        }
        if self.out.is_empty() {
            self.out.resize((input.len() / 2).max(256), 0);
        }
        loop {
            let (before_in, before_out) = (zlib.total_in(), zlib.total_out());
            zlib.compress(input, &mut self.out[filled..], DeflateFlush::SyncFlush)
                .map_err(|_| Misuse("zlib failed to compress"))?;
            input = &input[(zlib.total_in() - before_in) as usize..];
            filled += (zlib.total_out() - before_out) as usize;
            // Room that is left over means that everything is flushed.
            if filled < self.out.len() {
                break;
            }
            self.out.resize(self.out.len() * 2, 0);
        }
        if fin {
            if self.out[..filled].ends_with(&TAIL) {
                filled -= TAIL.len();
            }
            if filled == 0 {
                // An empty block: with the tail, one that is stored.
                self.out[0] = 0;
                filled = 1;
            }
        }
        Ok(&self.out[..filled])
    }

    /// A message was sent. Without takeover, nothing of it is kept.
    pub(crate) fn next(&mut self) {
        if !self.takeover {
            self.forget();
        }
    }

    /// Refers to nothing that was sent before.
    pub(crate) fn restart(&mut self) {
        self.stale = true;
    }

    /// The same, and gives all memory back.
    pub(crate) fn forget(&mut self) {
        self.zlib = None;
        self.stale = false;
        self.out = Vec::new();
    }

    /// Heap storage held; zlib's is counted as what it is about.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        self.out.capacity() + self.zlib.as_ref().map_or(0, |_| 150 * 1024)
    }
}

/// Decompresses what comes, into a buffer of its own.
pub(crate) struct Decompressor {
    zlib: Option<Inflate>,
    bits: u8,
    takeover: bool,
    /// The end of earlier messages, which later ones may refer to: with it, zlib's memory can
    /// be given back at any time.
    window: Vec<u8>,
    /// Initialised once and reused; `filled` bytes count.
    out: Vec<u8>,
    filled: usize,
    /// How much of `out` is in `window` already.
    kept: usize,
    /// What this message had before and after, in all.
    came: u64,
    made: u64,
}

impl Decompressor {
    pub(crate) fn new(bits: u8, takeover: bool) -> Self {
        Self {
            zlib: None,
            bits: bits.max(9),
            takeover,
            window: Vec::new(),
            out: Vec::new(),
            filled: 0,
            kept: 0,
            came: 0,
            made: 0,
        }
    }

    /// The message as far as it was decompressed and not taken.
    pub(crate) fn output(&self) -> &[u8] {
        &self.out[..self.filled]
    }

    /// Decompresses `input` until it is used up, behind what [`Decompressor::output`] has.
    pub(crate) fn push(&mut self, mut input: &[u8], limits: &Limits) -> Result<(), Error> {
        while !self.step(&mut input, limits, usize::MAX)? {}
        Ok(())
    }

    /// Decompresses at most one part of `input`. Whether it is used up, and has no more to give.
    pub(crate) fn push_part(&mut self, input: &mut &[u8], limits: &Limits) -> Result<bool, Error> {
        self.step(input, limits, PART)
    }

    /// The payload of the message is complete.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        // A final block ("BFINAL" set to 1) that was the last one needs no end.
        let Some(zlib) = &mut self.zlib else { return Ok(()) };
        // A message that is cut would take the tail for something else, and what comes behind it,
        // too. Asked to stop between two blocks, zlib leaves the last byte alone only if it is
        // between two blocks there.
        let tail = [TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0];
        let (before_in, before_out) = (zlib.total_in(), zlib.total_out());
        let status = zlib.decompress(&tail, &mut [0; 1], InflateFlush::Block);
        let used = zlib.total_in() - before_in;
        if status.is_err() || used != TAIL.len() as u64 || zlib.total_out() != before_out {
            return Err(corrupt());
        }
        Ok(())
    }

    /// The output was used.
    pub(crate) fn take(&mut self) {
        self.keep();
        self.empty();
    }

    /// The message was used. The next one begins.
    pub(crate) fn next(&mut self) {
        (self.came, self.made) = (0, 0);
        if self.takeover {
            return self.take();
        }
        // Without takeover, nothing is kept.
        self.empty();
        (self.zlib, self.out, self.window) = (None, Vec::new(), Vec::new());
    }

    fn empty(&mut self) {
        (self.filled, self.kept) = (0, 0);
        if self.out.len() > KEEP {
            self.out = Vec::new();
        }
    }

    /// Gives all memory back but the window. Between two messages only.
    pub(crate) fn forget(&mut self) {
        self.zlib = None;
        self.out = Vec::new();
        let far = self.window.len().saturating_sub(1 << self.bits);
        self.window.drain(..far);
        self.window.shrink_to_fit();
    }

    /// Heap storage held; zlib's is counted as what it is about.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        self.out.capacity() + self.window.capacity() + self.zlib.as_ref().map_or(0, |_| 45 * 1024)
    }

    /// One call of zlib, for an output of at most `most` bytes, which has room for one. Whether
    /// `input` is used up, and has no more to give.
    fn step(&mut self, input: &mut &[u8], limits: &Limits, most: usize) -> Result<bool, Error> {
        // One byte beyond the limit tells that it is exceeded.
        let left = (limits.message as u64).saturating_sub(self.made).saturating_add(1);
        let left = left.min(RATIO_STEP - self.made % RATIO_STEP);
        let top = most.min(self.filled.saturating_add(usize::try_from(left).unwrap_or(usize::MAX)));
        if self.filled == self.out.len() && self.filled < top {
            let more = (self.out.len() * 2).max(input.len().saturating_mul(4)).max(1024);
            self.out.reserve_exact(more.min(top) - self.out.len());
            self.out.resize(more.min(top), 0);
        }
        let end = self.out.len().min(top);
        let zlib = match &mut self.zlib {
            Some(zlib) => zlib,
            none => {
                let zlib = none.insert(Inflate::new(false, self.bits));
                if !self.window.is_empty() {
                    zlib.set_dictionary(&self.window).map_err(|_| corrupt())?;
                }
                zlib
            }
        };
        let (before_in, before_out) = (zlib.total_in(), zlib.total_out());
        let status = zlib.decompress(input, &mut self.out[self.filled..end], InflateFlush::NoFlush);
        let used = zlib.total_in() - before_in;
        let got = zlib.total_out() - before_out;
        *input = &input[used as usize..];
        self.filled += got as usize;
        self.came += used;
        self.made += got;
        let status = status.map_err(|_| corrupt())?;
        if self.made > limits.message as u64 {
            return Err(Error::limit(1009, "message", limits.message as u64));
        }
        let looked_at = got > 0 && self.made.is_multiple_of(RATIO_STEP);
        if looked_at && self.made > self.came.saturating_mul(limits.ratio as u64) {
            return Err(Error::limit(1009, "ratio", limits.ratio as u64));
        }
        if status == Status::StreamEnd {
            // RFC 7692 section 7.2.3.4: a block with "BFINAL" set ends zlib's stream, not ours.
            self.keep();
            self.zlib = None;
            return Ok(input.is_empty());
        }
        // Room that is left over means that there was no more to give.
        match (self.filled < end, input.is_empty()) {
            (true, false) => Err(corrupt()),
            (drained, _) => Ok(drained),
        }
    }

    /// Remembers what later messages, or later blocks, may refer to.
    fn keep(&mut self) {
        let size = 1 << self.bits;
        let fresh = &self.out[self.kept..self.filled];
        let fresh = &fresh[fresh.len().saturating_sub(size)..];
        self.kept = self.filled;
        // Twice the window, so that bytes are moved once per window and not once per message.
        if self.window.len() + fresh.len() > 2 * size {
            let far = (self.window.len() + fresh.len()).saturating_sub(size).min(self.window.len());
            self.window.drain(..far);
        }
        self.window.extend_from_slice(fresh);
    }
}

#[cold]
fn corrupt() -> Error {
    // RFC 7692 has no code of its own; "data within a message that was not consistent with the
    // type of the message" (RFC 6455 section 7.4.1).
    Error::violation(1007, "a compressed message is corrupt", "RFC 7692 section 7.2.2")
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("config", &self.config).field("takeover", &self.takeover).finish()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").field("bits", &self.bits).field("takeover", &self.takeover).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(message: usize) -> Limits {
        Limits { message, ..Limits::default() }
    }

    /// What a message and its window may take, whatever is in it.
    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let mut compressor = Compressor::new(&Deflate::default(), 15, true);
        let bomb = compressor.compress(&vec![0; 10 << 20], true).unwrap().to_vec();
        for message in [1_000, 60_000, 200_000] {
            let mut inflate = Decompressor::new(15, true);
            let failed = bomb.chunks(100).find_map(|piece| inflate.push(piece, &limits(message)).err());
            assert!(matches!(failed, Some(Error::Limit(_))), "{failed:?}");
            assert!(inflate.heap() <= message + 1 + 45 * 1024, "{} for {message}", inflate.heap());
        }
    }

    #[test]
    fn idle_memory_is_the_window() {
        for bits in [9, 12, 15] {
            let mut compressor = Compressor::new(&Deflate::default(), bits, true);
            let mut inflate = Decompressor::new(bits, true);
            for _ in 0..5 {
                let payload = compressor.compress(&[7; 90_000], true).unwrap();
                inflate.push(payload, &limits(1 << 20)).unwrap();
                inflate.finish().unwrap();
                assert_eq!(inflate.output(), [7; 90_000]);
                inflate.next();
            }
            compressor.forget();
            inflate.forget();
            assert_eq!((compressor.heap(), inflate.heap()), (0, 1 << bits));
        }
    }
}
