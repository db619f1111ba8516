//! An HTTP hello on one thread, by whoever is named: `hello NAME ADDRESS`.

use std::convert::Infallible;
use std::error::Error;
use std::io;

use balrog::Runtime;
use balrog::http::server::{Request, Server};
use balrog::net::TcpListener;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

const HELLO: &str = "Hello, world!";

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (name, address) = (words.next().ok_or("a name")?, words.next().ok_or("an address")?);
    match name.as_str() {
        "hyper" => hyper(&address),
        "may_minihttp" => may_minihttp(&address),
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
    let listener = tokio::net::TcpListener::bind(address).await?;
    let hello = |_: hyper::Request<Incoming>| async {
        Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(HELLO.as_bytes()))))
    };
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(async move {
                    let io = TokioIo::new(stream);
                    let _ = http1::Builder::new().serve_connection(io, service_fn(hello)).await;
                });
            }
        })
        .await
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
