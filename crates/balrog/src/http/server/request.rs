use std::cell::OnceCell;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::ops::Range;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use balrog_proto::Step;
use balrog_proto::http1::{RequestHead, Server as Machine, ServerEvent, Version};
use balrog_proto::websocket::{Offer, Refusal};

use crate::drive::Connection;

/// How much of a body one read takes.
const READ: usize = 16 * 1024;

/// A request; its body is read from it as it comes.
///
/// A client that waits for `100 Continue` is told to go on by the first read. What the handler
/// leaves of the body is read and dropped, within limits.
#[derive(Debug)]
pub struct Request<'c> {
    connection: &'c mut Connection<Machine>,
    head: &'c Head,
    peer: SocketAddr,
    headers: OnceCell<HeaderMap>,
    uri: OnceCell<Uri>,
    /// What came with a piece of the body and was not wanted yet.
    left: Vec<u8>,
    taken: usize,
    complete: bool,
}

/// A head, copied out of the way of what comes behind it. Its storage is used again.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    target: String,
    path: Range<usize>,
    query: Range<usize>,
    version: Version,
    text: Vec<u8>,
    /// Where names and values end in `text`.
    fields: Vec<(u32, u32)>,
    /// What it asks for, if that is a WebSocket.
    offer: Option<Result<Offer, Refusal>>,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            method: Method::GET,
            target: String::new(),
            path: 0..0,
            query: 0..0,
            version: Version::Http11,
            text: Vec::new(),
            fields: Vec::new(),
            offer: None,
        }
    }
}

impl Head {
    pub(super) fn set(&mut self, head: &RequestHead<'_>) {
        // The machine has checked that it is a token.
        self.method = Method::from_bytes(head.method.as_bytes()).unwrap_or_default();
        self.target.clear();
        self.target.push_str(head.path);
        self.path = 0..head.path.len();
        if head.query.is_empty() {
            self.query = 0..0;
        } else {
            self.target.push('?');
            self.target.push_str(head.query);
            self.query = head.path.len() + 1..self.target.len();
        }
        self.version = head.version;
        self.text.clear();
        self.fields.clear();
        for (name, value) in head.headers.iter() {
            self.text.extend_from_slice(name.as_bytes());
            let middle = self.text.len();
            self.text.extend_from_slice(value);
            // Heads are shorter than 64 KiB.
            self.fields.push((middle as u32, self.text.len() as u32));
        }
        self.offer = if head.upgrade { balrog_proto::websocket::offer(head).transpose() } else { None };
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.fields.iter().map(move |&(middle, end)| {
            let (name, value) = (start..middle as usize, middle as usize..end as usize);
            start = end as usize;
            (&self.text[name], &self.text[value])
        })
    }
}

impl<'c> Request<'c> {
    pub(super) fn new(connection: &'c mut Connection<Machine>, head: &'c Head, peer: SocketAddr) -> Self {
        Self {
            connection,
            head,
            peer,
            headers: OnceCell::new(),
            uri: OnceCell::new(),
            left: Vec::new(),
            taken: 0,
            complete: false,
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path as it was sent: percent-encoded, beginning with `/` (or `*`).
    pub fn path(&self) -> &str {
        &self.head.target[self.head.path.clone()]
    }

    /// What follows the first `?`, still encoded; empty without one.
    pub fn query(&self) -> &str {
        &self.head.target[self.head.query.clone()]
    }

    /// Path and query.
    pub fn uri(&self) -> &Uri {
        self.uri.get_or_init(|| self.head.target.parse().unwrap_or_default())
    }

    /// The version.
    pub fn version(&self) -> ::http::Version {
        match self.head.version {
            Version::Http10 => ::http::Version::HTTP_10,
            Version::Http11 => ::http::Version::HTTP_11,
        }
    }

    /// The first value of this field, in any case of the name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.fields();
        let (_, value) = fields.find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))?;
        std::str::from_utf8(value).ok()
    }

    /// All fields. Made when it is first asked for: [`Request::header`] costs less.
    pub fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| {
            let mut headers = HeaderMap::with_capacity(self.head.fields.len());
            for (name, value) in self.head.fields() {
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
                {
                    headers.append(name, value);
                }
            }
            headers
        })
    }

    /// Who asks: the other end of the connection.
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The rest of the body, if it has at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// `InvalidData` for more, and as reading.
    pub fn body(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let n = self.by_ref().take(limit as u64 + 1).read_to_end(&mut body)?;
        if n > limit {
            let error = format!("the request's body has more than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(body)
    }

    /// What the request offers, if that is a WebSocket.
    pub(crate) fn offer(&self) -> Option<&Result<Offer, Refusal>> {
        self.head.offer.as_ref()
    }

    fn next_piece(&mut self) -> io::Result<()> {
        let link = &mut self.connection.link;
        if link.wants_continue() && !link.response_started() {
            link.inform(100, &[])?;
        }
        let left = &mut self.left;
        left.clear();
        self.taken = 0;
        self.complete = self.connection.event(READ, |step| match step {
            Step::Event(ServerEvent::Body(data)) => {
                left.extend_from_slice(data);
                Some(false)
            }
            Step::Event(ServerEvent::End) | Step::Paused | Step::Closed => Some(true),
            _ => None,
        })?;
        Ok(())
    }
}

/// The body, decoded from its chunks.
///
/// A body that is cut, malformed or too slow is an error, which ends the connection.
impl Read for Request<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.left.len() && !self.complete && !buffer.is_empty() {
            self.next_piece()?;
        }
        let rest = &self.left[self.taken..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.taken += n;
        Ok(n)
    }
}
