//! HTTP/1.1: requests by their URLs ([`get`], [`post`], [`client`]), a [`server`], and the plain
//! exchange under the former, on connections that a thread keeps:
//!
//! ```no_run
//! use balrog::http::{Client, Request};
//!
//! let mut response = Client::default().send(&Request::get("kitchen.example", 80, "/menu"), b"")?;
//! let menu = response.read_to_end(1 << 20)?;
//! # Ok::<(), balrog::http::Error>(())
//! ```

pub mod client;
mod connection;
mod error;
mod pool;
mod response;
pub mod server;

use std::time::{Duration, Instant};

use balrog_proto::http1::BodyLength;

/// Of the `http` crate.
pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
pub use error::{Error, Kind, Phase};
pub use pool::{idle_connections, sweep};
pub use response::Response;
pub use server::{Server, serve};

use crate::tls::TlsConfig;
use connection::Connection;

/// A GET by the default [`client::Client`].
pub fn get(url: &str) -> client::RequestBuilder {
    client::Client::new().get(url)
}

/// A POST by the default [`client::Client`].
pub fn post(url: &str) -> client::RequestBuilder {
    client::Client::new().post(url)
}

/// What to ask, and of whom.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Encrypted unless `None`.
    pub tls: Option<&'a TlsConfig>,
    /// A name or an address, IPv6 in brackets.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// A token such as `GET`.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// For the `Host` field: the host, and the port unless it is the scheme's own.
    pub authority: &'a str,
    /// Further fields; framing is added by the client.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// To connect, the handshake included.
    pub connect_timeout: Option<Duration>,
    /// For each read and write: the time without a byte.
    pub read_timeout: Option<Duration>,
    /// Asked to forward the request or, with TLS, for a tunnel.
    pub proxy: Option<&'a Proxy>,
    /// 0, or the owner of the connection: others' requests never go over it. For
    /// authentication that holds for a connection.
    pub owner: u64,
}

/// A proxy that is spoken to in plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address, IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// For the proxy alone, `Proxy-Authorization` for example.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Request<'a> {
    /// A GET without further fields; 5 s to connect, 30 s without a byte.
    pub const fn get(host: &'a str, port: u16, target: &'a str) -> Self {
        Self {
            tls: None,
            host,
            port,
            method: "GET",
            target,
            authority: host,
            headers: &[],
            connect_timeout: Some(Duration::from_secs(5)),
            read_timeout: Some(Duration::from_secs(30)),
            proxy: None,
            owner: 0,
        }
    }

    /// The proxy that takes the request itself.
    fn forwarder(&self) -> Option<(&'a str, u16)> {
        if self.tls.is_some() { None } else { self.proxy.map(|proxy| (proxy.host.as_str(), proxy.port)) }
    }

    /// The proxy that passes encrypted bytes on.
    fn tunnel(&self) -> Option<&'a Proxy> {
        self.tls.and(self.proxy)
    }
}

/// Sends requests over connections that its thread keeps and reuses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Client;

impl Client {
    /// Sends a request with a body that is there as a whole.
    ///
    /// A kept connection that the server has closed in the meantime is replaced, and an
    /// idempotent request sent again, once.
    ///
    /// # Errors
    ///
    /// An [`Error`] that says in which phase it happened.
    pub fn send(self, request: &Request<'_>, body: &[u8]) -> Result<Response, Error> {
        let length = match (body.len(), request.method) {
            (0, "POST" | "PUT" | "PATCH") => BodyLength::Length(0),
            (0, _) => BodyLength::None,
            (n, _) => BodyLength::Length(n as u64),
        };
        let mut fresh = false;
        loop {
            let mut exchange = self.open(request, length, fresh)?;
            let again = exchange.connection.is_reused() && is_idempotent(request.method);
            let answered = exchange.write(body).and_then(|()| exchange.response());
            match answered {
                // The server closed before it could have seen the request.
                Err(error) if again && !fresh && error.is_unanswered() => fresh = true,
                result => return result,
            }
        }
    }

    /// Begins a request whose body comes in pieces.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the phases `Connect` and `Send`.
    pub fn stream(self, request: &Request<'_>, length: BodyLength) -> Result<Exchange, Error> {
        self.open(request, length, false)
    }

    fn open(self, request: &Request<'_>, length: BodyLength, fresh: bool) -> Result<Exchange, Error> {
        let kept = if fresh { None } else { pool::take(request) };
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let deadline =
                    request.connect_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                Connection::open(request, deadline)?
            }
        };
        connection.set_read_timeout(request.read_timeout);
        let Request { method, target, authority, headers, .. } = *request;
        let link = connection.link();
        match request.proxy.filter(|_| request.tls.is_none()) {
            None => link.request(method, target, authority, headers, length),
            Some(proxy) => {
                let target = format!("http://{authority}{target}");
                let own = proxy.headers.iter().map(|(name, value)| (&name[..], &value[..]));
                let headers: Vec<_> = headers.iter().copied().chain(own).collect();
                link.request(method, &target, authority, &headers, length)
            }
        }
        .map_err(Error::misuse)?;
        Ok(Exchange { connection })
    }
}

/// "PUT, DELETE, and safe request methods are idempotent." (RFC 9110 section 9.2.2)
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// A request on its way.
#[derive(Debug)]
pub struct Exchange {
    connection: Connection,
}

impl Exchange {
    /// Sends a piece of the body.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the phase `Send`. A server that has answered already is no error.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        if !data.is_empty() {
            self.connection.link().body(data).map_err(Error::misuse)?;
        }
        self.connection.flush()
    }

    /// Whether the server takes no more of the body: time to see what it answered.
    pub const fn is_refused(&self) -> bool {
        self.connection.is_deaf()
    }

    /// Ends the request and waits for the head of the response.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the phases `Send` and `Head`.
    pub fn response(mut self) -> Result<Response, Error> {
        if !self.is_refused() {
            self.connection.link().finish().map_err(Error::misuse)?;
            self.connection.flush()?;
        }
        Response::receive(self.connection)
    }
}
