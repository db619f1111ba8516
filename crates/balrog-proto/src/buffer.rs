use std::collections::VecDeque;

/// Storage up to this size is kept when a buffer runs empty; more goes back.
const KEEP: usize = 256;
/// Payloads from this size on are not copied behind what is already queued.
const OWN_SEGMENT: usize = 16 * 1024;

/// Bytes from the peer that the machine has not used up.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Everything before is used up.
    start: usize,
    eof: bool,
}

impl Inbox {
    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        self.bytes.extend_from_slice(bytes);
    }

    /// What has not been used up.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The same, to unmask in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Uses up `n` bytes.
    pub fn discard(&mut self, n: usize) {
        self.start = (self.start + n).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
    }

    /// Whether everything is used up.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// How many bytes are not used up.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The peer sends nothing more.
    pub fn set_eof(&mut self) {
        self.eof = true;
    }

    /// Whether the peer sends nothing more.
    pub const fn is_eof(&self) -> bool {
        self.eof
    }

    fn make_room(&mut self) {
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

/// Bytes for the peer. Small writes share a segment, so that one system call sends them all.
#[derive(Debug, Default)]
pub struct Outbox {
    segments: VecDeque<Vec<u8>>,
    /// How much of the first segment is sent.
    sent: usize,
    len: usize,
    shutdown: bool,
}

impl Outbox {
    /// The segment that small writes go to.
    pub fn tail(&mut self) -> Tail<'_> {
        if self.segments.back().is_none_or(|segment| segment.len() >= OWN_SEGMENT) {
            self.segments.push_back(Vec::new());
        }
        // Pushed above if there was none.
        let segments = &mut self.segments;
        let index = segments.len() - 1;
        let before = segments[index].len();
        Tail { segment: &mut segments[index], before, len: &mut self.len }
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail().extend_from_slice(bytes);
    }

    /// Appends `bytes`, with no copy if they are many.
    pub fn push_owned(&mut self, bytes: Vec<u8>) {
        if bytes.len() >= OWN_SEGMENT {
            self.len += bytes.len();
            self.segments.push_back(bytes);
        } else {
            self.push(&bytes);
        }
    }

    /// Nothing follows: after the last byte the sending side is shut down.
    pub fn shutdown(&mut self) {
        self.shutdown = true;
    }

    /// Whether nothing may follow any more.
    pub const fn is_shutdown(&self) -> bool {
        self.shutdown
    }

    /// How many bytes are not sent.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether every byte is sent.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is to be sent next.
    pub fn front(&self) -> Option<&[u8]> {
        self.segments.front().map(|segment| &segment[self.sent..]).filter(|bytes| !bytes.is_empty())
    }

    /// The next segments, for a vectored write.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.segments
            .iter()
            .enumerate()
            .map(|(index, segment)| if index == 0 { &segment[self.sent..] } else { &segment[..] })
    }

    /// `n` bytes have been sent.
    pub fn sent(&mut self, mut n: usize) {
        n = n.min(self.len);
        self.len -= n;
        while let Some(front) = self.segments.front() {
            let left = front.len() - self.sent;
            if n < left {
                self.sent += n;
                return;
            }
            n -= left;
            self.sent = 0;
            let Some(mut front) = self.segments.pop_front() else { return };
            if self.segments.is_empty() {
                // A small one stays for the next message; everything else goes back.
                front.clear();
                if front.capacity() <= KEEP {
                    self.segments.push_back(front);
                } else {
                    self.segments.shrink_to_fit();
                }
                return;
            }
        }
    }
}

/// The end of an [`Outbox`], to be written as a `Vec<u8>`.
#[derive(Debug)]
pub struct Tail<'a> {
    segment: &'a mut Vec<u8>,
    before: usize,
    len: &'a mut usize,
}

impl std::ops::Deref for Tail<'_> {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        self.segment
    }
}

impl std::ops::DerefMut for Tail<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        self.segment
    }
}

impl Drop for Tail<'_> {
    fn drop(&mut self) {
        *self.len += self.segment.len().saturating_sub(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_buffer_keeps_little() {
        let mut inbox = Inbox::default();
        inbox.push(&[0; 100_000]);
        inbox.discard(100_000);
        assert!(inbox.bytes.capacity() <= KEEP);
        let mut outbox = Outbox::default();
        outbox.push(&[0; 100_000]);
        outbox.sent(100_000);
        assert!(outbox.segments.iter().map(Vec::capacity).sum::<usize>() <= KEEP);
    }

    #[test]
    fn partial_sends_lose_and_repeat_nothing() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for (byte, size) in [(1_u8, 10), (2, 40_000), (3, 5), (4, 16 * 1024), (5, 1)] {
            outbox.push_owned(vec![byte; size]);
            expected.extend(std::iter::repeat_n(byte, size));
        }
        assert_eq!(outbox.len(), expected.len());
        let mut got = Vec::new();
        while let Some(front) = outbox.front() {
            let n = front.len().min(777);
            got.extend_from_slice(&front[..n]);
            outbox.sent(n);
        }
        assert_eq!(got, expected);
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_inbox_gives_bytes_in_order_whatever_the_pieces() {
        let mut inbox = Inbox::default();
        let mut got = Vec::new();
        for byte in 0..=255_u8 {
            inbox.push(&[byte; 3]);
            got.push(inbox.bytes()[0]);
            inbox.discard(1);
        }
        got.extend_from_slice(inbox.bytes());
        let expected: Vec<u8> = (0..=255_u8).flat_map(|byte| [byte; 3]).collect();
        assert_eq!(got, expected);
    }
}
