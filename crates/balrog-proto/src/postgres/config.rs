use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::Misuse;
use crate::postgres::encode::Body;

/// Who connects to what, and what it demands of the server.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The role to connect as.
    pub user: Vec<u8>,
    /// The database; the one named like the user if `None`.
    pub database: Option<Vec<u8>>,
    /// Used if the server asks for one.
    pub password: Option<Vec<u8>>,
    /// Further settings of the session, `application_name` or `client_encoding` for example.
    pub settings: Vec<(Vec<u8>, Vec<u8>)>,
    /// The newest protocol to ask for (3.0, which every server and pooler understands).
    pub protocol: Protocol,
    /// What the start-up message travels through.
    pub channel: Channel,
    /// The ways to log in that are acceptable (all).
    pub require_auth: AuthMethods,
    /// Whether SCRAM is to be bound to the TLS session (`Prefer`).
    pub channel_binding: ChannelBinding,
    /// Sends a password that the server wants in clear text without TLS too (`false`).
    pub allow_cleartext: bool,
    /// What a server may take of us.
    pub limits: Limits,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Protocol {
    /// PostgreSQL 7.4 and later.
    V3_0,
    /// PostgreSQL 18 and later: cancel keys of up to 256 bytes.
    V3_2,
}

/// What the start-up message travels through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// TCP or a Unix socket, as they are.
    Plain,
    /// A TLS session.
    Tls {
        /// `tls-server-end-point` of RFC 5929: the server's certificate in DER, hashed by the hash of
        /// its signature (SHA-256 for MD5 and SHA-1). `None` if the signature has none, as Ed25519.
        end_point: Option<Vec<u8>>,
    },
}

/// Whether SCRAM is bound to the TLS session, so that nobody can sit between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it.
    Prefer,
    /// Nothing else is accepted: no other method, and no server that asks for none.
    Require,
}

/// A set of ways to log in. [`FromStr`] reads libpq's `require_auth`: `scram-sha-256`,
/// `md5,password`, `!none`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthMethods(u8);

impl AuthMethods {
    /// The server asks for nothing: it trusts, or knows the peer by certificate or account.
    pub const NONE: Self = Self(1);
    /// The password in clear text.
    pub const PASSWORD: Self = Self(2);
    /// MD5 of the password, which is no protection any more.
    pub const MD5: Self = Self(4);
    /// SCRAM-SHA-256, with or without channel binding.
    pub const SCRAM: Self = Self(8);
    /// Every way.
    pub const ALL: Self = Self(15);

    const NAMES: [(&'static str, Self); 4] = [
        ("none", Self::NONE),
        ("password", Self::PASSWORD),
        ("md5", Self::MD5),
        ("scram-sha-256", Self::SCRAM),
    ];

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromStr for AuthMethods {
    type Err = Misuse;

    /// "If the list is negated, the server must not use one of them." Mixing is refused, as are
    /// `gss` and `sspi`, which do not exist here.
    fn from_str(text: &str) -> Result<Self, Misuse> {
        let mut listed = Self(0);
        let negated = text.trim_start().starts_with('!');
        for name in text.split(',').map(str::trim) {
            if name.starts_with('!') != negated {
                return Err(Misuse("require_auth mixes methods with negated ones"));
            }
            let name = name.trim_start_matches('!');
            let known = Self::NAMES.iter().find(|(known, _)| *known == name);
            let (_, method) = known.ok_or(Misuse("require_auth names a method that does not exist"))?;
            if listed.contains(*method) {
                return Err(Misuse("require_auth names a method twice"));
            }
            listed = listed.union(*method);
        }
        Ok(if negated { Self(Self::ALL.0 & !listed.0) } else { listed })
    }
}

impl fmt::Debug for AuthMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(Self::NAMES.iter().filter(|(_, method)| self.contains(*method)).map(|(name, _)| name))
            .finish()
    }
}

