//! An HTTP hello on one thread, by whoever is named: `hello NAME ADDRESS`. `limit` is a hand-written
//! loop that only looks where requests end.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net;

use balrog::Runtime;
use balrog::http::server::{Request, Server};
use balrog::net::TcpListener;
use balrog_bench_rust::{HELLO, serve};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use memchr::memmem;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (name, address) = (words.next().ok_or("a name")?, words.next().ok_or("an address")?);
    match name.as_str() {
        "hyper" => hyper(&address),
        "may_minihttp" => may_minihttp(&address),
        "limit" => limit(&address),
        runtime => {
            let runtime: Runtime = runtime.parse()?;
            runtime.run(move || balrog(&address))??;
            Ok(())
        }
    }
}

fn balrog(address: &str) -> io::Result<()> {
    let server = if balrog::in_task() { Server::new().connections(20_000) } else { Server::new() };
    server.serve(TcpListener::bind(address)?, |_: &mut Request<'_>| HELLO)
}

#[tokio::main(flavor = "current_thread")]
async fn hyper(address: &str) -> Result<(), Box<dyn Error>> {
    let hello = |_: hyper::Request<Incoming>| async {
        Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(HELLO.as_bytes()))))
    };
    // Without `pipeline_flush` it writes each answer of a pipeline by itself.
    let each = move |io| http1::Builder::new().pipeline_flush(true).serve_connection(io, service_fn(hello));
    Ok(serve(address, each).await?)
}

#[derive(Clone)]
struct Hello;

impl may_minihttp::HttpService for Hello {
    fn call(&mut self, _: may_minihttp::Request, response: &mut may_minihttp::Response) -> io::Result<()> {
        response.body(HELLO);
        Ok(())
    }
}

fn may_minihttp(address: &str) -> Result<(), Box<dyn Error>> {
    may::config().set_workers(1);
    let server = may_minihttp::HttpServer(Hello).start(address)?;
    server.join().map_err(|_| "it panicked")?;
    Ok(())
}

struct Peer {
    stream: net::TcpStream,
    /// The beginning of a request.
    left: Vec<u8>,
}

fn limit(address: &str) -> Result<(), Box<dyn Error>> {
    const LISTENER: u64 = u64::MAX;
    let listener = net::TcpListener::bind(address)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let date = "Thu, 26 Nov 2026 12:00:00 GMT";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nDate: {date}\r\n\r\n{HELLO}", HELLO.len());
    let (end, mut buffer) = (memmem::Finder::new("\r\n\r\n"), vec![0; 64 * 1024]);
    let (mut peers, mut events) = (Vec::<Option<Peer>>::new(), Vec::with_capacity(1024));
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                let data = EventData::new_u64(peers.len() as u64);
                epoll::add(&epoll, &stream, data, EventFlags::IN | EventFlags::ET)?;
                peers.push(Some(Peer { stream, left: Vec::new() }));
                continue;
            }
            let Some(peer) = &mut peers[number as usize] else { continue };
            let begun = peer.left.len();
            buffer[..begun].copy_from_slice(&peer.left);
            // It was ready, and what comes later is another event.
            let n = match peer.stream.read(&mut buffer[begun..]) {
                Ok(n @ 1..) => begun + n,
                _ => {
                    peers[number as usize] = None;
                    continue;
                }
            };
            let (count, at) = end.find_iter(&buffer[..n]).fold((0, 0), |(count, _), at| (count + 1, at + 4));
            peer.left.clear();
            peer.left.extend_from_slice(&buffer[at..n]);
            peer.stream.write_all(answer.repeat(count).as_bytes())?;
        }
    }
}
