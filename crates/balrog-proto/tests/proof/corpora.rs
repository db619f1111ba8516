//! The corpora of HTTP requests, bad answers and WebSocket handshakes, on the machines alone and in
//! virtual time: as they were sent, and byte by byte.

use std::path::Path;
use std::time::{Duration, Instant};

use balrog_proto::http1::{BodyLength, Limits, Server, ServerEvent};
use balrog_proto::websocket::{self, Peer};
use balrog_proto::{Error, Link, Step};
use serde_json::Value;

use crate::harness::http::ClientSide;
use crate::harness::{Seen, feed};

const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: conf.test\r\n\r\n";

fn cases(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpora").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect()
}

/// The corpus abbreviates: `{{H}}`, `{{SMUG}}`, and `{{rep:TEXT:N}}`, which may be nested.
fn expand(text: &str) -> Vec<u8> {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: conf.test\r\n\r\n";
    let mut text = text.replace("{{H}}", "Host: conf.test\r\n").replace("{{SMUG}}", smuggled);
    while let Some(from) = text.rfind("{{rep:") {
        let end = from + text[from..].find("}}").expect("the end of a repetition");
        let (what, times) = text[from + 6..end].rsplit_once(':').unwrap();
        let repeated = what.repeat(times.parse().unwrap());
        text.replace_range(from..end + 2, &repeated);
    }
    latin1(&text)
}

/// Without its percent-encoding, once.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        let code =
            tail.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        let encoded = code.filter(|_| *byte == b'%');
        bytes.push(encoded.unwrap_or(*byte));
        rest = if encoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What an application sees of one request.
#[derive(Default)]
struct Request {
    method: String,
    path: String,
    query: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn field(&self, name: &str) -> Option<String> {
        let named = self.fields.iter().filter(|(other, _)| other == name);
        let values: Vec<_> = named.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(if name == "cookie" { "; " } else { "," }))
    }

    fn matches(&self, wanted: &Value) -> bool {
        let among = |seen: &str, wanted: &Value| match wanted {
            Value::Array(several) => several.iter().any(|one| one == seen),
            one => one == seen,
        };
        let body: String = self.body.iter().map(|&byte| char::from(byte)).collect();
        wanted.as_object().unwrap().iter().all(|(key, wanted)| match key.as_str() {
            "method" => among(&self.method, wanted),
            "path" => among(&decoded(&self.path), wanted),
            "query" => among(&self.query, wanted),
            "body" => among(&body, wanted),
            "body_len" => wanted.as_u64() == Some(self.body.len() as u64),
            "h" => wanted
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, value)| self.field(name).is_some_and(|seen| among(&seen, value))),
            "absent" => {
                wanted.as_array().unwrap().iter().all(|name| self.field(name.as_str().unwrap()).is_none())
            }
            key => panic!("unknown key {key}"),
        })
    }
}

/// A server that answers every request when it is complete.
struct Conversation {
    link: Link<Server>,
    begun: Instant,
    now: Instant,
    requests: Vec<Request>,
    informed: usize,
    /// Of the requests that are complete.
    statuses: Vec<u16>,
    failed: Option<Error>,
    closed: bool,
    sent: Vec<u8>,
}

impl Conversation {
    fn new() -> Self {
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.idle_time = Some(Duration::from_secs(10));
        Self {
            link: Link::new(Server::new(limits)),
            begun: now,
            now,
            requests: Vec::new(),
            informed: 0,
            statuses: Vec::new(),
            failed: None,
            closed: false,
            sent: Vec::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.closed || self.failed.is_some()
    }

    fn send(&mut self, bytes: &[u8], piece: usize) {
        // What is long has its interesting places in front.
        let (front, rest) = bytes.split_at(bytes.len().min(16 * 1024));
        for piece in front.chunks(piece).chain(rest.chunks(piece.max(1024))) {
            self.link.receive(piece);
            self.work();
        }
    }

    /// Lets the time pass, and whatever is due.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.work();
    }

