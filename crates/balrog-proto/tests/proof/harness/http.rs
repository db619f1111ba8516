//! HTTP/1.1 in both roles, and an independent reading of what they send.

use std::time::Instant;

use balrog_proto::http1::{BodyLength, Client, ClientEvent, Headers, Limits, Server, ServerEvent, Trailers};
use balrog_proto::{Error, Link};

use super::{Event, Seen, Subject};

/// A server whose application answers in one of four ways, by the length of the target.
#[derive(Default)]
pub struct ServerSide {
    pub limits: Limits,
    /// Reports trailers and chunk extensions, and takes tunnels.
    pub tells_all: bool,
}

impl ServerSide {
    pub fn telling_all() -> Self {
        Self { tells_all: true, ..Self::default() }
    }
}

/// A client that sends one request and reads its response.
pub struct ClientSide {
    pub method: &'static str,
    pub limits: Limits,
    /// Reports trailers and chunk extensions.
    pub tells_all: bool,
}

impl ClientSide {
    pub fn new(method: &'static str) -> Self {
        Self { method, limits: Limits::default(), tells_all: false }
    }

    pub fn telling_all(method: &'static str) -> Self {
        Self { tells_all: true, ..Self::new(method) }
    }
}

enum Reaction {
    None,
    Head(usize),
    End,
}

fn fields(headers: &Headers<'_>) -> String {
    headers.iter().map(|(name, value)| format!(" {name}: {}", value.escape_ascii())).collect()
}

impl Subject for ServerSide {
    type Machine = Server;

    fn open(&self) -> Link<Server> {
        let server = Server::new(self.limits.clone());
        Link::new(if self.tells_all {
            server.with_trailers(Trailers::All).with_extensions().with_tunnels()
        } else {
            server
        })
    }

    fn turn(&self, link: &mut Link<Server>, now: Instant, seen: &mut Seen) -> bool {
        let Some(event) = seen.event(link.poll_event(now)) else { return false };
        let reaction = match event {
            ServerEvent::Request(head) => {
                seen.say(format!(
                    "request {} {} path={} query={} authority={:?} {:?} {:?} keep_alive={} expect={} upgrade={}{}",
                    head.method,
                    head.target,
                    head.path,
                    head.query,
                    head.authority,
                    head.version,
                    head.framing,
                    head.keep_alive,
                    head.expect_continue,
                    head.upgrade,
                    fields(&head.headers)
                ));
                // A tunnel is refused, as what is answered early.
                Reaction::Head(if head.method == "CONNECT" { 2 } else { head.target.len() })
            }
            ServerEvent::Body(data) => {
                assert!(!data.is_empty());
                seen.piece("body", data);
                Reaction::None
            }
            ServerEvent::Extension(extension) => {
                seen.say(format!("extension {}", extension.escape_ascii()));
                Reaction::None
            }
            ServerEvent::Trailers(trailers) => {
                seen.say(format!("trailers{}", fields(&trailers)));
                Reaction::None
            }
            ServerEvent::End => {
                seen.say("end");
                Reaction::End
            }
        };
        match reaction {
            Reaction::None => {}
            // Without the body: what comes of it is drained.
            Reaction::Head(n) if n % 4 == 2 => {
                link.respond(413, "Content Too Large", &[], BodyLength::None, false).unwrap();
                link.finish().unwrap();
            }
            // As soon as the head is there.
            Reaction::Head(n) if n % 4 == 3 => {
                link.inform(103, &[(b"Link", b"</a>")]).unwrap();
                link.respond(200, "OK", &[], BodyLength::Unknown, false).unwrap();
                link.body(b"streamed").unwrap();
            }
            Reaction::Head(_) => {
                if link.wants_continue() {
                    link.inform(100, &[]).unwrap();
                }
            }
            Reaction::End => {
                if !link.response_started() {
                    link.respond(200, "OK", &[(b"X-A", b"b")], BodyLength::Length(2), false).unwrap();
                    link.body(b"ok").unwrap();
                }
                link.finish().unwrap();
            }
        }
        true
    }

    fn room(&self) -> usize {
        self.limits.head
    }

    fn check(&self, seen: &Seen) {
        let methods: Vec<&str> =
            seen.said().filter_map(|what| what.strip_prefix("request ")?.split(' ').next()).collect();
        let answers = responses(&seen.sent, &methods);
        let finals = answers.iter().filter(|answer| answer.status >= 200).count();
        let refused = seen.error().and_then(|error| error.code());
        assert!(
            finals <= methods.len() + usize::from(refused.is_some()),
            "more answers than requests: {seen:?}"
        );
        if let Some(code) = refused
            && finals > methods.len()
        {
            let last = answers.last().unwrap();
            assert_eq!(last.status, code);
            assert!(last.closes, "what was refused ends the connection");
        }
        if seen.is_over() {
            assert!(seen.shutdown);
        }
    }
}

