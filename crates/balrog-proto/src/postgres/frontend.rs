use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::postgres::config::{Config, Protocol};
use crate::postgres::decode::{self, Fields, HEADER, bad};
use crate::postgres::encode::{message, string};
use crate::postgres::event::{FrontendEvent, Unit};
use crate::postgres::flow::{Command, Flow};
use crate::postgres::large::{Large, Part};
use crate::postgres::report::Report;
use crate::postgres::rows::{Column, Piece, Row};
use crate::postgres::scram::KeyDerivation;
use crate::postgres::session::{CancelKey, Parameters, TransactionStatus};
use crate::postgres::startup::Startup;
use crate::postgres::timers::Timers;
use crate::{Entropy, Error, Inbox, Interest, Machine, Misuse, Outbox, Phase, Step};

mod messages;

/// The client's side of a session, from the start-up message on.
///
/// Commands are methods of `Link<Frontend>`. See the [module](crate::postgres) for the states.
#[derive(Debug)]
pub struct Frontend {
    pub(super) config: Arc<Config>,
    /// Until the session begins.
    pub(super) startup: Option<Box<Startup>>,
    begun: bool,
    pub(super) closed: bool,
    pub(super) flow: Flow,
    /// Where in the stream of sent bytes each unit that is not complete begins.
    pub(super) starts: VecDeque<u64>,
    pub(super) timers: Timers,
    /// A cancel request is on its way: what was not in the outbox before it waits here.
    pub(super) held: Option<Vec<u8>>,
    /// Results are dropped up to the end of what was sent, which must come before this position.
    pub(super) drain: Option<u64>,
    pub(super) protocol: Protocol,
    pub(super) key: Option<CancelKey>,
    pub(super) parameters: Parameters,
    pub(super) status: TransactionStatus,
    large: Option<Large>,
    /// The columns of the rows of a simple query.
    columns: Option<usize>,
    /// The columns of the last row.
    width: usize,
    /// Rows up to this size take the short way, [`Frontend::next_row`]. 0 if none does.
    pub(super) quick: usize,
    /// How much of the inbox belongs to the last event.
    pub(super) used: usize,
}

/// What came, by position: views of it are made once nothing can fail any more.
enum Found {
    Row(Range<usize>),
    Message(u8, Range<usize>),
    Part(Part),
    Columns(Arc<[Column]>),
    DeriveKey(Box<KeyDerivation>),
    Started,
    Ready(Unit),
    Skipped(Command),
    DeadlinePassed(Unit),
    NeedInput,
    Paused,
    Closed,
}

impl Frontend {
    /// A session that begins with the first call of [`poll_event`](crate::Link::poll_event).
    /// `entropy` is asked for 18 bytes, SCRAM's nonce.
    ///
    /// # Errors
    ///
    /// `Misuse` for a configuration that cannot be sent or cannot succeed.
    pub fn new(config: impl Into<Arc<Config>>, entropy: &mut dyn Entropy) -> Result<Self, Misuse> {
        let config = config.into();
        config.check()?;
        Ok(Self {
            startup: Some(Box::new(Startup::new(Arc::clone(&config), entropy))),
            config,
            begun: false,
            closed: false,
            flow: Flow::default(),
            starts: VecDeque::new(),
            timers: Timers::default(),
            held: None,
            drain: None,
            protocol: Protocol::V3_0,
            key: None,
            parameters: Parameters::default(),
            status: TransactionStatus::default(),
            large: None,
            columns: None,
            width: 0,
            quick: 0,
            used: 0,
        })
    }

    /// The one message that comes by the million: the next row, if it is whole and like the one before.
    /// Says where its values are. Everything else, errors too, is for [`next_event`](Self::next_event).
    #[inline]
    pub(super) fn next_row(&mut self, inbox: &Inbox) -> Option<Range<usize>> {
        let (&[b'D', a, b, c, d, e, f], values) = inbox.bytes().get(self.used..)?.split_first_chunk()? else {
            return None;
        };
        let body = (u32::from_be_bytes([a, b, c, d]) as usize).wrapping_sub(4);
        let length = body.wrapping_sub(2);
        if body > self.quick || usize::from(u16::from_be_bytes([e, f])) != self.width || length > values.len()
        {
            return None;
        }
        let start = self.used + HEADER + 2;
        self.used = start + length;
        Some(start..self.used)
    }

