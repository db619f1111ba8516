//! The corpora of HTTP requests, ours and what stands beside each of their cases, in every split:
//! each has its stated outcome.

use std::time::{Duration, Instant};

use balrog_proto::http1::{BodyLength, Limits, Server, ServerEvent};
use balrog_proto::{Error, Link};
use serde_json::{Value, json};

use crate::harness::http::responses;
use crate::harness::{Event, Seen, Subject, feed};
use crate::partition::every_cut_of;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: conf.test\r\n\r\n";
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: conf.test\r\n\r\n";

/// What a server may take or refuse, and we take, in its one right reading. Everything else of
/// that kind we refuse.
const TAKEN: &[&str] = &[
    // A target is passed on as it came: what its escapes mean is its reader's to say.
    "rl-double-slash",
    "rl-percent-crlf",
    "rl-percent-bad",
    "rl-percent-cut",
    "rl-percent-nul",
    "rl-target-quote",
    "rl-absolute-https",
    // Any token is a method (RFC 9110 section 9.1).
    "rl-method-lower",
    "rl-method-custom",
    "rl-method-dash",
    "rl-method-tchar",
    "ms-trace",
    // `Content-Length = 1*DIGIT`.
    "cl-leading-zero",
    // Another name is another field, and a value may have any byte that is no control character.
    "sm-te-name-underscore",
    "cl-name-underscore",
    "hs-name-underscore",
    "hs-proxy",
    "le-nel",
    "le-ls-utf8",
    // The framing stands whatever `Connection` names.
    "sm-connection-cl",
    "sm-connection-te",
    // `port = *DIGIT`.
    "ho-port-empty",
];

/// An application that notes what it is asked, and answers by the path. Most answers come when
/// the request is complete.
struct Application;

impl Subject for Application {
    type Machine = Server;

    fn open(&self) -> Link<Server> {
        Link::new(Server::new(Limits::default()))
    }

    fn turn(&self, link: &mut Link<Server>, now: Instant, seen: &mut Seen) -> bool {
        let latin = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
        let Some(event) = seen.event(link.poll_event(now)) else { return false };
        let early = match event {
            ServerEvent::Request(head) => {
                let fields: Vec<_> = head
                    .headers
                    .iter()
                    .map(|(name, value)| json!([name.to_ascii_lowercase(), latin(value)]))
                    .collect();
                let asked = json!({
                    "method": head.method, "path": head.path, "query": head.query,
                    "authority": head.authority, "fields": fields,
                });
                seen.say(asked.to_string());
                let early = match head.path {
                    "/early413" => Some(413),
                    "/nocl" => Some(200),
                    _ => None,
                };
                if early.is_none() && link.wants_continue() {
                    link.inform(100, &[]).unwrap();
                }
                early
            }
            ServerEvent::Body(data) => {
                seen.piece("body", data);
                None
            }
            ServerEvent::End => {
                seen.say("end");
                let asked = seen.said().filter_map(parsed).last().unwrap();
                let status = asked["path"].as_str().unwrap().strip_prefix("/status/");
                Some(status.map_or(200, |status| status.parse().unwrap()))
                    .filter(|_| !link.response_started())
            }
            other => panic!("{other:?} was not asked for"),
        };
        if let Some(status) = early {
            let length = if status == 200 { BodyLength::Unknown } else { BodyLength::Length(0) };
            link.respond(status, "", &[], length, false).unwrap();
            if status == 200 {
                link.body(b"answer").unwrap();
            }
            link.finish().unwrap();
        }
        true
    }

    fn room(&self) -> usize {
        Limits::default().head
    }

    fn check(&self, seen: &Seen) {
        let asked: Vec<Value> = seen.said().filter_map(parsed).collect();
        let methods: Vec<&str> = asked.iter().map(|asked| asked["method"].as_str().unwrap()).collect();
        let finals = responses(&seen.sent, &methods).into_iter().filter(|answer| answer.status >= 200);
        assert!(finals.count() <= methods.len() + 1, "{seen:?}");
    }
}

fn parsed(said: &str) -> Option<Value> {
    serde_json::from_str(said).ok()
}

/// A request that has come whole.
struct Asked {
    head: Value,
    body: String,
}

fn requests(seen: &Seen) -> Vec<Asked> {
    let mut all = Vec::new();
    let mut open: Option<Asked> = None;
    for event in &seen.events {
        match event {
            Event::Said(said) if said == "end" => all.extend(open.take()),
            Event::Said(said) => open = parsed(said).map(|head| Asked { head, body: String::new() }),
            Event::Piece(_, data) => {
                // What is drained behind an early answer belongs to no request.
                if let Some(asked) = &mut open {
                    asked.body = data.iter().map(|&byte| char::from(byte)).collect();
                }
            }
            _ => {}
        }
    }
    all
}

