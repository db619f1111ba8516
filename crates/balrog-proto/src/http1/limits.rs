use std::time::Duration;

/// What a peer may take of us. Sizes are in bytes; a time of `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Request line or status line (414; 8,192).
    pub start_line: usize,
    /// One header line (431; 8,192).
    pub header_line: usize,
    /// The whole head (431; 32 KiB).
    pub head: usize,
    /// Header fields (431; 100).
    pub fields: usize,
    /// All chunk extensions of a body together (400; 4 KiB).
    pub chunk_extensions: usize,
    /// The trailer section (431; 8 KiB).
    pub trailers: usize,
    /// Trailer fields (431; 32).
    pub trailer_fields: usize,
    /// What is read of a request body after the response was finished without it (256 KiB).
    /// More, and the connection closes instead.
    pub drain: u64,
    /// From the first byte of a head to its last (10 s).
    pub head_time: Option<Duration>,
    /// From one request's end, or the connection, to the next one's first byte (65 s).
    pub idle_time: Option<Duration>,
    /// A body that stands still (30 s).
    pub body_idle_time: Option<Duration>,
    /// Bytes a second that a body must come with, after 10 s of waiting for it (500).
    pub body_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start_line: 8_192,
            header_line: 8_192,
            head: 32 * 1024,
            fields: 100,
            chunk_extensions: 4 * 1024,
            trailers: 8 * 1024,
            trailer_fields: 32,
            drain: 256 * 1024,
            head_time: Some(Duration::from_secs(10)),
            idle_time: Some(Duration::from_secs(65)),
            body_idle_time: Some(Duration::from_secs(30)),
            body_rate: 500,
        }
    }
}
