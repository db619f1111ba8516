/// Choices read from bytes, so that a fuzzer and a property test make the same ones. When the
/// bytes are used up, every choice is the first.
#[derive(Debug, Clone)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A size: mostly small, sometimes at a boundary of something.
    pub fn size(&mut self) -> usize {
        match self.byte() {
            n @ 0..=199 => usize::from(n) / 4,
            200..=219 => 1 + 125,
            220..=234 => 4_096,
            235..=244 => 16 * 1_024 - 1,
            245..=249 => 16 * 1_024,
            _ => 70_000,
        }
    }

    pub fn wire(&mut self) -> super::pair::Wire {
        super::pair::Wire {
            latency: std::time::Duration::from_millis(self.one_of(&[20, 0, 300])),
            piece: self.one_of(&[usize::MAX, 1, 7, 100, 1_460]),
            // Fast enough for every deadline.
            window: self.one_of(&[usize::MAX, 4_096, 65_536]),
        }
    }
}