/// The statuses of the final answers, whether the last of them ends the connection, and whether
/// there was a `100 Continue`.
fn answers(seen: &Seen) -> (Vec<u16>, bool, bool) {
    let asked: Vec<Value> = seen.said().filter_map(parsed).collect();
    let methods: Vec<&str> = asked.iter().map(|asked| asked["method"].as_str().unwrap()).collect();
    let (finals, others): (Vec<_>, Vec<_>) =
        responses(&seen.sent, &methods).into_iter().partition(|answer| answer.status >= 200);
    let closes = finals.last().is_some_and(|last| last.closes);
    (finals.iter().map(|answer| answer.status).collect(), closes, !others.is_empty())
}

impl Asked {
    fn field(&self, name: &str) -> Option<String> {
        if name == "host"
            && let Some(authority) = self.head["authority"].as_str()
        {
            // "the origin server MUST ignore the received Host header field (if any) and instead
            // replace it with the host information of the request-target".
            return Some(authority.into());
        }
        let fields = self.head["fields"].as_array().unwrap().iter();
        let values: Vec<&str> =
            fields.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect();
        (!values.is_empty()).then(|| values.join(if name == "cookie" { "; " } else { "," }))
    }

    fn matches(&self, wanted: &Value) -> bool {
        let one_of = |wanted: &Value, is: &dyn Fn(&Value) -> bool| match wanted {
            Value::Array(all) => all.iter().any(is),
            one => is(one),
        };
        wanted.as_object().unwrap().iter().all(|(key, want)| match key.as_str() {
            "h" => want.as_object().unwrap().iter().all(|(name, want)| {
                let value = self.field(name);
                let joined = value.clone().map(|value| value.replace(',', ", "));
                one_of(want, &|want| {
                    [&value, &joined].into_iter().any(|value| value.as_deref() == want.as_str())
                })
            }),
            "absent" => {
                want.as_array().unwrap().iter().all(|name| self.field(name.as_str().unwrap()).is_none())
            }
            "body_len" => want.as_u64() == Some(self.body.len() as u64),
            "body" => one_of(want, &|want| want.as_str() == Some(&self.body)),
            "path" => {
                let path = self.head["path"].as_str().unwrap();
                one_of(want, &|want| {
                    [path, &decoded(path)].into_iter().any(|path| Some(path) == want.as_str())
                })
            }
            key => one_of(want, &|want| *want == self.head[key]),
        })
    }
}

/// Percent-decoded once.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `{{H}}`, `{{SMUG}}` and `{{rep:TEXT:N}}`, inner ones first, and Latin-1.
fn expand(text: &str) -> Vec<u8> {
    let mut text = text.replace("{{H}}", "Host: conf.test\r\n").replace("{{SMUG}}", SMUGGLED);
    while let Some(start) = text.rfind("{{rep:") {
        let end = start + text[start..].find("}}").unwrap();
        let (what, times) = text[start + 6..end].rsplit_once(':').unwrap();
        let repeated = what.repeat(times.parse().unwrap());
        text.replace_range(start..end + 2, &repeated);
    }
    text.chars().map(|char| u8::try_from(char).unwrap()).collect()
}

fn steps(case: &Value) -> Vec<Value> {
    match (case["steps"].as_array(), case["send"].as_str()) {
        (Some(steps), _) => steps.clone(),
        (_, Some(text)) => vec![json!(["send", text])],
        _ => Vec::new(),
    }
}

/// All that a case sends, and whether it ends its sending side then.
fn sent(case: &Value) -> (Vec<u8>, bool) {
    let steps = steps(case);
    let text = |step: &Value| matches!(step[0].as_str(), Some("send" | "drip"));
    let bytes = steps.iter().filter(|step| text(step)).flat_map(|step| expand(step[1].as_str().unwrap()));
    (bytes.collect(), steps.iter().any(|step| step[0] == "shut" || step[0] == "rst"))
}

fn run(case: &Value, bytes: &[u8]) -> Seen {
    let id = case["id"].as_str().unwrap();
    if bytes.len() > 20_000 {
        let whole = feed(&Application, [bytes]);
        assert_eq!(feed(&Application, bytes.chunks(1021)), whole, "{id}");
        return whole;
    }
    every_cut_of(&Application, id.as_ref(), bytes)
}

