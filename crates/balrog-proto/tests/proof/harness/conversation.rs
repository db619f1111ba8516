//! Two WebSocket peers of ours that talk by a plan: each has to hear what the other said.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use balrog_proto::websocket::{Deflate, Initiator, Kind, Peer, PeerEvent, Prepared};
use balrog_proto::{Link, Step};

use super::choices::Choices;
use super::pair::{Owner, Pair, Turn};
use super::websocket::PeerSide;

#[derive(Debug, Clone)]
enum Say {
    Whole(Kind, Vec<u8>),
    Fragments(Kind, Vec<Vec<u8>>),
    Prepared(Kind, Vec<u8>),
    Ping(Vec<u8>),
}

impl Say {
    fn of(choices: &mut Choices<'_>) -> Self {
        let kind = choices.one_of(&[Kind::Text, Kind::Binary]);
        let data = |choices: &mut Choices<'_>| match kind {
            Kind::Text => choices.one_of(&["a", "κόσμε ", "🦀"]).repeat(choices.size() / 2).into_bytes(),
            Kind::Binary => (0..choices.size()).map(|n| (n % 251) as u8).collect(),
        };
        match choices.below(4) {
            0 => Self::Whole(kind, data(choices)),
            1 => {
                let data = data(choices);
                // Far below the limit of fragments.
                let size = 1 + choices.size().max(data.len() / 64);
                Self::Fragments(kind, data.chunks(size).map(<[u8]>::to_vec).collect())
            }
            2 => Self::Prepared(kind, data(choices)),
            _ => Self::Ping(vec![choices.byte(); choices.below(126)]),
        }
    }

    fn message(&self) -> Option<(Kind, Vec<u8>)> {
        match self {
            Self::Whole(kind, data) | Self::Prepared(kind, data) => Some((*kind, data.clone())),
            Self::Fragments(kind, fragments) => Some((*kind, fragments.concat())),
            Self::Ping(_) => None,
        }
    }
}

struct Talker {
    plan: VecDeque<Say>,
    deflate: Option<Deflate>,
    /// What is left of a message that is sent in fragments, and whether one is sent.
    fragments: Option<(Kind, VecDeque<Vec<u8>>, bool)>,
    /// Closes at the end of the plan.
    closes: bool,
    part: Vec<u8>,
    heard: Vec<(Kind, Vec<u8>)>,
    pongs: usize,
    /// Who began to close.
    closed: Option<Initiator>,
}

impl Talker {
    fn say(&mut self, link: &mut Link<Peer>) -> Turn {
        if !link.is_open() || link.is_congested() {
            return Turn::Idle;
        }
        if let Some((kind, fragments, begun)) = &mut self.fragments {
            let kind = *kind;
            if std::mem::replace(begun, true) {
                let other = if kind == Kind::Text { Kind::Binary } else { Kind::Text };
                let unsent = link.unsent();
                assert!(link.send_fragment(other, b"", true).is_err(), "a message inside another");
                assert!(link.send_text("x").is_err(), "a message inside another");
                assert_eq!(link.unsent(), unsent);
            }
            let fragment = fragments.pop_front().unwrap_or_default();
            let fin = fragments.is_empty();
            link.send_fragment(kind, &fragment, fin).unwrap();
            if fin {
                self.fragments = None;
            }
            return Turn::Busy;
        }
        match self.plan.pop_front() {
            Some(Say::Whole(Kind::Text, data)) => {
                link.send_text(std::str::from_utf8(&data).unwrap()).unwrap();
            }
            Some(Say::Whole(Kind::Binary, data)) => link.send_binary(&data).unwrap(),
            Some(Say::Prepared(kind, data)) => {
                let prepared = match kind {
                    Kind::Text => Prepared::text(std::str::from_utf8(&data).unwrap()),
                    Kind::Binary => Prepared::binary(&data),
                };
                let prepared = match &self.deflate {
                    Some(deflate) => prepared.compressed(deflate),
                    None => prepared,
                };
                link.send_prepared(&prepared).unwrap();
            }
            Some(Say::Fragments(kind, fragments)) => {
                self.fragments = Some((kind, fragments.into(), false));
            }
            Some(Say::Ping(data)) => link.ping(&data).unwrap(),
            None if self.closes => {
                link.close(1000, "done").unwrap();
                assert!(link.send_text("late").is_err());
            }
            None => return Turn::Idle,
        }
        Turn::Busy
    }

