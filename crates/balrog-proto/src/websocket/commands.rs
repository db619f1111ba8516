use crate::websocket::frame::{MAX_CONTROL, PING, is_close_code};
use crate::websocket::outgoing::{Outgoing, State};
use crate::websocket::{Kind, Peer, Prepared};
use crate::{Link, Misuse, Outbox};

impl Link<Peer> {
    /// Sends a text message.
    ///
    /// # Errors
    ///
    /// `Misuse` once the WebSocket is closed or closing, while a fragmented message is being
    /// sent, or with more waiting to be sent than [`Limits::unsent`](crate::websocket::Limits).
    pub fn send_text(&mut self, text: &str) -> Result<(), Misuse> {
        self.send(text.len(), |outgoing, outbox| outgoing.message(Kind::Text, text.as_bytes(), outbox))
    }

    /// Sends a binary message.
    ///
    /// # Errors
    ///
    /// As [`Link::send_text`].
    pub fn send_binary(&mut self, data: &[u8]) -> Result<(), Misuse> {
        self.send(data.len(), |outgoing, outbox| outgoing.message(Kind::Binary, data, outbox))
    }

    /// Sends a fragment of a message, the last of it if `fin`. `data` may end in the middle of a
    /// character of a text message, but the text has to be UTF-8 as a whole.
    ///
    /// # Errors
    ///
    /// As [`Link::send_text`]; `Misuse`, too, if the message that was begun is of another kind.
    pub fn send_fragment(&mut self, kind: Kind, data: &[u8], fin: bool) -> Result<(), Misuse> {
        self.send(data.len(), |outgoing, outbox| outgoing.fragment(kind, data, fin, outbox))
    }

    /// Sends a message that was encoded before, without a copy if it is large and we are the
    /// server.
    ///
    /// # Errors
    ///
    /// As [`Link::send_text`].
    pub fn send_prepared(&mut self, message: &Prepared) -> Result<(), Misuse> {
        self.send(message.payload().len(), |outgoing, outbox| outgoing.prepared(message, outbox))
    }

    /// Sends a ping with at most 125 bytes.
    ///
    /// # Errors
    ///
    /// `Misuse` for more, or as [`Link::send_text`].
    pub fn ping(&mut self, data: &[u8]) -> Result<(), Misuse> {
        if data.len() > MAX_CONTROL {
            return Err(Misuse("a ping carries at most 125 bytes"));
        }
        self.send(data.len(), |outgoing, outbox| {
            outgoing.control(PING, data, outbox);
            Ok(())
        })
    }

    /// Begins to close; the peer's answer ends it. A second call does nothing.
    ///
    /// # Errors
    ///
    /// `Misuse` for a code that must not be sent, or a reason of over 123 bytes.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), Misuse> {
        if !is_close_code(code) {
            return Err(Misuse("this close code must not be sent"));
        }
        if reason.len() > MAX_CONTROL - 2 {
            return Err(Misuse("a close reason has at most 123 bytes"));
        }
        if self.is_open() {
            self.machine.outgoing.close(code, reason, &mut self.outbox);
        }
        Ok(())
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.machine.outgoing.state == State::Open
    }

    /// Gives memory back that the next message would only need again.
    pub fn release(&mut self) {
        self.machine.release();
    }

    fn send(
        &mut self,
        size: usize,
        command: impl FnOnce(&mut Outgoing, &mut Outbox) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        if !self.is_open() {
            return Err(Misuse("the WebSocket is closed or closing"));
        }
        let unsent = self.outbox.len();
        if unsent > 0 && unsent.saturating_add(size) > self.machine.limits.unsent {
            return Err(Misuse("too much waits to be sent"));
        }
        command(&mut self.machine.outgoing, &mut self.outbox)?;
        self.machine.congested |= self.outbox.is_full();
        Ok(())
    }
}
