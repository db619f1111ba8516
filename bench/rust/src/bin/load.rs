//! The generator: `load ADDRESS WORK CONNECTIONS SECONDS`. Prints answers a second, the 99th
//! percentile of their time in milliseconds, and how many there were.
//!
//! WORK: `plain`, `browser`, an HTTP request that is answered with hello; `pipelined`, 16 plain ones
//! at a time; a number, a WebSocket message of so many bytes that is echoed.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use balrog_bench_rust::{BROWSER, PLAIN, Question, check};

const PIPELINED: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, work, connections, seconds] = &words[..] else {
        return Err("ADDRESS WORK CONNECTIONS SECONDS".into());
    };
    let mut streams = Vec::new();
    for _ in 0..connections.parse()? {
        streams.push(TcpStream::connect(address)?);
    }
    let first = streams.first_mut().ok_or("no connections")?;
    let question = match work.as_str() {
        "plain" => Question::http(first, PLAIN, 1)?,
        "browser" => Question::http(first, BROWSER, 1)?,
        "pipelined" => Question::http(first, PLAIN, PIPELINED)?,
        length => {
            streams.iter_mut().try_for_each(upgrade)?;
            echo(length.parse()?)
        }
    };
    let outcome = question.ask(streams, Duration::from_secs_f64(seconds.parse()?))?;
    let rate = outcome.count as f64 / outcome.time.as_secs_f64();
    println!("{rate} {} {}", outcome.p99.as_secs_f64() * 1e3, outcome.count);
    Ok(())
}

/// The opening handshake of RFC 6455 section 1.3, by its own example.
fn upgrade(stream: &mut TcpStream) -> io::Result<()> {
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request)?;
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer);
    check(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), &answer)
}

/// A binary message of `length` bytes, masked, and the same as servers send it.
fn echo(length: usize) -> Question {
    let size = match length {
        0..126 => vec![length as u8],
        126..0x1_0000 => [&[126], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[127], &(length as u64).to_be_bytes()[..]].concat(),
    };
    let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut request = [&[0x82], &size[..], &mask].concat();
    request[1] |= 0x80;
    request.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    let end = [&[0x82], &size[..], &payload].concat();
    Question { request, length: end.len(), end, depth: 1 }
}
