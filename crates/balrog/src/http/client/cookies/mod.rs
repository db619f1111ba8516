//! Cookies that servers set, kept and sent again (RFC 6265bis).

mod parse;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ::http::HeaderValue;

use super::Error;
use super::url::Url;
use parse::SetCookie;

/// "at least 50 cookies per domain", "at least 3000 cookies total": no server gets to keep more.
const PER_DOMAIN: usize = 50;
const TOTAL: usize = 3000;

/// Cookies of any number of servers, shared by its clones; for
/// [`Client::cookies`](super::Client::cookies).
///
/// Each goes back only to the hosts and paths that it is for, and a secure one only under `https`.
/// A domain under which anybody may have a name (`com`, `co.uk`, by the public suffix list) gets
/// none. `SameSite` is not looked at: all requests of a program are its own. The jar keeps at most
/// 50 cookies of a domain and 3,000 in all, and forgets the one first that was not used for the
/// longest time.
#[derive(Debug, Clone, Default)]
pub struct CookieJar(Arc<Mutex<Jar>>);

#[derive(Debug, Default)]
struct Jar {
    /// In the order in which they were first set.
    cookies: Vec<Cookie>,
    /// Counts uses, to tell which was last.
    uses: u64,
}

#[derive(Debug)]
struct Cookie {
    name: Vec<u8>,
    value: Vec<u8>,
    expires: Option<SystemTime>,
    domain: String,
    host_only: bool,
    path: String,
    secure: bool,
    used: u64,
}

impl CookieJar {
    /// An empty jar.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the value of a `Set-Cookie` field as if `url` had sent it. `false`: `url` may not
    /// set it, or it is malformed or over.
    ///
    /// # Errors
    ///
    /// `url` is none.
    pub fn set(&self, url: &str, cookie: &str) -> Result<bool, Error> {
        let url = Url::parse(url).map_err(|why| Error::request("Set-Cookie", url, why))?;
        Ok(self.jar().set(&url, cookie.as_bytes(), SystemTime::now()))
    }

    /// What a request to `url` has as its `Cookie` field, if there is something.
    ///
    /// # Errors
    ///
    /// `url` is none.
    pub fn get(&self, url: &str) -> Result<Option<HeaderValue>, Error> {
        Ok(self.of(&Url::parse(url).map_err(|why| Error::request("Cookie", url, why))?))
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.jar().cookies.clear();
    }

    pub(super) fn of(&self, url: &Url) -> Option<HeaderValue> {
        self.jar().get(url, SystemTime::now())
    }