/// What a server may take of us. Sizes are in bytes; a time of `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// A row or a piece of COPY data (1 GiB, the most that a server sends). It costs no memory:
    /// what is larger than `whole` comes in pieces.
    pub message: usize,
    /// What of a row or a piece of COPY data is collected before it is reported (1 MiB).
    pub whole: usize,
    /// Any other message, which is collected whole: descriptions, errors, notices (4 MiB).
    pub control: usize,
    /// A message before the session begins (64 KiB).
    pub startup: usize,
    /// Messages before the session begins (1,000): notices may come without an end.
    pub startup_messages: u32,
    /// Iterations of SCRAM (100,000). 4,096 is PostgreSQL's default; a malicious server may ask for
    /// 2,147,483,647, an hour of work. Other clients stop here too, so servers stay below.
    pub scram_iterations: u32,
    /// Settings that the server reports, names and values together (64 KiB).
    pub parameters: usize,
    /// What [`recover`](crate::Link::recover) reads to get to the end of unwanted results (64 MiB).
    pub drain: u64,
    /// From the start to the end of the log-in (10 s).
    pub connect_time: Option<Duration>,
    /// From a query's deadline to its end, so that a cancel request can work (5 s).
    pub cancel_time: Option<Duration>,
    /// What [`recover`](crate::Link::recover) may take (5 s).
    pub drain_time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 1 << 30,
            whole: 1 << 20,
            control: 4 << 20,
            startup: 64 * 1024,
            startup_messages: 1_000,
            scram_iterations: 100_000,
            parameters: 64 * 1024,
            drain: 64 << 20,
            connect_time: Some(Duration::from_secs(10)),
            cancel_time: Some(Duration::from_secs(5)),
            drain_time: Some(Duration::from_secs(5)),
        }
    }
}

impl Config {
    /// The defaults for `user`.
    pub fn new(user: impl Into<Vec<u8>>) -> Self {
        Self {
            user: user.into(),
            database: None,
            password: None,
            settings: Vec::new(),
            protocol: Protocol::V3_0,
            channel: Channel::Plain,
            require_auth: AuthMethods::ALL,
            channel_binding: ChannelBinding::Prefer,
            allow_cleartext: false,
            limits: Limits::default(),
        }
    }

    /// What can be refused before a byte is sent.
    pub(super) fn check(&self) -> Result<(), Misuse> {
        if self.user.is_empty() {
            return Err(Misuse("no user to connect as"));
        }
        let mut size = Body::new();
        let database = self.database.as_deref().unwrap_or_default();
        for string in [&self.user[..], database]
            .into_iter()
            .chain(self.settings.iter().flat_map(|(name, value)| [&name[..], value]))
        {
            size = size.string(string)?;
        }
        size.fits()?;
        if self.settings.iter().any(|(name, _)| matches!(&name[..], b"" | b"user" | b"database")) {
            return Err(Misuse("a setting without a name, or one that has a place of its own"));
        }
        if self.password.as_ref().is_some_and(|password| memchr::memchr(0, password).is_some()) {
            return Err(Misuse("a password with a NUL character"));
        }
        if self.channel_binding == ChannelBinding::Require
            && !matches!(self.channel, Channel::Tls { end_point: Some(_) })
        {
            return Err(Misuse("channel binding is required, and there is nothing to bind to"));
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("user", &String::from_utf8_lossy(&self.user))
            .field("database", &self.database.as_deref().map(String::from_utf8_lossy))
            .field("protocol", &self.protocol)
            .field("channel", &self.channel)
            .field("require_auth", &self.require_auth)
            .field("channel_binding", &self.channel_binding)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn require_auth_as_libpq_reads_it() {
        let parse = |text: &str| text.parse::<AuthMethods>();
        assert_eq!(parse("scram-sha-256"), Ok(AuthMethods::SCRAM));
        assert_eq!(parse("md5, password"), Ok(AuthMethods::MD5.union(AuthMethods::PASSWORD)));
        let rest = AuthMethods::PASSWORD.union(AuthMethods::MD5).union(AuthMethods::SCRAM);
        assert_eq!(parse("!none"), Ok(rest));
        assert_eq!(parse("!md5,!password"), Ok(AuthMethods::NONE.union(AuthMethods::SCRAM)));
        for wrong in ["", "md5,!none", "!none,md5", "gss", "MD5", "md5,md5", "md5,"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_refused_before_a_byte_is_sent() {
        let good = Config::new("me");
        assert_eq!(good.check(), Ok(()));
        let wrong: [fn(&mut Config); 7] = [
            |config| config.user = Vec::new(),
            |config| config.user = b"me\0database\0other".to_vec(),
            |config| config.database = Some(b"a\0".to_vec()),
            |config| config.settings = vec![(b"a".to_vec(), b"b\0".to_vec())],
            |config| config.settings = vec![(b"user".to_vec(), b"b".to_vec())],
            |config| config.password = Some(b"a\0b".to_vec()),
            |config| config.channel_binding = ChannelBinding::Require,
        ];
        for (index, change) in wrong.iter().enumerate() {
            let mut config = good.clone();
            change(&mut config);
            assert!(config.check().is_err(), "{index}");
        }
        let secret = Config { password: Some(b"sesame".to_vec()), ..good };
        assert!(!format!("{secret:?}").contains("sesame"));
    }
}
