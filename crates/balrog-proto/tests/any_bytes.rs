//! Whatever comes in, in whatever pieces: no panic, no endless loop, bounded memory, and the same end for every split.

use std::time::Instant;

use balrog_proto::http1::{BodyLength, Client, Limits, Server, ServerEvent};
use balrog_proto::websocket::{self, Peer};
use balrog_proto::{Link, Machine, Step};

/// xorshift64*: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Pieces of protocols in a wrong order, with a few wrong bytes: gets deeper than noise.
fn soup(numbers: &mut Numbers, words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..numbers.below(40) {
        bytes.extend_from_slice(words[numbers.below(words.len())]);
        if numbers.below(8) == 0 {
            bytes.push(numbers.next() as u8);
        }
    }
    bytes
}

fn split(numbers: &mut Numbers, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(1 + numbers.below(rest.len()));
        pieces.push(piece.to_vec());
        rest = tail;
    }
    pieces
}

/// Everything that happened, as text, with what was sent.
fn run<M: Machine>(
    mut link: Link<M>,
    pieces: &[Vec<u8>],
    mut each: impl FnMut(&mut Link<M>, Instant) -> Option<String>,
) -> (String, Vec<u8>) {
    let now = Instant::now();
    let (mut log, mut steps) = (String::new(), 0);
    for index in 0..=pieces.len() {
        match pieces.get(index) {
            Some(piece) => link.receive(piece),
            None => link.receive_eof(),
        }
        while let Some(line) = each(&mut link, now) {
            log.push_str(&line);
            steps += 1;
            assert!(steps < 100_000, "does not end");
            if line.starts_with("error") {
                return (log, link.segments().flatten().copied().collect());
            }
        }
    }
    (log, link.segments().flatten().copied().collect())
}

const HTTP: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Content-Length: 3\r\n",
    b"\r\n",
    b"abc",
    b"3\r\n",
    b"0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"X-A: b\r\n",
    b"Connection: close\r\n",
    b"\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"Expect: 100-continue\r\n",
    b": ",
    b";a=b\r\n",
    b" ",
];
const FRAMES: &[&[u8]] = &[
    b"\x81\x85",
    b"\x01\x83",
    b"\x80\x80",
    b"\x89\x80",
    b"\x88\x82",
    b"\x82\xfe\x01\x00",
    b"\x12\x34\x56\x78",
    b"hello",
    b"\x00\x00\x00\x00",
    b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00",
    b"\x03\xe8",
];

#[test]
fn machines_survive_anything_and_do_not_mind_its_pieces() {
    let mut numbers = Numbers(0x5eed_0123_4567_89ab);
    for round in 0..20_000 {
        let bytes = soup(&mut numbers, HTTP);
        let pieces = split(&mut numbers, &bytes);
        let server = |pieces: &[Vec<u8>]| {
            run(Link::new(Server::new(Limits::default())), pieces, |link, now| {
                let (line, answer) = match link.poll_event(now) {
                    Ok(Step::Event(ServerEvent::Body(data))) => {
                        (data.iter().map(|byte| format!("{byte} ")).collect(), false)
                    }
                    Ok(Step::Event(ServerEvent::End)) => ("end".into(), true),
                    Ok(Step::Event(event)) => {
                        (format!("{event:?}").split("headers").next().unwrap_or("").to_owned(), false)
                    }
                    Ok(_) => return None,
                    Err(error) => (format!("error {error}"), false),
                };
                if answer {
                    link.respond(200, "OK", &[], BodyLength::None, false).unwrap();
                    link.finish().unwrap();
                }
                Some(line)
            })
        };
        assert_eq!(server(&pieces), server(std::slice::from_ref(&bytes)), "round {round}: {bytes:?}");
        let client = |pieces: &[Vec<u8>]| {
            let mut link = Link::new(Client::new(Limits::default()));
            link.request("GET", "/", "a", &[], BodyLength::None).unwrap();
            run(link, pieces, |link, now| match link.poll_event(now) {
                Ok(Step::Event(_)) => Some(String::new()),
                Ok(_) => None,
                Err(error) => Some(format!("error {:?}", error.code())),
            });
        };
        client(&pieces);
        let bytes = soup(&mut numbers, FRAMES);
        let pieces = split(&mut numbers, &bytes);
        let peer = |pieces: &[Vec<u8>]| {
            run(Link::new(Peer::new(websocket::Limits::default())), pieces, |link, now| {
                match link.poll_event(now) {
                    Ok(Step::Event(event)) => Some(format!("{event:?}")),
                    Ok(_) => None,
                    Err(error) => Some(format!("error {error}")),
                }
            })
        };
        assert_eq!(peer(&pieces), peer(std::slice::from_ref(&bytes)), "round {round}: {bytes:x?}");
    }
}
