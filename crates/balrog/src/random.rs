//! Randomness for the machines, which have none of their own.

use balrog_proto::Entropy;

/// The generator of the operating system, asked for many bytes at a time.
pub(crate) struct Random {
    bytes: [u8; 256],
    used: usize,
}

impl Default for Random {
    fn default() -> Self {
        Self { bytes: [0; 256], used: 256 }
    }
}

impl Entropy for Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used == self.bytes.len() {
                self.refill();
            }
            *byte = self.bytes[self.used];
            self.used += 1;
        }
    }
}

impl Random {
    fn refill(&mut self) {
        let mut filled = 0;
        while filled < self.bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            match rustix::rand::getrandom(&mut self.bytes[filled..], flags) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                // A key that others could guess is worse than none.
                Err(error) => panic!("the system gives no random bytes: {error}"),
            }
        }
        self.used = 0;
    }
}
