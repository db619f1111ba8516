use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{StatusCode, Uri};
use balrog_proto::http1::{BodyLength, Client, ClientEvent};
use balrog_proto::websocket::{Agreed, Connect, Peer};
use balrog_proto::{Link, Step};

use super::{Deflate, Limits, WebSocket};
use crate::drive::Connection;
use crate::http::server::{Body, IntoResponse, Request, Response};
use crate::net::{AnyStream, TcpStream};
use crate::random::Random;
use crate::tls::TlsConfig;

/// How to open WebSockets, as a client and as a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Subprotocols, best first: offered by a client, chosen from by a server. None at first.
    pub protocols: Vec<String>,
    /// Compression, if the other side wants it, too. `None` at first.
    pub deflate: Option<Deflate>,
    /// What the other side may take of us, and the times of keepalive.
    pub limits: Arc<Limits>,
    /// Further fields of a client's request, `Origin` and `Authorization` for example.
    pub headers: Vec<(String, String)>,
    /// Whom a client trusts: needed for `wss://`.
    pub tls: Option<TlsConfig>,
    /// How long a client's connecting may take, the handshakes included (10 s).
    pub connect_timeout: Duration,
    /// Whose pages may open a WebSocket at a server: origins such as `https://kitchen.example`,
    /// besides those of the host that is asked. Others get 403 (RFC 6455 section 10.2).
    pub origins: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            protocols: Vec::new(),
            deflate: None,
            limits: Arc::default(),
            headers: Vec::new(),
            tls: None,
            connect_timeout: Duration::from_secs(10),
            origins: Vec::new(),
        }
    }
}

impl Options {
    /// Opens a WebSocket at a `ws://` or `wss://` URL.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an unsound URL, or `wss` without [`Options::tls`]; `TimedOut`; what
    /// the system reports; `ConnectionRefused` when the server answers with another status than
    /// 101, and `InvalidData` when what it answers opens no WebSocket.
    pub fn connect(&self, url: &str) -> io::Result<WebSocket> {
        let target = Target::parse(url)?;
        let deadline = Some(Instant::now() + self.connect_timeout);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{url}: {error}"));
        self.open(&target, deadline).map_err(|error| {
            // An interrupt is not the server's doing, and has to stay what it is.
            if crate::Interrupt::of(&error).is_some() { error } else { named(error) }
        })
    }

