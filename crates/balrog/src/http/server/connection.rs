use std::io::{self, Read};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use ::http::{HeaderMap, Method, StatusCode};
use balrog_backends::Interrupt;
use balrog_proto::Step;
use balrog_proto::http1::{BodyLength, Limits, Server as Machine, ServerEvent};
use balrog_sched::LocalFuture;

use super::body::{BodyWriter, Kind, TakeOver};
use super::registry::Entry;
use super::request::Head;
use super::{IntoResponse, Request, Response, date};
use crate::drive;
use crate::net::{AnyStream, Transport};

/// How much one read takes of what may be a head.
pub(super) const READ: usize = 8 * 1024;
/// How often a thread with an idle connection looks whether the server is to stop.
const TICK: Duration = Duration::from_millis(500);
/// How long, and how much, a client may still send after we have said our last.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;
/// Responses of more fields are put together on the heap.
const FEW: usize = 16;

/// How long an idle connection waits on its stack, if it [may](Entry::linger).
const MOMENT: Duration = Duration::from_millis(100);

/// A connection of a server.
pub(super) struct Connection {
    pub(super) inner: drive::Connection<Machine>,
    peer: SocketAddr,
    pub(super) entry: Arc<Entry>,
}

/// What a connection waits for next.
enum Next {
    Request,
    /// Nothing: there is none any more.
    End,
    /// A request, which may take long to come, and comes when this is ready.
    Idle(LocalFuture<()>),
}

impl Connection {
    pub(super) fn new(stream: AnyStream, peer: SocketAddr, limits: &Arc<Limits>, entry: Arc<Entry>) -> Self {
        let inner = drive::Connection::new(Machine::new(Arc::clone(limits)), stream);
        Self { inner, peer, entry }
    }

