use std::time::Duration;

/// What a peer may take of us. Sizes are in bytes; a time of `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// A message, all its fragments together and decompressed (1009; 1 MiB).
    pub message: usize,
    /// The payload of one frame, as it comes (1009; 1 MiB).
    pub frame: usize,
    /// Fragments of one message (1009; 4,096).
    pub fragments: usize,
    /// How many times longer than what came a message may become by decompression, once it has
    /// more than 64 KiB (1009; 1,000).
    pub ratio: usize,
    /// What may wait to be sent; a command that would go beyond is refused (16 MiB). One message
    /// may always wait, however long it is.
    pub unsent: usize,
    /// Pings that are answered in a second; of more, only the latest (64).
    pub pongs: u16,
    /// How often a silent peer is pinged; also how long the memory of compression is kept for a
    /// silent peer (25 s).
    pub ping_interval: Option<Duration>,
    /// How long a ping may stay unanswered (10 s), from when what is to be sent before it stops
    /// moving, or has gone.
    pub pong_time: Duration,
    /// How long the peer has to answer a close (5 s).
    pub close_time: Duration,
}

impl Limits {
    /// How long a peer may be silent until it is taken for lost, or take nothing of what it is sent;
    /// `None` if it is not pinged.
    pub fn patience(&self) -> Option<Duration> {
        Some(self.ping_interval? + self.pong_time)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 1 << 20,
            frame: 1 << 20,
            fragments: 4_096,
            ratio: 1_000,
            unsent: 16 << 20,
            pongs: 64,
            ping_interval: Some(Duration::from_secs(25)),
            pong_time: Duration::from_secs(10),
            close_time: Duration::from_secs(5),
        }
    }
}
