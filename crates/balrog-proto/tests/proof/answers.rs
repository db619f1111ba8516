//! The corpus of what broken servers answer, and what stands beside its cases, in every split: what is to be refused is refused, and
//! what is read is read in the one right way.

use std::time::Instant;

use balrog_proto::{Error, Step};
use serde_json::Value;

use crate::harness::http::ClientSide;
use crate::harness::{Event, Seen, Subject, feed};
use crate::partition::every_cut_of;

/// What a client may take or refuse, and we take.
const TAKEN: &[&str] = &[
    // One empty line before a message is ignored, as a server has to (RFC 9112 section 2.2).
    "crlf-before-1",
    // `Content-Length = 1*DIGIT`.
    "cl-zeros",
    // There is no body, whatever frames it.
    "204-chunked",
    // What a response leads to is no matter of its bytes.
    "redirect-empty",
    "redirect-8bit",
];

/// Content codings are read a layer above: here, the bytes are as they came.
const CODED: &[&str] = &["gzip-bad"];

/// What begins, and what then comes again and again.
const ENDLESS: &[(&str, &str, &str)] = &[
    ("status-line-endless", "HTTP/1.1 200 ", "O"),
    ("headers-endless", "HTTP/1.1 200 OK\r\n", "X-Filler: filler\r\n"),
    ("chunk-size-endless", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0"),
    (
        "chunk-trailers-endless",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "X-Filler: filler\r\n",
    ),
];

fn cases() -> Vec<Value> {
    let given = include_str!("../../../../tests/corpora/http-client-bad-answers.json");
    let neighbours = include_str!("../../../../tests/corpora/http-client-neighbours.json");
    let read = |text: &str| -> Vec<Value> { serde_json::from_str(text).unwrap() };
    [read(given), read(neighbours)].concat()
}

/// Status and body of the final response, if it is complete.
fn response(seen: &Seen) -> Option<(u64, String)> {
    if !matches!(seen.events.last(), Some(Event::Closed)) || !seen.said().any(|said| said == "end") {
        return None;
    }
    let heads = seen.said().filter_map(|said| said.strip_prefix("response "));
    let status = heads.filter_map(|head| head.get(..3)?.parse().ok()).find(|status| *status >= 200)?;
    let body = seen.events.iter().find_map(|event| match event {
        Event::Piece("body", data) => Some(data.iter().map(|&byte| char::from(byte)).collect()),
        _ => None,
    });
    Some((status, body.unwrap_or_default()))
}

fn judge(case: &Value) -> Result<(), String> {
    let id = case["id"].as_str().unwrap();
    let side = ClientSide::new(if case["method"] == "HEAD" { "HEAD" } else { "GET" });
    let data = case["data"].as_str().unwrap();
    if case["end"] == "hang" {
        // It is not over, and says so; how long to wait is the caller's to know.
        let mut link = side.open();
        link.receive(data.as_bytes());
        while let Ok(Step::Event(_)) = link.poll_event(Instant::now()) {}
        return if matches!(link.poll_event(Instant::now()), Ok(Step::NeedInput)) {
            Ok(())
        } else {
            Err("over".into())
        };
    }
    let seen = if data == "endless" {
        let (_, first, more) = ENDLESS.iter().find(|(name, ..)| *name == id).unwrap();
        let bytes = [first.as_bytes(), &more.as_bytes().repeat(100_000 / more.len())].concat();
        let whole = feed(&side, [&bytes[..]]);
        assert_eq!(feed(&side, bytes.chunks(1)), whole, "{id}");
        // Cut off, it would be refused for its end.
        assert!(matches!(whole.error(), Some(Error::Limit(_) | Error::Violation(_))), "{id}: {whole:?}");
        whole
    } else {
        let bytes: Vec<u8> = data.chars().map(|char| u8::try_from(char).unwrap()).collect();
        every_cut_of(&side, id.as_ref(), &bytes)
    };
    let read = response(&seen);
    let taken = match case["expect"].as_str().unwrap() {
        "ok" => true,
        "raise" => CODED.contains(&id),
        _ => TAKEN.contains(&id),
    };
    let Some((status, body)) = read else {
        return if taken { Err(format!("refused: {:?}", seen.error())) } else { Ok(()) };
    };
    if !taken {
        return Err(format!("taken: {status} {body}"));
    }
    let wanted = case["content"].as_str();
    if wanted.is_some_and(|content| content != body) {
        return Err(format!("the body is {body:?}"));
    }
    if case["expect"] == "ok" && case["status"].as_u64() != Some(status) {
        return Err(format!("the status is {status}"));
    }
    Ok(())
}

#[test]
fn every_bad_answer_has_its_outcome() {
    let wrong: Vec<String> =
        cases().iter().filter_map(|case| Some(format!("{}: {}", case["id"], judge(case).err()?))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
