//! llhttp's own cases: what it takes when it is strict, and we do not, is listed with the reason;
//! what it takes only when it is told to be lenient is refused.

use balrog_proto::Error;
use serde_json::Value;

use crate::harness::http::{ClientSide, ServerSide};
use crate::harness::{Seen, feed};

/// We refuse, for this reason of ours, what llhttp takes.
const STRICTER: &[(&str, &str)] = &[
    ("the Host field is missing", "llhttp leaves Host to its user; RFC 9112 section 3.2: 400"),
    ("no tunnels here", "a CONNECT is 501 where no tunnel is wanted"),
    ("the target * is for OPTIONS", "RFC 9112 section 3.2.4; HTTP/2's preface is refused by it, too"),
    ("the HTTP version is malformed", "ICE and RTSP are other protocols"),
    ("this is no HTTP/1 response", "ICE and RTSP are other protocols, HTTP/0.9 has no head"),
    ("the request line is not method, target and version", "HTTP/0.9 is not spoken"),
    ("a field that a trailer section must not have", "RFC 9110 section 6.5.1"),
    ("the request target has a character that no URI has", "a fragment is no part of a request target"),
    ("the host of the request target is malformed", "RFC 9110 section 4.2.4: user information is refused"),
    ("protocols were switched, which nobody asked for", "llhttp does not know the request"),
    ("the transfer coding is not chunked", "a body until the end, as one knows nobody means it"),
];

/// llhttp refuses, and we do not.
const LAXER: &[(&str, &str)] = &[
    ("No restart when keep-alive is off (1.0)", "what comes behind the last request is never read"),
    ("HTTP/1.1 with keep-alive disabled and 204 status", "what comes behind the last response is never read"),
    (
        "HTTP/1.1 with keep-alive disabled, content-length",
        "what comes behind the last response is never read",
    ),
    ("HTTP protocol and ANNOUNCE method", "any token is a method (RFC 9110 section 9.1)"),
    ("Invalid method", "any token is a method (RFC 9110 section 9.1)"),
    ("Invalid HTTP version", "the line is not complete; it is refused when it is"),
    ("Invalid space after start line", "the line is not complete; it is refused when it is"),
];

/// Modes in which llhttp forgives what is no matter of reading something in two ways: that
/// messages follow one that was to be the last. We never read them.
const HARMLESS: &[&str] = &["lenient-keep-alive", "lenient-data-after-close"];

/// llhttp's cases have no Host field; most are about something else.
fn with_host(input: &str) -> String {
    let (lead, input) = input.strip_prefix("\r\n").map_or(("", input), |rest| ("\r\n", rest));
    let head = input.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    match input.split_once("\r\n") {
        Some((line, rest)) if !head.contains("\nhost:") => format!("{lead}{line}\r\nHost: a\r\n{rest}"),
        _ => format!("{lead}{input}"),
    }
}

fn run(id: &str, input: &str) -> Seen {
    let bytes = |text: &str| text.chars().map(|char| char as u8).collect::<Vec<u8>>();
    if id.starts_with("request/") {
        feed(&ServerSide::default(), [&bytes(&with_host(input))[..]])
    } else {
        feed(&ClientSide::new("GET"), [&bytes(input)[..]])
    }
}

#[test]
fn every_difference_is_explained() {
    let corpus: Value = serde_json::from_str(include_str!("../../../../tests/corpora/llhttp.json")).unwrap();
    let cases = corpus["cases"].as_array().unwrap();
    assert!(cases.len() > 200);
    let mut wrong = Vec::new();
    let (mut stricter, mut laxer) = (vec![false; STRICTER.len()], vec![false; LAXER.len()]);
    for case in cases {
        let text = |name: &str| case[name].as_str().unwrap();
        let (id, name, mode) = (text("id"), text("name"), text("mode"));
        let takes = text("llhttp") == "ok";
        let refusal = match run(id, text("input")).error() {
            None | Some(Error::Eof(_)) => None,
            Some(error) => Some(error.to_string()),
        };
        let explained = match (mode, takes, &refusal) {
            ("strict" | "finish", true, Some(reason)) => {
                let known = STRICTER.iter().position(|(known, _)| reason.starts_with(known));
                known.inspect(|known| stricter[*known] = true).is_some()
            }
            ("strict" | "finish", false, None) => {
                let known = LAXER.iter().position(|(known, _)| name == *known);
                known.inspect(|known| laxer[*known] = true).is_some()
            }
            ("strict" | "finish", ..) | (_, _, Some(_)) => true,
            (mode, _, None) => HARMLESS.contains(&mode),
        };
        if !explained {
            wrong.push(format!("{id} {name} [{mode}]: llhttp {}, we {refusal:?}", text("llhttp")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!stricter.contains(&false) && !laxer.contains(&false), "an explanation of nothing");
}

#[test]
fn what_comes_behind_the_last_message_is_never_read() {
    let seen = run("request/", "PUT /url HTTP/1.0\r\n\r\nPUT /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(seen.said().filter(|what| what.starts_with("request")).count(), 1);
    assert!(!String::from_utf8_lossy(&seen.sent).contains("smuggled"));
}
