//! `Sec-WebSocket-Extensions` (RFC 6455 section 9.1), and what permessage-deflate agrees on in it
//! (RFC 7692 section 7.1).

use crate::http1::grammar::{is_tchar, is_token};

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// How messages are compressed (permessage-deflate, RFC 7692): what an endpoint wants, and then
/// what both agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deflate {
    /// The server compresses each message by itself (false): worse, but nothing is
    /// kept between two messages.
    pub server_no_context_takeover: bool,
    /// The client compresses each message by itself (false).
    pub client_no_context_takeover: bool,
    /// How far back the server refers, as a power of two of bytes, from 8 to 15 (12).
    pub server_max_window_bits: u8,
    /// How far back the client refers, as a power of two of bytes, from 8 to 15 (12).
    pub client_max_window_bits: u8,
    /// How hard we try, from 1 (fast) to 9 (small) (6). Not negotiated.
    pub level: u8,
    /// Memory for compression, from 1 to 9 (5). Not negotiated.
    pub mem_level: u8,
    /// Messages of fewer bytes are sent as they are (128). Not negotiated.
    pub min_size: usize,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 12,
            client_max_window_bits: 12,
            level: 6,
            mem_level: 5,
            min_size: 128,
        }
    }
}

impl Deflate {
    /// What a client sends to offer this.
    pub(crate) fn offer(&self) -> String {
        let mut offer = String::from(NAME);
        add(&mut offer, SERVER_NO_CONTEXT_TAKEOVER, self.server_no_context_takeover, None);
        add(&mut offer, CLIENT_NO_CONTEXT_TAKEOVER, self.client_no_context_takeover, None);
        let (server, client) = (bits(self.server_max_window_bits), bits(self.client_max_window_bits));
        add(&mut offer, SERVER_MAX_WINDOW_BITS, server < 15, Some(server));
        // Without a value, it tells that the server may choose one.
        add(&mut offer, CLIENT_MAX_WINDOW_BITS, true, Some(client).filter(|bits| *bits < 15));
        offer
    }

    /// A server that wants this takes a client's offer: what is agreed on, and how it says so.
    pub(crate) fn accept(&self, offer: &Parameters) -> (Self, String) {
        let agreed = Self {
            server_no_context_takeover: self.server_no_context_takeover || offer.server_no_context_takeover,
            // In an offer, a hint that the client does so anyway.
            client_no_context_takeover: self.client_no_context_takeover || offer.client_no_context_takeover,
            server_max_window_bits: bits(self.server_max_window_bits)
                .min(offer.server_max_window_bits.unwrap_or(15)),
            // "If a received extension negotiation offer doesn't have the
            // "client_max_window_bits" extension parameter, the corresponding extension
            // negotiation response to the offer MUST NOT include" it.
            client_max_window_bits: match offer.client_max_window_bits {
                Some(offered) => bits(self.client_max_window_bits).min(offered.unwrap_or(15)),
                None => 15,
            },
            ..*self
        };
        let mut response = String::from(NAME);
        add(&mut response, SERVER_NO_CONTEXT_TAKEOVER, agreed.server_no_context_takeover, None);
        add(&mut response, CLIENT_NO_CONTEXT_TAKEOVER, agreed.client_no_context_takeover, None);
        let (server, client) = (agreed.server_max_window_bits, agreed.client_max_window_bits);
        let say = server < 15 || offer.server_max_window_bits.is_some();
        add(&mut response, SERVER_MAX_WINDOW_BITS, say, Some(server));
        add(&mut response, CLIENT_MAX_WINDOW_BITS, client < 15, Some(client));
        (agreed, response)
    }

    /// A client that offered this reads the server's response: what is agreed on, or why this is
    /// no answer to the offer.
    pub(crate) fn confirm(&self, response: &Extension) -> Result<Self, &'static str> {
        let response = (response.name == NAME)
            .then(|| response.deflate())
            .flatten()
            .ok_or("the server agrees to a compression that was not offered")?;
        let server = response.server_max_window_bits.unwrap_or(15);
        if server > bits(self.server_max_window_bits) {
            return Err("the server's window is larger than was offered");
        }
        if self.server_no_context_takeover && !response.server_no_context_takeover {
            return Err("the server keeps its context, which was not offered");
        }
        let client = match response.client_max_window_bits {
            None => bits(self.client_max_window_bits),
            Some(Some(granted)) if granted <= bits(self.client_max_window_bits) => granted,
            Some(_) => return Err("the server grants another window than was offered"),
        };
        Ok(Self {
            server_no_context_takeover: response.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover
                || response.client_no_context_takeover,
            server_max_window_bits: server,
            client_max_window_bits: client,
            ..*self
        })
    }
}

const fn bits(bits: u8) -> u8 {
    if bits < 8 {
        8
    } else if bits > 15 {
        15
    } else {
        bits
    }
}

