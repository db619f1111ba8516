use std::time::Duration;

/// What a peer may take of us. Sizes are in bytes; a time of `None` is unlimited.
///
/// Each limit names the status that answers a request over it, and its default. Two of our
/// sources disagreed about some defaults; the lower is taken wherever nothing in use needs
/// more: chunk extensions (4, not 16 KiB: nobody sends any), trailers (8, not 16 KiB), idle time
/// (65, not 75 s: just above the 60 s of common proxies). A chunk size has at most 16 digits
/// (400), and one empty line may come before a request (400 for more).
///
/// Pipelined requests are not counted: nothing is parsed while a response is under way, and
/// reading stops (see `Link::interest`), so that what waits is at most what one read brought.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Request line or status line, without its CRLF (414; 8,192).
    pub start_line: usize,
    /// One header line, without its CRLF (431; 8,192).
    pub header_line: usize,
    /// The whole head, all line ends included (431; 32 KiB; at most 65,000).
    pub head: usize,
    /// Header fields (431; 100).
    pub fields: usize,
    /// All chunk extensions of a body together, from each `;` to the CR (400; 4 KiB).
    pub chunk_extensions: usize,
    /// The trailer section, all line ends included (431; 8 KiB; at most 65,000).
    pub trailers: usize,
    /// Trailer fields (431; 32).
    pub trailer_fields: usize,
    /// Informational responses that one exchange may bring to a client (16).
    pub informational: u32,
    /// What is read of a request body after the response was finished without it (256 KiB).
    /// More, and the connection closes instead.
    pub drain: u64,
    /// How long that may take (5 s).
    pub drain_time: Option<Duration>,
    /// From the connection to the first byte of its first request (30 s).
    pub first_time: Option<Duration>,
    /// From the first byte of a head to its last (408; 10 s).
    pub head_time: Option<Duration>,
    /// From one request's end to the next one's first byte (65 s).
    pub idle_time: Option<Duration>,
    /// A body that stands still (408; 30 s).
    pub body_idle_time: Option<Duration>,
    /// Bytes a second that a body must come with, after 10 s of waiting for it (408; 500).
    pub body_rate: u32,
    /// How long a client waits for `100 Continue` before it sends the body anyway (1 s).
    pub continue_time: Duration,
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
            informational: 16,
            drain: 256 * 1024,
            drain_time: Some(Duration::from_secs(5)),
            first_time: Some(Duration::from_secs(30)),
            head_time: Some(Duration::from_secs(10)),
            idle_time: Some(Duration::from_secs(65)),
            body_idle_time: Some(Duration::from_secs(30)),
            body_rate: 500,
            continue_time: Duration::from_secs(1),
        }
    }
}
