use crate::Error;
use crate::websocket::deflate::Decompressor;
use crate::websocket::frame::{CONTINUATION, Header, TEXT};
use crate::websocket::utf8::Validator;
use crate::websocket::{Kind, Limits};

/// The message that is coming (RFC 6455 section 5.4): which frames may go on with it, and what
/// of it cannot stay in the inbox.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    kind: Option<Kind>,
    compressed: bool,
    fragments: usize,
    /// Payload of its frames so far, as it came.
    size: usize,
    /// Checks text that is not complete.
    validator: Validator,
    /// What has come, if it is not compressed: of the whole message, or of one part of it.
    text: String,
    binary: Vec<u8>,
    /// Decompresses, if that was agreed on.
    pub(crate) inflate: Option<Box<Decompressor>>,
}

/// Where a message, or a part of one, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the beginning of the inbox, a part only.
    Inbox,
    Text,
    Binary,
    Decompressed,
}

impl Incoming {
    /// Whether this data frame may come now, and is not too long.
    #[inline]
    pub(crate) fn begin(&mut self, header: &Header, limits: &Limits) -> Result<Kind, Error> {
        const RULE: &str = "RFC 6455 section 5.4";
        let kind = match (header.opcode, self.kind) {
            (CONTINUATION, None) => return Err(bad("a continuation of nothing", RULE)),
            // RFC 7692 section 6.1: "An endpoint MUST NOT set the "Per-Message Compressed" bit
            // of control frames and non-first fragments of a data message."
            (CONTINUATION, Some(_)) if header.compressed => {
                return Err(bad("a continuation is marked as compressed", "RFC 7692 section 6.1"));
            }
            (CONTINUATION, Some(kind)) => kind,
            (_, Some(_)) => return Err(bad("a message inside another", RULE)),
            (opcode, None) => {
                let kind = if opcode == TEXT { Kind::Text } else { Kind::Binary };
                self.kind = Some(kind);
                self.compressed = header.compressed;
                self.fragments = 0;
                self.size = 0;
                kind
            }
        };
        self.fragments += 1;
        if self.fragments > limits.fragments {
            return Err(Error::limit(1009, "fragments", limits.fragments as u64));
        }
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > limits.frame {
            return Err(Error::limit(1009, "frame", limits.frame as u64));
        }
        self.size = self.size.saturating_add(length);
        if !self.compressed && self.size > limits.message {
            return Err(Error::limit(1009, "message", limits.message as u64));
        }
        Ok(kind)
    }

