//! A server of ours that tests talk to, HTTP and WebSocket, and what they say to it.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use balrog::http::Method;
use balrog::http::client::Client;
use balrog::http::server::{Body, Handle, IntoResponse, Request, Response, Server};
use balrog::net::TcpListener;
use balrog::tls::{TlsAcceptor, TlsConfig};
use balrog::websocket::{Limits, Message, Options, WebSocket};
use balrog::{JoinHandle, spawn};

use crate::until::{LONG, until};

/// How long the site bears with who says or takes nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// It runs beside the test.
pub(crate) struct Site {
    pub(crate) at: At,
    pub(crate) handle: Handle,
    task: JoinHandle<io::Result<()>>,
}

/// Where it is talked to, itself or a proxy.
#[derive(Clone)]
pub(crate) struct At {
    pub(crate) port: u16,
    pub(crate) tls: Option<TlsConfig>,
}

impl Site {
    pub(crate) fn new(tls: bool) -> io::Result<Self> {
        let mut limits = balrog_proto::http1::Limits::default();
        (limits.idle_time, limits.first_time) = (Some(PATIENCE / 2), Some(PATIENCE));
        (limits.head_time, limits.body_idle_time) = (Some(PATIENCE), Some(PATIENCE));
        let mut server = Server::new().limits(limits).write_timeout(PATIENCE);
        let pem = certificate();
        if tls {
            server = server.tls(TlsAcceptor::new(pem, pem, None)?);
        }
        let tls = if tls { Some(TlsConfig::new(Some(pem), None)?) } else { None };
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let at = At { port: listener.local_addr()?.port(), tls };
        let handle = server.handle();
        let mut limits = Limits::default();
        (limits.ping_interval, limits.pong_time) = (Some(PATIENCE), PATIENCE);
        let sockets = Options { limits: Arc::new(limits), ..Options::default() };
        let answer = move |request: &mut Request<'_>| answer(request, &sockets);
        Ok(Self { at, handle, task: spawn(move || server.serve(listener, answer))? })
    }

    /// Waits until nobody is connected any more.
    pub(crate) fn until_alone(&self) -> io::Result<()> {
        until("no connection", || self.handle.connections() == 0)
    }

    /// Stops it, when nobody is connected any more but who keeps a connection.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        let begun = Instant::now();
        self.handle.stop();
        self.task.join()??;
        assert!(begun.elapsed() < LONG && self.handle.connections() == 0, "somebody is left");
        Ok(())
    }
}

fn answer(request: &mut Request<'_>, sockets: &Options) -> io::Result<Response> {
    Ok(match request.path() {
        "/echo" => request.body(4 << 20)?.into_response(),
        "/bytes" => {
            let (seed, size) = request.query().split_once('&').unwrap();
            let (seed, size) = (seed.parse().unwrap(), size.parse().unwrap());
            Body::writer(move |out| out.write_all(&pattern(seed, size))).into_response()
        }
        _ => sockets.accept(request, |mut ws| {
            while let Ok(Some(message)) = ws.recv() {
                if ws.send(&message).is_err() {
                    break;
                }
            }
        }),
    })
}

impl At {
    /// The same site behind another port.
    pub(crate) fn through(&self, port: u16) -> Self {
        Self { port, tls: self.tls.clone() }
    }

    pub(crate) fn url(&self, scheme: &str, path: &str) -> String {
        let s = if self.tls.is_some() { "s" } else { "" };
        format!("{scheme}{s}://127.0.0.1:{}/{path}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        let client = Client::new().no_proxies().connect_timeout(LONG).read_timeout(LONG);
        match &self.tls {
            Some(tls) => client.tls(tls.clone()),
            None => client,
        }
    }

    /// Has `size` bytes sent back in a response.
    pub(crate) fn echo(&self, method: Method, seed: u64, size: usize) -> io::Result<()> {
        let sent = pattern(seed, size);
        let response = self.client().request(method, &self.url("http", "echo")).body(sent.clone()).send()?;
        if response.status() != 200 {
            return Err(io::Error::other(format!("answered {}", response.status())));
        }
        let got = response.bytes()?;
        assert!(got == sent, "of another request: {} for {size} bytes", got.len());
        Ok(())
    }

    /// Reads a body of `size` bytes, and calls `between` before each piece of 16 KiB.
    pub(crate) fn download(
        &self,
        seed: u64,
        size: usize,
        mut between: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let url = self.url("http", &format!("bytes?{seed}&{size}"));
        let mut response = self.client().get(&url).send()?;
        assert_eq!(response.status(), 200);
        let expected = pattern(seed, size);
        let (mut read, mut piece) = (0, vec![0; 16 * 1024]);
        loop {
            between()?;
            match response.read(&mut piece)? {
                0 => break,
                n => {
                    assert!(expected[read..].starts_with(&piece[..n]), "another body at {read}");
                    read += n;
                }
            }
        }
        assert_eq!(read, size, "the end of the body is missing");
        Ok(())
    }

    pub(crate) fn websocket(&self) -> io::Result<WebSocket> {
        let options = Options { tls: self.tls.clone(), connect_timeout: LONG, ..Options::default() };
        options.connect(&self.url("ws", "ws"))
    }

    /// Says `count` messages over a WebSocket, and hears them.
    pub(crate) fn chat(&self, seed: u64, count: u64, size: usize) -> io::Result<()> {
        let mut ws = self.websocket()?;
        for number in seed..seed + count {
            ws.send(&pattern(number, size))?;
            hear(&mut ws, number, size)?;
        }
        ws.close(1000, "")
    }
}

/// Receives the message that was made of this seed.
pub(crate) fn hear(ws: &mut WebSocket, seed: u64, size: usize) -> io::Result<()> {
    match ws.recv()? {
        Some(message) => assert!(message == Message::Binary(pattern(seed, size)), "another message"),
        None => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    Ok(())
}

/// Bytes that differ everywhere from those of any other seed.
pub(crate) fn pattern(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A PEM file with a self-signed certificate and its key.
pub(crate) fn certificate() -> &'static PathBuf {
    static PEM: OnceLock<PathBuf> = OnceLock::new();
    PEM.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("balrog-site-{}.pem", std::process::id()));
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem() + &made.signing_key.serialize_pem()).unwrap();
        path
    })
}
