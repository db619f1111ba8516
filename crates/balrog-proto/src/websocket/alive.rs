use std::time::{Duration, Instant};

use crate::Outbox;
use crate::websocket::Limits;
use crate::websocket::frame::{PING, PONG};
use crate::websocket::outgoing::Outgoing;

/// Unsent bytes from which on pings are not answered at once: the peer does not read anyway.
const BACKLOG: usize = 64 * 1024;
/// The time over which answered pings are counted.
const SECOND: Duration = Duration::from_secs(1);

/// Pings and pongs (RFC 6455 sections 5.5.2 and 5.5.3): whether the peer is there, and how far.
#[derive(Debug, Default)]
pub(crate) struct Alive {
    /// When something came last.
    heard: Option<Instant>,
    /// When a ping was sent behind which nothing has come.
    pinged: Option<Instant>,
    /// How far the outbox was sent when we looked, and what of it goes before our last ping.
    sent: u64,
    before: u64,
    /// The last of our pings that has no pong.
    probe: Option<(u32, Instant)>,
    number: u32,
    round_trip: Option<Duration>,
    /// The payload of the pong that has to wait.
    waiting: Option<Box<[u8]>>,
    /// Since when pongs are counted, and how many.
    counted_from: Option<Instant>,
    pongs: u16,
}

impl Alive {
    /// Time begins with the first look at it.
    #[inline]
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.heard.is_none() {
            self.heard = Some(now);
        }
    }

    /// Something came.
    #[inline]
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.pinged = None;
    }

    /// A ping came. "A Pong frame sent in response to a Ping frame must have identical
    /// "Application data" as found in the message body of the Ping frame being replied to. If an
    /// endpoint receives a Ping frame and has not yet sent Pong frame(s) in response to previous
    /// Ping frame(s), the endpoint MAY elect to send a Pong frame for only the most recently
    /// processed Ping frame." Each is answered at once, unless they are many or the peer does
    /// not read; then the latest waits.
    pub(crate) fn ping(
        &mut self,
        now: Instant,
        payload: &[u8],
        limits: &Limits,
        outgoing: &mut Outgoing,
        outbox: &mut Outbox,
    ) {
        if self.may_answer(now, limits, outbox) {
            self.waiting = None;
            outgoing.control(PONG, payload, outbox);
        } else {
            self.waiting = Some(payload.into());
        }
    }

    /// Sends the pong that had to wait, if it may go now.
    #[inline]
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        limits: &Limits,
        outgoing: &mut Outgoing,
        outbox: &mut Outbox,
    ) {
        if self.waiting.is_some() && self.may_answer(now, limits, outbox) {
            let payload = self.waiting.take().unwrap_or_default();
            outgoing.control(PONG, &payload, outbox);
        }
    }

    fn may_answer(&mut self, now: Instant, limits: &Limits, outbox: &Outbox) -> bool {
        if self.counted_from.is_none_or(|from| now.saturating_duration_since(from) >= SECOND) {
            self.counted_from = Some(now);
            self.pongs = 0;
        }
        let may = self.pongs < limits.pongs && outbox.len() < BACKLOG;
        self.pongs += u16::from(may);
        may
    }

    /// A pong came. "A Pong frame MAY be sent unsolicited": only the answer to our last ping
    /// tells how long the way is.
    pub(crate) fn pong(&mut self, now: Instant, payload: &[u8]) {
        if let Some((number, sent)) = self.probe
            && payload == number.to_be_bytes()
        {
            self.round_trip = Some(now.saturating_duration_since(sent));
            self.probe = None;
        }
    }

    /// Pings.
    pub(crate) fn probe(&mut self, now: Instant, outgoing: &mut Outgoing, outbox: &mut Outbox) {
        self.number = self.number.wrapping_add(1);
        self.sent = outbox.position();
        self.before = self.sent + outbox.len() as u64;
        outgoing.control(PING, &self.number.to_be_bytes(), outbox);
        self.probe = Some((self.number, now));
        self.pinged = Some(now);
    }

    /// When the peer is to be pinged.
    pub(crate) fn ping_at(&self, limits: &Limits) -> Option<Instant> {
        if self.pinged.is_some() { None } else { Some(self.heard? + limits.ping_interval?) }
    }

    /// When the peer is lost.
    pub(crate) fn lost_at(&self, limits: &Limits) -> Option<Instant> {
        Some(self.pinged? + limits.pong_time)
    }

    /// Whether the peer is lost, now that it would be. While what goes before our ping is on its way,
    /// however slowly, the peer cannot answer yet.
    pub(crate) fn is_lost(&mut self, now: Instant, outbox: &Outbox) -> bool {
        let sent = outbox.position();
        let moves = self.sent < self.before && sent > self.sent;
        if moves {
            (self.sent, self.pinged) = (sent, Some(now));
        }
        !moves
    }

    /// When the pong that waits is looked at again.
    pub(crate) fn answer_at(&self) -> Option<Instant> {
        self.waiting.as_ref().and(self.counted_from).map(|from| from + SECOND)
    }

    pub(crate) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}