    fn work(&mut self) {
        if self.link.poll_timeout().is_some_and(|at| at <= self.now)
            && let Err(error) = self.link.handle_timeout(self.now)
        {
            self.failed = Some(error);
        }
        while !self.is_over() && self.turn() {}
        self.sent.extend(self.link.segments().flatten());
        self.link.transmitted(self.link.unsent());
    }

    fn turn(&mut self) -> bool {
        let end = match self.link.poll_event(self.now) {
            Ok(Step::Event(ServerEvent::Request(head))) => {
                let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect();
                self.requests.push(Request {
                    method: head.method.into(),
                    path: head.path.into(),
                    query: head.query.into(),
                    fields: head
                        .headers
                        .iter()
                        // "the origin server MUST ignore the received Host header field (if any)
                        // and instead use the host information of the request-target"
                        .filter(|(name, _)| head.authority.is_none() || !name.eq_ignore_ascii_case("host"))
                        .map(|(name, value)| (name.to_ascii_lowercase(), text(value)))
                        .chain(head.authority.map(|authority| ("host".into(), authority.into())))
                        .collect(),
                    body: Vec::new(),
                });
                if self.link.wants_continue() {
                    self.link.inform(100, &[]).unwrap();
                    self.informed += 1;
                }
                false
            }
            Ok(Step::Event(ServerEvent::Body(data))) => {
                self.requests.last_mut().expect("a request").body.extend_from_slice(data);
                false
            }
            Ok(Step::Event(event)) => matches!(event, ServerEvent::End),
            Ok(Step::NeedInput | Step::Paused) => return false,
            Ok(Step::Closed) => {
                self.closed = true;
                return false;
            }
            Err(error) => {
                self.failed = Some(error);
                return false;
            }
        };
        if end {
            let path = &self.requests.last().expect("a request").path;
            let status = path.strip_prefix("/status/").map_or(200, |status| status.parse().unwrap());
            self.statuses.push(status);
            self.link.respond(status, "", &[], BodyLength::Length(2), false).unwrap();
            if status != 205 {
                self.link.body(b"ok").unwrap();
            }
            self.link.finish().unwrap();
        }
        true
    }

    /// Carries out a case: what it sends, or its script.
    fn perform(&mut self, case: &Value, piece: usize) {
        let Some(steps) = case.get("steps") else {
            return self.send(&expand(case["send"].as_str().unwrap()), piece);
        };
        for step in steps.as_array().unwrap() {
            let text = |at: usize| expand(step[at].as_str().unwrap());
            let seconds = |at: usize| Duration::from_secs_f64(step[at].as_f64().unwrap());
            match step[0].as_str().unwrap() {
                "send" => self.send(&text(1), piece),
                "drip" => {
                    for byte in text(1) {
                        if self.is_over() {
                            break;
                        }
                        self.send(&[byte], 1);
                        self.pass(seconds(2));
                    }
                }
                "pause" => self.pass(seconds(1)),
                "read" => assert!(!self.statuses.is_empty(), "no response"),
                "interim" => assert!(self.informed > 0, "no interim response"),
                "shut" => {
                    self.link.receive_eof();
                    self.work();
                }
                "rst" => self.closed = true,
                step => panic!("unknown step {step}"),
            }
        }
    }

    /// Every request is what was meant, and what comes next is read from its beginning.
    fn accepted(&mut self, case: &Value) {
        assert_eq!(self.failed, None);
        let none = Vec::new();
        let wanted = case.get("see").and_then(Value::as_array).unwrap_or(&none);
        let n = case.get("n").and_then(Value::as_u64).unwrap_or(1) as usize;
        assert_eq!(self.statuses.len(), wanted.len().max(n), "requests");
        for (request, wanted) in self.requests.iter().zip(wanted) {
            assert!(request.matches(wanted), "{wanted}");
        }
        if case.get("end").is_some_and(|end| end == "close") {
            return assert!(self.closed, "the connection should have ended");
        }
        if !self.closed && !self.link.is_eof() {
            self.send(PROBE, PROBE.len());
            assert_eq!(self.requests.last().unwrap().path, "/probe");
        } else {
            assert!(case.get("end").is_none(), "the connection should have stayed open");
        }
    }