    #[inline]
    pub(super) fn view_row<'b>(&self, inbox: &'b Inbox, values: Range<usize>) -> Row<'b> {
        Row::new(self.width, &inbox.bytes()[values])
    }

    /// Everything but [`next_row`](Self::next_row), and kept apart so that that stays short.
    #[inline(never)]
    fn next_event<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<FrontendEvent<'b>>, Error> {
        let found = match self.find(now, inbox, outbox) {
            Ok(found) => found,
            Err(error) => {
                self.give_up(outbox);
                return Err(error);
            }
        };
        let bytes = inbox.bytes();
        Ok(Step::Event(match found {
            Found::Row(values) => FrontendEvent::Row(self.view_row(inbox, values)),
            Found::Message(tag, body) => messages::view(tag, &bytes[body])?,
            Found::Part(Part::Copy(data, last)) => FrontendEvent::CopyData { data: &bytes[data], last },
            Found::Part(Part::Row(columns)) => FrontendEvent::Piece(Piece::Row(columns)),
            Found::Part(Part::Column(length)) => FrontendEvent::Piece(Piece::Column(length)),
            Found::Part(Part::Data(data)) => FrontendEvent::Piece(Piece::Data(&bytes[data])),
            Found::Part(Part::End) => FrontendEvent::Piece(Piece::End),
            Found::Columns(columns) => FrontendEvent::Columns(columns),
            Found::DeriveKey(job) => FrontendEvent::DeriveKey(job),
            Found::Started => FrontendEvent::Started,
            Found::Ready(unit) => FrontendEvent::Ready { unit, status: self.status },
            Found::Skipped(command) => FrontendEvent::Skipped(command),
            Found::DeadlinePassed(unit) => FrontendEvent::DeadlinePassed(unit),
            Found::NeedInput => return Ok(Step::NeedInput),
            Found::Paused => return Ok(Step::Paused),
            Found::Closed => return Ok(Step::Closed),
        }))
    }

    fn find(&mut self, now: Instant, inbox: &mut Inbox, outbox: &mut Outbox) -> Result<Found, Error> {
        loop {
            inbox.discard(std::mem::take(&mut self.used));
            let found = self.next(now, inbox, outbox)?;
            if self.drain.is_some_and(|end| inbox.position() + self.used as u64 > end) {
                return Err(Error::limit(0, "drain", self.config.limits.drain));
            }
            // It was asked for before its results were dropped, and the server begins it only now.
            if self.drain.is_some() && self.flow.takes_data() {
                self.fail_copy(ABANDONED, outbox);
            }
            if let Some(found) = found
                && (self.drain.is_none() || self.is_wanted(&found, inbox))
            {
                return Ok(found);
            }
        }
    }

    /// Whether the owner wants to know, even though it dropped the results.
    fn is_wanted(&mut self, found: &Found, inbox: &Inbox) -> bool {
        match found {
            Found::Ready(_) => {
                if self.flow.is_idle() {
                    (self.drain, self.timers.drain) = (None, None);
                }
                true
            }
            Found::Message(b'E', body) => Report::parsed(&inbox.bytes()[body.clone()]).is_fatal(),
            Found::Message(tag, _) => matches!(tag, b'A' | b'N' | b'S'),
            Found::Row(_) | Found::Part(_) | Found::Columns(_) | Found::Skipped(_) => false,
            _ => true,
        }
    }

    /// What the next bytes are; `None` if it is nothing for the owner.
    fn next(&mut self, now: Instant, inbox: &mut Inbox, outbox: &mut Outbox) -> Result<Option<Found>, Error> {
        if let Some(unit) = self.timers.take_overdue() {
            return Ok(Some(Found::DeadlinePassed(unit)));
        }
        if self.closed {
            return Ok(Some(Found::Closed));
        }
        if self.large.is_some() {
            return self.part(inbox).map(Some);
        }
        if let Some(found) = self.begin(now, inbox, outbox)? {
            return Ok(Some(found));
        }
        if let Some(command) = self.flow.skipped() {
            return Ok(Some(Found::Skipped(command)));
        }
        let Some((tag, body)) = decode::header(inbox)? else { return self.need(inbox, outbox).map(Some) };
        self.admit(tag, body)?;
        if body > self.config.limits.whole && matches!(tag, b'D' | b'd') {
            return self.begin_large(tag, body, inbox, outbox).map(Some);
        }
        if inbox.len() < HEADER + body {
            return self.need(inbox, outbox).map(Some);
        }
        self.used = HEADER + body;
        self.message(tag, HEADER..HEADER + body, inbox, outbox)
    }

    /// Sends the start-up message, and waits while a key is being derived.
    fn begin(&mut self, now: Instant, inbox: &Inbox, outbox: &mut Outbox) -> Result<Option<Found>, Error> {
        let Some(startup) = &self.startup else { return Ok(None) };
        if !self.begun {
            // What came before TLS, or before anything was said, is not the server's (CVE-2021-23222).
            if !inbox.is_empty() {
                return Err(bad("bytes came before the start-up message was sent"));
            }
            self.begun = true;
            self.timers.connect = self.config.limits.connect_time.map(|time| now + time);
            startup.begin(outbox);
        }
        Ok(startup.is_deriving().then_some(Found::Paused))
    }

    /// Whether a message of this type and length may come. Decided by its header, before its
    /// body takes any room.
    fn admit(&self, tag: u8, body: usize) -> Result<(), Error> {
        let limits = &self.config.limits;
        let (most, name) = match (&self.startup, tag) {
            (Some(startup), tag) if startup.admits(tag) => (limits.startup, "startup"),
            (Some(_), _) => return Err(bad("a message that has no place in the start-up")),
            (None, b'D' | b'd') => (limits.message, "message"),
            (None, b'1' | b'2' | b'3' | b't' | b'T' | b'n' | b'C' | b'I' | b's' | b'G' | b'H' | b'W')
            | (None, b'c' | b'Z' | b'A' | b'E' | b'N' | b'S') => (limits.control, "control"),
            (None, _) => return Err(bad("a message of an unknown type")),
        };
        if body > most { Err(Error::limit(0, name, most as u64)) } else { Ok(()) }
    }

    /// More is needed, or there is no more.
    fn need(&mut self, inbox: &Inbox, outbox: &Outbox) -> Result<Found, Error> {
        if !inbox.is_eof() {
            return Ok(Found::NeedInput);
        }
        let unsent = self.starts.front().is_some_and(|start| *start >= outbox.position());
        Err(Error::Eof(match () {
            () if !inbox.is_empty() || self.large.is_some() => Phase::Body,
            () if self.startup.is_some() => Phase::Head,
            () if self.starts.is_empty() => Phase::Idle,
            () if unsent => Phase::Unsent,
            () => Phase::Open,
        }))
    }

    fn begin_large(
        &mut self,
        tag: u8,
        body: usize,
        inbox: &mut Inbox,
        outbox: &Outbox,
    ) -> Result<Found, Error> {
        if tag == b'd' {
            self.flow.accept(tag)?;
            inbox.discard(HEADER);
            self.large = Some(Large::Copy { left: body });
            return self.part(inbox);
        }
        // `whole` may be less than a count.
        let left = body.checked_sub(2).ok_or(bad("a message ends inside a field"))?;
        let Some(columns) = inbox.bytes().get(HEADER..HEADER + 2) else { return self.need(inbox, outbox) };
        let columns = Fields::new(columns).count()?;
        self.flow.accept(tag)?;
        if self.columns.is_some_and(|described| described != usize::from(columns)) {
            return Err(UNLIKE_DESCRIPTION);
        }
        self.quick = 0;
        self.large = Some(Large::Row { columns, column: None, left });
        self.used = HEADER + 2;
        Ok(Found::Part(Part::Row(columns)))
    }

    fn part(&mut self, inbox: &mut Inbox) -> Result<Found, Error> {
        let Some(large) = &mut self.large else { return Ok(Found::NeedInput) };
        match large.next(inbox)? {
            Some((part, used)) => {
                if large.is_over(&part) {
                    self.large = None;
                }
                self.used = used;
                Ok(Found::Part(part))
            }
            None if inbox.is_eof() => Err(Error::Eof(Phase::Body)),
            None => Ok(Found::NeedInput),
        }
    }

    /// Hangs up, in order if the session has begun: there is no other answer to a server.
    #[cold]
    fn give_up(&mut self, outbox: &mut Outbox) {
        if self.startup.is_none() && !self.closed {
            message(&mut outbox.tail(), b'X', |_| ());
        }
        self.quick = 0;
        outbox.shutdown();
    }

    /// Makes room for a message, in the outbox or in what waits for a cancel request.
    pub(super) fn write(&mut self, outbox: &mut Outbox, write: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.held {
            Some(held) => write(held),
            None => write(&mut outbox.tail()),
        }
    }

    /// A message that the server will answer is about to be written.
    pub(super) fn expect(&mut self, command: Command, outbox: &Outbox) {
        if !self.flow.is_open() {
            let held = self.held.as_ref().map_or(0, Vec::len);
            self.starts.push_back(outbox.position() + (outbox.len() + held) as u64);
        }
        self.flow.push(command);
    }

    pub(super) fn sync(&mut self, outbox: &mut Outbox) {
        self.expect(Command::Sync, outbox);
        self.write(outbox, |out| message(out, b'S', |_| ()));
    }

    /// CopyFail: `String` reason.
    pub(super) fn fail_copy(&mut self, reason: &str, outbox: &mut Outbox) {
        self.write(outbox, |out| message(out, b'f', |out| string(out, reason.as_bytes())));
        self.end_copy_in(outbox);
    }

    /// What follows the data of a COPY FROM: see [`Flow::begin_copy_in`].
    pub(super) fn end_copy_in(&mut self, outbox: &mut Outbox) {
        let Some(fence) = self.flow.end_copy_in() else { return };
        self.write(outbox, |out| {
            if fence {
                message(out, b'S', |_| ());
                message(out, b'C', |out| {
                    out.push(b'P');
                    string(out, b"balrog fence");
                });
            }
            message(out, b'S', |_| ());
        });
    }
}

