use std::time::Instant;

use balrog_proto::Step;
use balrog_proto::http1::{ClientEvent, Version};

use crate::http::connection::Connection;
use crate::http::{Error, Phase, pool};

/// A response whose body is read as it comes.
///
/// Read to its end, its connection is kept for the next request; dropped before, it is closed.
#[derive(Debug)]
pub struct Response {
    /// 200 to 999.
    pub status: u16,
    /// May be empty, and may have bytes beyond ASCII.
    pub reason: Vec<u8>,
    /// The version of the response.
    pub version: Version,
    /// Names as sent, values without surrounding whitespace.
    pub headers: Vec<(String, Vec<u8>)>,
    connection: Option<Connection>,
    /// Came with a piece of the body, and was not wanted yet.
    left: Vec<u8>,
    taken: usize,
    /// Reading has failed, so that there is no end that could be told.
    broken: bool,
}

impl Response {
    pub(crate) fn receive(mut connection: Connection) -> Result<Self, Error> {
        loop {
            match connection.link().poll_event(Instant::now()) {
                Ok(Step::Event(ClientEvent::Response(head))) => {
                    let mut response = Self {
                        status: head.status,
                        reason: head.reason.to_vec(),
                        version: head.version,
                        headers: head
                            .headers
                            .iter()
                            .map(|(name, value)| (name.to_owned(), value.to_vec()))
                            .collect(),
                        connection: None,
                        left: Vec::new(),
                        taken: 0,
                        broken: false,
                    };
                    response.connection = Some(connection);
                    return Ok(response);
                }
                Ok(Step::NeedInput) => connection.fill(Phase::Head)?,
                Ok(Step::Event(_)) => {}
                Ok(Step::Paused | Step::Closed) => {
                    let eof = balrog_proto::Error::Eof(balrog_proto::Phase::Idle);
                    return Err(connection.broken(Phase::Head, eof));
                }
                Err(error) => return Err(connection.broken(Phase::Head, error)),
            }
        }
    }

    /// Reads the next piece of the body, at most `most` bytes; empty at its end.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the phase `Body`: a body that is cut or malformed is never passed off
    /// as a shorter one.
    pub fn read(&mut self, most: usize) -> Result<Vec<u8>, Error> {
        if self.left.is_empty() {
            self.left = self.piece()?;
        }
        if self.left.len() - self.taken <= most {
            let rest = if self.taken == 0 {
                std::mem::take(&mut self.left)
            } else {
                self.left.split_off(self.taken)
            };
            (self.left, self.taken) = (Vec::new(), 0);
            return Ok(rest);
        }
        let piece = self.left[self.taken..self.taken + most].to_vec();
        self.taken += most;
        Ok(piece)
    }

    /// Reads the rest of the body.
    ///
    /// # Errors
    ///
    /// As [`Response::read`], and for a body of more than `limit` bytes.
    pub fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut body = self.read(limit)?;
        loop {
            let piece = self.read(usize::MAX)?;
            if piece.is_empty() {
                return Ok(body);
            }
            if body.len() + piece.len() > limit {
                self.connection = None;
                let error = std::io::Error::other(format!("the body has more than {limit} bytes"));
                return Err(Error::new(Phase::Body, error));
            }
            body.extend_from_slice(&piece);
        }
    }

    /// Whether the whole body has been read.
    pub fn is_complete(&self) -> bool {
        self.connection.is_none() && self.left.is_empty() && !self.broken
    }

    /// Closes the connection, unless the body was read to its end.
    pub fn close(&mut self) {
        self.connection = None;
        self.left = Vec::new();
    }

    fn piece(&mut self) -> Result<Vec<u8>, Error> {
        if self.broken {
            // Also after an interrupt: what was read so far must not pass for the whole.
            let error = std::io::Error::other("reading it was broken off before");
            return Err(Error::new(Phase::Body, error));
        }
        self.next_piece().inspect_err(|_| self.broken = true)
    }

    fn next_piece(&mut self) -> Result<Vec<u8>, Error> {
        // Not in its place while it waits: an error on the way must not leave it half read.
        let Some(mut connection) = self.connection.take() else { return Ok(Vec::new()) };
        loop {
            match connection.link().poll_event(Instant::now()) {
                Ok(Step::Event(ClientEvent::Body(data))) => {
                    let data = data.to_vec();
                    self.connection = Some(connection);
                    return Ok(data);
                }
                Ok(Step::Event(ClientEvent::End { reusable })) => {
                    if reusable {
                        pool::give(connection);
                    }
                    return Ok(Vec::new());
                }
                Ok(Step::NeedInput) => connection.fill(Phase::Body)?,
                Ok(Step::Event(_)) => {}
                Ok(Step::Paused | Step::Closed) => return Ok(Vec::new()),
                Err(error) => return Err(connection.broken(Phase::Body, error)),
            }
        }
    }
}
