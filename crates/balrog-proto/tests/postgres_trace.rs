//! The trace of a session, beside what libpq 18 wrote about the same bytes.

use balrog_proto::postgres::Trace;

const FRONTEND: &[u8] = include_bytes!("data/postgres_trace/frontend.bin");
const BACKEND: &[u8] = include_bytes!("data/postgres_trace/backend.bin");
const LIBPQ: &str = include_str!("data/postgres_trace/trace.txt");

fn trace(bytes: &[u8], piece: usize, frontend: bool) -> String {
    let (mut trace, mut lines) = (Trace::new(true), String::new());
    for piece in bytes.chunks(piece) {
        if frontend { trace.sent(piece, &mut lines) } else { trace.received(piece, &mut lines) }.unwrap();
    }
    lines
}

#[test]
fn every_line_is_libpq_s() {
    let of = |way: &str| LIBPQ.lines().filter(|line| line.starts_with(way)).collect::<Vec<_>>();
    assert!(of("F").len() > 30 && of("B").len() > 60);
    for piece in [1, 7, 1000, usize::MAX] {
        assert_eq!(trace(FRONTEND, piece, true).lines().collect::<Vec<_>>(), of("F"));
        // A string that is not UTF-8 is replaced here, and written as it is by libpq: there is none.
        assert_eq!(trace(BACKEND, piece, false).lines().collect::<Vec<_>>(), of("B"));
    }
}

#[test]
fn a_log_in_without_its_secrets() {
    let (mut trace, mut lines) = (Trace::new(false), String::new());
    trace.sent(b"\0\0\0\x08\x04\xd2\x16\x2f", &mut lines).unwrap();
    trace.sent(b"\0\0\0\x11\0\x03\0\0user\0me\0\0", &mut lines).unwrap();
    trace.received(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", &mut lines).unwrap();
    trace.sent(b"p\0\0\0\x0bsesame\0", &mut lines).unwrap();
    trace.received(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01abcd", &mut lines).unwrap();
    assert_eq!(
        lines,
        "F\t8\tSSLRequest\n\
         F\t17\tStartupMessage\t 3 0 \"user\" \"me\"\n\
         B\t23\tAuthenticationSASL\t \"SCRAM-SHA-256\"\n\
         F\t11\tPasswordMessage\t (not shown)\n\
         B\t8\tAuthenticationOk\n\
         B\t12\tBackendKeyData\t 1 (not shown)\n"
    );
    let (mut trace, mut lines) = (Trace::new(false), String::new());
    trace.sent(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd", &mut lines).unwrap();
    assert_eq!(lines, "F\t16\tCancelRequest\t 1 (not shown)\n");
}

#[test]
fn what_the_recorded_session_has_not() {
    for (bytes, shown) in [
        (&b"R\0\0\0\x08\0\0\0\x03"[..], "B\t8\tAuthenticationCleartextPassword"),
        (b"R\0\0\0\x0c\0\0\0\x05salt", "B\t12\tAuthenticationMD5Password\t (not shown)"),
        (b"R\0\0\0\x0c\0\0\0\x0br=ab", "B\t12\tAuthenticationSASLContinue\t (not shown)"),
        (b"R\0\0\0\x0c\0\0\0\x0cv=ab", "B\t12\tAuthenticationSASLFinal\t (not shown)"),
        (b"R\0\0\0\x08\0\0\0\x07", "B\t8\tUnknown authentication message 7"),
        (b"W\0\0\0\x09\0\0\x01\0\0", "B\t9\tCopyBothResponse\t \\x00 1 0"),
        (b"n\0\0\0\x04", "B\t4\tNoData"),
        (b"s\0\0\0\x04", "B\t4\tPortalSuspended"),
        (b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0", "B\t19\tNegotiateProtocolVersion\t 196608 1 \"_pq_.x\""),
        (b"?\0\0\0\x04", "B\t4\tUnknown message: 3f"),
    ] {
        assert_eq!(trace(bytes, usize::MAX, false), format!("{shown}\n"));
    }
    assert_eq!(trace(b"?\0\0\0\x04", 1, true), "F\t4\tUnknown message: 3f\n");
}

/// Takes so many pieces of text, and no more.
struct Full(usize);

impl std::fmt::Write for Full {
    fn write_str(&mut self, _text: &str) -> std::fmt::Result {
        self.0 = self.0.checked_sub(1).ok_or(std::fmt::Error)?;
        Ok(())
    }
}

#[test]
fn a_sink_that_is_full_is_told() {
    for room in 0..8 {
        for bytes in [&b"C\0\0\0\x0dSELECT 1\0"[..], b"K\0\0\0\x0c\0\0\0\x01abcd"] {
            let outcome = Trace::new(true).received(bytes, &mut Full(room));
            assert!(outcome.is_err() || room > 3, "{room}");
        }
    }
    assert!(Trace::new(true).received(b"Z\0\0\0\x05I", &mut Full(100)).is_ok());
}

#[test]
fn messages_that_are_too_long_or_wrong() {
    let mut long = b"d\0\x20\0\x04".to_vec();
    long.resize(5 + (2 << 20), b'x');
    long.extend_from_slice(b"Z\0\0\0\x05I");
    for piece in [1000, usize::MAX] {
        let lines = trace(&long, piece, false);
        assert!(lines.len() < 70_000);
        assert!(lines.ends_with("'\nB\t5\tReadyForQuery\t I\n"), "{}", &lines[65_000..]);
    }
    for bytes in [
        &b"D\0\0\0\x06\0\x01"[..],
        b"C\0\0\0\x05x",
        b"E\0\0\0\x06Mx",
        b"T\0\0\0\x08\xff\xff\0\0",
        b"?\0\0\0\x04",
    ] {
        assert!(trace(bytes, 1, false).ends_with('\n'));
    }
    assert_eq!(trace(b"Z\0\0\0\x06II", 9, false), "B\t6\tReadyForQuery\t I ...\n");
}
