use std::sync::Arc;

use crate::websocket::deflate::Compressor;
use crate::websocket::frame::{self, FIN, RSV1};
use crate::websocket::{Deflate, Kind};

/// A message that is encoded, and compressed, once and sent to many
/// ([`Link::send_prepared`](crate::Link::send_prepared)). Cheap to clone; a large one is not
/// copied for each peer.
#[derive(Debug, Clone)]
pub struct Prepared {
    kind: Kind,
    /// The whole frame, and how much of it is header.
    plain: Arc<[u8]>,
    header: usize,
    /// The window that it needs, and the frame.
    compressed: Option<(u8, Arc<[u8]>)>,
}

impl Prepared {
    /// A text message.
    pub fn text(text: &str) -> Self {
        Self::new(Kind::Text, text.as_bytes())
    }

    /// A binary message.
    pub fn binary(data: &[u8]) -> Self {
        Self::new(Kind::Binary, data)
    }

    /// Compresses it too, for peers whose agreed window is at least
    /// [`Deflate::server_max_window_bits`]; others are sent the plain frame. Does nothing to a
    /// message that is shorter than [`Deflate::min_size`].
    #[must_use]
    pub fn compressed(mut self, settings: &Deflate) -> Self {
        if self.payload().len() < settings.min_size {
            return self;
        }
        let bits = settings.server_max_window_bits.clamp(8, 15);
        let mut deflate = Compressor::new(settings, bits, false);
        if let Ok(payload) = deflate.compress(self.payload(), true) {
            let frame = encode(FIN | RSV1 | self.kind.opcode(), payload);
            self.compressed = Some((bits, frame.into()));
        }
        self
    }

    fn new(kind: Kind, payload: &[u8]) -> Self {
        let plain = encode(FIN | kind.opcode(), payload);
        Self { kind, header: plain.len() - payload.len(), plain: plain.into(), compressed: None }
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.plain[self.header..]
    }

    pub(crate) const fn plain(&self) -> &Arc<[u8]> {
        &self.plain
    }

    /// The compressed frame, if a window of so many bits is enough for it.
    pub(crate) fn compressed_for(&self, window_bits: u8) -> Option<&Arc<[u8]>> {
        self.compressed.as_ref().filter(|(bits, _)| *bits <= window_bits).map(|(_, frame)| frame)
    }
}

fn encode(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::write(&mut frame, first, payload, None);
    frame
}
