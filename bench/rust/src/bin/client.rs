//! How fast HTTP is asked, over kept connections: `client NAME ADDRESS CONCURRENT`. Prints answers a
//! second and the processor's microseconds in this process for each.
//!
//! NAME: a runtime of balrog's, `hyper`, or `limit`, the hand-written loop (sequential it blocks).

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use balrog::Runtime;
use balrog::http::{Client, Request};
use balrog_bench_rust::{HELLO, PLAIN, Question, check, spent};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

const TIME: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, address, concurrent] = &words[..] else { return Err("NAME ADDRESS CONCURRENT".into()) };
    let concurrent = concurrent.parse()?;
    let count = match name.as_str() {
        "hyper" => hyper(address, concurrent)?,
        "limit" => limit(address, concurrent)?,
        runtime => {
            let (runtime, address) = (runtime.parse::<Runtime>()?, address.clone());
            runtime.run(move || ours(&address, concurrent))??
        }
    };
    println!("{} {}", count as f64 / TIME.as_secs_f64(), spent() / count as f64);
    Ok(())
}

fn ours(address: &str, concurrent: usize) -> io::Result<u64> {
    let (host, port) = address.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    let port = port.parse().map_err(io::Error::other)?;
    let until = Instant::now() + TIME;
    let mut tasks = Vec::new();
    for _ in 0..concurrent {
        let host = host.to_owned();
        tasks.push(balrog::spawn(move || -> Result<u64, balrog::http::Error> {
            let mut count = 0;
            while Instant::now() < until {
                let mut response = Client.send(&Request::get(&host, port, "/"), b"")?;
                assert_eq!(response.status, 200);
                assert_eq!(response.read_to_end(1024)?, HELLO.as_bytes());
                count += 1;
            }
            Ok(count)
        })?);
    }
    let mut sum = 0;
    for mut task in tasks {
        sum += task.join()?.map_err(io::Error::other)?;
    }
    Ok(sum)
}

#[tokio::main(flavor = "current_thread")]
async fn hyper(address: &str, concurrent: usize) -> Result<u64, Box<dyn Error>> {
    let until = Instant::now() + TIME;
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> =
        (0..concurrent).map(|_| local.spawn_local(hyper_task(address.to_owned(), until))).collect();
    local
        .run_until(async move {
            let mut sum = 0;
            for task in tasks {
                sum += task.await?.map_err(|error| error.to_string())?;
            }
            Ok(sum)
        })
        .await
}

async fn hyper_task(address: String, until: Instant) -> Result<u64, Box<dyn Error>> {
    let stream = tokio::net::TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    let mut count = 0;
    while Instant::now() < until {
        let request = hyper::Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await?.to_bytes(), HELLO.as_bytes());
        count += 1;
    }
    Ok(count)
}

fn limit(address: &str, concurrent: usize) -> io::Result<u64> {
    let streams = (0..concurrent).map(|_| TcpStream::connect(address));
    let mut streams = streams.collect::<io::Result<Vec<_>>>()?;
    let first = streams.first_mut().ok_or(io::ErrorKind::InvalidInput)?;
    first.set_nodelay(true)?;
    let question = Question::http(first, PLAIN, 1)?;
    if concurrent > 1 {
        return Ok(question.ask(streams, TIME)?.count);
    }
    let (until, mut count) = (Instant::now() + TIME, 0);
    let mut answer = vec![0; question.length];
    while Instant::now() < until {
        first.write_all(PLAIN)?;
        first.read_exact(&mut answer)?;
        check(answer.ends_with(&question.end), "another answer")?;
        count += 1;
    }
    Ok(count)
}
