//! An HTTP server whose owner gives any command at any time, beside a model that knows which are
//! allowed and what comes of them.

use std::time::Instant;

use balrog_proto::http1::{BodyLength, Limits, Server, ServerEvent};
use balrog_proto::{Link, Step};

use super::choices::Choices;
use super::http::{Response, responses};

/// A request as the client sends it.
struct Request {
    method: &'static str,
    target: String,
    modern: bool,
    last: bool,
    expects: bool,
    body: Vec<u8>,
}

impl Request {
    fn of(number: usize, choices: &mut Choices<'_>) -> (Self, Vec<u8>) {
        let modern = choices.below(4) != 3;
        let last = !modern || choices.below(6) == 5;
        let byte = choices.byte();
        let body = vec![byte; choices.size()];
        let chunked = modern && choices.flag();
        // With a length, the first byte of the body is one that the model sees.
        let expects = modern && !chunked && !body.is_empty() && choices.flag();
        let request = Self {
            method: choices.one_of(&["POST", "GET", "HEAD"]),
            target: format!("/{number}"),
            modern,
            last,
            expects,
            body,
        };
        let version = if modern { "HTTP/1.1" } else { "HTTP/1.0" };
        let mut bytes =
            format!("{} {} {version}\r\nHost: a\r\n", request.method, request.target).into_bytes();
        if last && modern {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        if expects {
            bytes.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        if chunked {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in request.body.chunks(1 + choices.size()) {
                bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", request.body.len()).as_bytes());
            bytes.extend_from_slice(&request.body);
        }
        (request, bytes)
    }
}

/// What the current request has come to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Awaited,
    Body,
    Complete,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    None,
    Length(usize),
    Chunked,
    UntilClose,
    Nothing,
}

/// What has to be, by RFC 9112 and the documentation of each command.
struct Model {
    requests: Vec<Request>,
    /// Index of the current request.
    current: usize,
    phase: Phase,
    /// The part of its body that was told.
    body: Vec<u8>,
    answer: Answer,
    continued: bool,
    close: bool,
    sent: Vec<Response>,
}

impl Model {
    fn request(&self) -> &Request {
        &self.requests[self.current]
    }

    fn awaits_response(&self) -> bool {
        self.answer == Answer::None && matches!(self.phase, Phase::Body | Phase::Complete)
    }

    fn inform(&mut self, status: u16) -> bool {
        let allowed = (100..200).contains(&status) && status != 101 && self.awaits_response();
        if allowed && self.request().modern {
            self.sent.push(Response { status, closes: false, body: Vec::new(), whole: true });
            self.continued |= status == 100;
        }
        allowed
    }

    fn respond(&mut self, status: u16, length: BodyLength, close: bool) -> bool {
        if !self.awaits_response() || status < 200 {
            return false;
        }
        let request = self.request();
        let waits = request.expects && !self.continued && self.body.is_empty() && self.phase == Phase::Body;
        let bodiless = request.method == "HEAD" || matches!(status, 204 | 304);
        let last = request.last;
        let answer = match length {
            _ if bodiless => Answer::Nothing,
            BodyLength::None => Answer::Length(0),
            BodyLength::Length(length) => Answer::Length(length as usize),
            BodyLength::Unknown if request.modern => Answer::Chunked,
            BodyLength::Unknown => Answer::UntilClose,
        };
        self.close = close || last || waits || answer == Answer::UntilClose;
        self.answer = answer;
        self.sent.push(Response { status, closes: self.close, body: Vec::new(), whole: false });
        true
    }

    fn send(&mut self, data: &[u8]) -> bool {
        match &mut self.answer {
            Answer::None => return false,
            Answer::Nothing => return true,
            Answer::Length(left) if *left < data.len() => return false,
            Answer::Length(left) => *left -= data.len(),
            Answer::Chunked | Answer::UntilClose => {}
        }
        self.sent.last_mut().expect("a response").body.extend_from_slice(data);
        true
    }

    fn finish(&mut self) -> bool {
        match self.answer {
            Answer::None => return false,
            Answer::Length(1..) => {
                self.phase = Phase::Over;
                self.answer = Answer::None;
                return false;
            }
            _ => {}
        }
        self.sent.last_mut().expect("a response").whole = true;
        self.answer = Answer::None;
        self.current += 1;
        self.body = Vec::new();
        self.continued = false;
        self.phase = if self.close { Phase::Over } else { Phase::Awaited };
        true
    }
}

/// Gives commands made of these choices, and compares with the model after each.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let now = Instant::now();
    let mut stream = Vec::new();
    let mut requests = Vec::new();
    for number in 0..=choices.below(4) {
        let (request, bytes) = Request::of(number, &mut choices);
        requests.push(request);
        stream.extend_from_slice(&bytes);
    }
    let methods: Vec<&str> = requests.iter().map(|request| request.method).collect();
    let mut model = Model {
        requests,
        current: 0,
        phase: Phase::Awaited,
        body: Vec::new(),
        answer: Answer::None,
        continued: false,
        close: false,
        sent: Vec::new(),
    };
    // What is drained without end is no matter of commands; other tests hold it to its limit.
    let mut limits = Limits::default();
    limits.drain = u64::MAX;
    let mut link = Link::new(Server::new(limits));
    let mut rest = &stream[..];
    let mut sent = Vec::new();
    // A few polls behind the last choice.
    let mut more = 16;
    while more > 0 {
        if choices.is_empty() {
            more -= 1;
        }
        let before = link.unsent();
        let allowed = match choices.below(12) {
            0..=3 => {
                poll(&mut link, now, &mut model);
                continue;
            }
            4 | 5 => {
                let n = choices.size().min(rest.len());
                link.receive(&rest[..n]);
                rest = &rest[n..];
                poll(&mut link, now, &mut model);
                continue;
            }
            6 => {
                let status = choices.one_of(&[100, 103, 101, 200, 99, 199]);
                (link.inform(status, &[]).is_ok(), model.inform(status))
            }
            7 => {
                let status = choices.one_of(&[200, 204, 304, 404, 199, 413]);
                let length = match choices.below(3) {
                    0 => BodyLength::None,
                    1 => BodyLength::Unknown,
                    _ => BodyLength::Length(choices.size() as u64),
                };
                let close = choices.below(6) == 5;
                (link.respond(status, "", &[], length, close).is_ok(), model.respond(status, length, close))
            }
            8 | 9 => {
                let data = vec![choices.byte(); choices.size()];
                (link.body(&data).is_ok(), model.send(&data))
            }
            10 => (link.finish().is_ok(), model.finish()),
            _ => {
                let bad: (&[u8], &[u8]) = choices.one_of(&[
                    (b"X-A".as_slice(), b"a\r\nb".as_slice()),
                    (b"", b"a"),
                    (b"Content-Length", b"1"),
                    (b"transfer-encoding", b"chunked"),
                    (b"X A", b"b"),
                    (b"X", b"\0"),
                ]);
                (link.respond(200, "OK", &[bad], BodyLength::None, false).is_ok(), false)
            }
        };
        assert_eq!(allowed.0, allowed.1, "whether a command is allowed");
        if !allowed.0 {
            assert_eq!(link.unsent(), before, "what is not allowed sends nothing");
        }
        while let Some(bytes) = link.transmit() {
            sent.extend_from_slice(bytes);
            let n = bytes.len();
            link.transmitted(n);
        }
    }
    let mut seen = responses(&sent, &methods);
    // One without a body, or until the end of the connection, looks whole.
    for (seen, expected) in seen.iter_mut().zip(&model.sent) {
        seen.whole = expected.whole;
    }
    assert_eq!(seen, model.sent);
    assert_eq!(link.is_shutdown(), model.phase == Phase::Over);
}

/// One event, which has to be the next of the model's.
fn poll(link: &mut Link<Server>, now: Instant, model: &mut Model) {
    match link.poll_event(now).expect("the client keeps the rules") {
        Step::Event(ServerEvent::Request(head)) => {
            assert_eq!((model.phase, model.answer), (Phase::Awaited, Answer::None));
            let request = model.request();
            assert_eq!((head.method, head.target), (request.method, request.target.as_str()));
            assert_eq!(head.keep_alive, !request.last);
            assert_eq!(head.expect_continue, request.expects);
            model.phase = Phase::Body;
        }
        Step::Event(ServerEvent::Body(data)) => {
            assert_eq!(model.phase, Phase::Body);
            model.body.extend_from_slice(data);
            assert!(model.request().body.starts_with(&model.body));
        }
        Step::Event(ServerEvent::Extension(_) | ServerEvent::Trailers(_)) => panic!("nobody asked for that"),
        Step::Event(ServerEvent::End) => {
            assert_eq!(model.phase, Phase::Body);
            assert!(model.request().body == model.body);
            model.phase = Phase::Complete;
        }
        Step::NeedInput => assert!(matches!(model.phase, Phase::Awaited | Phase::Body)),
        Step::Paused => assert_eq!(model.phase, Phase::Complete),
        Step::Closed => assert_eq!(model.phase, Phase::Over),
    }
}