/// What is wrong with the outcome of a case.
fn judge(case: &Value) -> Result<(), String> {
    let (mut bytes, shut) = sent(case);
    if !shut {
        bytes.extend_from_slice(PROBE);
    }
    let seen = run(case, &bytes);
    let all = requests(&seen);
    let (statuses, closes, informed) = answers(&seen);
    let ensure = |is: bool, what: &str| {
        if is { Ok(()) } else { Err(format!("{what}: {statuses:?} {:?}", seen.error())) }
    };
    let see = case["see"].as_array().cloned().unwrap_or_default();
    let probed = all.iter().any(|asked| asked.head["path"] == "/probe");
    ensure(!all.iter().any(|asked| asked.head["path"] == "/smuggled"), "smuggled")?;
    let accepted = || {
        ensure(all.len() >= see.len().max(1) + usize::from(probed), "a request is missing")?;
        ensure(statuses.iter().all(|status| *status == 200), "refused")?;
        ensure(case["interim"].is_null() || informed == (case["interim"] == 100), "100 Continue")?;
        for (asked, want) in all.iter().zip(&see) {
            ensure(asked.matches(want), &format!("read as {} {:?}, not {want}", asked.head, asked.body))?;
        }
        let open = case["end"] == "open" || (case["end"] != "close" && !shut && !closes);
        ensure(probed == open, "the connection did not stay as it should")
    };
    let refused = || {
        let Some(error) = seen.error() else { return Err(format!("taken: {statuses:?}")) };
        ensure(!probed && closes && seen.shutdown, "not closed")?;
        let named = case["status"].as_array().cloned().unwrap_or_default();
        let status = *statuses.last().unwrap();
        ensure((400..500).contains(&status) || named.contains(&json!(status)), "another status")?;
        ensure(error.code() == Some(status), "another status than the error's")?;
        ensure(case["want"].as_u64().is_none_or(|want| want == u64::from(status)), "not the wanted status")
    };
    match case["expect"].as_str().unwrap() {
        "accept" => accepted(),
        "reject" => refused(),
        "either" if TAKEN.contains(&case["id"].as_str().unwrap()) => accepted(),
        "either" => refused(),
        "abort" => {
            ensure(matches!(seen.error(), Some(Error::Eof(_) | Error::Violation(_))), "no error")?;
            ensure(seen.shutdown && !statuses.iter().any(|status| (200..300).contains(status)), "an answer")
        }
        _ => {
            let mut wanted: Vec<u64> =
                case["status"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
            wanted.extend(probed.then_some(200));
            ensure(statuses.iter().map(|status| u64::from(*status)).eq(wanted), "other statuses")?;
            ensure(case["end"] != "close" || (!probed && seen.shutdown), "not closed")
        }
    }
}

fn cases() -> Vec<Value> {
    let given = include_str!("../../../../tests/corpora/http-server.json");
    let neighbours = include_str!("../../../../tests/corpora/http-server-neighbours.json");
    let read = |text: &str| -> Vec<Value> { serde_json::from_str(text).unwrap() };
    [read(given), read(neighbours)].concat()
}

#[test]
fn every_case_has_its_outcome() {
    let mut wrong = Vec::new();
    let mut judged = 0;
    for case in cases() {
        // What an application does wrong, and crowds of sockets, are no matter of the bytes.
        let of_bytes =
            matches!(case["expect"].as_str(), Some("accept" | "reject" | "either" | "abort" | "status"));
        if !of_bytes || case["class"] == "app-answer" {
            continue;
        }
        judged += 1;
        if let Err(why) = judge(&case) {
            wrong.push(format!("{}: {why}", case["id"]));
        }
    }
    assert!(judged > 500);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Lets time pass, up to a moment or until no deadline is left.
fn wait(link: &mut Link<Server>, seen: &mut Seen, now: &mut Instant, until: Option<Instant>) {
    while Application.turn(link, *now, seen) {}
    while let Some(at) = link.poll_timeout().filter(|at| until.is_none_or(|until| *at <= until)) {
        *now = at;
        if let Err(error) = link.handle_timeout(at) {
            seen.events.push(Event::Failed(error));
        }
    }
    *now = until.unwrap_or(*now);
}

#[test]
fn whoever_is_too_slow_is_left() {
    let cases = cases();
    let slow: Vec<&Value> = cases.iter().filter(|case| case["expect"] == "close").collect();
    assert!(slow.len() >= 10);
    for case in slow {
        let start = Instant::now();
        let (mut now, mut link, mut seen) = (start, Application.open(), Seen::default());
        for step in steps(case) {
            let apart = Duration::from_secs_f64(step[2].as_f64().unwrap_or_default());
            for byte in step[1].as_str().map(expand).unwrap_or_default() {
                if seen.error().is_none() {
                    link.receive(&[byte]);
                    let until = now + apart;
                    wait(&mut link, &mut seen, &mut now, Some(until));
                }
            }
        }
        wait(&mut link, &mut seen, &mut now, None);
        // A drip of digits ends before the time does.
        assert!(matches!(seen.error(), Some(Error::Timeout(_) | Error::Violation(_))), "{case}: {seen:?}");
        assert!(now - start <= Duration::from_secs(75), "{case}: {:?}", now - start);
    }
}
