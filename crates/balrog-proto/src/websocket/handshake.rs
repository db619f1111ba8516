//! The opening handshake of a server (RFC 6455 section 4.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::http1::grammar::{is_token, list};
use crate::http1::{Framing, RequestHead, Version};
use crate::websocket::Deflate;
use crate::websocket::extension::{self, Extension, Parameters};

/// A valid opening handshake of a client (RFC 6455 section 4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The subprotocols that the client speaks, best first. The server may choose one, and then
    /// says so in `Sec-WebSocket-Protocol`.
    pub protocols: Vec<String>,
    /// The site whose script opened the WebSocket, if a browser did. A server that is for its
    /// own site only has to compare it (RFC 6455 section 10.2).
    pub origin: Option<String>,
    /// The offers of permessage-deflate, best first.
    deflate: Vec<Parameters>,
}

impl Offer {
    /// What a server that wants `wanted` agrees on, if the client offers compression: the
    /// settings, and the value of `Sec-WebSocket-Extensions`.
    pub fn deflate(&self, wanted: &Deflate) -> Option<(Deflate, String)> {
        self.deflate.first().map(|offer| wanted.accept(offer))
    }
}

/// A request for a WebSocket that cannot be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// 400, or 426 with `Sec-WebSocket-Version: 13`.
    pub status: u16,
    /// What is wrong, for people.
    pub reason: &'static str,
}

/// What a request offers: `Ok(None)` if it does not ask for a WebSocket at all.
///
/// # Errors
///
/// A [`Refusal`] if it asks in a way that RFC 6455 does not allow.
pub fn offer(head: &RequestHead<'_>) -> Result<Option<Offer>, Refusal> {
    let bad = |reason| Refusal { status: 400, reason };
    if !head.upgrade || !head.headers.lists("upgrade", "websocket") {
        return Ok(None);
    }
    if head.method != "GET" || head.version != Version::Http11 {
        return Err(bad("a WebSocket handshake is a GET of HTTP/1.1"));
    }
    if !matches!(head.framing, Framing::None | Framing::Length(0)) {
        return Err(bad("a WebSocket handshake has no body"));
    }
    let only = |name| {
        let mut values = head.headers.all(name);
        values.next().filter(|_| values.next().is_none())
    };
    // "If this version does not match a version understood by the server, the server MUST
    // abort the WebSocket handshake [...] and instead send an appropriate HTTP error code
    // (such as 426 Upgrade Required)".
    if only("sec-websocket-version") != Some(b"13") {
        return Err(Refusal { status: 426, reason: "Sec-WebSocket-Version has to be 13" });
    }
    // "a base64-encoded value that, when decoded, is 16 bytes in length"
    let key = only("sec-websocket-key").ok_or(bad("there has to be one Sec-WebSocket-Key"))?;
    if key.len() != 24 || STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return Err(bad("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    let protocols = head
        .headers
        .all("sec-websocket-protocol")
        .flat_map(list)
        .map(|protocol| {
            // "non-empty strings with characters in the range U+0021 to U+007E not including
            // separator characters"
            let text = std::str::from_utf8(protocol).ok().filter(|_| is_token(protocol));
            text.map(str::to_owned).ok_or(bad("a subprotocol is not a token"))
        })
        .collect::<Result<_, _>>()?;
    // Of two origins, one would be checked and the other believed.
    if head.headers.all("origin").count() > 1 {
        return Err(bad("there is more than one Origin"));
    }
    let origin = only("origin").map(|origin| String::from_utf8_lossy(origin).into_owned());
    // "If a value is supplied [...] that does not conform to the ABNF", RFC 6455 section 9.1, "the
    // receiver of such malformed data MUST immediately _Fail the WebSocket Connection_".
    let extensions = extension::parse(head.headers.all("sec-websocket-extensions"))
        .ok_or(bad("Sec-WebSocket-Extensions is malformed"))?;
    let deflate = extensions.iter().filter_map(Extension::deflate).collect();
    Ok(Some(Offer { accept: accept(key), protocols, origin, deflate }))
}

/// "concatenating /key/ [...] with the string "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", taking the
/// SHA-1 hash of this concatenated value [...] and base64-encoding"
pub(crate) fn accept(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finalize())
}