    fn refused(&self, case: &Value) {
        let Some(error) = self.failed else {
            // An answer may wait for what never comes.
            return assert!(case.get("soft_hang").is_some(), "nothing was refused");
        };
        assert!(self.statuses.is_empty(), "something was answered before");
        let status = error.status().expect("an answer");
        let listed =
            case.get("status").is_some_and(|listed| listed.as_array().unwrap().contains(&status.into()));
        assert!((400..500).contains(&status) || listed, "{error}");
        assert!(case.get("want").is_none_or(|want| *want == status), "{status}");
        let answer = format!("HTTP/1.1 {status} ");
        assert!(self.sent.windows(answer.len()).any(|bytes| bytes == answer.as_bytes()));
    }
}

/// Whether a case is for machines alone; what an application does is for the servers' tests.
fn judge(case: &Value, piece: usize) -> bool {
    if case.get("needs").is_some_and(|needs| needs == "app") {
        return false;
    }
    let mut server = Conversation::new();
    server.perform(case, piece);
    match case["expect"].as_str().unwrap() {
        "accept" => server.accepted(case),
        "reject" => server.refused(case),
        "either" if server.statuses.is_empty() => server.refused(case),
        "either" => server.accepted(case),
        "abort" => assert!(server.statuses.is_empty() && server.is_over(), "half a request was taken"),
        "status" => {
            let wanted = case["status"].as_array().unwrap();
            let error = server.failed.and_then(|error| error.status());
            let seen: Vec<u16> = server.statuses.iter().copied().chain(error).collect();
            assert!(
                seen.len() >= wanted.len() && seen.iter().zip(wanted).all(|(seen, wanted)| wanted == seen)
            );
        }
        "close" => {
            while let Some(at) = server.link.poll_timeout().filter(|_| !server.is_over()) {
                server.pass(at.saturating_duration_since(server.now));
            }
            let within = Duration::from_secs_f64(case["within"].as_f64().unwrap());
            assert!(
                server.is_over() && server.now - server.begun <= within,
                "{:?}",
                server.now - server.begun
            );
        }
        _ => return false,
    }
    assert!(server.requests.iter().all(|request| request.path != "/smuggled"), "a request was smuggled");
    true
}

