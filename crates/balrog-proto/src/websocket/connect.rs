//! The opening handshake of a client (RFC 6455 section 4.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http1::grammar::is_token;
use crate::http1::{ResponseHead, Version};
use crate::websocket::extension;
use crate::websocket::{Deflate, handshake};
use crate::{Entropy, Error, Misuse};

/// What a client asks for: the fields of its request, and the check of the response to it.
#[derive(Debug, Clone)]
pub struct Connect {
    key: String,
    protocols: Vec<String>,
    deflate: Option<Deflate>,
}

/// What client and server agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agreed {
    /// The subprotocol that the server chose.
    pub protocol: Option<String>,
    /// How messages are compressed, for [`Peer::deflate`](crate::websocket::Peer::deflate).
    pub deflate: Option<Deflate>,
}

impl Connect {
    /// Asks for a WebSocket. The key, "a nonce consisting of a randomly selected 16-byte value",
    /// comes from `entropy`.
    pub fn new(entropy: &mut dyn Entropy) -> Self {
        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        Self { key: STANDARD.encode(nonce), protocols: Vec::new(), deflate: None }
    }

    /// Offers subprotocols, best first.
    ///
    /// # Errors
    ///
    /// `Misuse` if one is not a token, or stands twice.
    pub fn protocols(mut self, protocols: &[&str]) -> Result<Self, Misuse> {
        for protocol in protocols {
            if !is_token(protocol.as_bytes()) {
                return Err(Misuse("a subprotocol is not a token"));
            }
            // "and MUST all be unique strings"
            if self.protocols.iter().any(|other| other == protocol) {
                return Err(Misuse("a subprotocol stands twice"));
            }
            self.protocols.push((*protocol).to_owned());
        }
        Ok(self)
    }

    /// Offers compression.
    #[must_use]
    pub fn deflate(mut self, wanted: Deflate) -> Self {
        self.deflate = Some(wanted);
        self
    }

    /// The fields of the request, a GET of HTTP/1.1 without a body; `Host`, `Origin` and the
    /// application's own are the caller's.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("Upgrade", "websocket".to_owned()),
            ("Connection", "Upgrade".to_owned()),
            ("Sec-WebSocket-Key", self.key.clone()),
            ("Sec-WebSocket-Version", "13".to_owned()),
        ];
        if !self.protocols.is_empty() {
            fields.push(("Sec-WebSocket-Protocol", self.protocols.join(", ")));
        }
        if let Some(deflate) = &self.deflate {
            fields.push(("Sec-WebSocket-Extensions", deflate.offer()));
        }
        fields
    }

    /// Checks the response, as RFC 6455 section 4.1 says under "Once the client's opening
    /// handshake has been sent".
    ///
    /// # Errors
    ///
    /// `Violation` for a response that opens no WebSocket; then the connection is to be closed.
    /// One of another status than 101 is for the caller to look at first.
    pub fn check(&self, head: &ResponseHead<'_>) -> Result<Agreed, Error> {
        const RULE: &str = "RFC 6455 section 4.1";
        let bad = |reason| Error::violation(0, reason, RULE);
        let only = |name| {
            let mut values = head.headers.all(name);
            values.next().filter(|_| values.next().is_none())
        };
        if head.status != 101 || head.version != Version::Http11 {
            return Err(bad("the server did not switch protocols"));
        }
        if !only("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err(bad("the response's Upgrade is not \"websocket\""));
        }
        if !head.headers.lists("connection", "upgrade") {
            return Err(bad("the response's Connection has no \"upgrade\""));
        }
        if only("sec-websocket-accept") != Some(handshake::accept(self.key.as_bytes()).as_bytes()) {
            return Err(bad("the response's Sec-WebSocket-Accept is wrong"));
        }
        let protocol = match head.headers.get("sec-websocket-protocol") {
            None => None,
            Some(_) => {
                let chosen = only("sec-websocket-protocol");
                let found = self.protocols.iter().find(|offered| Some(offered.as_bytes()) == chosen);
                Some(found.ok_or_else(|| bad("the server chose a subprotocol that was not offered"))?.clone())
            }
        };
        let extensions = extension::parse(head.headers.all("sec-websocket-extensions"))
            .ok_or_else(|| bad("the response's Sec-WebSocket-Extensions is malformed"))?;
        let deflate = match (&extensions[..], &self.deflate) {
            ([], _) => None,
            ([extension], Some(offered)) => Some(offered.confirm(extension).map_err(bad)?),
            _ => return Err(bad("the server agrees to an extension that was not offered")),
        };
        Ok(Agreed { protocol, deflate })
    }
}
