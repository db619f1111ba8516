use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::http1::{Framing, RequestHead, Version};

/// A valid opening handshake of a client (RFC 6455 section 4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The subprotocols that the client speaks, best first.
    pub protocols: Vec<String>,
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
        .flat_map(crate::http1::grammar::list)
        .map(|protocol| String::from_utf8_lossy(protocol).into_owned())
        .collect();
    let digest =
        Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    Ok(Some(Offer { accept: STANDARD.encode(digest), protocols }))
}
