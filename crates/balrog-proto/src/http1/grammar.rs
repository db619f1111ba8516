//! The character classes of RFC 9110 section 5.6.2 and RFC 3986.

use std::net::Ipv6Addr;

use crate::http1::scan::{all_token, all_value};

/// `token`: one or more `tchar`.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all_token(bytes)
}

#[inline]
pub(crate) const fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
        byte += 1;
    }
    table
};

/// `field-value` without its surrounding whitespace: visible, SP, HTAB, obs-text.
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    all_value(bytes)
}

pub(crate) const fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Optional whitespace, `OWS`, off both ends.
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// `uri-host [ ":" port ]`, of RFC 9110 section 7.2, with a host.
///
/// Stricter than the grammar in two places. A comma is no part of it: it would be the mark of
/// two Host fields that somebody joined. And a port is a number below 65,536, since nothing
/// else can have been connected to.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    authority(bytes).is_some()
}

/// The same, with a port: the target of CONNECT (RFC 9112 section 3.2.3).
pub(crate) fn is_tunnel_target(bytes: &[u8]) -> bool {
    authority(bytes).is_some_and(|port| !port.is_empty())
}

/// The port of a sound authority, empty if there is none.
fn authority(bytes: &[u8]) -> Option<&[u8]> {
    let (host_is_good, rest) = match bytes {
        [b'[', inner @ ..] => {
            let end = inner.iter().position(|&byte| byte == b']')?;
            (is_ip_literal(&inner[..end]), &inner[end + 1..])
        }
        _ => {
            let end = reg_name_end(bytes)?;
            (end > 0, &bytes[end..])
        }
    };
    match rest {
        _ if !host_is_good => None,
        [] => Some(rest),
        [b':', port @ ..] => is_port(port).then_some(port),
        _ => None,
    }
}

/// `IP-literal` without its brackets: an IPv6 address, or `IPvFuture`. Zones are for the local
/// host only, and are no part of a URI.
fn is_ip_literal(bytes: &[u8]) -> bool {
    // IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
    if let [b'v' | b'V', rest @ ..] = bytes {
        let Some(dot) = rest.iter().position(|&byte| byte == b'.') else { return false };
        let (version, address) = (&rest[..dot], &rest[dot + 1..]);
        let good = |&byte: &u8| byte == b':' || REG_NAME[usize::from(byte)];
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(good);
    }
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// The bytes of `reg-name`, but the comma and "%": unreserved, sub-delims.
const REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
            | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
        byte += 1;
    }
    table
};

/// How long the `reg-name` is that `bytes` begin with; none where a "%" begins no `pct-encoded`.
#[inline]
fn reg_name_end(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        while bytes.get(end).is_some_and(|&byte| REG_NAME[usize::from(byte)]) {
            end += 1;
        }
        // pct-encoded = "%" HEXDIG HEXDIG
        match &bytes[end..] {
            [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => end += 3,
            [b'%', ..] => return None,
            _ => return Some(end),
        }
    }
}

/// `port = *DIGIT`, and a number that a port can have.
fn is_port(bytes: &[u8]) -> bool {
    bytes.is_empty() || number(bytes).is_some_and(|port| port <= u64::from(u16::MAX))
}

/// `1*DIGIT` that fits. Of zeros in front there are no more than make as many digits as the largest
/// number has: others stop counting somewhere.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 20 {
        return None;
    }
    bytes.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// The elements of a `#token` list, empty ones left out.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in [
            "a",
            "conf.test:8080",
            "a:",
            "127.0.0.1",
            "[::1]",
            "[::1]:80",
            "xn--a_b",
            "a%41",
            "a:65535",
            "a:00000080",
            "[::ffff:127.0.0.1]:1",
            "[v1.a:b]",
            "a.",
            "1",
            "[2001:DB8::1]",
            "a:0",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a@b",
            "a b",
            "a/b",
            "a,b",
            "[]",
            "[::1",
            "[::1]x",
            "a:b",
            "a:123456",
            "a:1:2",
            "a\u{1}",
            "[g]",
            "a?b",
            "a\\b",
            "a:65536",
            "a%4",
            "a%zz",
            "a%",
            "[1]",
            "[::1%25eth0]",
            "[:]",
            "[v.a]",
            "[v1.]",
            "[v1a]",
            "::1",
            "[::1]]",
            "a:+1",
            "a: 1",
            "a#b",
            "a|b",
            "a\"b",
            "é",
            "[1:2:3:4:5:6:7:8:9]",
            "[[::1]]",
            "a<b",
            "a^b",
            "a`b",
            "a{b",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn tunnels_have_a_port() {
        assert!(is_tunnel_target(b"a:443") && is_tunnel_target(b"[::1]:443"));
        for bad in ["a", "a:", "[::1]", "http://a:443", "/", "*", "a:443/", "u@a:443"] {
            assert!(!is_tunnel_target(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"00000000000000000005"), Some(5));
        for bad in
            ["", "18446744073709551616", "000000000000000000005", "+1", "-1", "1 ", "0x1", "1_0", "\u{665}"]
        {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }
}
