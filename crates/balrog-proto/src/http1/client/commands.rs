//! What the owner of a client's connection can do.

use crate::http1::BodyLength;
use crate::http1::client::{Asked, Client, Sending, State};
use crate::http1::encode::{write_chunk, write_chunk_size, write_field, write_length, write_trailers};
use crate::http1::grammar::{is_authority, is_token, is_tunnel_target, list};
use crate::http1::scan::target_end;
use crate::{Link, Misuse};

impl Link<Client> {
    /// Begins a request. `Host` comes from `authority`, unless it is among `headers`; framing
    /// fields are added here and refused among them.
    ///
    /// `Expect: 100-continue` makes [`Link::may_send_body`] false until the server says so, or
    /// has had its time. `Upgrade` and CONNECT, whose target is `host:port`, can end in
    /// [`ClientEvent::Upgraded`](crate::http1::ClientEvent::Upgraded).
    ///
    /// # Errors
    ///
    /// `Misuse`, and nothing is sent, for an unsound part or in the middle of an exchange.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        authority: &str,
        headers: &[(&[u8], &[u8])],
        body: BodyLength,
    ) -> Result<(), Misuse> {
        let client = &mut self.machine;
        if client.state != State::Idle {
            return Err(Misuse("the connection is in the middle of an exchange"));
        }
        let asked = check(method, target, authority, headers, body)?;
        client.begins = self.outbox.position() + self.outbox.len() as u64;
        let mut tail = self.outbox.tail();
        let before = tail.len();
        tail.extend_from_slice(method.as_bytes());
        tail.push(b' ');
        tail.extend_from_slice(target.as_bytes());
        tail.extend_from_slice(b" HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"host")) {
            tail.extend_from_slice(b"Host: ");
            tail.extend_from_slice(authority.as_bytes());
            tail.extend_from_slice(b"\r\n");
        }
        let written = headers.iter().try_for_each(|(name, value)| write_field(&mut tail, name, value));
        if written.is_err() {
            tail.truncate(before);
            return written;
        }
        client.request = match body {
            BodyLength::None => Sending::Done,
            BodyLength::Length(length) => {
                write_length(&mut tail, length);
                Sending::Length(length)
            }
            BodyLength::Unknown => {
                tail.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Sending::Chunked
            }
        };
        tail.extend_from_slice(b"\r\n");
        client.waits = all(headers, b"expect").next().is_some() && client.request != Sending::Done;
        client.since = None;
        client.asked = asked;
        client.state = State::Head;
        (client.informational, client.answered) = (0, false);
        Ok(())
    }

    /// Whether the request's body can be sent: false while `Expect: 100-continue` is waited out
    /// (see [`Link::poll_timeout`]), and after a final response came instead.
    pub fn may_send_body(&self) -> bool {
        let client = &self.machine;
        client.request != Sending::Done && client.state == State::Head && !client.waits
    }

    /// Sends a piece of the request's body.
    ///
    /// # Errors
    ///
    /// `Misuse` without a request that has one, or for more bytes than its `Content-Length`.
    pub fn body(&mut self, data: &[u8]) -> Result<(), Misuse> {
        if self.take(data.len())? {
            write_chunk(&mut self.outbox.tail(), data);
        } else {
            self.outbox.push(data);
        }
        Ok(())
    }

    /// The same, with `n` bytes that the driver sends by itself when it gets to
    /// [`Transmit::External`](crate::Transmit::External), from a file for example.
    ///
    /// # Errors
    ///
    /// As [`Link::body`].
    pub fn body_external(&mut self, n: usize) -> Result<(), Misuse> {
        let chunked = self.take(n)? && n > 0;
        if chunked {
            write_chunk_size(&mut self.outbox.tail(), n);
        }
        self.outbox.push_external(n);
        if chunked {
            self.outbox.push(b"\r\n");
        }
        Ok(())
    }

    /// Counts `n` bytes of body, and says whether they go in chunks.
    fn take(&mut self, n: usize) -> Result<bool, Misuse> {
        self.machine.waits = false;
        match &mut self.machine.request {
            Sending::Done => Err(Misuse("there is no request body to add to")),
            Sending::Chunked => Ok(true),
            Sending::Length(left) => {
                let rest = left.checked_sub(n as u64);
                *left = rest.ok_or(Misuse("the body is longer than its Content-Length"))?;
                Ok(false)
            }
        }
    }

    /// The request is complete.
    ///
    /// # Errors
    ///
    /// `Misuse` if its body is shorter than its `Content-Length`.
    pub fn finish(&mut self) -> Result<(), Misuse> {
        self.finish_with(&[])
    }

    /// The same, with trailer fields, which only a chunked body can have: others drop them.
    ///
    /// # Errors
    ///
    /// As [`Link::finish`]; and, with nothing changed, for a field that is unsound or must not be
    /// in a trailer section.
    pub fn finish_with(&mut self, trailers: &[(&[u8], &[u8])]) -> Result<(), Misuse> {
        match self.machine.request {
            Sending::Length(1..) => return Err(Misuse("the body is shorter than its Content-Length")),
            Sending::Chunked => write_trailers(&mut self.outbox.tail(), trailers)?,
            _ => {}
        }
        self.machine.request = Sending::Done;
        Ok(())
    }

    /// Whether not a byte of the current response has come. On a connection that was used
    /// before, the server then closed it without having seen the request, in all likelihood.
    pub const fn is_unanswered(&self) -> bool {
        !self.machine.answered
    }

    /// Whether not a byte of the current request was handed to the server: whatever its method,
    /// it can be sent again on another connection. Of a request that was sent and not answered,
    /// that is true only if its method is idempotent (RFC 9110 section 9.2.2).
    pub const fn safe_to_retry(&self) -> bool {
        !self.machine.answered && self.outbox.position() <= self.machine.begins
    }
}

/// Whether a request is sound, and what it asks for.
fn check(
    method: &str,
    target: &str,
    authority: &str,
    headers: &[(&[u8], &[u8])],
    body: BodyLength,
) -> Result<Asked, Misuse> {
    if !is_token(method.as_bytes()) {
        return Err(Misuse("the method is not a token"));
    }
    if target.is_empty() || target_end(target.as_bytes()) != target.len() {
        return Err(Misuse("the request target has a character that no URI has"));
    }
    if !is_authority(authority.as_bytes()) {
        return Err(Misuse("the host is malformed"));
    }
    let connect = method == "CONNECT";
    if connect && (!is_tunnel_target(target.as_bytes()) || body != BodyLength::None) {
        return Err(Misuse("a CONNECT has host and port for its target, and no body"));
    }
    if all(headers, b"content-length").chain(all(headers, b"transfer-encoding")).next().is_some() {
        return Err(Misuse("the framing of a request is not for its headers to say"));
    }
    let mut hosts = all(headers, b"host");
    if hosts.next().is_some_and(|host| !is_authority(host)) || hosts.next().is_some() {
        return Err(Misuse("the Host field is malformed"));
    }
    if all(headers, b"expect").any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Misuse("an expectation that is not 100-continue"));
    }
    Ok(Asked {
        head: method == "HEAD",
        connect,
        last: all(headers, b"connection").flat_map(list).any(|it| it.eq_ignore_ascii_case(b"close")),
        upgrade: all(headers, b"upgrade").next().map(Box::from),
    })
}

fn all<'a>(headers: &'a [(&[u8], &[u8])], name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}
