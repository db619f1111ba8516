//! Words of a protocol in a wrong order, with a few wrong bytes: gets deeper than noise.

use crate::harness::differential;
use crate::harness::http::{ClientSide, ServerSide};
use crate::harness::numbers::Numbers;
use crate::harness::websocket::PeerSide;
use crate::harness::{Subject, check_pieces};

const HTTP: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\n",
    b"PUT /aa HTTP/1.1\r\n",
    b"HEAD /aaa HTTP/1.0\r\n",
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

fn survives<S: Subject>(subject: &S, words: &[&[u8]]) {
    let mut numbers = Numbers::new(0x5eed_0123_4567_89ab);
    for _ in 0..4_000 {
        check_pieces(subject, &soup(&mut numbers, words));
    }
}

#[test]
fn http_server() {
    survives(&ServerSide::default(), HTTP);
    survives(&ServerSide::telling_all(), HTTP);
}

#[test]
fn http_client() {
    survives(&ClientSide::telling_all("GET"), HTTP);
}

#[test]
fn websocket_server() {
    survives(&PeerSide::server(), FRAMES);
    survives(&PeerSide::server().streaming(), FRAMES);
}

#[test]
fn websocket_client() {
    // The same frames without their mask bit.
    let frames: Vec<Vec<u8>> = FRAMES
        .iter()
        .map(|word| match **word {
            [first, second, ref rest @ ..] if first & 0x80 != 0 || first == 1 => {
                [&[first, second & 0x7f], rest].concat()
            }
            _ => word.to_vec(),
        })
        .collect();
    let words: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    survives(&PeerSide::client(), &words);
}

#[test]
fn other_implementations_agree() {
    let mut numbers = Numbers::new(0xd1ff);
    for _ in 0..4_000 {
        let bytes = soup(&mut numbers, HTTP);
        differential::request_head(&bytes);
        differential::response_head(&bytes);
        differential::frames(&soup(&mut numbers, FRAMES));
    }
}