    /// Answers one request after the other. It comes back, with what ends that, when it is idle
    /// and can be so without a stack.
    pub(super) fn run<F, R>(mut self, handler: &F) -> io::Result<Option<(Self, LocalFuture<()>)>>
    where
        F: Fn(&mut Request<'_>) -> R,
        R: IntoResponse,
    {
        // Not a field: an idle connection has none.
        let mut head = Head::default();
        loop {
            match self.next(&mut head) {
                Ok(Next::Request) => {}
                Ok(Next::Idle(until)) => return Ok(Some((self, until))),
                Ok(Next::End) => return self.close().map(|()| None),
                Err(error) => {
                    // What the machine answers to that, 400 or 408 for example.
                    let _ = self.close();
                    return Err(error);
                }
            }
            let mut request = Request::new(&mut self.inner, &head, self.peer);
            let answer = catch_unwind(AssertUnwindSafe(|| handler(&mut request).into_response()));
            let response = answer.unwrap_or_else(|_| {
                eprintln!("balrog: the handler of {} {} panicked", request.method(), request.uri());
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            });
            if self.entry.is_stopping() {
                self.inner.link.close_soon();
            }
            match self.respond(&head.method, response) {
                Ok(None) => {}
                Ok(Some(speak)) => {
                    speak(self.inner);
                    return Ok(None);
                }
                Err(error) => {
                    let _ = self.close();
                    return Err(error);
                }
            }
        }
    }

    /// Goes on with a connection that was idle until it was `filled`. `false`: it is closed now.
    pub(super) fn resume(&mut self, filled: io::Result<()>) -> io::Result<bool> {
        // What was closed may have got its first byte at the same time.
        let busy = self.entry.set_busy() && filled.is_ok();
        if !busy {
            self.close()?;
        }
        filled.map(|()| busy)
    }

    /// Waits for a request.
    fn next(&mut self, request: &mut Head) -> io::Result<Next> {
        loop {
            let inner = &mut self.inner;
            match inner.link.poll_event(Instant::now()) {
                Ok(Step::Event(ServerEvent::Request(head))) => {
                    request.set(&head);
                    return Ok(Next::Request);
                }
                Ok(Step::Event(_)) => {}
                Ok(Step::Paused | Step::Closed) => return Ok(Next::End),
                Err(error) => return Err(error.into()),
                Ok(Step::NeedInput) => {
                    inner.flush()?;
                    if inner.link.is_idle() {
                        match self.idle()? {
                            // A first byte, at least.
                            Next::Request => {}
                            next => return Ok(next),
                        }
                    } else {
                        inner.fill(READ)?;
                    }
                }
            }
        }
    }

    /// Waits while there is no byte of a request.
    fn idle(&mut self) -> io::Result<Next> {
        let blocks = !balrog_sched::in_task();
        self.entry.set_idle();
        let filled = loop {
            if self.entry.is_stopping() {
                self.entry.set_busy();
                return Ok(Next::End);
            }
            let filled = if blocks { self.fill_within(TICK) } else { self.linger() };
            match filled {
                Err(error) if Interrupt::of(&error) == Some(Interrupt::Deadline) => {
                    // The tick's, or that of the code around.
                    balrog_sched::limit(None)?;
                    if !blocks && let Some(until) = self.inner.stream.readable()? {
                        return Ok(Next::Idle(until));
                    }
                }
                filled => break filled,
            }
        };
        // What was closed may have got its first byte at the same time.
        if self.entry.set_busy() { filled.map(|()| Next::Request) } else { Ok(Next::End) }
    }

    /// Reads what comes within a moment, or right now if too many linger.
    fn linger(&mut self) -> io::Result<()> {
        let entry = Arc::clone(&self.entry);
        let lingers = entry.linger();
        self.fill_within(if lingers.is_some() { MOMENT } else { Duration::ZERO })
    }

    fn fill_within(&mut self, time: Duration) -> io::Result<()> {
        self.inner.stream.timeouts_mut().read = Some(time);
        let filled = self.inner.fill(READ);
        self.inner.stream.timeouts_mut().read = None;
        filled
    }

    fn respond(&mut self, method: &Method, response: Response) -> io::Result<Option<TakeOver>> {
        let (parts, body) = response.into_parts();
        let link = &mut self.inner.link;
        let close =
            parts.headers.get(CONNECTION).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"close"));
        if let Kind::Upgrade(speak) = body.0 {
            self.complete()?;
            with_fields(&parts.headers, true, |fields| self.inner.link.switch_protocols(fields))?;
            self.inner.flush()?;
            return Ok(Some(speak));
        }
        let length = match &body.0 {
            Kind::Bytes(bytes) if bytes.is_empty() && *method == Method::HEAD => {
                let given = parts.headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
                BodyLength::Length(given.unwrap_or(0))
            }
            Kind::Bytes(bytes) => BodyLength::Length(bytes.len() as u64),
            Kind::Reader(_, Some(length)) => BodyLength::Length(*length),
            _ => BodyLength::Unknown,
        };
        let status = parts.status;
        let reason = status.canonical_reason().unwrap_or_default();
        with_fields(&parts.headers, false, |fields| {
            link.respond(status.as_u16(), reason, fields, length, close)
        })?;
        let silent = *method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
        let written = match body.0 {
            _ if silent => Ok(()),
            Kind::Bytes(bytes) => match bytes {
                std::borrow::Cow::Borrowed(bytes) => link.body(bytes),
                std::borrow::Cow::Owned(bytes) => link.body_owned(bytes),
            }
            .map_err(io::Error::from),
            Kind::Reader(reader, length) => {
                let mut writer = BodyWriter(&mut self.inner);
                io::copy(&mut reader.take(length.unwrap_or(u64::MAX)), &mut writer).map(drop)
            }
            Kind::Writer(write) => catch_unwind(AssertUnwindSafe(|| write(&mut BodyWriter(&mut self.inner))))
                .unwrap_or_else(|_| Err(io::Error::other("the body's writer panicked"))),
            Kind::Upgrade(_) => Ok(()),
        };
        if let Err(error) = written {
            // The client sees that it is incomplete.
            self.inner.link.abort();
            return Err(error);
        }
        self.inner.link.finish()?;
        Ok(None)
    }

    /// Reads the request to its end, before something else is spoken.
    fn complete(&mut self) -> io::Result<()> {
        self.inner.event(READ, |step| match step {
            Step::Event(ServerEvent::End) | Step::Paused | Step::Closed => Some(()),
            _ => None,
        })
    }

    /// Sends what is left, and takes what the client still sends: an answer would be lost with
    /// the connection if there were bytes that nobody has read (RFC 9112 section 9.6).
    fn close(&mut self) -> io::Result<()> {
        let stream = &mut self.inner.stream;
        stream.timeouts_mut().deadline = Some(Instant::now() + stream.timeouts().write.unwrap_or(LINGER));
        self.inner.flush()?;
        let stream = &mut self.inner.stream;
        stream.shutdown()?;
        if self.inner.link.is_eof() {
            return Ok(());
        }
        stream.timeouts_mut().deadline = Some(Instant::now() + LINGER);
        let mut rest = vec![0; 4 * 1024];
        let mut taken = 0;
        while taken < LINGER_BYTES {
            match stream.read(&mut rest)? {
                0 => break,
                n => taken += n,
            }
        }
        Ok(())
    }
}

/// Calls `f` with the fields that go out: those of the response but for framing, and the date.
fn with_fields<T>(headers: &HeaderMap, upgrade: bool, f: impl FnOnce(&[(&[u8], &[u8])]) -> T) -> T {
    date::with_now(|now| {
        let dated = headers.contains_key(DATE);
        let framing = |name: &::http::HeaderName| {
            !upgrade && (name == CONTENT_LENGTH || name == TRANSFER_ENCODING || name == CONNECTION)
        };
        let date = (!dated).then_some((&b"Date"[..], now));
        let given = headers.iter().filter(|(name, _)| !framing(name));
        let fields = date.into_iter().chain(given.map(|(name, value)| (name.as_ref(), value.as_bytes())));
        let mut few: [(&[u8], &[u8]); FEW] = [(b"", b""); FEW];
        if headers.len() < FEW {
            let mut n = 0;
            for (slot, field) in few.iter_mut().zip(fields) {
                *slot = field;
                n += 1;
            }
            f(&few[..n])
        } else {
            f(&fields.collect::<Vec<_>>())
        }
    })
}
