//! Two links of ours that talk to each other in virtual time, over a wire with latency that
//! delivers in pieces.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use balrog_proto::{Error, Link, Machine, Transmit};

/// What an owner did in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There was an event, or a command.
    Busy,
    /// Nothing to do before something comes, or the time does.
    Idle,
    /// The connection is over; the driver closes it when everything is sent.
    Over,
}

/// The owner of one link.
pub trait Owner<M: Machine> {
    /// Takes one event or gives one command.
    fn turn(&mut self, link: &mut Link<M>, now: Instant) -> Turn;
}

/// The wire's behaviour.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    /// From one end to the other.
    pub latency: Duration,
    /// At most so many bytes arrive at once.
    pub piece: usize,
    /// At most so many bytes leave at once, and so many are under way to one end.
    pub window: usize,
}

impl Default for Wire {
    fn default() -> Self {
        Self { latency: Duration::from_millis(20), piece: usize::MAX, window: usize::MAX }
    }
}

#[derive(Debug)]
enum Packet {
    Bytes(Vec<u8>),
    Fin,
}

/// One end: a link, its owner, and what is under way to it.
#[derive(Debug)]
pub struct End<M: Machine, O> {
    pub link: Link<M>,
    pub owner: O,
    coming: VecDeque<(Instant, Packet)>,
    over: bool,
    shut: bool,
    /// What a deadline ended.
    pub timeout: Option<Error>,
}

impl<M: Machine, O: Owner<M>> End<M, O> {
    fn new(link: Link<M>, owner: O) -> Self {
        Self { link, owner, coming: VecDeque::new(), over: false, shut: false, timeout: None }
    }

    /// Whether it is over and everything is sent.
    pub fn is_closed(&self) -> bool {
        self.over && self.link.unsent() == 0
    }

    fn under_way(&self) -> usize {
        self.coming
            .iter()
            .map(|(_, packet)| if let Packet::Bytes(bytes) = packet { bytes.len() } else { 0 })
            .sum()
    }

    /// What has arrived by `now`, as far as it is wanted.
    fn deliver(&mut self, now: Instant) {
        while let Some((at, _)) = self.coming.front()
            && *at <= now
            && self.link.wants_input()
        {
            match self.coming.pop_front() {
                Some((_, Packet::Bytes(bytes))) => self.link.receive(&bytes),
                _ => self.link.receive_eof(),
            }
            self.work(now);
        }
    }

    fn work(&mut self, now: Instant) {
        if self.link.poll_timeout().is_some_and(|at| at <= now)
            && let Err(error) = self.link.handle_timeout(now)
        {
            self.timeout = Some(error);
            self.over = true;
        }
        let mut turns = 0;
        while !self.over {
            match self.owner.turn(&mut self.link, now) {
                Turn::Busy => turns += 1,
                Turn::Idle => break,
                Turn::Over => self.over = true,
            }
            assert!(turns < 1_000_000, "an owner is never idle");
        }
    }

    fn send_to<N: Machine, P: Owner<N>>(&mut self, peer: &mut End<N, P>, now: Instant, wire: Wire) {
        let arrives = now + wire.latency;
        // What nobody reads, the kernel throws away.
        let window = if peer.over { usize::MAX } else { wire.window };
        let mut room = window.saturating_sub(peer.under_way());
        loop {
            let sent = match self.link.poll_transmit() {
                Some(Transmit::Data(mut segments)) if room > 0 => {
                    let segment = segments.next().expect("data to send");
                    let n = segment.len().min(wire.piece).min(room);
                    peer.coming.push_back((arrives, Packet::Bytes(segment[..n].to_vec())));
                    n
                }
                Some(Transmit::External(n)) => {
                    peer.coming.push_back((arrives, Packet::Bytes(vec![b'x'; n])));
                    n
                }
                Some(Transmit::Shutdown) => {
                    self.shut = true;
                    peer.coming.push_back((arrives, Packet::Fin));
                    continue;
                }
                _ => break,
            };
            room = room.saturating_sub(sent);
            self.link.transmitted(sent);
        }
        // What a driver closes, the other side sees the end of.
        if self.is_closed() && !self.shut {
            self.shut = true;
            peer.coming.push_back((arrives, Packet::Fin));
        }
    }

    fn next_time(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let arrival = self.coming.front().filter(|_| self.link.wants_input()).map(|(at, _)| *at);
        [arrival, self.link.poll_timeout()].into_iter().flatten().min()
    }
}

/// Two ends and the time.
#[derive(Debug)]
pub struct Pair<A: Machine, P, B: Machine, Q> {
    pub a: End<A, P>,
    pub b: End<B, Q>,
    pub wire: Wire,
    pub now: Instant,
}

impl<A: Machine, P: Owner<A>, B: Machine, Q: Owner<B>> Pair<A, P, B, Q> {
    pub fn new(a: (Link<A>, P), b: (Link<B>, Q), wire: Wire) -> Self {
        Self { a: End::new(a.0, a.1), b: End::new(b.0, b.1), wire, now: Instant::now() }
    }

    /// Lets both ends work until nothing is under way and no clock runs.
    pub fn drive(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 1_000_000, "they never come to rest");
        }
    }

    /// Until both ends are closed, as every pair ends; panics if they rest before.
    pub fn drive_to_the_end(&mut self) {
        self.drive();
        assert!(
            self.a.is_closed() && self.b.is_closed(),
            "both ends rest, but are not closed: {} {}",
            self.a.is_closed(),
            self.b.is_closed()
        );
    }

    /// One moment of the virtual time. Whether there may be a next one.
    pub fn step(&mut self) -> bool {
        self.a.work(self.now);
        self.b.work(self.now);
        self.a.send_to(&mut self.b, self.now, self.wire);
        self.b.send_to(&mut self.a, self.now, self.wire);
        let Some(next) = [self.a.next_time(), self.b.next_time()].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        self.a.deliver(self.now);
        self.b.deliver(self.now);
        true
    }
}