fn add(out: &mut String, name: &str, wanted: bool, value: Option<u8>) {
    if wanted {
        out.push_str("; ");
        out.push_str(name);
        if let Some(value) = value {
            out.push('=');
            out.push_str(&value.to_string());
        }
    }
}

/// The parameters of a permessage-deflate offer or response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// In an offer it may have no value.
    client_max_window_bits: Option<Option<u8>>,
}

/// An element of the header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extension {
    name: String,
    parameters: Vec<(String, Option<String>)>,
}

impl Extension {
    /// The parameters of permessage-deflate. `None` if this is another extension, or one "with
    /// an extension parameter not defined for use", "with an invalid value", or "multiple
    /// extension parameters with the same name" (RFC 7692 section 7.1), which a server declines.
    pub(crate) fn deflate(&self) -> Option<Parameters> {
        if self.name != NAME {
            return None;
        }
        let mut found = Parameters::default();
        for (name, value) in &self.parameters {
            let again = match (name.as_str(), value) {
                (SERVER_NO_CONTEXT_TAKEOVER, None) => {
                    std::mem::replace(&mut found.server_no_context_takeover, true)
                }
                (CLIENT_NO_CONTEXT_TAKEOVER, None) => {
                    std::mem::replace(&mut found.client_no_context_takeover, true)
                }
                (SERVER_MAX_WINDOW_BITS, Some(value)) => {
                    found.server_max_window_bits.replace(window_bits(value)?).is_some()
                }
                (CLIENT_MAX_WINDOW_BITS, value) => {
                    let value = match value {
                        Some(value) => Some(window_bits(value)?),
                        None => None,
                    };
                    found.client_max_window_bits.replace(value).is_some()
                }
                _ => return None,
            };
            if again {
                return None;
            }
        }
        Some(found)
    }
}