    pub(super) fn store<'a>(&self, url: &Url, fields: impl Iterator<Item = &'a HeaderValue>) {
        for field in fields {
            self.jar().set(url, field.as_bytes(), SystemTime::now());
        }
    }

    fn jar(&self) -> MutexGuard<'_, Jar> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jar {
    /// Section 5.7.
    fn set(&mut self, url: &Url, field: &[u8], now: SystemTime) -> bool {
        let Some(set) = SetCookie::parse(field, now) else { return false };
        let host = url.host.to_ascii_lowercase();
        let (domain, host_only) = match set.domain {
            None => (host, true),
            // A public suffix may have cookies for itself alone.
            Some(domain) if is_public_suffix(&domain) => {
                if domain != host {
                    return false;
                }
                (host, true)
            }
            Some(domain) if domain_matches(&host, &domain) => (domain, false),
            Some(_) => return false,
        };
        let is_root = set.path.as_deref() == Some("/");
        let path = set.path.unwrap_or_else(|| default_path(url));
        if (set.secure && !url.tls) || !prefix_holds(set.name, set.value, set.secure, host_only && is_root) {
            return false;
        }
        // One without TLS, whom anybody may play, does not take the place of a secure cookie.
        let hides = |other: &Cookie| {
            other.secure
                && other.name == set.name
                && (domain_matches(&other.domain, &domain) || domain_matches(&domain, &other.domain))
                && path_matches(&path, &other.path)
        };
        if !url.tls && self.cookies.iter().any(hides) {
            return false;
        }
        self.uses += 1;
        let cookie = Cookie {
            name: set.name.to_vec(),
            value: set.value.to_vec(),
            expires: set.expires,
            domain,
            host_only,
            path,
            secure: set.secure,
            used: self.uses,
        };
        let over = cookie.is_over(now);
        match self.cookies.iter().position(|other| other.is_same(&cookie)) {
            Some(at) if over => drop(self.cookies.remove(at)),
            Some(at) => self.cookies[at] = cookie,
            None if over => {}
            None => {
                self.make_room(&cookie.domain, now);
                self.cookies.push(cookie);
            }
        }
        !over
    }

    /// Section 5.8.3.
    fn get(&mut self, url: &Url, now: SystemTime) -> Option<HeaderValue> {
        let (host, path) = (url.host.to_ascii_lowercase(), path_of(url));
        self.uses += 1;
        let fits = |cookie: &&mut Cookie| {
            let domain =
                if cookie.host_only { cookie.domain == host } else { domain_matches(&host, &cookie.domain) };
            domain && path_matches(path, &cookie.path) && (url.tls || !cookie.secure) && !cookie.is_over(now)
        };
        let mut found: Vec<&mut Cookie> = self.cookies.iter_mut().filter(fits).collect();
        // "Cookies with longer paths are listed before cookies with shorter paths." The sort
        // keeps the older of two before the newer.
        found.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let mut line = Vec::new();
        for cookie in found {
            cookie.used = self.uses;
            if !line.is_empty() {
                line.extend_from_slice(b"; ");
            }
            line.extend_from_slice(&cookie.name);
            if !cookie.name.is_empty() {
                line.push(b'=');
            }
            line.extend_from_slice(&cookie.value);
        }
        let mut line = HeaderValue::from_bytes(&line).ok().filter(|line| !line.is_empty())?;
        line.set_sensitive(true);
        Some(line)
    }

    fn make_room(&mut self, domain: &str, now: SystemTime) {
        let same = self.cookies.iter().filter(|other| other.domain == domain).count();
        if same < PER_DOMAIN && self.cookies.len() < TOTAL {
            return;
        }
        self.cookies.retain(|cookie| !cookie.is_over(now));
        for (most, only) in [(PER_DOMAIN, Some(domain)), (TOTAL, None)] {
            let all = self.cookies.iter().enumerate();
            let own = all.filter(|(_, cookie)| only.is_none_or(|domain| cookie.domain == domain));
            let places: Vec<(u64, usize)> = own.map(|(at, cookie)| (cookie.used, at)).collect();
            if places.len() >= most
                && let Some((_, at)) = places.into_iter().min()
            {
                self.cookies.remove(at);
            }
        }
    }
}

impl Cookie {
    fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.domain == other.domain
            && self.host_only == other.host_only
            && self.path == other.path
    }
}

/// Whether anybody may have a name under `domain`.
fn is_public_suffix(domain: &str) -> bool {
    psl::suffix_str(domain) == Some(domain)
}

/// Section 5.1.3. Both are in lower case.
fn domain_matches(host: &str, domain: &str) -> bool {
    host == domain || (!is_address(host) && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

fn is_address(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<Ipv4Addr>().is_ok() || bare.parse::<Ipv6Addr>().is_ok()
}

fn path_of(url: &Url) -> &str {
    url.target.split('?').next().unwrap_or_default()
}

/// Section 5.1.4.
fn default_path(url: &Url) -> String {
    let path = path_of(url);
    path.rfind('/').filter(|at| *at > 0).map_or("/", |at| &path[..at]).to_owned()
}

/// Section 5.1.4.
fn path_matches(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || of.ends_with('/') || rest.starts_with('/'))
}

/// Section 4.1.3: what a name promises. One without a name must not look like one that has it.
fn prefix_holds(name: &[u8], value: &[u8], secure: bool, of_host: bool) -> bool {
    let begins = |text: &[u8], prefix: &[u8]| {
        text.get(..prefix.len()).is_some_and(|text| text.eq_ignore_ascii_case(prefix))
    };
    let [is_secure, is_host]: [&[u8]; 2] = [b"__Secure-", b"__Host-"];
    if name.is_empty() {
        return !begins(value, is_secure) && !begins(value, is_host);
    }
    (secure || !begins(name, is_secure)) && ((secure && of_host) || !begins(name, is_host))
}

#[cfg(test)]
mod tests;
