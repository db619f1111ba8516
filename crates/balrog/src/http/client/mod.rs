//! Requests by their URLs: redirects, cookies, compressed bodies, proxies of the environment, time-outs,
//! TLS.
//!
//! ```no_run
//! use balrog::http;
//!
//! let menu = http::get("https://kitchen.example/menu").query("for", "lunch").send()?.text()?;
//! let order = http::post("https://kitchen.example/orders").form(&[("dish", "soup")]).send()?;
//! assert!(order.ok()?.status().is_success());
//! # Ok::<(), http::client::Error>(())
//! ```
//!
//! Connections are kept by their thread, and shared by all clients on it that trust the same.

#[cfg(feature = "cookies")]
mod cookies;
mod decode;
mod error;
mod proxy;
mod response;
mod send;
mod url;

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method};

#[cfg(feature = "cookies")]
pub use cookies::CookieJar;
pub use decode::DecodeError;
pub use error::Error;
pub use response::Response;

use crate::tls::TlsConfig;
use url::encode;

/// What requests have in common. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Client(Arc<Config>);

#[derive(Debug, Clone)]
struct Config {
    tls: Option<TlsConfig>,
    headers: HeaderMap,
    redirects: usize,
    #[cfg(feature = "cookies")]
    cookies: Option<CookieJar>,
    decode: Option<decode::Limits>,
    proxies: bool,
    connect_timeout: Duration,
    read_timeout: Duration,
    timeout: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls: None,
            headers: HeaderMap::new(),
            redirects: 10,
            #[cfg(feature = "cookies")]
            cookies: None,
            decode: Some(decode::Limits::default()),
            proxies: true,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            timeout: None,
        }
    }
}

impl Client {
    /// A client with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Whom to trust, and who to be, under `https`. By default, the authorities in the file that
    /// `SSL_CERT_FILE` names, else those that the system keeps.
    #[must_use]
    pub fn tls(self, tls: TlsConfig) -> Self {
        self.with(|config| config.tls = Some(tls))
    }

    /// A field for every request; one of the same name of the request itself goes before it.
    #[must_use]
    pub fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        self.with(|config| {
            config.headers.append(name, value);
        })
    }

    /// How many redirects are followed (10); 0: the first response is returned, whatever it is.
    #[must_use]
    pub fn redirects(self, most: usize) -> Self {
        self.with(|config| config.redirects = most)
    }

    /// Keeps the cookies that servers set in `jar`, and sends them again; a request with a
    /// `Cookie` field of its own sends that instead.
    #[cfg(feature = "cookies")]
    #[must_use]
    pub fn cookies(self, jar: &CookieJar) -> Self {
        self.with(|config| config.cookies = Some(jar.clone()))
    }

    /// Asks for no compression, and leaves compressed bodies as they come. So does a request with
    /// an `Accept-Encoding` of its own. Otherwise gzip, deflate and, with the feature `brotli`,
    /// Brotli are asked for and decoded.
    #[must_use]
    pub fn no_decompression(self) -> Self {
        self.with(|config| config.decode = None)
    }

    /// How many bytes a compressed body may have once it is decoded (1 GiB): reading more ends
    /// with [`DecodeError::TooLong`].
    #[must_use]
    pub fn decoded_limit(self, bytes: u64) -> Self {
        self.with(|config| config.decode.get_or_insert_default().size = bytes)
    }

    /// How many times larger than on its way a compressed body may be, counted from 1 MiB on
    /// (200): reading more ends with [`DecodeError::Ratio`]. Text grows some 3 to 20 times, a bomb
    /// of gzip a thousand.
    #[must_use]
    pub fn decoded_ratio(self, times: u32) -> Self {
        self.with(|config| config.decode.get_or_insert_default().ratio = times)
    }

    /// Does not ask the environment for proxies (`http_proxy`, `https_proxy`, `all_proxy`,
    /// `no_proxy`).
    #[must_use]
    pub fn no_proxies(self) -> Self {
        self.with(|config| config.proxies = false)
    }

    /// How long connecting may take, looking the name up and the TLS handshake included (5 s).
    #[must_use]
    pub fn connect_timeout(self, time: Duration) -> Self {
        self.with(|config| config.connect_timeout = time)
    }

    /// How long the server may send or take nothing (30 s).
    #[must_use]
    pub fn read_timeout(self, time: Duration) -> Self {
        self.with(|config| config.read_timeout = time)
    }

    /// How long a request may take in all, redirects and the response's body included (unlimited).
    #[must_use]
    pub fn timeout(self, time: Duration) -> Self {
        self.with(|config| config.timeout = Some(time))
    }

    /// A request, to be added to and sent.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        RequestBuilder {
            config: Arc::clone(&self.0),
            method,
            url: url.to_owned(),
            query: String::new(),
            headers: HeaderMap::new(),
            body: Vec::new(),
            wrong: None,
        }
    }

    /// GET.
    pub fn get(&self, url: &str) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// POST.
    pub fn post(&self, url: &str) -> RequestBuilder {
        self.request(Method::POST, url)
    }
}

/// A request that is put together. What is wrong with it is told by [`RequestBuilder::send`].
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    config: Arc<Config>,
    method: Method,
    url: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
    wrong: Option<&'static str>,
}

impl RequestBuilder {
    /// Adds a field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
            }
            _ => self.wrong = Some("a header field is unsound"),
        }
        self
    }

    /// `Authorization: Bearer TOKEN`.
    pub fn bearer(mut self, token: &str) -> Self {
        match HeaderValue::from_str(&format!("Bearer {token}")) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(AUTHORIZATION, value);
            }
            Err(_) => self.wrong = Some("a token cannot go into a header field"),
        }
        self
    }

    /// Adds a parameter to the URL's query, encoded.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        encode(&mut self.query, name, value);
        self
    }

    /// These bytes as the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// A form as the body, as a browser sends it.
    pub fn form(mut self, fields: &[(&str, &str)]) -> Self {
        let mut form = String::new();
        for (name, value) in fields {
            encode(&mut form, name, value);
        }
        self.body = form.into_bytes();
        self.content_type("application/x-www-form-urlencoded")
    }

    /// `value` as JSON as the body.
    #[cfg(feature = "json")]
    pub fn json(mut self, value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.body = body,
            Err(_) => self.wrong = Some("the body cannot be JSON: a key that is no text, or a failing value"),
        }
        self.content_type("application/json")
    }

    /// How long this request may take in all, redirects and the response's body included.
    pub fn timeout(mut self, time: Duration) -> Self {
        Arc::make_mut(&mut self.config).timeout = Some(time);
        self
    }

    fn content_type(mut self, value: &'static str) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        self
    }

    /// Sends it, and waits for the head of the response. A status of 400 and more is no error:
    /// [`Response::ok`] makes it one.
    ///
    /// # Errors
    ///
    /// An [`Error`] that names the URL, what was being done, and what may help.
    pub fn send(self) -> Result<Response, Error> {
        send::send(self)
    }
}
