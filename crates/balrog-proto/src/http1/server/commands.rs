//! What the owner of a server's connection can do.

use crate::http1::encode::{
    reason, write_chunk, write_chunk_size, write_field, write_length, write_status, write_trailers,
};
use crate::http1::server::{BodyLength, Response, Server, State};
use crate::{Link, Misuse, Outbox};

impl Link<Server> {
    /// Sends an informational response: 100 when the client waits for it, 103 at any time
    /// before the final one, and several of them. HTTP/1.0 clients get none: "A server MUST
    /// NOT send a 1xx response to an HTTP/1.0 client."
    ///
    /// # Errors
    ///
    /// `Misuse` for another status, an unsound header, or after the response has begun.
    pub fn inform(&mut self, status: u16, headers: &[(&[u8], &[u8])]) -> Result<(), Misuse> {
        if !(100..200).contains(&status) || status == 101 {
            return Err(Misuse("an informational status is 100 or 102 to 199"));
        }
        self.machine.must_await_response()?;
        if headers.iter().any(|(name, _)| is_framing(name)) {
            return Err(Misuse("an informational response has no body"));
        }
        if self.machine.request.version == crate::http1::Version::Http10 {
            return Ok(());
        }
        write_head(&mut self.outbox, status, reason(status), headers, |_| {})?;
        if status == 100 {
            self.machine.exchange.expects = false;
        }
        Ok(())
    }

