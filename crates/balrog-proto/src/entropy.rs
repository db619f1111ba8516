use std::fmt;

/// Where a machine gets its randomness from: mask keys, nonces. The crate draws none itself.
///
/// A function that fills a buffer is one. What it gives has to be unpredictable to others
/// ("derived from a strong source of entropy", RFC 6455 section 5.3); the generator of the
/// operating system is.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random ones.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8]) + Send + Sync> Entropy for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}

impl fmt::Debug for dyn Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}
