use std::collections::VecDeque;
use std::sync::Arc;

/// Payloads from this size on are not copied behind what is already queued.
const OWN_SEGMENT: usize = 16 * 1024;
/// Shared bytes from this size on are not copied: less costs more in bookkeeping than in copying.
const SHARE_FROM: usize = 1024;
/// Room for the first small writes: most answers have their whole head in it.
const FIRST: usize = 256;
/// Storage up to this size stays when everything is sent; more goes back at once.
const KEPT: usize = 1024;
/// Unsent bytes from which on the owner should hold back, and below which it may go on.
const HIGH_WATER: usize = 256 * 1024;
const LOW_WATER: usize = 64 * 1024;

/// Bytes for the peer. Small writes share a segment, so that one system call sends them all.
///
/// Empty, it keeps what the next small message needs, until [`Outbox::shrink`].
#[derive(Debug)]
pub struct Outbox {
    /// Complete segments, sent before `tail`.
    queue: VecDeque<Segment>,
    /// Where small writes go.
    tail: Vec<u8>,
    /// How much of the first segment is sent.
    sent: usize,
    len: usize,
    /// How many bytes were sent since the connection began.
    position: u64,
    high: usize,
    low: usize,
    full: bool,
    shutdown: bool,
}

#[derive(Debug)]
enum Segment {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    /// The driver has these bytes, and sends them itself.
    External(usize),
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::External(n) => *n,
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Owned(bytes) => Some(bytes),
            Self::Shared(bytes) => Some(bytes),
            Self::External(_) => None,
        }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            tail: Vec::new(),
            sent: 0,
            len: 0,
            position: 0,
            high: HIGH_WATER,
            low: LOW_WATER,
            full: false,
            shutdown: false,
        }
    }
}

impl Outbox {
    /// The segment that small writes go to.
    #[inline]
    pub fn tail(&mut self) -> Tail<'_> {
        if self.tail.len() >= OWN_SEGMENT {
            self.close_tail();
        }
        if self.tail.capacity() == 0 {
            self.tail = Vec::with_capacity(FIRST);
        }
        Tail { before: self.tail.len(), outbox: self }
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail().extend_from_slice(bytes);
    }

    /// Appends `bytes`, with no copy if they are many.
    pub fn push_owned(&mut self, bytes: Vec<u8>) {
        if bytes.len() >= OWN_SEGMENT {
            self.push_segment(Segment::Owned(bytes));
        } else {
            self.push(&bytes);
        }
    }

    /// Appends bytes that others send too, with no copy if they are many.
    pub fn push_shared(&mut self, bytes: &Arc<[u8]>) {
        if bytes.len() >= SHARE_FROM {
            self.push_segment(Segment::Shared(Arc::clone(bytes)));
        } else {
            self.push(bytes);
        }
    }

    /// At this place the driver sends `n` bytes of its own, of a file for example.
    pub fn push_external(&mut self, n: usize) {
        if n > 0 {
            self.push_segment(Segment::External(n));
        }
    }

    fn push_segment(&mut self, segment: Segment) {
        self.close_tail();
        self.grown(segment.len());
        self.queue.push_back(segment);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(Segment::Owned(std::mem::take(&mut self.tail)));
        }
    }

    #[inline]
    fn grown(&mut self, n: usize) {
        self.len += n;
        self.full |= self.len >= self.high;
    }

    /// Nothing follows: after the last byte the sending side is shut down.
    pub fn shutdown(&mut self) {
        self.shutdown = true;
    }

    /// Whether nothing may follow any more.
    #[inline]
    pub const fn is_shutdown(&self) -> bool {
        self.shutdown
    }

    /// How many bytes are not sent.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether every byte is sent.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes were sent since the connection began.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Whether so much is unsent that the owner should hold back: true from the high-water
    /// mark (256 KiB) on, until less than the low-water mark (64 KiB) is left.
    #[inline]
    pub const fn is_full(&self) -> bool {
        self.full
    }

    /// Sets the marks of [`Outbox::is_full`], in bytes.
    pub fn set_water(&mut self, low: usize, high: usize) {
        (self.low, self.high) = (low.min(high), high);
        self.full = self.len >= high;
    }

    /// What is to be sent next; nothing if that is external.
    #[inline]
    pub fn front(&self) -> Option<&[u8]> {
        let bytes = match self.queue.front() {
            Some(segment) => segment.bytes()?,
            None => &self.tail,
        };
        Some(&bytes[self.sent..]).filter(|bytes| !bytes.is_empty())
    }

    /// How many bytes the driver is to send by itself before anything else.
    pub fn external(&self) -> Option<usize> {
        match self.queue.front() {
            Some(Segment::External(n)) => Some(n - self.sent),
            _ => None,
        }
    }

    /// The next segments, up to what is external, for a vectored write.
    pub fn segments(&self) -> Segments<'_> {
        Segments { outbox: self, index: 0 }
    }

    /// `n` bytes have been sent.
    pub fn sent(&mut self, n: usize) {
        let mut n = n.min(self.len);
        self.len -= n;
        self.position += n as u64;
        self.full &= self.len >= self.low;
        while let Some(front) = self.queue.front() {
            let left = front.len() - self.sent;
            if n < left {
                self.sent += n;
                return;
            }
            n -= left;
            self.sent = 0;
            self.queue.pop_front();
        }
        self.sent += n;
        if self.len == 0 {
            self.sent = 0;
            self.tail.clear();
            if self.tail.capacity() > KEPT || self.queue.capacity() > 0 {
                self.shrink();
            }
        }
    }

    /// Gives its storage back, if it is empty.
    pub fn shrink(&mut self) {
        if self.len == 0 {
            self.tail = Vec::new();
            self.queue = VecDeque::new();
        }
    }

    /// Heap storage held, shared bytes left out.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        let owned = |segment: &Segment| match segment {
            Segment::Owned(bytes) => bytes.capacity(),
            _ => 0,
        };
        self.queue.capacity() * size_of::<Segment>()
            + self.queue.iter().map(owned).sum::<usize>()
            + self.tail.capacity()
    }
}

