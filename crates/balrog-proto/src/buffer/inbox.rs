/// The most that is made ready for one read, however much the peer declared.
const AHEAD: usize = 64 * 1024;
/// Room for the first bytes: a peer that sends byte after byte makes it grow seldom.
const FIRST: usize = 256;
/// Storage up to this size stays while messages come and go; more goes back as soon as it is empty.
const KEPT: usize = 1024;

/// Bytes from the peer that the machine has not used up, in one piece.
///
/// ```text
///   bytes: | used up | not used up yet | space for the next read |
///          0       start              end                bytes.len()
/// ```
///
/// Empty, it keeps what the next small message needs, until [`Inbox::shrink`].
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes were used up since the connection began.
    position: u64,
    eof: bool,
    /// The byte that came last, if it came alone; NUL if not, or if the peer sends nothing more.
    alone: u8,
    /// How many bytes were ever moved to make room, for the test that this stays linear.
    #[cfg(test)]
    moved: usize,
}

impl Inbox {
    /// Appends what was read.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        // Byte after byte is how a slow peer sends.
        if let [byte] = bytes
            && let Some(space) = self.bytes.get_mut(self.end)
        {
            *space = *byte;
            self.end += 1;
            self.alone = *byte;
        } else {
            self.append(bytes);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.alone = 0;
        self.compact();
        let end = self.end + bytes.len();
        match self.bytes.get_mut(self.end..end) {
            Some(space) => space.copy_from_slice(bytes),
            None => {
                self.bytes.truncate(self.end);
                self.reserve(end);
                self.bytes.extend_from_slice(bytes);
                // Little storage is made ready whole.
                if self.bytes.capacity() <= KEPT {
                    self.bytes.resize(self.bytes.capacity(), 0);
                }
            }
        }
        self.end = end;
    }

    /// Room for `end` bytes in all. New storage takes over what is not used up, and no more:
    /// the allocator would copy everything.
    fn reserve(&mut self, end: usize) {
        if self.bytes.capacity() < end {
            #[cfg(test)]
            {
                self.moved += self.end;
            }
            let mut grown = Vec::with_capacity(end.max(2 * self.end).max(FIRST));
            grown.extend_from_slice(&self.bytes[..self.end]);
            self.bytes = grown;
        }
    }

    /// Room to read into, `hint` bytes or 64 KiB if that is less; at least one byte. What is
    /// then read is told to [`Inbox::received`].
    pub fn space(&mut self, hint: usize) -> &mut [u8] {
        self.compact();
        let want = self.end + hint.clamp(1, AHEAD);
        if self.bytes.len() < want {
            self.reserve(want);
            self.bytes.resize(want, 0);
        }
        &mut self.bytes[self.end..want]
    }

    /// So much [`Inbox::space`] gives at least with nothing allocated, cleared or moved for it.
    pub const fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// `n` bytes were read into [`Inbox::space`].
    pub fn received(&mut self, n: usize) {
        self.end = self.bytes.len().min(self.end + n);
        self.alone = 0;
        self.emptied();
    }

    /// Gives its storage back, if it is empty.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            self.bytes = Vec::new();
        }
    }

    /// What has not been used up.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to unmask in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Uses up `n` bytes.
    #[inline]
    pub fn discard(&mut self, n: usize) {
        let n = n.min(self.end - self.start);
        self.start += n;
        self.position += n as u64;
        self.emptied();
    }

    /// Whether everything is used up.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The byte that came last, if it came alone; NUL if not, or if it is the end.
    #[inline]
    pub(crate) const fn alone(&self) -> u8 {
        self.alone
    }

    /// How many bytes are not used up.
    #[inline]
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// How many bytes were used up since the connection began.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The peer sends nothing more.
    pub fn set_eof(&mut self) {
        (self.eof, self.alone) = (true, 0);
    }

    /// Whether the peer sends nothing more.
    #[inline]
    pub const fn is_eof(&self) -> bool {
        self.eof
    }

    /// Bytes went from the peer to the caller without passing through here.
    pub(crate) fn passed(&mut self, n: u64) {
        self.position += n;
    }

    #[inline]
    fn emptied(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        }
    }

    /// Moves what is left to the front, once at least as much is used up: every byte is moved
    /// less than once on average.
    fn compact(&mut self) {
        if self.start > 0 && self.start >= self.end - self.start {
            #[cfg(test)]
            {
                self.moved += self.end - self.start;
            }
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Heap storage held.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_inbox_keeps_little_and_nothing_once_shrunk() {
        let mut inbox = Inbox::default();
        for size in [100_000, KEPT, 1] {
            inbox.push(&vec![0; size]);
            inbox.shrink();
            assert_eq!(inbox.len(), size, "what is not used up stays");
            inbox.discard(size);
            assert!(inbox.capacity() <= KEPT);
        }
        inbox.shrink();
        assert_eq!(inbox.capacity(), 0);
        inbox.space(100_000);
        inbox.received(0);
        assert_eq!(inbox.capacity(), 0);
        assert_eq!(inbox.position(), 100_001 + KEPT as u64);
    }

    #[test]
    fn bytes_come_in_order_whatever_the_pieces_and_the_way_in() {
        let mut inbox = Inbox::default();
        let (mut got, mut expected) = (Vec::new(), Vec::new());
        for byte in 0..=255_u8 {
            let piece = [byte; 3];
            expected.extend_from_slice(&piece);
            if byte % 2 == 0 {
                inbox.push(&piece);
            } else {
                let space = inbox.space(3 + usize::from(byte));
                space[..3].copy_from_slice(&piece);
                inbox.received(3);
            }
            got.push(inbox.bytes()[0]);
            inbox.discard(1);
        }
        got.extend_from_slice(inbox.bytes());
        assert_eq!(got, expected);
    }

    #[test]
    fn space_is_bounded_whatever_was_declared() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.space(usize::MAX).len(), AHEAD);
        assert_eq!(inbox.space(0).len(), 1);
    }

    #[test]
    fn room_lasts_until_it_is_used_or_given_back() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.room(), 0);
        assert_eq!(inbox.space(200).len(), 200);
        inbox.received(50);
        assert_eq!(inbox.room(), 150);
        inbox.discard(50);
        assert!(inbox.room() >= 150);
        inbox.shrink();
        assert_eq!(inbox.room(), 0);
    }

    #[test]
    fn draining_the_front_is_linear() {
        // A backlog that never runs empty: what would move at each discard is all of it.
        let mut inbox = Inbox::default();
        inbox.push(&[7; 50_000]);
        let mut pushed = 50_000;
        for _ in 0..50_000 {
            inbox.push(&[7; 4]);
            inbox.discard(4);
            pushed += 4;
        }
        assert!(inbox.moved <= pushed, "{} bytes moved for {pushed} received", inbox.moved);
    }
}
