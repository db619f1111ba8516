use super::*;

struct Decoder {
    body: Body,
    parser: Parser,
    wanted: Wanted,
    limits: Limits,
    inbox: Vec<u8>,
    /// What came out: payload, and extensions in brackets.
    seen: Vec<u8>,
}

impl Decoder {
    fn new(body: Body) -> Self {
        Self {
            body,
            parser: Parser::default(),
            wanted: Wanted::default(),
            limits: Limits::default(),
            inbox: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn chunked() -> Self {
        Self::new(Body::new(Framing::Chunked))
    }

    /// Feeds the pieces one after the other; how many bytes behind the body are left.
    fn feed(&mut self, pieces: &[&[u8]]) -> Result<usize, Error> {
        for piece in pieces {
            self.inbox.extend_from_slice(piece);
            loop {
                let (used, piece) =
                    self.body.next(&mut self.inbox, &mut self.parser, self.wanted, &self.limits)?;
                match piece.clone() {
                    Piece::Data(range) => self.seen.extend_from_slice(&self.inbox[range]),
                    Piece::Extension(range) => {
                        self.seen.push(b'[');
                        self.seen.extend_from_slice(&self.inbox[range]);
                        self.seen.push(b']');
                    }
                    Piece::Trailers => {
                        for field in self.parser.fields() {
                            self.seen.push(b'{');
                            self.seen.extend_from_slice(field.name.of(&self.inbox));
                            self.seen.push(b'=');
                            self.seen.extend_from_slice(field.value.of(&self.inbox));
                            self.seen.push(b'}');
                        }
                    }
                    Piece::More | Piece::Done => {}
                }
                self.inbox.drain(..used);
                if piece == Piece::Done || (piece == Piece::More && used == 0) {
                    break;
                }
            }
        }
        Ok(self.inbox.len())
    }
}

const GOOD: &[u8] = b"3;x=y;q=\"a;\\\"b\"\r\nhel\r\n2\r\nlo\r\n0;e\r\nX-T: 1\r\nY: \r\n\r\n";

#[test]
fn every_split_gives_the_same_body() {
    for cut in 0..=GOOD.len() {
        for (extensions, trailers, expected) in [
            (false, Trailers::None, &b"hello"[..]),
            (true, Trailers::Only(&["x-t"]), b"[x=y;q=\"a;\\\"b\"]hello[e]{X-T=1}"),
            (false, Trailers::All, b"hello{X-T=1}{Y=}"),
        ] {
            let mut decoder = Decoder::chunked();
            decoder.wanted = Wanted { trailers, extensions };
            assert_eq!(decoder.feed(&[&GOOD[..cut], &GOOD[cut..]]), Ok(0), "cut at {cut}");
            assert_eq!(decoder.seen, expected, "cut at {cut}");
            assert!(decoder.body.is_done());
        }
    }
    let bytes: Vec<&[u8]> = GOOD.chunks(1).collect();
    let mut decoder = Decoder::chunked();
    assert_eq!(decoder.feed(&bytes), Ok(0));
    assert_eq!(decoder.seen, b"hello");
}

#[test]
fn what_follows_is_left() {
    let mut decoder = Decoder::chunked();
    assert_eq!(decoder.feed(&[b"1\r\nx\r\n0\r\n\r\nGET"]), Ok(3));
    assert_eq!(decoder.seen, b"x");
    let mut decoder = Decoder::new(Body::new(Framing::Length(2)));
    assert_eq!(decoder.feed(&[b"o", b"kGET"]), Ok(3));
    assert_eq!(decoder.seen, b"ok");
}

#[test]
fn broken_framing_is_refused() {
    for bad in [
        "\r\n",
        " 5\r\n",
        "+5\r\n",
        "0x5\r\n",
        "5 \r\n",
        "5_\r\n",
        "5\n",
        "5\rX",
        "5.0\r\n",
        "-1\r\n",
        "00000000000000005\r\n",
        "5;\r\n",
        "5;=a\r\n",
        "5; a\r\n",
        "5;a=\r\n",
        "5;a=\"\n\"\r\n",
        "5;a\n",
        "1\r\nxx",
        "1\r\nx\n",
        "1\r\nx\r\r",
        "0\r\n\n",
        "0\r\nX : 1\r\n",
        "0\r\n X: 1\r\n",
        "0\r\nX\r\n",
        "0\r\nX: a\rb\r\n",
        "0\r\nX: \u{0}\r\n",
        "0\r\n\rX",
        "0\n",
    ] {
        assert!(Decoder::chunked().feed(&[bad.as_bytes()]).is_err(), "{bad:?}");
        // What is seen of the line makes no difference, nor do the pieces.
        let mut decoder = Decoder::chunked();
        decoder.wanted.extensions = true;
        let bytes: Vec<&[u8]> = bad.as_bytes().chunks(1).collect();
        let line =
            if bad.ends_with('\n') { decoder.feed(&bytes) } else { decoder.feed(&[&bytes.concat(), b"\n"]) };
        assert!(line.is_err(), "{bad:?}");
    }
}

#[test]
fn limits_are_exact() {
    let over = |body: &str| Decoder::chunked().feed(&[body.as_bytes()]).err();
    let limits = Limits::default();
    // Spread over chunks, to see that they count together; the `;` counts.
    let extension = |n: usize| format!("1;{}\r\nx\r\n0;{}\r\n\r\n", "e".repeat(9), "e".repeat(n - 11));
    let limit = limits.chunk_extensions;
    assert_eq!(over(&extension(limit - 1)), None);
    assert_eq!(over(&extension(limit)), None);
    assert_eq!(over(&extension(limit + 1)), Some(Error::limit(400, "chunk_extensions", limit as u64)));

    let trailers = |n: usize| format!("0\r\n{}\r\n", "a: b\r\n".repeat(n));
    let limit = limits.trailer_fields;
    assert_eq!(over(&trailers(limit - 1)), None);
    assert_eq!(over(&trailers(limit)), None);
    assert_eq!(over(&trailers(limit + 1)), Some(Error::limit(431, "trailer_fields", limit as u64)));

    let trailers = |n: usize| format!("0\r\na: {}\r\nb: {}\r\n\r\n", "x".repeat(5000), "x".repeat(n - 5012));
    let limit = limits.trailers;
    assert_eq!(over(&trailers(limit - 1)), None);
    assert_eq!(over(&trailers(limit)), None);
    assert_eq!(over(&trailers(limit + 1)), Some(Error::limit(431, "trailers", limit as u64)));

    let digits = |n: usize| format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(n - 1));
    assert_eq!((over(&digits(15)), over(&digits(16))), (None, None));
    assert!(matches!(over(&digits(17)), Some(Error::Violation(_))));
}

#[test]
fn fields_that_could_change_what_is_decided_are_refused_in_trailers() {
    for name in ["Content-Length", "transfer-encoding", "HOST", "Connection", "Set-Cookie", "Authorization"] {
        let body = format!("0\r\n{name}: 1\r\n\r\n");
        let error = Decoder::chunked().feed(&[body.as_bytes()]).unwrap_err();
        assert!(matches!(error, Error::Violation(_)), "{name}");
    }
}

#[test]
fn many_small_chunks_are_one_piece() {
    let mut bytes = b"4\r\nabcd\r\n".repeat(100);
    bytes.extend_from_slice(b"0\r\n\r\n");
    let mut decoder = Decoder::chunked();
    let (_, piece) =
        decoder.body.next(&mut bytes, &mut decoder.parser, Wanted::default(), &decoder.limits).unwrap();
    let Piece::Data(range) = piece else { panic!("{piece:?}") };
    assert_eq!(bytes[range], b"abcd".repeat(100));
}

#[test]
fn what_came_before_an_error_is_delivered_first() {
    let mut decoder = Decoder::chunked();
    assert!(decoder.feed(&[b"2\r\nab\r\n2\r\ncd\r\nzz\r\n"]).is_err());
    assert_eq!(decoder.seen, b"abcd");
}

#[test]
fn a_cut_body_is_an_error() {
    for cut in 0..GOOD.len() {
        let mut decoder = Decoder::chunked();
        decoder.feed(&[&GOOD[..cut]]).unwrap();
        assert_eq!(decoder.body.eof(), Err(Error::Eof(Phase::Body)), "cut at {cut}");
    }
    let mut decoder = Decoder::new(Body::until_eof());
    assert_eq!(decoder.feed(&[b"all of it"]), Ok(0));
    assert_eq!(decoder.seen, b"all of it");
    assert_eq!(decoder.body.eof(), Ok(()));
}