    fn open(&self, target: &Target, deadline: Option<Instant>) -> io::Result<WebSocket> {
        let mut tcp = TcpStream::connect(&target.host, target.port, deadline);
        if let Ok(tcp) = &mut tcp {
            tcp.timeouts.deadline = deadline;
        }
        let stream: AnyStream = match (&self.tls, target.tls) {
            (_, false) => tcp?.into(),
            (Some(tls), true) => tls.connect(&target.host, tcp?)?.into(),
            (None, true) => {
                let why = "wss needs Options::tls, which says whom to trust";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
        };
        let mut entropy = Random::default();
        let protocols: Vec<&str> = self.protocols.iter().map(String::as_str).collect();
        let mut connect = Connect::new(&mut entropy).protocols(&protocols)?;
        if let Some(deflate) = &self.deflate {
            connect = connect.deflate(deflate.clone());
        }
        let fields = connect.fields();
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let own = self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let fields: Vec<(&[u8], &[u8])> = fields.chain(own).collect();
        let mut connection = Connection::new(Client::new(balrog_proto::http1::Limits::default()), stream);
        connection.link.request("GET", &target.path, &target.authority, &fields, BodyLength::None)?;
        connection.link.finish()?;
        let agreed = connection.event(4 * 1024, |step| match step {
            Step::Event(ClientEvent::Upgraded(head)) => Some(connect.check(&head).map_err(io::Error::from)),
            Step::Event(ClientEvent::Response(head)) => {
                let why = format!("the server answered {} instead of opening a WebSocket", head.status);
                Some(Err(io::Error::new(io::ErrorKind::ConnectionRefused, why)))
            }
            Step::Event(_) => None,
            _ => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })??;
        connection.stream.timeouts_mut().deadline = None;
        let peer = Peer::client(Arc::clone(&self.limits), Box::new(entropy));
        Ok(websocket(connection.link, connection.stream, peer, agreed))
    }

    /// Answers a request for a WebSocket: to be returned by the handler; then `speak` is given
    /// the WebSocket. A request for anything else is answered 426, an unsound one 400, one of a
    /// page of another site 403.
    pub fn accept(&self, request: &Request<'_>, speak: impl FnOnce(WebSocket) + Send + 'static) -> Response {
        let refused = |status, reason: &'static str| {
            let mut response = (status, reason).into_response();
            if status == StatusCode::UPGRADE_REQUIRED {
                let headers = response.headers_mut();
                headers.insert("sec-websocket-version", ::http::HeaderValue::from_static("13"));
                headers.insert("upgrade", ::http::HeaderValue::from_static("websocket"));
            }
            response
        };
        let offer = match request.offer() {
            None => return refused(StatusCode::UPGRADE_REQUIRED, "here is a WebSocket, and nothing else\n"),
            Some(Err(refusal)) => {
                let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
                return refused(status, refusal.reason);
            }
            Some(Ok(offer)) => offer,
        };
        if let Some(origin) = &offer.origin
            && !self.is_ours(origin, request.header("host").unwrap_or_default())
        {
            return refused(StatusCode::FORBIDDEN, "pages of other sites may not open this WebSocket\n");
        }
        let protocol = self.protocols.iter().find(|protocol| offer.protocols.contains(protocol)).cloned();
        let deflate = self.deflate.as_ref().and_then(|wanted| offer.deflate(wanted));
        let mut response = ::http::Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Accept", &offer.accept);
        if let Some(protocol) = &protocol {
            response = response.header("Sec-WebSocket-Protocol", protocol);
        }
        if let Some((_, value)) = &deflate {
            response = response.header("Sec-WebSocket-Extensions", value);
        }
        let agreed = Agreed { protocol, deflate: deflate.map(|(deflate, _)| deflate) };
        let limits = Arc::clone(&self.limits);
        let body = Body::take_over(move |connection| {
            speak(websocket(connection.link, connection.stream, Peer::server(limits), agreed));
        });
        response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }

    fn is_ours(&self, origin: &str, host: &str) -> bool {
        let same = origin.split_once("://").is_some_and(|(_, at)| at.eq_ignore_ascii_case(host));
        same || self.origins.iter().any(|one| one.eq_ignore_ascii_case(origin))
    }
}

fn websocket<M: balrog_proto::Machine>(
    link: Link<M>,
    stream: AnyStream,
    peer: Peer,
    agreed: Agreed,
) -> WebSocket {
    let patience = peer.limits().patience();
    let peer = match &agreed.deflate {
        Some(deflate) => peer.deflate(deflate),
        None => peer,
    };
    WebSocket::new(Connection { link: link.replace(peer), stream }, agreed.protocol, patience)
}

/// What a URL names.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    fn parse(url: &str) -> io::Result<Self> {
        let unsound = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url}: {why}"));
        let uri: Uri = url.parse().map_err(|error: ::http::uri::InvalidUri| unsound(&error.to_string()))?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(unsound("the URL of a WebSocket begins with ws:// or wss://")),
        };
        let authority = uri.authority().ok_or_else(|| unsound("there is no host"))?;
        if authority.as_str().contains('@') {
            return Err(unsound("a name and password go into an Authorization field"));
        }
        Ok(Self {
            tls,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("wss://kitchen.example:8443/orders?user=1").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("kitchen.example", 8443, true));
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("kitchen.example:8443", "/orders?user=1")
        );
        let target = Target::parse("ws://[::1]").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("[::1]", 80, "/"));
        for bad in ["http://a/", "a/b", "ws:///x", "ws://a b/", "ws://me:secret@a/"] {
            assert_eq!(Target::parse(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
    }
}