/// The segments of an [`Outbox`] that come before what is external.
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    outbox: &'a Outbox,
    index: usize,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let queue = &self.outbox.queue;
        let bytes = match queue.get(self.index) {
            Some(segment) => segment.bytes()?,
            None if self.index == queue.len() => &self.outbox.tail,
            None => return None,
        };
        let from = if self.index == 0 { self.outbox.sent } else { 0 };
        self.index += 1;
        Some(&bytes[from..]).filter(|bytes| !bytes.is_empty())
    }
}

/// The end of an [`Outbox`], to be written as a `Vec<u8>`.
#[derive(Debug)]
pub struct Tail<'a> {
    outbox: &'a mut Outbox,
    before: usize,
}

impl std::ops::Deref for Tail<'_> {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.outbox.tail
    }
}

impl std::ops::DerefMut for Tail<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.outbox.tail
    }
}

impl Drop for Tail<'_> {
    #[inline]
    fn drop(&mut self) {
        let n = self.outbox.tail.len().saturating_sub(self.before);
        self.outbox.grown(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends everything in pieces of at most `step` bytes; external bytes come out as `e`.
    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while !outbox.is_empty() {
            let n = match outbox.external() {
                Some(n) => {
                    assert_eq!(outbox.front(), None);
                    let n = n.min(step);
                    got.extend(std::iter::repeat_n(b'e', n));
                    n
                }
                None => {
                    let front = outbox.front().unwrap();
                    assert_eq!(outbox.segments().next(), Some(front));
                    let n = front.len().min(step);
                    got.extend_from_slice(&front[..n]);
                    n
                }
            };
            outbox.sent(n);
        }
        got
    }

    #[test]
    fn partial_sends_lose_and_repeat_nothing() {
        for step in [1, 777, usize::MAX] {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (byte, size) in [(1_u8, 10), (2, 40_000), (3, 5), (4, 16 * 1024), (5, 1)] {
                outbox.push_owned(vec![byte; size]);
                expected.extend(std::iter::repeat_n(byte, size));
                outbox.push_shared(&Arc::from(vec![b's'; size]));
                expected.extend(std::iter::repeat_n(b's', size));
                outbox.push_external(size);
                expected.extend(std::iter::repeat_n(b'e', size));
            }
            outbox.push(b"end");
            expected.extend_from_slice(b"end");
            assert_eq!(outbox.len(), expected.len());
            assert!(drain(&mut outbox, step) == expected, "step {step}");
            assert_eq!(outbox.position(), expected.len() as u64);
            assert_eq!(outbox.capacity(), 0);
            assert_eq!(outbox.front(), None);
        }
    }

    #[test]
    fn small_writes_share_a_segment_and_large_ones_are_not_copied() {
        let mut outbox = Outbox::default();
        outbox.push(b"HTTP/1.1 ");
        outbox.push_owned(b"200 OK\r\n\r\n".to_vec());
        let large = vec![1; OWN_SEGMENT];
        let at = large.as_ptr();
        outbox.push_owned(large);
        let shared: Arc<[u8]> = Arc::from(vec![2; SHARE_FROM]);
        outbox.push_shared(&shared);
        outbox.push(b"x");
        let segments: Vec<&[u8]> = outbox.segments().collect();
        assert_eq!(segments.len(), 4);
        assert_eq!(segments[0], b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(segments[1].as_ptr(), at);
        assert_eq!(segments[2].as_ptr(), shared.as_ptr());
        assert_eq!(segments[3], b"x");
        // The segments end where the driver has to send something of its own.
        outbox.push_external(3);
        outbox.push(b"y");
        assert_eq!(outbox.segments().count(), 4);
    }

    #[test]
    fn water_marks_have_a_gap() {
        let mut outbox = Outbox::default();
        outbox.set_water(10, 20);
        outbox.push(&[0; 19]);
        assert!(!outbox.is_full());
        outbox.push(&[0]);
        assert!(outbox.is_full());
        outbox.sent(10);
        assert!(outbox.is_full());
        outbox.sent(1);
        assert!(!outbox.is_full());
        outbox.push(&[0; 5]);
        assert!(!outbox.is_full());
    }

    #[test]
    fn a_truncated_tail_is_not_counted() {
        let mut outbox = Outbox::default();
        outbox.push(b"ab");
        {
            let mut tail = outbox.tail();
            tail.extend_from_slice(b"cd");
            tail.truncate(2);
        }
        assert_eq!(outbox.len(), 2);
    }
}