impl Subject for ClientSide {
    type Machine = Client;

    fn open(&self) -> Link<Client> {
        let client = Client::new(self.limits.clone());
        let mut link = Link::new(if self.tells_all {
            client.with_trailers(Trailers::All).with_extensions()
        } else {
            client
        });
        link.request(self.method, "/", "a", &[], BodyLength::None).unwrap();
        link
    }

    fn turn(&self, link: &mut Link<Client>, now: Instant, seen: &mut Seen) -> bool {
        let Some(event) = seen.event(link.poll_event(now)) else { return false };
        match event {
            ClientEvent::Informational(head) | ClientEvent::Response(head) => {
                seen.say(format!(
                    "response {} {} {:?}{}",
                    head.status,
                    head.reason.escape_ascii(),
                    head.version,
                    fields(&head.headers)
                ));
                true
            }
            ClientEvent::Upgraded(_) => panic!("nobody asked for another protocol"),
            ClientEvent::Body(data) => {
                assert!(!data.is_empty());
                seen.piece("body", data);
                true
            }
            ClientEvent::Extension(extension) => {
                seen.say(format!("extension {}", extension.escape_ascii()));
                true
            }
            ClientEvent::Trailers(trailers) => {
                seen.say(format!("trailers{}", fields(&trailers)));
                true
            }
            // Whether bytes behind the response have come yet is a matter of time: whether the
            // connection can be used again is not compared.
            ClientEvent::End { .. } => {
                seen.say("end");
                seen.events.push(Event::Closed);
                false
            }
        }
    }

    fn room(&self) -> usize {
        self.limits.head
    }

    fn check(&self, seen: &Seen) {
        assert_eq!(seen.sent, format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", self.method).as_bytes());
        let ended = matches!(seen.events.last(), Some(Event::Closed));
        assert!(ended || matches!(seen.error(), Some(Error::Violation(_) | Error::Limit(_) | Error::Eof(_))));
    }
}

/// A response as another implementation reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    pub closes: bool,
    pub body: Vec<u8>,
    /// Whether it is there to its end.
    pub whole: bool,
}

/// What a server has sent in answer to requests with these methods; panics if that is no row of responses.
pub fn responses(mut sent: &[u8], methods: &[&str]) -> Vec<Response> {
    let mut found = Vec::new();
    let mut methods = methods.iter();
    while !sent.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(size)) = head.parse(sent) else {
            panic!("this is no response: {}", sent.escape_ascii());
        };
        let status = head.code.unwrap();
        let value = |name: &str| {
            let mut values = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            let value = values.next().map(|header| header.value);
            assert!(values.next().is_none(), "two {name}");
            value
        };
        let closes = value("connection") == Some(b"close");
        let length =
            value("content-length").map(|value| std::str::from_utf8(value).unwrap().parse().unwrap());
        let chunked = value("transfer-encoding").is_some();
        assert!(!(chunked && length.is_some()));
        sent = &sent[size..];
        let mut response = Response { status, closes, body: Vec::new(), whole: true };
        let method = if status >= 200 { methods.next().copied() } else { Some("") };
        if method != Some("HEAD") && !matches!(status, 100..200 | 204 | 304) {
            if chunked {
                (sent, response.whole) = dechunk(sent, &mut response.body);
            } else {
                let n = length.unwrap_or(usize::MAX).min(sent.len());
                response.whole = length.is_none_or(|length| length == n);
                let (body, rest) = sent.split_at(n);
                response.body.extend_from_slice(body);
                sent = rest;
            }
        }
        assert!(response.whole || sent.is_empty());
        found.push(response);
    }
    found
}

/// Chunks without extensions or trailers, as we write them: what follows, and whether they end.
fn dechunk<'a>(mut sent: &'a [u8], body: &mut Vec<u8>) -> (&'a [u8], bool) {
    loop {
        let Some(line) = sent.windows(2).position(|pair| pair == b"\r\n") else { return (b"", false) };
        let size =
            std::str::from_utf8(&sent[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("a chunk size");
        sent = &sent[line + 2..];
        if sent.len() < size + 2 {
            return (b"", false);
        }
        body.extend_from_slice(&sent[..size]);
        assert_eq!(&sent[size..size + 2], b"\r\n");
        sent = &sent[size + 2..];
        if size == 0 {
            return (sent, true);
        }
    }
}
