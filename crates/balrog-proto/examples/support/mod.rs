//! What the WebSocket examples share, the driver of all of them included.

use std::fs::File;
use std::io::Read;

use balrog_proto::Entropy;
use balrog_proto::websocket::Limits;

mod drive;

pub(crate) use drive::drive;

/// The generator of the operating system.
#[allow(dead_code, reason = "a server draws nothing")]
pub(crate) struct Urandom(pub(crate) File);

impl Entropy for Urandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.read_exact(bytes).expect("/dev/urandom can be read");
    }
}

/// Limits for WebSocket messages of 64 MiB in any number of fragments.
#[allow(dead_code, reason = "not every protocol has frames")]
pub(crate) fn roomy() -> Limits {
    let mut limits = Limits::default();
    (limits.message, limits.frame, limits.unsent) = (64 << 20, 64 << 20, 256 << 20);
    limits.fragments = 1 << 20;
    limits
}
