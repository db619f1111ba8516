//! An HTTP client and a server of ours that carry out a plan: whatever it is, each has to see
//! what the other meant.

use std::collections::VecDeque;
use std::time::Instant;

use balrog_proto::http1::{BodyLength, Client, ClientEvent, Limits, Server, ServerEvent};
use balrog_proto::{Error, Link, Phase, Step};

use super::choices::Choices;
use super::pair::{Owner, Pair, Turn};

/// One request with its response.
#[derive(Debug, Clone)]
struct Exchange {
    method: &'static str,
    target: String,
    request: Body,
    status: u16,
    response: Body,
    hints: usize,
    /// The server answers without the request's body.
    early: bool,
    /// The client says that this request is the last.
    last: bool,
    /// The server says so.
    closes: bool,
}

#[derive(Debug, Clone)]
struct Body {
    length: BodyLength,
    pieces: Vec<Vec<u8>>,
}

impl Body {
    fn of(choices: &mut Choices<'_>) -> Self {
        let chunked = choices.flag();
        let pieces: Vec<Vec<u8>> = (0..choices.below(4))
            .map(|_| {
                let byte = choices.byte();
                vec![byte; choices.size()]
            })
            .collect();
        let length = if chunked {
            BodyLength::Unknown
        } else if pieces.is_empty() {
            BodyLength::None
        } else {
            BodyLength::Length(pieces.iter().map(Vec::len).sum::<usize>() as u64)
        };
        Self { length, pieces }
    }

    fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

impl Exchange {
    fn of(choices: &mut Choices<'_>) -> Self {
        Self {
            method: choices.one_of(&["GET", "POST", "HEAD", "PUT", "OPTIONS"]),
            target: format!("/{}?{}", "x".repeat(choices.size().min(4_096)), choices.byte()),
            request: Body::of(choices),
            status: choices.one_of(&[200, 404, 204, 304, 201, 500]),
            response: Body::of(choices),
            hints: choices.below(3),
            early: choices.below(8) == 7,
            last: choices.below(8) == 7,
            closes: choices.below(8) == 7,
        }
    }

    fn has_response_body(&self) -> bool {
        self.method != "HEAD" && !matches!(self.status, 204 | 304)
    }
}

struct Asking {
    plan: VecDeque<Exchange>,
    current: Option<Exchange>,
    /// Pieces of the request's body that are not sent, if it is not finished.
    unsent: Option<VecDeque<Vec<u8>>>,
    status: u16,
    hints: usize,
    body: Vec<u8>,
    done: usize,
    /// Whether there was an early answer.
    early: bool,
}

impl Asking {
    fn command(&mut self, link: &mut Link<Client>) -> Turn {
        if let Some(unsent) = &mut self.unsent {
            if link.is_congested() {
                return Turn::Idle;
            }
            match unsent.pop_front() {
                Some(piece) => link.body(&piece).unwrap(),
                None => {
                    link.finish().unwrap();
                    self.unsent = None;
                }
            }
            return Turn::Busy;
        }
        if self.current.is_some() {
            return Turn::Idle;
        }
        let Some(next) = self.plan.pop_front() else { return Turn::Over };
        let close: &[(&[u8], &[u8])] = if next.last { &[(b"Connection", b"close")] } else { &[] };
        link.request(next.method, &next.target, "a", close, next.request.length).unwrap();
        let unsent = link.unsent();
        assert!(link.request("GET", "/", "a", &[], BodyLength::None).is_err(), "two requests at once");
        assert_eq!(link.unsent(), unsent);
        if next.request.length == BodyLength::None {
            link.finish().unwrap();
        } else {
            self.unsent = Some(next.request.pieces.clone().into());
        }
        self.current = Some(next);
        Turn::Busy
    }
}

impl Owner<Client> for Asking {
    fn turn(&mut self, link: &mut Link<Client>, now: Instant) -> Turn {
        let step = match link.poll_event(now) {
            Ok(step) => step,
            // Behind an early answer, the server's patience with the rest of the body may end
            // while a slow wire still carries it.
            Err(Error::Eof(Phase::Idle | Phase::Unsent)) if self.early => return Turn::Over,
            Err(error) => panic!("a server of ours keeps the rules: {error}"),
        };
        match step {
            Step::Event(ClientEvent::Informational(head)) => {
                assert_eq!(head.status, 103);
                self.hints += 1;
            }
            Step::Event(ClientEvent::Response(head)) => self.status = head.status,
            Step::Event(ClientEvent::Upgraded(_) | ClientEvent::Extension(_) | ClientEvent::Trailers(_)) => {
                panic!("nobody asked for that")
            }
            Step::Event(ClientEvent::Body(data)) => self.body.extend_from_slice(data),
            Step::Event(ClientEvent::End { reusable }) => {
                let plan = self.current.take().expect("an answer to a request");
                assert_eq!((self.status, self.hints), (plan.status, plan.hints));
                let expected = if plan.has_response_body() { plan.response.bytes() } else { Vec::new() };
                assert!(self.body == expected, "{} bytes, not {}", self.body.len(), expected.len());
                (self.status, self.hints, self.body) = (0, 0, Vec::new());
                self.done += 1;
                self.early |= plan.early;
                if plan.last || plan.closes {
                    assert!(!reusable);
                }
                if !reusable {
                    // An early answer may be there before the request is sent whole.
                    assert!(plan.last || plan.closes || plan.early, "the connection could go on");
                    return Turn::Over;
                }
            }
            Step::NeedInput | Step::Paused => return self.command(link),
            Step::Closed => return Turn::Over,
        }
        Turn::Busy
    }
}

struct Answering {
    plan: VecDeque<Exchange>,
    current: Option<Exchange>,
    body: Vec<u8>,
    unsent: Option<VecDeque<Vec<u8>>>,
    done: usize,
}

impl Answering {
    fn answer(&mut self, link: &mut Link<Server>) {
        let plan = self.current.as_ref().expect("a request");
        for _ in 0..plan.hints {
            link.inform(103, &[(b"Link", b"</style.css>")]).unwrap();
        }
        link.respond(plan.status, "", &[(b"X-A", b"b")], plan.response.length, plan.closes).unwrap();
        let unsent = link.unsent();
        assert!(link.respond(200, "OK", &[], BodyLength::None, false).is_err(), "two responses");
        assert!(link.inform(103, &[]).is_err(), "a hint behind the response");
        assert_eq!(link.unsent(), unsent);
        self.unsent = Some(plan.response.pieces.clone().into());
    }

