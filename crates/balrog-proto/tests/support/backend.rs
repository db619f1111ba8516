//! What servers send, and a session in memory that hears it.

use std::time::Instant;

use balrog_proto::postgres::{Config, Frontend, FrontendEvent};
use balrog_proto::{Link, Step};

use super::client::show;

/// A message: type, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub fn authentication(kind: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], rest].concat())
}

pub fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

pub fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

pub fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
}

pub fn notice(text: &str) -> Vec<u8> {
    message(b'N', format!("SNOTICE\0VNOTICE\0C00000\0M{text}\0\0").as_bytes())
}

pub fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub fn columns(names: &[&str]) -> Vec<u8> {
    let mut body = (names.len() as u16).to_be_bytes().to_vec();
    for name in names {
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
    }
    message(b'T', &body)
}

pub fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        body.extend_from_slice(&value.map_or(u32::MAX, |value| value.len() as u32).to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    message(b'D', &body)
}

/// CopyInResponse, CopyOutResponse, CopyBothResponse: one column in text.
pub fn copy_response(tag: u8) -> Vec<u8> {
    message(tag, &[0, 0, 1, 0, 0])
}

/// A session that waits for the server's first word.
pub fn connecting(config: Config) -> Link<Frontend> {
    let mut link = Link::new(Frontend::new(config, &mut |bytes: &mut [u8]| bytes.fill(7)).unwrap());
    assert_eq!(poll(&mut link), Ok(vec![]));
    sent(&mut link);
    link
}

pub fn config() -> Config {
    let mut config = Config::new("me");
    config.password = Some(b"sesame".to_vec());
    config
}

/// A session that has begun.
pub fn session_with(config: Config) -> Link<Frontend> {
    let mut link = connecting(config);
    link.receive(&[authentication(0, b""), message(b'K', b"\0\0\0\x01abcd"), ready(b'I')].concat());
    assert_eq!(poll(&mut link), Ok(vec!["started".into()]));
    link
}

pub fn session() -> Link<Frontend> {
    session_with(config())
}

/// All events that there are, or the error.
pub fn poll(link: &mut Link<Frontend>) -> Result<Vec<String>, String> {
    let mut events = Vec::new();
    loop {
        match link.poll_event(Instant::now()) {
            Ok(Step::Event(FrontendEvent::DeriveKey(job))) => {
                events.push("derive".into());
                let key = job.finish();
                link.key_derived(&key).unwrap();
            }
            Ok(Step::Event(event)) => events.push(show(&event)),
            Ok(Step::Closed) => {
                events.push("over".into());
                return Ok(events);
            }
            Ok(_) => return Ok(events),
            Err(error) => {
                assert_eq!(link.poll_event(Instant::now()).err(), Some(error), "the first error is final");
                assert!(link.is_shutdown());
                return Err(error.to_string());
            }
        }
    }
}

/// Receives and polls.
pub fn hear(link: &mut Link<Frontend>, bytes: &[u8]) -> Result<Vec<String>, String> {
    link.receive(bytes);
    poll(link)
}

/// What was sent since the last call.
pub fn sent(link: &mut Link<Frontend>) -> Vec<u8> {
    let bytes: Vec<u8> = link.segments().flatten().copied().collect();
    link.transmitted(bytes.len());
    bytes
}

/// Checks a client's proof as a server does (RFC 5802 section 3; salt and iterations as in RFC 7677),
/// and signs in answer.
pub fn check_proof(password: &[u8], auth_message: &str, proof: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256};

    let hmac = |key: &[u8], text: &[u8]| -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().into()
    };
    let mut last =
        hmac(password, &[&STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap()[..], b"\0\0\0\x01"].concat());
    let mut salted = last;
    for _ in 1..4096 {
        last = hmac(password, &last);
        salted.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
    }
    let stored_key: [u8; 32] = Sha256::digest(hmac(&salted, b"Client Key")).into();
    let mut client_key = hmac(&stored_key, auth_message.as_bytes());
    let proof = STANDARD.decode(proof).unwrap();
    client_key.iter_mut().zip(proof).for_each(|(key, byte)| *key ^= byte);
    let recovered: [u8; 32] = Sha256::digest(client_key).into();
    assert_eq!(recovered, stored_key, "the proof is wrong");
    STANDARD.encode(hmac(&hmac(&salted, b"Server Key"), auth_message.as_bytes()))
}
