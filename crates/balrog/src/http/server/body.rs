use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};

use balrog_proto::http1::Server as Machine;

use crate::drive::Connection;
use crate::net::AnyStream;

/// How much a body may leave unsent before it waits for the client.
const AHEAD: usize = 64 * 1024;

type WriteBody = Box<dyn FnOnce(&mut BodyWriter<'_>) -> io::Result<()> + Send>;
pub(super) type TakeOver = Box<dyn FnOnce(Connection<Machine>) + Send>;

/// What a response has to say.
#[derive(Default)]
pub struct Body(pub(super) Kind);

pub(super) enum Kind {
    Bytes(Cow<'static, [u8]>),
    Reader(Box<dyn Read + Send>, Option<u64>),
    Writer(WriteBody),
    Upgrade(TakeOver),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Bytes(Cow::Borrowed(&[]))
    }
}

impl Body {
    /// What `reader` gives, up to its end, in chunks. If it fails, the response is cut, so that
    /// the client sees that it is incomplete.
    pub fn reader(reader: impl Read + Send + 'static) -> Self {
        Self(Kind::Reader(Box::new(reader), None))
    }

    /// The first `length` bytes that `reader` gives, announced by `Content-Length`. If there are
    /// fewer, the response is cut.
    pub fn sized(reader: impl Read + Send + 'static, length: u64) -> Self {
        Self(Kind::Reader(Box::new(reader), Some(length)))
    }

    /// What `write` writes, in chunks. Small pieces leave together: [`BodyWriter::flush`] sends
    /// them at once. If `write` fails, the response is cut.
    pub fn writer(write: impl FnOnce(&mut BodyWriter<'_>) -> io::Result<()> + Send + 'static) -> Self {
        Self(Kind::Writer(Box::new(write)))
    }

    /// For a response of the status 101 that names the other protocol in `Upgrade`: `speak` is
    /// given the connection once the response was sent.
    pub fn upgrade(speak: impl FnOnce(Upgraded) + Send + 'static) -> Self {
        Self::take_over(|connection| speak(Upgraded::new(connection)))
    }

    pub(crate) fn take_over(speak: impl FnOnce(Connection<Machine>) + Send + 'static) -> Self {
        Self(Kind::Upgrade(Box::new(speak)))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self(Kind::Bytes(Cow::Borrowed(text.as_bytes())))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kind::Bytes(Cow::Owned(bytes)))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Kind::Bytes(Cow::Borrowed(bytes)))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind: &dyn fmt::Debug = match &self.0 {
            Kind::Bytes(bytes) => &bytes.len(),
            Kind::Reader(_, length) => length,
            Kind::Writer(_) => &"writer",
            Kind::Upgrade(_) => &"upgrade",
        };
        f.debug_tuple("Body").field(kind).finish()
    }
}

/// Where [`Body::writer`] writes. A write waits while the client takes nothing.
#[derive(Debug)]
pub struct BodyWriter<'c>(pub(super) &'c mut Connection<Machine>);

impl Write for BodyWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.link.body(data)?;
        if self.0.link.unsent() >= AHEAD {
            self.0.flush()?;
        }
        Ok(data.len())
    }

    /// Sends what was written.
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A connection that speaks another protocol now.
#[derive(Debug)]
pub struct Upgraded {
    stream: AnyStream,
    /// What came right behind the request.
    left: Vec<u8>,
    taken: usize,
}

impl Upgraded {
    fn new(connection: Connection<Machine>) -> Self {
        let left = connection.link.unread_bytes().to_vec();
        Self { stream: connection.stream, left, taken: 0 }
    }
}

impl Read for Upgraded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.left[self.taken..];
        if rest.is_empty() {
            return self.stream.read(buffer);
        }
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.taken += n;
        Ok(n)
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