/// Why a COPY fails whose session is [recovered](crate::Link::recover).
pub(super) const ABANDONED: &str = "the COPY was abandoned";

const UNLIKE_DESCRIPTION: Error = bad("a row has other columns than its description");

impl Machine for Frontend {
    type Event<'b> = FrontendEvent<'b>;

    #[inline]
    fn advance<'b>(
        &'b mut self,
        now: Instant,
        inbox: &'b mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Step<FrontendEvent<'b>>, Error> {
        match self.next_row(inbox) {
            Some(values) => Ok(Step::Event(FrontendEvent::Row(self.view_row(inbox, values)))),
            None => self.next_event(now, inbox, outbox),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn timeout(&mut self, now: Instant, outbox: &mut Outbox) -> Result<(), Error> {
        let cancel_time = self.config.limits.cancel_time;
        self.timers.pass(now, cancel_time).inspect_err(|_| self.give_up(outbox))
    }

    /// A server that is answering may not read before its answers are read. So there is always
    /// reading, above all while there is something to write: nobody waits for the other. But not
    /// while a key is derived, where a server that goes on talking would fill the inbox.
    fn interest(&self) -> Interest {
        let deriving = self.startup.as_ref().is_some_and(|startup| startup.is_deriving());
        Interest::read_if(!self.closed && !deriving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Link;
    use crate::postgres::Batch;

    #[test]
    fn an_idle_session_holds_little() {
        let now = Instant::now();
        let config = Arc::new(Config::new("me"));
        let mut link = Link::new(Frontend::new(config, &mut |bytes: &mut [u8]| bytes.fill(7)).unwrap());
        link.poll_event(now).unwrap();
        link.receive(b"R\0\0\0\x08\0\0\0\0");
        // What PostgreSQL 15 reports.
        for parameter in [
            "application_name\0\0",
            "client_encoding\0UTF8\0",
            "DateStyle\0ISO, MDY\0",
            "default_transaction_read_only\0off\0",
            "in_hot_standby\0off\0",
            "integer_datetimes\0on\0",
            "IntervalStyle\0postgres\0",
            "is_superuser\0on\0",
            "server_encoding\0UTF8\0",
            "server_version\x0015.20 (Debian 15.20-1.pgdg120+1)\0",
            "session_authorization\0postgres\0",
            "standard_conforming_strings\0on\0",
            "TimeZone\0Etc/UTC\0",
        ] {
            let mut bytes = Vec::new();
            message(&mut bytes, b'S', |out| out.extend_from_slice(parameter.as_bytes()));
            link.receive(&bytes);
        }
        link.receive(b"K\0\0\0\x0c\0\0\0\x01abcdZ\0\0\0\x05I");
        while let Step::Event(_) = link.poll_event(now).unwrap() {}
        assert_eq!(link.parameter("TimeZone"), Some(&b"Etc/UTC"[..]));
        // And after a long pipeline.
        let mut batch = Batch::new();
        for _ in 0..1_000 {
            batch.query("", &[]).unwrap().sync();
        }
        link.send(&mut batch).unwrap();
        link.transmitted(link.unsent());
        let answer = b"1\0\0\0\x042\0\0\0\x04n\0\0\0\x04I\0\0\0\x04Z\0\0\0\x05I";
        link.receive(&answer.repeat(1_000));
        while let Step::Event(_) = link.poll_event(now).unwrap() {}
        assert!(link.is_idle());
        let frontend = link.machine();
        let heap =
            frontend.parameters.capacity() + frontend.flow.capacity() + 8 * frontend.starts.capacity() + 4;
        let held = size_of::<Link<Frontend>>() + link.heap() + heap;
        assert!(held <= 1024, "{held} bytes, {heap} of them on the heap");
    }
}