/// Runs every case to its end, and names all that failed.
fn every_one(cases: impl IntoIterator<Item = Value>, judge: fn(&Value, usize) -> bool) -> usize {
    let (mut judged, mut failed) = (0, Vec::new());
    for case in cases {
        for piece in [usize::MAX, 1, 7] {
            match std::panic::catch_unwind(|| judge(&case, piece)) {
                Ok(true) => judged += usize::from(piece == 1),
                Ok(false) => break,
                Err(_) => failed.push(format!("{} in pieces of {piece}", case["id"])),
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    judged
}

#[test]
fn every_request_is_read_as_it_was_meant_or_refused() {
    let judged =
        every_one(["http-server.json", "http-server-neighbours.json"].into_iter().flat_map(cases), judge);
    assert!(judged > 450, "{judged} cases");
}

/// What the corpus only tells in words: what a server that never stops sends first, and then on
/// and on.
fn endless(id: &str) -> (&'static str, &'static str) {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    match id {
        "status-line-endless" => ("HTTP/1.1 200 ", "O"),
        "headers-endless" => ("HTTP/1.1 200 OK\r\n", "X-Filler: filler\r\n"),
        "chunk-size-endless" => (chunked, "0"),
        "chunk-trailers-endless" => (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            "X-Filler: filler\r\n",
        ),
        id => panic!("unknown case {id}"),
    }
}

/// A client gets the answer that was meant, or an error.
fn judge_answer(case: &Value, piece: usize) -> bool {
    let method = if case["method"] == "HEAD" { "HEAD" } else { "GET" };
    let client = ClientSide::new(method);
    let data = case["data"].as_str().unwrap();
    if data == "endless" {
        let (first, more) = endless(case["id"].as_str().unwrap());
        let bytes = [first.as_bytes(), &more.as_bytes().repeat((1 << 20) / more.len())].concat();
        let seen = feed(&client, bytes.chunks(piece));
        assert!(matches!(seen.error(), Some(Error::Limit(_) | Error::Violation(_))), "{:?}", seen.error());
        return true;
    }
    let seen = feed(&client, latin1(data).chunks(piece));
    let raised = seen.error().is_some();
    match case["expect"].as_str().unwrap() {
        // Content codings are not for this machine.
        "raise" if data.contains("Content-Encoding") => return false,
        "raise" => assert!(raised, "{seen:?}"),
        "ok" => answered(&seen, case),
        "either" if raised || case["content"].is_null() => {}
        "either" => answered(&seen, case),
        expect => panic!("unknown expectation {expect}"),
    }
    true
}

fn answered(seen: &Seen, case: &Value) {
    assert_eq!(seen.error(), None);
    let status = format!("response {} ", case["status"]);
    assert!(seen.said().any(|what| what.starts_with(&status)), "{seen:?}");
    let body = seen.events.iter().find_map(|event| match event {
        crate::harness::Event::Piece("body", data) => Some(data.clone()),
        _ => None,
    });
    assert_eq!(body.unwrap_or_default(), latin1(case["content"].as_str().unwrap()));
}

#[test]
fn every_bad_answer_is_an_error_or_what_was_meant() {
    let judged = every_one(cases("http-client-bad-answers.json"), judge_answer);
    assert!(judged >= 35, "{judged} cases");
}

/// The opening handshake over the server's machine, then frames over the peer's.
fn judge_handshake(case: &Value, piece: usize) -> bool {
    let hex = case["after_the_handshake"].as_str().unwrap();
    let frames = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
    let bytes: Vec<u8> = latin1(case["head"].as_str().unwrap()).into_iter().chain(frames).collect();
    let now = Instant::now();
    let mut link = Link::new(Server::new(Limits::default()));
    let mut pieces = bytes.chunks(piece);
    let offered = loop {
        let Some(piece) = pieces.next() else { break None };
        link.receive(piece);
        match link.poll_event(now) {
            Ok(Step::Event(ServerEvent::Request(head))) => break websocket::offer(&head).ok().flatten(),
            Ok(_) => {}
            Err(_) => break None,
        }
    };
    let Some(offered) = offered else {
        assert_ne!(case["expect"], "open", "refused");
        assert_ne!(case["expect"], "fail", "refused");
        return true;
    };
    assert_ne!(case["expect"], "refuse", "opened");
    assert_eq!(offered.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    while !matches!(link.poll_event(now), Ok(Step::Paused)) {}
    link.switch_protocols(&[
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Accept", offered.accept.as_bytes()),
    ])
    .unwrap();
    let mut peer = link.replace(Peer::server(websocket::Limits::default()));
    let (mut messages, mut failed) = (Vec::new(), false);
    let mut next = Some(&[][..]);
    while let Some(piece) = next {
        peer.receive(piece);
        loop {
            match peer.poll_event(now) {
                Ok(Step::Event(websocket::PeerEvent::Text(text))) => messages.push(text.to_owned()),
                Ok(Step::Event(_)) => {}
                Ok(_) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        next = pieces.next();
    }
    match case["expect"].as_str().unwrap() {
        "open" => {
            assert!(!failed);
            assert_eq!(messages, if hex.is_empty() { Vec::new() } else { vec!["early"] });
        }
        // Behind a close nothing is a message.
        "fail" => assert!(messages.is_empty() && (failed || peer.is_shutdown()), "it goes on"),
        _ => {}
    }
    true
}

#[test]
fn every_handshake_is_opened_or_refused_as_it_should() {
    let judged = every_one(cases("ws-handshake.json"), judge_handshake);
    assert_eq!(judged, 19);
}
