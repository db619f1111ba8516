//! Compressed bodies in the HTTP client: one body in every mode.

use std::error::Error as _;
use std::io::{self, Read, Write};

use balrog::http::client::{Client, DecodeError, Error};
use balrog::http::{self, Kind, Phase};
use balrog::net::TcpListener;
use balrog::{JoinHandle, Runtime, spawn};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is asked of a server that answers once, and of the client.
struct Case {
    method: http::Method,
    coding: &'static str,
    body: Vec<u8>,
    client: Client,
}

impl Case {
    fn new(coding: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: http::Method::GET, coding, body: body.into(), client: Client::new().no_proxies() }
    }

    /// Sends the body in chunks of `size` bytes; the request's head comes from the task.
    fn ask(&self, size: usize) -> Result<(std::result::Result<http::client::Response, Error>, Served)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            self.coding
        )
        .into_bytes();
        if self.method != http::Method::HEAD {
            for chunk in self.body.chunks(size) {
                write!(answer, "{:x}\r\n", chunk.len())?;
                answer.extend_from_slice(chunk);
                answer.extend_from_slice(b"\r\n");
            }
            answer.extend_from_slice(b"0\r\n\r\n");
        }
        let served = spawn(move || -> io::Result<String> {
            let (mut stream, _) = listener.accept()?;
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head)?;
            // A client that has had enough closes.
            let _ = stream.write_all(&answer);
            Ok(String::from_utf8_lossy(&head[..n]).to_lowercase())
        })?;
        Ok((self.client.request(self.method.clone(), &url).send(), served))
    }

    fn text(&self, size: usize) -> Result<std::result::Result<String, Error>> {
        let (response, mut served) = self.ask(size)?;
        let text = response.and_then(http::client::Response::text);
        served.join()??;
        Ok(text)
    }
}

type Served = JoinHandle<io::Result<String>>;

fn in_every_mode(body: fn() -> Result<()>) {
    for runtime in Runtime::all() {
        runtime.run(body).unwrap().unwrap_or_else(|error| panic!("{runtime}: {error}"));
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn raw(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// `hello world`, as the reference encoder writes it.
#[cfg(feature = "brotli")]
const BROTLI: &[u8] = b"\x0b\x05\x80hello world\x03";

/// Each coding with a body of `hello world`.
fn codings() -> Vec<(&'static str, Vec<u8>)> {
    let text = b"hello world";
    vec![
        ("gzip", gzip(text)),
        ("X-GZip", [gzip(b"hello "), gzip(b"world")].concat()),
        ("deflate", zlib(text)),
        ("deflate", raw(text)),
        #[cfg(feature = "brotli")]
        ("br", BROTLI.to_vec()),
    ]
}

#[test]
fn bodies_are_decoded_however_they_come() {
    in_every_mode(|| {
        for (coding, body) in codings() {
            for size in [1, 7, 1000] {
                assert_eq!(Case::new(coding, &body[..]).text(size)??, "hello world", "{coding} by {size}");
            }
            assert_eq!(Case::new(coding, "").text(1)??, "", "{coding} of nothing");
        }
        let long: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let (response, mut served) = Case::new("gzip", gzip(&long)).ask(10_000)?;
        let mut response = response?;
        assert!(response.headers().get("content-encoding").is_none());
        let (mut got, mut piece) = (Vec::new(), vec![0; 777]);
        loop {
            match response.read(&mut piece)? {
                0 => break,
                n => got.extend_from_slice(&piece[..n]),
            }
        }
        assert!(got == long, "{} bytes", got.len());
        assert_eq!(response.read(&mut piece)?, 0);
        let accepted = if cfg!(feature = "brotli") { "gzip, deflate, br" } else { "gzip, deflate" };
        let head = served.join()??;
        assert!(head.contains(&format!("accept-encoding: {accepted}\r\n")), "{head}");
        Ok(())
    });
}

#[test]
fn a_body_that_is_cut_or_malformed_is_an_error_for_good() {
    in_every_mode(|| {
        for (coding, body) in codings() {
            let more = [&body[..], b"more"].concat();
            // Within the first member: at its end, two are one.
            for wrong in [&body[..8], &body[..body.len() - 1], b"\xff\xff\xff\xff", &more] {
                let (response, mut served) = Case::new(coding, wrong).ask(5)?;
                let mut response = response?;
                let mut text = Vec::new();
                for _ in 0..2 {
                    let Err(error) = response.read_to_end(&mut text) else {
                        panic!("{coding}: {wrong:?} passed for a body")
                    };
                    let error = error.downcast::<Error>()?;
                    assert_eq!((error.kind(), error.phase()), (Kind::Protocol, Phase::Body), "{error}");
                    assert!(matches!(error.decoding(), Some(DecodeError::Malformed(_))), "{coding}: {error}");
                }
                served.join()??;
            }
        }
        Ok(())
    });
}

#[test]
fn a_bomb_ends_in_an_error_of_its_own() {
    in_every_mode(|| {
        let zeros = vec![0; 4 << 20];
        for (coding, body) in [("gzip", gzip(&zeros)), ("deflate", zlib(&zeros))] {
            let error = Case::new(coding, &body[..]).text(1000)?.unwrap_err();
            assert_eq!(error.decoding(), Some(&DecodeError::Ratio(200)), "{error}");
            assert!(error.source().is_some() && error.to_string().contains("decoded_ratio"), "{error}");
            let client = |size| Client::new().no_proxies().decoded_ratio(2000).decoded_limit(size);
            let case = |size| Case { client: client(size), ..Case::new(coding, &body[..]) };
            assert_eq!(case(4 << 20).text(1000)??.len(), 4 << 20);
            let error = case((4 << 20) - 1).text(1000)?.unwrap_err();
            assert_eq!(error.decoding(), Some(&DecodeError::TooLong((4 << 20) - 1)), "{error}");
        }
        Ok(())
    });
}

#[test]
fn what_was_not_asked_for_is_left_as_it_is() {
    in_every_mode(|| {
        let body = gzip(b"hello");
        let client = Client::new().no_proxies().no_decompression();
        let fixed = Client::new().no_proxies().header("accept-encoding".parse()?, "gzip".parse()?);
        let head = Case { method: http::Method::HEAD, ..Case::new("gzip", "") };
        for (case, expected) in [
            (Case { client, ..Case::new("gzip", &body[..]) }, &body[..]),
            (Case { client: fixed, ..Case::new("gzip", &body[..]) }, &body[..]),
            (Case::new("compress", "hello"), b"hello"),
            (head, b""),
        ] {
            let (response, mut served) = case.ask(1000)?;
            let response = response?;
            assert_eq!(response.headers()["content-encoding"], case.coding);
            assert_eq!(response.bytes()?, expected);
            served.join()??;
        }
        Ok(())
    });
}
