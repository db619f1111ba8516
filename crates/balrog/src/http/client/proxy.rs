//! Proxies that the environment names.

use std::env;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::url::Url;
use crate::http::Proxy;
use crate::percent;

/// The proxy for `url`, if there is to be one.
pub(super) fn of(url: &Url) -> Result<Option<Proxy>, String> {
    // Upper case is not asked for http: a server that runs CGI scripts sets it from a field of
    // the request.
    let names: &[&str] = if url.tls {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "all_proxy", "ALL_PROXY"]
    };
    let find = |names: &[&str]| names.iter().find_map(|name| env::var(name).ok().filter(|it| !it.is_empty()));
    let Some(proxy) = find(names) else { return Ok(None) };
    if find(&["no_proxy", "NO_PROXY"]).is_some_and(|list| is_exempt(&list, &url.host)) {
        return Ok(None);
    }
    parse(&proxy).map(Some)
}

/// A list of hosts and domains, or `*`.
fn is_exempt(list: &str, host: &str) -> bool {
    list.split(',').map(|entry| entry.trim().trim_start_matches('.')).any(|entry| {
        let domain = host.len().checked_sub(entry.len()).filter(|_| !entry.is_empty()).is_some_and(|at| {
            host.is_char_boundary(at)
                && host[at..].eq_ignore_ascii_case(entry)
                && (at == 0 || host[..at].ends_with('.'))
        });
        entry == "*" || domain
    })
}

fn parse(proxy: &str) -> Result<Proxy, String> {
    let rest = match proxy.split_once("://") {
        Some(("http", rest)) => rest,
        None => proxy,
        Some((scheme, _)) => {
            return Err(format!("the environment names a proxy of the kind {scheme}: only http is spoken"));
        }
    };
    let (login, at) = rest.rsplit_once('@').map_or((None, rest), |(login, at)| (Some(login), at));
    let url = Url::parse(&format!("http://{at}")).map_err(|why| format!("the environment's proxy: {why}"))?;
    let headers = login.map(|login| {
        // A lone percent sign is what it looks like.
        let login = percent::decode(login).unwrap_or_else(|| login.into());
        let value = format!("Basic {}", STANDARD.encode(login));
        (b"Proxy-Authorization".to_vec(), value.into_bytes())
    });
    Ok(Proxy { host: url.host, port: url.port, headers: headers.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_domains_are_exempt() {
        for (list, host, exempt) in [
            ("*", "a", true),
            ("localhost, .example", "x.example", true),
            ("example", "example", true),
            ("example", "badexample", false),
            ("", "a", false),
            ("a.b", "b", false),
        ] {
            assert_eq!(is_exempt(list, host), exempt, "{list} {host}");
        }
    }

    #[test]
    fn a_proxy_has_its_login() {
        let proxy = parse("http://me:pass%20word@proxy.example:3128").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.headers[0].1, b"Basic bWU6cGFzcyB3b3Jk");
        assert!(parse("socks5://proxy.example").is_err());
        assert_eq!(parse("proxy.example").unwrap().port, 80);
    }
}