    /// Sends the head of the response. Its framing fields are added here and refused among
    /// `headers`. `close` ends the connection after this response.
    ///
    /// # Errors
    ///
    /// `Misuse`, and nothing is sent, for an unsound header (response splitting stops here) or
    /// when no request waits for a response.
    pub fn respond(
        &mut self,
        status: u16,
        reason: &str,
        headers: &[(&[u8], &[u8])],
        body: BodyLength,
        close: bool,
    ) -> Result<(), Misuse> {
        let server = &mut self.machine;
        server.must_await_response()?;
        if status < 200 {
            return Err(Misuse("a final response has a status of 200 or more"));
        }
        if server.request.connect && status < 300 {
            return Err(Misuse("a tunnel is accepted by accept_tunnel"));
        }
        if headers.iter().any(|(name, _)| is_framing(name)) {
            return Err(Misuse("the framing of a response is not for its headers to say"));
        }
        let http10 = server.request.version == crate::http1::Version::Http10;
        // "A server MUST NOT send a Content-Length header field in any response with a status
        // code of 1xx (Informational) or 204 (No Content)."
        let bodiless = matches!(status, 204 | 304);
        // "a server MUST NOT generate content in a 205 response", and says so by a length.
        let body = if status == 205 { BodyLength::None } else { body };
        let response = match body {
            _ if bodiless || server.request.head => Response::Nothing,
            BodyLength::None => Response::Length(0),
            BodyLength::Length(length) => Response::Length(length),
            BodyLength::Unknown if http10 => Response::UntilClose,
            BodyLength::Unknown => Response::Chunked,
        };
        // Behind a refused CONNECT there may be what was meant for the tunnel.
        let close =
            close || server.must_close() || server.request.connect || response == Response::UntilClose;
        let keep = http10 && !close;
        write_head(&mut self.outbox, status, reason, headers, |out| {
            match body {
                _ if bodiless => {}
                BodyLength::None => write_length(out, 0),
                BodyLength::Length(length) => write_length(out, length),
                BodyLength::Unknown if http10 => {}
                BodyLength::Unknown => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            }
            if close {
                out.extend_from_slice(b"Connection: close\r\n");
            } else if keep {
                out.extend_from_slice(b"Connection: keep-alive\r\n");
            }
            // RFC 9110 section 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option"
            if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"upgrade")) {
                out.extend_from_slice(b"Connection: upgrade\r\n");
            }
        })?;
        server.exchange.close = close;
        server.response = response;
        Ok(())
    }

    /// Sends a piece of the response's body. It is dropped if the response has none (HEAD).
    ///
    /// # Errors
    ///
    /// `Misuse` before [`Link::respond`], or for more bytes than its `Content-Length`.
    pub fn body(&mut self, data: &[u8]) -> Result<(), Misuse> {
        self.put(data.len(), |outbox, chunked| {
            if chunked {
                write_chunk(&mut outbox.tail(), data);
            } else {
                outbox.push(data);
            }
        })
    }

    /// The same, with no copy if the bytes are many.
    ///
    /// # Errors
    ///
    /// As [`Link::body`].
    pub fn body_owned(&mut self, data: Vec<u8>) -> Result<(), Misuse> {
        self.put(data.len(), |outbox, chunked| {
            around(outbox, chunked, data.len(), |outbox| outbox.push_owned(data));
        })
    }

    /// The same, with `n` bytes that the driver sends by itself when it gets to
    /// [`Transmit::External`](crate::Transmit::External), from a file for example.
    ///
    /// # Errors
    ///
    /// As [`Link::body`].
    pub fn body_external(&mut self, n: usize) -> Result<(), Misuse> {
        self.put(n, |outbox, chunked| {
            around(outbox, chunked, n, |outbox| outbox.push_external(n));
        })
    }

    /// `n` bytes of body, as the response's framing wants them.
    fn put(&mut self, n: usize, push: impl FnOnce(&mut Outbox, bool)) -> Result<(), Misuse> {
        match &mut self.machine.response {
            Response::None | Response::Done => return Err(Misuse("there is no response to add to")),
            Response::Nothing => {}
            Response::UntilClose => push(&mut self.outbox, false),
            // An empty chunk would be the last.
            Response::Chunked if n == 0 => {}
            Response::Chunked => push(&mut self.outbox, true),
            Response::Length(left) => {
                let rest = left.checked_sub(n as u64);
                *left = rest.ok_or(Misuse("the body is longer than its Content-Length"))?;
                push(&mut self.outbox, false);
            }
        }
        Ok(())
    }

    /// The response is complete. What the client still sends of this request's body is read
    /// and dropped, within limits; then the next request may come.
    ///
    /// # Errors
    ///
    /// `Misuse` if the body is shorter than its `Content-Length`: the connection is cut, since
    /// nothing else tells the client.
    pub fn finish(&mut self) -> Result<(), Misuse> {
        self.finish_with(&[])
    }

    /// The same, with trailer fields. They are dropped where there is no chunked body to end:
    /// "trailer fields [...] might be [...] discarded" on any way.
    ///
    /// # Errors
    ///
    /// As [`Link::finish`]; and, with nothing changed, for a field that is unsound or must not be
    /// in a trailer section.
    pub fn finish_with(&mut self, trailers: &[(&[u8], &[u8])]) -> Result<(), Misuse> {
        match self.machine.response {
            Response::None | Response::Done => return Err(Misuse("there is no response to finish")),
            Response::Length(1..) => {
                self.abort();
                return Err(Misuse("the body is shorter than its Content-Length"));
            }
            Response::Chunked => write_trailers(&mut self.outbox.tail(), trailers)?,
            Response::Length(0) | Response::UntilClose | Response::Nothing => {}
        }
        let server = &mut self.machine;
        server.response = Response::Done;
        if server.exchange.close {
            server.state = State::Closed;
            self.outbox.shutdown();
        } else if server.state == State::Respond {
            server.next_request();
        } else {
            let until = server.received.saturating_add(server.limits.drain);
            (server.state, server.since) = (State::Drain { until }, None);
        }
        self.changed();
        Ok(())
    }

    /// Cuts the response: the client sees that it is incomplete.
    pub fn abort(&mut self) {
        self.machine.parser.reset();
        self.machine.state = State::Closed;
        self.machine.response = Response::Done;
        self.outbox.shutdown();
    }

    /// Answers `101 Switching Protocols`. Then [`Link::replace`] the machine; bytes that came
    /// behind the request travel on.
    ///
    /// # Errors
    ///
    /// `Misuse` when no complete request that offers to upgrade waits for a response ("A server
    /// MUST NOT switch to a protocol that was not indicated by the client"), or for an unsound
    /// header.
    pub fn switch_protocols(&mut self, headers: &[(&[u8], &[u8])]) -> Result<(), Misuse> {
        let server = &mut self.machine;
        server.must_await_response()?;
        if !server.body.is_done() {
            return Err(Misuse("the request's body has to be read before protocols are switched"));
        }
        if !server.request.upgrades() {
            return Err(Misuse("the client does not offer another protocol"));
        }
        write_head(&mut self.outbox, 101, reason(101), headers, |_| {})?;
        self.hand_over();
        Ok(())
    }

    /// Answers a CONNECT with 200. Then [`Link::replace`] the machine, by a
    /// [`Tunnel`](crate::http1::Tunnel) for example; bytes that came behind the request travel
    /// on.
    ///
    /// # Errors
    ///
    /// `Misuse` when no CONNECT waits for a response, or for an unsound header: "A server MUST
    /// NOT send any Transfer-Encoding or Content-Length header fields in a 2xx (Successful)
    /// response to CONNECT."
    pub fn accept_tunnel(&mut self, headers: &[(&[u8], &[u8])]) -> Result<(), Misuse> {
        self.machine.must_await_response()?;
        if !self.machine.request.connect {
            return Err(Misuse("the request is no CONNECT"));
        }
        if headers.iter().any(|(name, _)| is_framing(name)) {
            return Err(Misuse("a tunnel has no framing"));
        }
        write_head(&mut self.outbox, 200, "OK", headers, |_| {})?;
        self.hand_over();
        Ok(())
    }

    fn hand_over(&mut self) {
        self.machine.response = Response::Done;
        self.machine.state = State::Closed;
    }

    /// Ends the connection after the current response, or now if there is none.
    pub fn close_soon(&mut self) {
        (self.machine.closing, self.machine.exchange.close) = (true, true);
        if self.is_idle() {
            self.abort();
        }
    }

    /// Whether the response's head was sent.
    pub fn response_started(&self) -> bool {
        self.machine.response != Response::None
    }

    /// Whether nothing is going on: no request, and not a byte of one.
    pub fn is_idle(&self) -> bool {
        self.machine.state == State::Head && self.unread() == 0
    }

    /// Whether the client waits for `100 Continue` before it sends its body.
    pub const fn wants_continue(&self) -> bool {
        self.machine.exchange.expects
    }

    /// Whether the connection ends after the current response.
    pub fn closes(&self) -> bool {
        self.machine.exchange.close || self.machine.state == State::Closed
    }
}

