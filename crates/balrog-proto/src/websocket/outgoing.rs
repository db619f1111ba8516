use crate::websocket::deflate::Compressor;
use crate::websocket::frame::{self, CLOSE, CONTINUATION, FIN, RSV1};
use crate::websocket::{Kind, Prepared};
use crate::{Entropy, Error, Misuse, Outbox};

/// What is sent: frames, masked if we are the client, and compressed if that was agreed on.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) state: State,
    /// Where a client's mask keys come from.
    entropy: Option<Box<dyn Entropy>>,
    pub(crate) deflate: Option<Box<Compressor>>,
    /// The message whose fragments are being sent.
    fragmented: Option<Fragmented>,
}

/// How far the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// We sent Close and wait for the peer's.
    Closing,
    /// Both did, and we are the client: the server closes the connection.
    Draining,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragmented {
    kind: Kind,
    compressed: bool,
}

impl Outgoing {
    pub(crate) const fn new(entropy: Option<Box<dyn Entropy>>) -> Self {
        Self { state: State::Open, entropy, deflate: None, fragmented: None }
    }

    pub(crate) const fn is_client(&self) -> bool {
        self.entropy.is_some()
    }

    /// "The masking key needs to be unpredictable; thus, the masking key MUST be derived from a
    /// strong source of entropy" (RFC 6455 section 5.3): a fresh one for each frame.
    #[inline]
    fn mask(&mut self) -> Option<[u8; 4]> {
        self.entropy.as_mut().map(|entropy| {
            let mut mask = [0; 4];
            entropy.fill(&mut mask);
            mask
        })
    }

    #[inline]
    fn write(&mut self, first: u8, payload: &[u8], outbox: &mut Outbox) {
        let mask = self.mask();
        frame::write(&mut outbox.tail(), first, payload, mask);
    }

    /// A control frame: a ping, a pong, a close.
    pub(crate) fn control(&mut self, opcode: u8, payload: &[u8], outbox: &mut Outbox) {
        self.write(FIN | opcode, payload, outbox);
    }

    /// A whole message.
    #[inline]
    pub(crate) fn message(&mut self, kind: Kind, payload: &[u8], outbox: &mut Outbox) -> Result<(), Misuse> {
        self.may_begin()?;
        let first = FIN | kind.opcode();
        match self.deflate.take() {
            Some(mut deflate) if payload.len() >= deflate.min_size() => {
                let compressed = deflate.compress(payload, true);
                let written = compressed.map(|payload| self.write(first | RSV1, payload, outbox));
                deflate.next();
                self.deflate = Some(deflate);
                written?;
            }
            deflate => {
                self.deflate = deflate;
                self.write(first, payload, outbox);
            }
        }
        Ok(())
    }

    /// A fragment of a message; `fin`: the last.
    pub(crate) fn fragment(
        &mut self,
        kind: Kind,
        payload: &[u8],
        fin: bool,
        outbox: &mut Outbox,
    ) -> Result<(), Misuse> {
        let (message, mut first) = match self.fragmented {
            Some(message) if message.kind != kind => {
                return Err(Misuse("the message that was begun is of the other kind"));
            }
            Some(message) => (message, CONTINUATION),
            None => {
                let compressed = self.deflate.is_some();
                (Fragmented { kind, compressed }, kind.opcode() | if compressed { RSV1 } else { 0 })
            }
        };
        if fin {
            first |= FIN;
        }
        match self.deflate.take().filter(|_| message.compressed) {
            Some(mut deflate) => {
                let compressed = deflate.compress(payload, fin);
                let written = compressed.map(|payload| self.write(first, payload, outbox));
                if fin {
                    deflate.next();
                }
                self.deflate = Some(deflate);
                written?;
            }
            None => self.write(first, payload, outbox),
        }
        self.fragmented = (!fin).then_some(message);
        Ok(())
    }

    /// A message that many are sent.
    pub(crate) fn prepared(&mut self, message: &Prepared, outbox: &mut Outbox) -> Result<(), Misuse> {
        self.may_begin()?;
        if self.is_client() {
            return self.message(message.kind(), message.payload(), outbox);
        }
        let bits = self.deflate.as_ref().map_or(0, |deflate| deflate.bits());
        match message.compressed_for(bits) {
            Some(frame) => {
                // It refers to nothing before it; and as it is not in our compressor's window,
                // nothing behind it may refer to what that has.
                if let Some(deflate) = &mut self.deflate {
                    deflate.restart();
                }
                outbox.push_shared(frame);
            }
            None => outbox.push_shared(message.plain()),
        }
        Ok(())
    }

    /// Begins the closing handshake.
    pub(crate) fn close(&mut self, code: u16, reason: &str, outbox: &mut Outbox) {
        let mut payload = Vec::with_capacity(2 + reason.len());
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
        self.control(CLOSE, &payload, outbox);
        self.state = State::Closing;
    }

    /// The peer closed. "If an endpoint receives a Close frame and did not previously send a
    /// Close frame, the endpoint MUST send a Close frame in response. (When sending a Close
    /// frame in response, the endpoint typically echos the status code it received.)"
    pub(crate) fn closed(&mut self, payload: &[u8], outbox: &mut Outbox) {
        if self.state == State::Open {
            self.control(CLOSE, &payload[..payload.len().min(2)], outbox);
        }
        // "The underlying TCP connection, in most normal cases, SHOULD be closed first by the
        // server" (RFC 6455 section 7.1.1).
        if self.is_client() {
            self.state = State::Draining;
        } else {
            self.end(outbox);
        }
    }

    /// Fails the connection (RFC 6455 section 7.1.7).
    #[cold]
    pub(crate) fn fail(&mut self, error: Error, outbox: &mut Outbox) {
        if let (State::Open, Some(code)) = (self.state, error.code()) {
            self.control(CLOSE, &code.to_be_bytes(), outbox);
        }
        self.end(outbox);
    }

    pub(crate) fn end(&mut self, outbox: &mut Outbox) {
        self.state = State::Closed;
        self.forget();
        outbox.shutdown();
    }

    /// Gives the memory of compression back, unless a message is being sent.
    pub(crate) fn forget(&mut self) {
        if let Some(deflate) = self.deflate.as_mut().filter(|_| self.fragmented.is_none()) {
            deflate.forget();
        }
    }

    fn may_begin(&self) -> Result<(), Misuse> {
        if self.fragmented.is_some() {
            return Err(Misuse("the message that was begun is not complete"));
        }
        Ok(())
    }
}