    fn send(&mut self, link: &mut Link<Server>) -> Turn {
        let Some(unsent) = &mut self.unsent else { return Turn::Idle };
        if link.is_congested() {
            return Turn::Idle;
        }
        match unsent.pop_front() {
            Some(piece) => link.body(&piece).unwrap(),
            None => {
                link.finish().unwrap();
                self.unsent = None;
                self.current = None;
                self.done += 1;
            }
        }
        Turn::Busy
    }
}

impl Owner<Server> for Answering {
    fn turn(&mut self, link: &mut Link<Server>, now: Instant) -> Turn {
        // A response that has begun is sent before anything else is asked for.
        if self.send(link) == Turn::Busy {
            return Turn::Busy;
        }
        if self.unsent.is_some() {
            return Turn::Idle;
        }
        match link.poll_event(now) {
            Ok(Step::Event(ServerEvent::Request(head))) => {
                let plan = self.plan.pop_front().expect("a request of the plan");
                assert_eq!((head.method, head.target), (plan.method, plan.target.as_str()));
                assert_eq!(head.keep_alive, !plan.last);
                let early = plan.early;
                self.current = Some(plan);
                if early {
                    self.answer(link);
                }
            }
            Ok(Step::Event(ServerEvent::Body(data))) => self.body.extend_from_slice(data),
            Ok(Step::Event(ServerEvent::Extension(_) | ServerEvent::Trailers(_))) => {
                panic!("nobody asked for that")
            }
            Ok(Step::Event(ServerEvent::End)) => {
                let expected = self.current.as_ref().expect("a request").request.bytes();
                assert!(self.body == expected, "{} bytes, not {}", self.body.len(), expected.len());
                self.body = Vec::new();
                self.answer(link);
            }
            Ok(Step::NeedInput | Step::Paused) => return Turn::Idle,
            Ok(Step::Closed) => return Turn::Over,
            // A client that has its early answer need not send the rest.
            Err(error) => {
                assert!(self.done > 0, "a client of ours keeps the rules: {error}");
                return Turn::Over;
            }
        }
        Turn::Busy
    }
}

/// Carries out a plan made of these choices.
pub fn carry_out(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let wire = choices.wire();
    let plan: Vec<Exchange> = (0..=choices.below(5)).map(|_| Exchange::of(&mut choices)).collect();
    let asking = Asking {
        plan: plan.clone().into(),
        current: None,
        unsent: None,
        status: 0,
        hints: 0,
        body: Vec::new(),
        done: 0,
        early: false,
    };
    let answering =
        Answering { plan: plan.clone().into(), current: None, body: Vec::new(), unsent: None, done: 0 };
    let mut pair = Pair::new(
        (Link::new(Client::new(Limits::default())), asking),
        (Link::new(Server::new(Limits::default())), answering),
        wire,
    );
    pair.drive_to_the_end();
    let (asked, answered) = (pair.a.owner.done, pair.b.owner.done);
    let last = plan.iter().position(|exchange| exchange.last || exchange.closes || exchange.early);
    assert!(asked >= last.map_or(plan.len(), |last| last + 1), "{asked} of {}", plan.len());
    assert_eq!(asked, answered);
}
