//! Logging in, against servers that break its rules: what is refused, and by which error.

mod support;

use std::time::{Duration, Instant};

use balrog_proto::postgres::{
    AuthMethods, Channel, ChannelBinding, Config, Frontend, FrontendEvent, Protocol, TlsAnswer, TlsRequest,
};
use balrog_proto::{Link, Step};
use support::backend::{
    authentication, complete, config, connecting, hear, message, notice, parameter, poll, ready, row, sent,
};

#[test]
fn logging_in_against_the_rules() {
    let outcome = |config: &Config, bytes: &[u8]| hear(&mut connecting(config.clone()), bytes);
    let plain = config();
    let ok = authentication(0, b"");
    let scram = authentication(10, b"SCRAM-SHA-256\0\0");
    for (bytes, why) in [
        (authentication(3, b""), "clear text"),
        (authentication(2, b""), "Kerberos"),
        (authentication(7, b""), "GSSAPI"),
        (authentication(8, b"x"), "GSSAPI"),
        (authentication(9, b""), "SSPI"),
        (authentication(1, b""), "unknown way"),
        (authentication(13, b""), "unknown way"),
        (authentication(u32::MAX, b""), "unknown way"),
        (authentication(5, b"abc"), "ends inside"),
        (authentication(5, b"abcde"), "longer"),
        (authentication(10, b"SCRAM-SHA-256\0"), "ends inside"),
        (authentication(10, b"SCRAM-SHA-256\0\0\0"), "longer"),
        (authentication(10, b"SCRAM-SHA-1\0\0"), "no SASL mechanism"),
        (authentication(10, b"\0"), "no SASL mechanism"),
        (authentication(10, b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0"), "without TLS"),
        (authentication(11, b"r=x"), "out of order"),
        (authentication(12, b"v=x"), "out of order"),
        (authentication(0, b"x"), "longer"),
        // It is over only when the server has proven itself.
        ([scram.clone(), ok.clone()].concat(), "proven"),
        ([scram.clone(), authentication(12, b"v=AAAA")].concat(), "out of order"),
        ([scram.clone(), scram.clone()].concat(), "out of order"),
        ([scram.clone(), authentication(3, b"")].concat(), "out of order"),
        ([scram.clone(), authentication(11, b"r=other,s=AAAA,i=1")].concat(), "nonce"),
        ([authentication(5, b"salt"), authentication(5, b"salt")].concat(), "out of order"),
        ([ok.clone(), ok.clone()].concat(), "no place"),
        (ready(b'I'), "no place"),
        (message(b'K', b"\0\0\0\x01abcd"), "no place"),
        (parameter("a", "b"), "no place"),
        (row(&[]), "no place"),
        ([ok.clone(), complete("SELECT 1")].concat(), "no place"),
        ([ok.clone(), message(b'A', b"\0\0\0\x01a\0b\0")].concat(), "no place"),
        ([ok.clone(), message(b'K', b"\0\0\0\x01abc")].concat(), "4 bytes"),
        ([ok.clone(), message(b'K', b"\0\0\0\x01abcde")].concat(), "4 bytes"),
        ([ok.clone(), message(b'K', b"\0\0\0")].concat(), "ends inside"),
        ([ok.clone(), message(b'v', b"\0\0\0\0\0\0\0\0")].concat(), "no place"),
        (message(b'v', b"\0\0\0\0\0\0\0\0"), "needs no negotiation"),
        (message(b'v', b"\0\0\0\x02\0\0\0\0"), "newer protocol"),
        (message(b'v', b"\0\x02\0\0\0\0\0\0"), "major version"),
        (message(b'v', b"\0\0\0\0\0\0\0\x01_pq_.x\0"), "was not sent"),
        (message(b'v', b"\0\0\0\0\x7f\xff\xff\xff"), "ends inside"),
        (message(b'v', b"\0\0\0\0\xff\xff\xff\xff"), "negotiat"),
    ] {
        let refused = outcome(&plain, &bytes).unwrap_err();
        assert!(refused.contains(why), "{}: {refused}", bytes.escape_ascii());
    }
    // What the log-in is not allowed to be.
    let mut picky = config();
    picky.require_auth = AuthMethods::SCRAM;
    for bytes in [&ok, &authentication(3, b""), &authentication(5, b"salt")] {
        assert!(outcome(&picky, bytes).unwrap_err().contains("require_auth"));
    }
    picky.require_auth = AuthMethods::MD5;
    assert!(outcome(&picky, &scram).unwrap_err().contains("require_auth"));
    let mut bound = config();
    bound.channel = Channel::Tls { end_point: Some(vec![1; 32]) };
    bound.channel_binding = ChannelBinding::Require;
    for bytes in [&ok, &authentication(3, b""), &authentication(5, b"salt"), &scram] {
        assert!(outcome(&bound, bytes).unwrap_err().contains("channel binding"));
    }
    let plus = authentication(10, b"SCRAM-SHA-256-PLUS\0\0");
    assert_eq!(outcome(&bound, &plus), Ok(vec![]));
    // No password at all.
    let mut none = config();
    none.password = None;
    for bytes in [&authentication(5, b"salt"), &scram] {
        assert!(outcome(&none, bytes).unwrap_err().contains("there is none"));
    }
}

#[test]
fn a_password_in_clear_text() {
    let tls = Channel::Tls { end_point: None };
    for (channel, allowed, sent_it) in [
        (Channel::Plain, false, false),
        (Channel::Plain, true, true),
        (tls.clone(), false, true),
        (tls, true, true),
    ] {
        let mut config = config();
        (config.channel, config.allow_cleartext) = (channel, allowed);
        let mut link = connecting(config);
        assert_eq!(hear(&mut link, &authentication(3, b"")).is_ok(), sent_it);
        assert_eq!(sent(&mut link) == message(b'p', b"sesame\0"), sent_it);
    }
}

#[test]
fn what_scram_is_bound_to() {
    let both = "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let one = "SCRAM-SHA-256\0\0";
    let hash = || Some(vec![1; 32]);
    for (binding, end_point, offered, chosen) in [
        (ChannelBinding::Disable, hash(), both, "SCRAM-SHA-256\0 n,,"),
        (ChannelBinding::Prefer, hash(), both, "SCRAM-SHA-256-PLUS\0 p=tls-server-end-point,,"),
        (ChannelBinding::Require, hash(), both, "SCRAM-SHA-256-PLUS\0 p=tls-server-end-point,,"),
        (ChannelBinding::Prefer, hash(), one, "SCRAM-SHA-256\0 y,,"),
        (ChannelBinding::Disable, hash(), one, "SCRAM-SHA-256\0 n,,"),
        (ChannelBinding::Prefer, None, both, "SCRAM-SHA-256\0 n,,"),
    ] {
        let mut config = config();
        (config.channel_binding, config.channel) = (binding, Channel::Tls { end_point });
        let mut link = connecting(config);
        hear(&mut link, &authentication(10, offered.as_bytes())).unwrap();
        let response = String::from_utf8(sent(&mut link)[5..].to_vec()).unwrap();
        let (mechanism, header) = chosen.split_once(' ').unwrap();
        assert!(response.starts_with(mechanism), "{response:?}");
        assert!(response[mechanism.len() + 4..].starts_with(header), "{response:?}");
    }
}

#[test]
fn a_server_that_only_pretends_to_know_the_password() {
    let mut link = connecting(config());
    hear(&mut link, &authentication(10, b"SCRAM-SHA-256\0\0")).unwrap();
    let first = String::from_utf8(sent(&mut link)).unwrap();
    let nonce = first.rsplit_once("r=").unwrap().1.to_owned();
    let challenge = format!("r={nonce}more,s=AAAA,i=4096");
    assert_eq!(hear(&mut link, &authentication(11, challenge.as_bytes())), Ok(vec!["derive".into()]));
    let signature = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(hear(&mut link, &authentication(12, signature)).unwrap_err().contains("signature"));
}

#[test]
fn the_iterations_of_scram_at_the_limit() {
    for (iterations, ok) in [(9_999, true), (10_000, true), (10_001, false), (2_147_483_648_u64, false)] {
        let mut config = config();
        config.limits.scram_iterations = 10_000;
        let mut link = connecting(config);
        hear(&mut link, &authentication(10, b"SCRAM-SHA-256\0\0")).unwrap();
        let first = String::from_utf8(sent(&mut link)).unwrap();
        let nonce = first.rsplit_once("r=").unwrap().1.to_owned();
        let challenge = format!("r={nonce}more,s=AAAA,i={iterations}");
        let outcome = hear(&mut link, &authentication(11, challenge.as_bytes()));
        let expected = Err("over the limit scram_iterations = 10000".into());
        assert_eq!(outcome, if ok { Ok(vec!["derive".into()]) } else { expected });
    }
}

/// The server's first message, made of the client's nonce.
fn challenged(challenge: impl Fn(&str) -> String) -> Result<Vec<String>, String> {
    let mut link = connecting(config());
    hear(&mut link, &authentication(10, b"SCRAM-SHA-256\0\0")).unwrap();
    let first = String::from_utf8(sent(&mut link)).unwrap();
    let nonce = first.rsplit_once("r=").unwrap().1;
    hear(&mut link, &authentication(11, challenge(nonce).as_bytes()))
}

#[test]
fn the_nonce_and_the_salt_of_scram_at_the_limit() {
    // A multiple of three bytes is encoded without padding; 1,024 is one more than that.
    let salt = |length: usize| match length % 3 {
        0 => "AAAA".repeat(length / 3),
        1 => "AAAA".repeat(length / 3) + "AA==",
        _ => "AAAA".repeat(length / 3) + "AAA=",
    };
    for (length, ok) in [(1_023, true), (1_024, true), (1_025, false)] {
        let nonce = challenged(|own| format!("r={own}{},s=AAAA,i=4096", "x".repeat(length - own.len())));
        let salted = challenged(|own| format!("r={own}more,s={},i=4096", salt(length)));
        for (outcome, name) in [(nonce, "nonce"), (salted, "salt")] {
            match outcome {
                Ok(events) => assert!(ok && events == ["derive"], "{name} of {length}: {events:?}"),
                Err(error) => assert!(!ok && error.contains(name), "{name} of {length}: {error}"),
            }
        }
    }
}

#[test]
fn nothing_goes_on_while_the_key_is_derived() {
    let mut link = connecting(config());
    hear(&mut link, &authentication(10, b"SCRAM-SHA-256\0\0")).unwrap();
    let first = String::from_utf8(sent(&mut link)).unwrap();
    let nonce = first.rsplit_once("r=").unwrap().1.to_owned();
    link.receive(&authentication(11, format!("r={nonce}more,s=AAAA,i=1").as_bytes()));
    let Ok(Step::Event(FrontendEvent::DeriveKey(job))) = link.poll_event(Instant::now()) else {
        panic!("a key is needed");
    };
    assert!(matches!(link.poll_event(Instant::now()), Ok(Step::Paused)));
    assert!(!link.interest().read, "nobody can fill the inbox meanwhile");
    link.receive(&notice("early"));
    assert!(matches!(link.poll_event(Instant::now()), Ok(Step::Paused)));
    let key = job.finish();
    link.key_derived(&key).unwrap();
    assert!(link.key_derived(&key).is_err());
    assert!(sent(&mut link).starts_with(b"p"));
    assert_eq!(poll(&mut link), Ok(vec!["notice 00000 early".into()]));
}

#[test]
fn protocol_3_2() {
    let mut newest = config();
    newest.protocol = Protocol::V3_2;
    let key = |size: usize| message(b'K', &[&b"\0\0\0\x01"[..], &vec![9; size]].concat());
    for (size, ok) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
        let mut link = connecting(newest.clone());
        let outcome = hear(&mut link, &[authentication(0, b""), key(size), ready(b'I')].concat());
        assert_eq!(outcome.is_ok(), ok, "{size}: {outcome:?}");
        assert!(!ok || link.protocol() == Protocol::V3_2 && link.key().unwrap().secret().len() == size);
    }
    // An old server: with the whole version number, or the minor one alone.
    for version in [b"\0\x03\0\0", b"\0\0\0\0"] {
        let mut link = connecting(newest.clone());
        let negotiate = message(b'v', &[&version[..], b"\0\0\0\0"].concat());
        hear(&mut link, &[negotiate, authentication(0, b""), key(4), ready(b'I')].concat()).unwrap();
        assert_eq!(link.protocol(), Protocol::V3_0);
    }
    let mut link = connecting(newest.clone());
    let negotiate = message(b'v', b"\0\0\0\0\0\0\0\0");
    assert!(
        hear(&mut link, &[negotiate.clone(), negotiate.clone()].concat()).unwrap_err().contains("no place")
    );
    let mut link = connecting(newest.clone());
    assert!(hear(&mut link, &[negotiate, authentication(0, b""), key(32)].concat()).is_err());
    for minor in [1, 3] {
        let negotiate = message(b'v', &[0, 0, 0, minor, 0, 0, 0, 0]);
        assert!(hear(&mut connecting(newest.clone()), &negotiate).unwrap_err().contains("not known"));
    }
    // An option that the server does not know.
    newest.settings = [b"_pq_.test", &b"geqo"[..]].map(|name| (name.to_vec(), b"1".to_vec())).into();
    let unknown = |name: &[u8]| message(b'v', &[&b"\0\0\0\x02\0\0\0\x01"[..], name, &b"\0"[..]].concat());
    assert_eq!(hear(&mut connecting(newest.clone()), &unknown(b"_pq_.test")), Ok(vec![]));
    // One that was not sent, or is none of the protocol's.
    for name in [&b"_pq_.other"[..], b"geqo", b"other"] {
        assert!(hear(&mut connecting(newest.clone()), &unknown(name)).unwrap_err().contains("not sent"));
    }
}

#[test]
fn asking_for_tls() {
    let ask = |required, answer: &[u8], eof| {
        let now = Instant::now();
        let mut link = Link::new(TlsRequest::new(required, Some(Duration::from_secs(1))));
        assert_eq!(link.poll_event(now), Ok(Step::NeedInput));
        assert_eq!(link.transmit(), Some(&b"\0\0\0\x08\x04\xd2\x16\x2f"[..]));
        link.transmitted(8);
        assert_eq!(link.poll_timeout(), Some(now + Duration::from_secs(1)));
        link.receive(answer);
        if eof {
            link.receive_eof();
        }
        let outcome = link.poll_event(now);
        if outcome.is_ok() {
            assert_eq!((link.poll_timeout(), link.unread()), (None, 0));
            assert_eq!(link.poll_event(now), Ok(Step::Paused));
            assert!(!link.interest().read, "the next byte belongs to TLS");
        }
        outcome.map_err(|error| error.to_string())
    };
    assert_eq!(ask(true, b"S", false), Ok(Step::Event(TlsAnswer::Accepted)));
    assert_eq!(ask(false, b"N", false), Ok(Step::Event(TlsAnswer::Refused)));
    assert!(ask(true, b"N", false).unwrap_err().contains("refuses"));
    // Bytes in the clear that would be taken for the session's.
    for answer in [&b"SS"[..], b"NR", b"S\x16\x03", b"ER"] {
        assert!(ask(false, answer, false).unwrap_err().contains("between"));
    }
    // What an unknown server writes is not shown.
    let fake = [&b"E"[..], b"\0\0\0\x20SFATAL\0Mcall this number\0\0"].concat();
    assert!(!ask(false, &fake, false).unwrap_err().contains("number"));
    assert!(ask(false, b"E", false).unwrap_err().contains("error"));
    for answer in [b"s", b"n", b"\0", b"R"] {
        assert!(ask(false, answer, false).unwrap_err().contains("neither"));
    }
    assert!(ask(false, b"", true).is_err());
    // After the answer, before TLS has the connection.
    let mut link = Link::new(TlsRequest::new(true, None));
    link.poll_event(Instant::now()).unwrap();
    link.receive(b"S");
    link.poll_event(Instant::now()).unwrap();
    link.receive(b"R");
    assert!(link.poll_event(Instant::now()).is_err());
    // Refused: the session goes on where it is, if nothing has come.
    let mut link = Link::new(TlsRequest::new(false, None));
    link.poll_event(Instant::now()).unwrap();
    link.transmitted(8);
    link.receive(b"N");
    link.poll_event(Instant::now()).unwrap();
    let frontend = || Frontend::new(config(), &mut |bytes: &mut [u8]| bytes.fill(7)).unwrap();
    let mut link = link.replace(frontend());
    assert_eq!(poll(&mut link), Ok(vec![]));
    assert_eq!(sent(&mut link), b"\0\0\0\x11\0\x03\0\0user\0me\0\0");
    let mut early = Link::new(frontend());
    early.receive(&authentication(0, b""));
    assert!(poll(&mut early).unwrap_err().contains("before the start-up"));
}
