//! URLs: what a request needs of one, references in redirects, encoded parameters.

use ::http::Uri;

/// An absolute `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// For the `Host` field.
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
}

impl Url {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error: ::http::uri::InvalidUri| error.to_string())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("a URL begins with http:// or https://".to_owned()),
        };
        let authority = uri.authority().ok_or("there is no host")?;
        if authority.as_str().contains('@') {
            return Err("a name and password go into an Authorization field".to_owned());
        }
        let target = match uri.path_and_query().map_or("/", |target| target.as_str()) {
            query if query.starts_with('?') => format!("/{query}"),
            target => target.to_owned(),
        };
        Ok(Self {
            tls,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            target,
        })
    }

    /// Where `reference` leads from here (RFC 3986 section 5.2).
    pub(super) fn join(&self, reference: &str) -> Result<Self, String> {
        let reference = reference.split('#').next().unwrap_or_default();
        let lower = reference.to_ascii_lowercase();
        if lower.starts_with("http://") || lower.starts_with("https://") {
            return Self::parse(reference);
        }
        let scheme = if self.tls { "https" } else { "http" };
        if reference.starts_with("//") {
            return Self::parse(&format!("{scheme}:{reference}"));
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let joined = if reference.is_empty() {
            self.target.clone()
        } else if reference.starts_with('/') {
            without_dots(reference)
        } else if reference.starts_with('?') {
            format!("{path}{reference}")
        } else {
            let directory = path.rfind('/').map_or("/", |at| &path[..=at]);
            without_dots(&format!("{directory}{reference}"))
        };
        Self::parse(&format!("{scheme}://{}{joined}", self.authority))
    }

    /// Whether credentials for one are meant for the other.
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        self.tls == other.tls && self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }

    pub(super) fn add_query(&mut self, query: &str) {
        if !query.is_empty() {
            self.target.push(if self.target.contains('?') { '&' } else { '?' });
            self.target.push_str(query);
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority, self.target)
    }
}

/// RFC 3986 section 5.2.4.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        match *segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

/// Appends `name=value` as forms and queries have it.
pub(super) fn encode(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push('&');
    }
    for (index, part) in [name, value].into_iter().enumerate() {
        if index == 1 {
            out.push('=');
        }
        for byte in part.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                    out.push(char::from(byte));
                }
                b' ' => out.push('+'),
                byte => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_where_the_rfc_says() {
        let base = Url::parse("http://a/b/c/d;p?q").unwrap();
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y#s", "http://a/b/c/g?y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../../g", "http://a/g"),
            ("/./g?a=../b", "http://a/g?a=../b"),
            ("HTTPS://h:1/x", "https://h:1/x"),
        ] {
            assert_eq!(base.join(reference).unwrap().to_string(), expected, "{reference}");
        }
    }

    #[test]
    fn urls_that_cannot_be_asked_are_refused() {
        for bad in ["ftp://a/", "a/b", "http:///x", "http://me:secret@a/", "http://a b/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_are_encoded() {
        let mut out = String::new();
        encode(&mut out, "a b", "ü&=");
        encode(&mut out, "c", "");
        assert_eq!(out, "a+b=%C3%BC%26%3D&c=");
    }
}