    /// The message is complete.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.kind = None;
    }

    /// A piece of the payload, to be gathered. `fin`: the last one; then, where the message is.
    pub(crate) fn append(
        &mut self,
        piece: &[u8],
        fin: bool,
        limits: &Limits,
    ) -> Result<Option<Place>, Error> {
        let kind = self.kind.unwrap_or(Kind::Binary);
        if let Some(inflate) = self.inflate.as_mut().filter(|_| self.compressed) {
            let before = inflate.output().len();
            let mut pushed = inflate.push(piece, limits);
            if fin && pushed.is_ok() {
                pushed = inflate.finish();
            }
            // A complete text is checked when it becomes an event. Of any other, what is wrong
            // first counts, in whatever pieces it came.
            if kind == Kind::Text && (!fin || pushed.is_err()) {
                let fresh = &inflate.output()[before..];
                self.validator.feed(fresh).ok_or_else(not_text)?;
            }
            pushed?;
            if fin {
                self.validator = Validator::default();
            }
            return Ok(self.complete(Place::Decompressed, fin));
        }
        if kind == Kind::Text {
            reserve(self.text.capacity(), self.text.len(), piece.len(), limits)
                .inspect(|more| self.text.reserve_exact(*more));
            self.add_text(piece, fin)?;
            return Ok(self.complete(Place::Text, fin));
        }
        reserve(self.binary.capacity(), self.binary.len(), piece.len(), limits)
            .inspect(|more| self.binary.reserve_exact(*more));
        self.binary.extend_from_slice(piece);
        Ok(self.complete(Place::Binary, fin))
    }

    /// A piece of the payload, to be given on at once. `fin`: the last one of the message.
    pub(crate) fn part(&mut self, piece: &[u8], fin: bool, limits: &Limits) -> Result<Part, Error> {
        let kind = self.kind.unwrap_or(Kind::Binary);
        let mut rest = piece;
        let mut drained = true;
        let mut place = Place::Inbox;
        if let Some(inflate) = self.inflate.as_mut().filter(|_| self.compressed) {
            let mut pushed = inflate.push_part(&mut rest, limits);
            if fin && pushed == Ok(true) {
                pushed = inflate.finish().map(|()| true);
            }
            if kind == Kind::Text && pushed.is_err() {
                self.validator.feed(inflate.output()).ok_or_else(not_text)?;
            }
            drained = pushed?;
            place = Place::Decompressed;
        }
        let fin = fin && drained;
        let used = if place == Place::Inbox { piece.len() } else { piece.len() - rest.len() };
        let bytes = match (&self.inflate, place) {
            (Some(inflate), Place::Decompressed) => inflate.output(),
            _ => piece,
        };
        let mut empty = bytes.is_empty();
        if kind == Kind::Text {
            let (begun, whole) = self.validator.feed(bytes).ok_or_else(not_text)?;
            self.text.extend(begun);
            self.text.push_str(whole);
            self.check_end(fin)?;
            empty = self.text.is_empty();
            if place == Place::Decompressed && empty {
                // The beginning of a character, which the validator has.
                self.give_back();
            }
            place = Place::Text;
        }
        let found = if empty && !fin { None } else { Some(place) };
        self.complete(place, fin);
        Ok(Part { used, drained, fin, kind, found })
    }

    /// What an event lent was used.
    pub(crate) fn give_back(&mut self) {
        self.text = String::new();
        self.binary = Vec::new();
        if let Some(inflate) = self.inflate.as_mut().filter(|_| self.compressed) {
            if self.kind.is_none() { inflate.next() } else { inflate.take() }
        }
    }

    pub(crate) fn bytes(&self, place: Place) -> &[u8] {
        match place {
            Place::Inbox => &[],
            Place::Text => self.text.as_bytes(),
            Place::Binary => &self.binary,
            Place::Decompressed => self.inflate.as_ref().map_or(&[], |inflate| inflate.output()),
        }
    }

    pub(crate) fn text(&self, place: Place) -> Result<&str, Error> {
        match place {
            Place::Text => Ok(&self.text),
            place => simdutf8::basic::from_utf8(self.bytes(place)).map_err(|_| not_text()),
        }
    }

    /// Gives the memory of decompression back, unless a message is coming.
    pub(crate) fn forget(&mut self) {
        if let Some(inflate) = self.inflate.as_mut().filter(|_| self.kind.is_none()) {
            inflate.forget();
        }
    }

    /// Heap storage held, but for that of zlib.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        self.text.capacity()
            + self.binary.capacity()
            + self.inflate.as_ref().map_or(0, |inflate| inflate.heap())
    }

    /// What kind of message has begun, if one has.
    pub(crate) const fn kind(&self) -> Option<Kind> {
        self.kind
    }

    fn add_text(&mut self, piece: &[u8], fin: bool) -> Result<(), Error> {
        let (begun, whole) = self.validator.feed(piece).ok_or_else(not_text)?;
        self.text.extend(begun);
        self.text.push_str(whole);
        self.check_end(fin)
    }

    fn check_end(&self, fin: bool) -> Result<(), Error> {
        if fin && !self.validator.is_complete() { Err(not_text()) } else { Ok(()) }
    }

    fn complete(&mut self, place: Place, fin: bool) -> Option<Place> {
        if fin {
            self.kind = None;
        }
        fin.then_some(place)
    }
}

/// What came of a piece of a streamed message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) used: usize,
    /// Whether the piece has no more to give.
    pub(crate) drained: bool,
    pub(crate) fin: bool,
    pub(crate) kind: Kind,
    pub(crate) found: Option<Place>,
}

/// How much to add to a buffer: twice as much each time, but never more than a message may have.
fn reserve(capacity: usize, len: usize, more: usize, limits: &Limits) -> Option<usize> {
    let needed = len + more;
    (needed > capacity).then(|| needed.max((2 * capacity).min(limits.message)) - len)
}

#[cold]
pub(crate) fn not_text() -> Error {
    // "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is
    // not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_."
    Error::violation(1007, "a text message is not UTF-8", "RFC 6455 section 8.1")
}

#[cold]
fn bad(reason: &'static str, rule: &'static str) -> Error {
    Error::violation(1002, reason, rule)
}
