//! A WebSocket echo on one thread (a thread a connection with `blocking` and `tungstenite`), by
//! whoever is named: `echo NAME ADDRESS`.

use std::error::Error;
use std::io;
use std::net;
use std::thread;

use balrog::Runtime;
use balrog::http::server::{Request, Server};
use balrog::net::TcpListener;
use balrog::websocket;
use balrog_bench_rust::serve;
use bytes::Bytes;
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, address] = &words[..] else { return Err("NAME ADDRESS".into()) };
    match name.as_str() {
        "fastwebsockets" => fastwebsockets(address),
        "tungstenite" => tungstenite(address),
        runtime => {
            let (runtime, address) = (runtime.parse::<Runtime>()?, address.clone());
            Ok(runtime.run(move || balrog(&address))??)
        }
    }
}

fn balrog(address: &str) -> io::Result<()> {
    Server::new().serve(TcpListener::bind(address)?, |request: &mut Request<'_>| {
        websocket::accept(request, |mut ws| {
            while let Ok(Some(message)) = ws.recv() {
                if ws.send(&message).is_err() {
                    return;
                }
            }
        })
    })
}

#[tokio::main(flavor = "current_thread")]
async fn fastwebsockets(address: &str) -> Result<(), Box<dyn Error>> {
    let each = |io| http1::Builder::new().serve_connection(io, service_fn(accept)).with_upgrades();
    Ok(serve(address, each).await?)
}

async fn accept(
    mut request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::task::spawn_local(async move {
        let mut ws = FragmentCollector::new(upgraded.await?);
        loop {
            let frame = ws.read_frame().await?;
            if frame.opcode == OpCode::Close {
                return Ok::<_, WebSocketError>(());
            }
            ws.write_frame(frame).await?;
        }
    });
    Ok(response)
}

fn tungstenite(address: &str) -> Result<(), Box<dyn Error>> {
    for stream in net::TcpListener::bind(address)?.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        thread::spawn(move || -> tungstenite::Result<()> {
            let mut ws = tungstenite::accept(stream).map_err(|error| io::Error::other(error.to_string()))?;
            loop {
                let message = ws.read()?;
                ws.send(message)?;
            }
        });
    }
    Ok(())
}