    fn end_of_part(&mut self, kind: Kind, fin: bool) {
        if fin {
            self.heard.push((kind, std::mem::take(&mut self.part)));
        }
    }
}

impl Owner<Peer> for Talker {
    fn turn(&mut self, link: &mut Link<Peer>, now: Instant) -> Turn {
        match link.poll_event(now).expect("a peer of ours keeps the rules") {
            Step::Event(PeerEvent::Text(text)) => self.heard.push((Kind::Text, text.as_bytes().to_vec())),
            Step::Event(PeerEvent::Binary(data)) => self.heard.push((Kind::Binary, data.to_vec())),
            Step::Event(PeerEvent::TextPart { text, fin }) => {
                self.part.extend_from_slice(text.as_bytes());
                self.end_of_part(Kind::Text, fin);
            }
            Step::Event(PeerEvent::BinaryPart { data, fin }) => {
                self.part.extend_from_slice(data);
                self.end_of_part(Kind::Binary, fin);
            }
            Step::Event(PeerEvent::Ping(_) | PeerEvent::Writable) => {}
            Step::Event(PeerEvent::Pong(_)) => self.pongs += 1,
            Step::Event(PeerEvent::Close { code, reason, initiator }) => {
                assert_eq!(code, 1000);
                assert!(initiator == Initiator::Local || reason == "done");
                assert_eq!(self.closed.replace(initiator), None);
            }
            Step::NeedInput | Step::Paused => return self.say(link),
            Step::Closed => return Turn::Over,
        }
        Turn::Busy
    }
}

/// Holds a conversation made of these choices.
pub fn hold(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let wire = choices.wire();
    let parameters = choices.byte();
    let side = |client: bool, streaming: bool| {
        let deflate = if parameters & 1 == 1 { PeerSide::deflating(parameters).deflate } else { None };
        let mut side = PeerSide { client, streaming, deflate, ..PeerSide::default() };
        // The slowest wire needs so long for what both have to say.
        side.limits.close_time = Duration::from_secs(60);
        side
    };
    let (client, server) = (side(true, choices.flag()), side(false, choices.flag()));
    let plans: [Vec<Say>; 2] = [0, 1].map(|_| (0..choices.below(7)).map(|_| Say::of(&mut choices)).collect());
    // One of them closes, or both do.
    let closes = choices.one_of(&[[true, false], [false, true], [true, true]]);
    let talker = |plan: &[Say], closes: bool, side: &PeerSide| Talker {
        plan: plan.to_vec().into(),
        deflate: side.deflate.clone(),
        fragments: None,
        closes,
        part: Vec::new(),
        heard: Vec::new(),
        pongs: 0,
        closed: None,
    };
    let mut pair = Pair::new(
        (Link::new(client.peer()), talker(&plans[0], closes[0], &client)),
        (Link::new(server.peer()), talker(&plans[1], closes[1], &server)),
        wire,
    );
    pair.drive_to_the_end();
    for (ears, mouth, plan) in
        [(&pair.a.owner, &pair.b.owner, &plans[1]), (&pair.b.owner, &pair.a.owner, &plans[0])]
    {
        let said: Vec<_> = plan.iter().filter_map(Say::message).collect();
        match ears.closed.expect("both saw a Close") {
            // What comes behind our own close is not heard.
            Initiator::Local => assert!(said.starts_with(&ears.heard)),
            // Who is closed by the other has heard all that it had to say.
            Initiator::Remote => {
                assert!(mouth.plan.is_empty());
                assert_eq!(ears.heard, said);
            }
        }
    }
}