impl Server {
    fn must_await_response(&self) -> Result<(), Misuse> {
        if self.response != Response::None || !matches!(self.state, State::Body | State::Respond) {
            return Err(Misuse("there is no request that waits for a response"));
        }
        Ok(())
    }
}

/// Fields that the machine writes itself.
fn is_framing(name: &[u8]) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match name.len() {
        14 => is(b"content-length"),
        17 => is(b"transfer-encoding"),
        10 => is(b"connection"),
        _ => false,
    }
}

/// Writes what frames `n` bytes that `push` puts there.
fn around(outbox: &mut Outbox, chunked: bool, n: usize, push: impl FnOnce(&mut Outbox)) {
    if chunked {
        write_chunk_size(&mut outbox.tail(), n);
    }
    push(outbox);
    if chunked {
        outbox.push(b"\r\n");
    }
}

/// Writes a whole head or nothing.
fn write_head(
    outbox: &mut Outbox,
    status: u16,
    reason: &str,
    headers: &[(&[u8], &[u8])],
    framing: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Misuse> {
    let mut tail = outbox.tail();
    let before = tail.len();
    let written = write_status(&mut tail, status, reason)
        .and_then(|()| headers.iter().try_for_each(|(name, value)| write_field(&mut tail, name, value)));
    match written {
        Ok(()) => {
            framing(&mut tail);
            tail.extend_from_slice(b"\r\n");
        }
        Err(_) => tail.truncate(before),
    }
    written
}