/// "a decimal integer value without leading zeroes between 8 to 15, inclusive"
fn window_bits(value: &str) -> Option<u8> {
    match value {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

/// The extensions in these fields; `None` if they are no such list: then the connection has to
/// fail (RFC 6455 section 9.1). Empty elements are passed over (RFC 9110 section 5.6.1).
pub(crate) fn parse<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Extension>> {
    let mut extensions = Vec::new();
    for field in fields {
        let mut rest = field;
        loop {
            skip_space(&mut rest);
            match rest.first() {
                None => break,
                Some(b',') => rest = &rest[1..],
                Some(_) => {
                    extensions.push(extension(&mut rest)?);
                    if !matches!(rest.first(), None | Some(b',')) {
                        return None;
                    }
                }
            }
        }
    }
    Some(extensions)
}

/// `extension-token *( ";" token [ "=" ( token / quoted-string ) ] )`
fn extension(rest: &mut &[u8]) -> Option<Extension> {
    let name = token(rest)?;
    let mut parameters = Vec::new();
    loop {
        skip_space(rest);
        if !eat(rest, b';') {
            return Some(Extension { name, parameters });
        }
        skip_space(rest);
        let parameter = token(rest)?;
        skip_space(rest);
        let value = if eat(rest, b'=') {
            skip_space(rest);
            Some(if eat(rest, b'"') { quoted(rest)? } else { token(rest)? })
        } else {
            None
        };
        parameters.push((parameter, value));
    }
}

fn token(rest: &mut &[u8]) -> Option<String> {
    let end = rest.iter().position(|&byte| !is_tchar(byte)).unwrap_or(rest.len());
    let (token, behind) = rest.split_at(end);
    *rest = behind;
    (!token.is_empty()).then(|| String::from_utf8_lossy(token).into_owned())
}

/// "When using the quoted-string syntax variant, the value after quoted-string unescaping MUST
/// conform to the 'token' ABNF."
fn quoted(rest: &mut &[u8]) -> Option<String> {
    let mut value = Vec::new();
    loop {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        match byte {
            b'"' => return is_token(&value).then(|| String::from_utf8_lossy(&value).into_owned()),
            b'\\' => {
                let (&escaped, behind) = rest.split_first()?;
                *rest = behind;
                value.push(escaped);
            }
            byte => value.push(byte),
        }
    }
}

fn skip_space(rest: &mut &[u8]) {
    while let [b' ' | b'\t', behind @ ..] = *rest {
        *rest = behind;
    }
}

fn eat(rest: &mut &[u8], wanted: u8) -> bool {
    let found = rest.first() == Some(&wanted);
    if found {
        *rest = &rest[1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(field: &str) -> Option<Parameters> {
        parse([field.as_bytes()].into_iter())?.iter().find_map(Extension::deflate)
    }

    fn answer(wanted: &Deflate, offer: &str) -> String {
        wanted.accept(&one(offer).unwrap()).1
    }

    #[test]
    fn the_grammar() {
        let names = |fields: &[&str]| {
            let extensions = parse(fields.iter().map(|field| field.as_bytes()))?;
            Some(extensions.into_iter().map(|it| it.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]), Some(vec![]));
        assert_eq!(names(&["", " , ,"]), Some(vec![]));
        assert_eq!(names(&["a, b ;c", "d;e=\"f\\g\" ; h = i,"]).unwrap(), ["a", "b", "d"]);
        for bad in
            ["a b", "a;", "a; =1", "a;b=", "a;b=\"c d\"", "a;b=\"c", "a;b=\"\"", "a;b=\"c\\", "é", "a,b c"]
        {
            assert_eq!(names(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn parameters_of_deflate() {
        let all = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                   server_max_window_bits=\"10\"; client_max_window_bits";
        let expected = Parameters {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: Some(10),
            client_max_window_bits: Some(None),
        };
        assert_eq!(one(all), Some(expected));
        for bad in [
            "server_no_context_takeover=1",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=+9",
            "server_max_window_bits=8; server_max_window_bits=8",
            "client_max_window_bits=010",
            "client_max_window_bits=1; client_max_window_bits",
            "Client_max_window_bits=10",
            "unknown",
        ] {
            assert_eq!(one(&format!("permessage-deflate; {bad}")), None, "{bad}");
            // What is declined does not hide what comes behind it.
            let behind = format!("permessage-deflate; {bad}, x, permessage-deflate");
            assert_eq!(one(&behind), Some(Parameters::default()), "{bad}");
        }
        assert_eq!(one("x-webkit-deflate-frame"), None);
    }

    #[test]
    fn a_server_answers_what_was_offered() {
        let plain = Deflate { server_max_window_bits: 15, client_max_window_bits: 15, ..Deflate::default() };
        let small = Deflate::default();
        let alone = Deflate {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            ..Deflate::default()
        };
        for (wanted, offer, expected) in [
            (&plain, "", ""),
            (&plain, "; client_max_window_bits", ""),
            (&plain, "; client_max_window_bits=9", "; client_max_window_bits=9"),
            (&plain, "; server_max_window_bits=15", "; server_max_window_bits=15"),
            (&plain, "; server_max_window_bits=8", "; server_max_window_bits=8"),
            (&plain, "; server_no_context_takeover", "; server_no_context_takeover"),
            (&plain, "; client_no_context_takeover", "; client_no_context_takeover"),
            (&small, "", "; server_max_window_bits=12"),
            (&small, "; client_max_window_bits", "; server_max_window_bits=12; client_max_window_bits=12"),
            (&small, "; server_max_window_bits=10", "; server_max_window_bits=10"),
            (
                &alone,
                "",
                "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
            ),
        ] {
            let offer = format!("permessage-deflate{offer}");
            assert_eq!(answer(wanted, &offer), format!("permessage-deflate{expected}"), "{offer}");
        }
    }

    #[test]
    fn both_sides_agree_on_the_same() {
        for server in 0..64_u8 {
            for client in 0..64_u8 {
                let wish = |seed: u8| Deflate {
                    server_no_context_takeover: seed & 1 != 0,
                    client_no_context_takeover: seed & 2 != 0,
                    server_max_window_bits: [8, 9, 12, 15][usize::from(seed >> 2 & 3)],
                    client_max_window_bits: [8, 10, 14, 15][usize::from(seed >> 4 & 3)],
                    ..Deflate::default()
                };
                let (server, client) = (wish(server), wish(client));
                let (agreed, response) = server.accept(&one(&client.offer()).unwrap());
                let response = &parse([response.as_bytes()].into_iter()).unwrap()[0];
                assert_eq!(client.confirm(response), Ok(agreed));
            }
        }
    }

    #[test]
    fn a_client_refuses_what_it_did_not_offer() {
        let offered =
            Deflate { server_no_context_takeover: true, server_max_window_bits: 10, ..Deflate::default() };
        for (response, fine) in [
            ("permessage-deflate; server_no_context_takeover; server_max_window_bits=10", true),
            ("permessage-deflate; server_no_context_takeover; server_max_window_bits=8", true),
            ("permessage-deflate; server_no_context_takeover; server_max_window_bits=11", false),
            ("permessage-deflate; server_no_context_takeover", false),
            ("permessage-deflate; server_max_window_bits=10", false),
            (
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=10; \
                 client_max_window_bits=13",
                false,
            ),
            (
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=10; \
                 client_max_window_bits",
                false,
            ),
            ("permessage-deflate; x", false),
            ("other", false),
        ] {
            let parsed = &parse([response.as_bytes()].into_iter()).unwrap()[0];
            assert_eq!(offered.confirm(parsed).is_ok(), fine, "{response}");
        }
    }
}
