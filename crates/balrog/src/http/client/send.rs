use std::env;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

#[cfg(feature = "cookies")]
use ::http::header::SET_COOKIE;
use ::http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, LOCATION,
    PROXY_AUTHORIZATION, TRANSFER_ENCODING, USER_AGENT,
};
use ::http::{HeaderMap, HeaderValue, Method};
use balrog_sched::with_deadline;

use super::decode::ACCEPTED;
use super::url::Url;
use super::{Error, RequestBuilder, Response, proxy};
use crate::http;
use crate::tls::TlsConfig;

/// Where systems keep the certificates of the authorities that they trust.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

pub(super) fn send(request: RequestBuilder) -> Result<Response, Error> {
    let deadline = request.config.timeout.and_then(|time| Instant::now().checked_add(time));
    match deadline {
        Some(deadline) => with_deadline(deadline, || follow(request, Some(deadline))),
        None => follow(request, None),
    }
}

fn follow(request: RequestBuilder, deadline: Option<Instant>) -> Result<Response, Error> {
    let RequestBuilder { config, mut method, url, query, mut headers, mut body, wrong } = request;
    let unsound = |why: String| Error::request(method.as_str(), &url, why);
    if let Some(why) = wrong {
        return Err(unsound(why.to_owned()));
    }
    let mut at = Url::parse(&url).map_err(unsound)?;
    at.add_query(&query);
    let mut given = config.headers.clone();
    for name in headers.keys() {
        given.remove(name);
    }
    headers.extend(given);
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("balrog/", env!("CARGO_PKG_VERSION"))));
    let decode = config.decode.filter(|_| !headers.contains_key(ACCEPT_ENCODING));
    if decode.is_some() {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
    }
    // These are the connection's to say.
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    let mut redirects = 0;
    loop {
        #[cfg(feature = "cookies")]
        let from_jar = match config.cookies.as_ref().and_then(|jar| jar.of(&at)) {
            Some(line) if !headers.contains_key(COOKIE) => headers.insert(COOKIE, line).is_none(),
            _ => false,
        };
        let response = once(&config, &method, &at, &headers, &body)?;
        let mut response = Response::new(method.as_str(), at.to_string(), response, decode, deadline);
        #[cfg(feature = "cookies")]
        {
            if let Some(jar) = &config.cookies {
                jar.store(&at, response.headers().get_all(SET_COOKIE).iter());
            }
            if from_jar {
                headers.remove(COOKIE);
            }
        }
        let location = match response.status().as_u16() {
            301 | 302 | 303 | 307 | 308 if config.redirects > 0 => response.headers().get(LOCATION),
            _ => None,
        };
        let Some(location) = location.and_then(|it| it.to_str().ok()) else { return Ok(response) };
        if redirects == config.redirects {
            let why = format!("more than {redirects} redirects (Client::redirects allows more)");
            return Err(Error::request(method.as_str(), &at.to_string(), why));
        }
        redirects += 1;
        let next = at.join(location).map_err(|why| {
            let why = format!("it redirects to {location:?}: {why}");
            Error::request(method.as_str(), &at.to_string(), why)
        })?;
        // "a user agent MAY change the request method from POST to GET"; of 303 it has to.
        let to_get = match response.status().as_u16() {
            303 => method != Method::HEAD,
            301 | 302 => method == Method::POST,
            _ => false,
        };
        response.drain();
        if to_get {
            method = Method::GET;
            body = Vec::new();
            headers.remove(CONTENT_TYPE);
        }
        if !at.same_origin(&next) {
            // What was for the one host is not for another.
            for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, HOST] {
                headers.remove(name);
            }
        }
        at = next;
    }
}

fn once(
    config: &super::Config,
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<http::Response, Error> {
    let wrong = |why: String| Error::request(method.as_str(), &url.to_string(), why);
    let tls = match (&config.tls, url.tls) {
        (_, false) => None,
        (Some(tls), true) => Some(tls.clone()),
        (None, true) => Some(system().map_err(wrong)?),
    };
    let proxy = if config.proxies { proxy::of(url).map_err(wrong)? } else { None };
    let headers: Vec<(&[u8], &[u8])> =
        headers.iter().map(|(name, value)| (name.as_ref(), value.as_bytes())).collect();
    let request = http::Request {
        tls: tls.as_ref(),
        host: &url.host,
        port: url.port,
        method: method.as_str(),
        target: &url.target,
        authority: &url.authority,
        headers: &headers,
        connect_timeout: Some(config.connect_timeout),
        read_timeout: Some(config.read_timeout),
        proxy: proxy.as_ref(),
        owner: 0,
    };
    http::Client.send(&request, body).map_err(|error| Error::new(method.as_str(), &url.to_string(), error))
}

/// The authorities that the system trusts, read once.
fn system() -> Result<TlsConfig, String> {
    static SYSTEM: Mutex<Option<TlsConfig>> = Mutex::new(None);
    let mut system = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tls) = &*system {
        return Ok(tls.clone());
    }
    let named = env::var("SSL_CERT_FILE").ok().filter(|path| !path.is_empty());
    let path = named
        .or_else(|| AUTHORITIES.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned))
        .ok_or("no file of trusted authorities was found (SSL_CERT_FILE names one, Client::tls sets them)")?;
    let tls = TlsConfig::new(Some(Path::new(&path)), None).map_err(|error| error.to_string())?;
    Ok(system.insert(tls).clone())
}
