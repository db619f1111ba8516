mod files;
mod parameters;
#[cfg(test)]
mod tests;
mod text;

use std::env;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use balrog_proto::postgres as proto;

use super::Error;
use parameters::Parameters;

/// Where a database is, and who wants in.
///
/// Read from a URL, `postgres://user:password@host:port,host2/database?sslmode=require`, or from
/// `host=localhost user=me dbname=kitchen`, as libpq reads them. What is not said comes from the
/// service that is named, else from the environment, else it is the default.
///
/// | parameter | environment | what it says | default |
/// |---|---|---|---|
/// | `host` | `PGHOST` | names, addresses or directories of Unix sockets, tried in order: `a,b` | `localhost` |
/// | `hostaddr` | `PGHOSTADDR` | addresses, so that names are not looked up: the name is for TLS alone | |
/// | `port` | `PGPORT` | one, or one for each host | 5432 |
/// | `dbname` | `PGDATABASE` | | the user's name |
/// | `user` | `PGUSER` | | that of the system (`USER`) |
/// | `password` | `PGPASSWORD` | | from `passfile` |
/// | `passfile` | `PGPASSFILE` | lines of `host:port:database:user:password`; ignored if others may read it | `~/.pgpass` |
/// | `service` | `PGSERVICE` | a section of `PGSERVICEFILE`, `~/.pg_service.conf` or `PGSYSCONFDIR/pg_service.conf` | |
/// | `connect_timeout` | `PGCONNECT_TIMEOUT` | seconds that one host may take, look-up and log-in included; 0: no end | 10 |
/// | `target_session_attrs` | `PGTARGETSESSIONATTRS` | see [`TargetSession`] | `any` |
/// | `load_balance_hosts` | `PGLOADBALANCEHOSTS` | `random`: in any order | `disable` |
/// | `sslmode` | `PGSSLMODE` | see [`SslMode`] | `prefer` |
/// | `sslnegotiation` | `PGSSLNEGOTIATION` | `direct`: TLS at once, for servers from 17 on and `require` or more | `postgres` |
/// | `sslrootcert` | `PGSSLROOTCERT` | PEM file, or directory, with authorities | `~/.postgresql/root.crt` |
/// | `sslcert`, `sslkey` | `PGSSLCERT`, `PGSSLKEY` | PEM files: our certificate and its key | `~/.postgresql/postgresql.crt`, `….key` |
/// | `channel_binding` | `PGCHANNELBINDING` | `disable`, `prefer`, `require`: SCRAM is bound to the TLS session | `prefer` |
/// | `require_auth` | `PGREQUIREAUTH` | acceptable ways to log in: `scram-sha-256`, `!password,!md5` | all |
/// | `max_protocol_version` | `PGMAXPROTOCOLVERSION` | `3.0`, `3.2` or `latest` | `3.0` |
/// | `application_name` | `PGAPPNAME` | | `fallback_application_name` |
/// | `options` | `PGOPTIONS` | of the server's command line: `-c statement_timeout=5s` | |
/// | `client_encoding` | `PGCLIENTENCODING` | only `UTF8` can be read | `UTF8` |
/// | `keepalives` | | `0`: none | `1` |
/// | `keepalives_idle`, `keepalives_interval`, `keepalives_count` | | seconds, seconds, probes; 0: the system's | 0 |
/// | `tcp_user_timeout` | | milliseconds that what was sent may stay without an answer; 0: the system's | 0 |
/// | `gssencmode` | `PGGSSENCMODE` | `disable` or `prefer`, which are the same: there is no GSSAPI | |
///
/// `PGDATESTYLE`, `PGTZ` and `PGGEQO` set those of the session. A parameter that is not in this
/// table is an error. Unlike libpq, `prefer` and `allow` try the other way only when the
/// handshake fails or the server refuses by its `pg_hba.conf` (SQLSTATE 28000).
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// What the session begins with: user, database, password, settings, demands and limits.
    pub session: proto::Config,
    /// Tried in this order, unless `load_balance` is set.
    pub hosts: Vec<Host>,
    /// Tries the hosts in a random order.
    pub load_balance: bool,
    /// Which sessions are wanted.
    pub target_session: TargetSession,
    /// Whether TLS is spoken. Unix sockets never do.
    pub ssl_mode: SslMode,
    /// Begins with TLS at once, without asking for it.
    pub ssl_direct: bool,
    /// A PEM file, or a directory of them, with the authorities that are trusted.
    pub ssl_root_cert: Option<PathBuf>,
    /// PEM files with our own certificate and its key.
    pub ssl_identity: Option<(PathBuf, PathBuf)>,
    /// How long one host may take, from looking its name up to the end of the log-in (10 s).
    pub connect_timeout: Option<Duration>,
    /// Where the password is, if it is not in `session`.
    pub pass_file: Option<PathBuf>,
    /// How a peer that is gone without a word is noticed.
    pub keepalive: Keepalive,
}

/// A place where the server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A name, an address, or the directory of a Unix socket, which begins with `/`.
    pub name: String,
    /// Where it is, if that need not be looked up.
    pub address: Option<IpAddr>,
    /// The port, or the number in the name of the Unix socket.
    pub port: u16,
}

impl Host {
    /// Whether it is a Unix socket.
    pub(super) fn is_unix(&self) -> bool {
        self.name.starts_with('/') && self.address.is_none()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// TCP's own means against peers that are gone without a word. `None` and 0: as the system does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Probes an idle connection (`true`).
    pub on: bool,
    /// After how many seconds without a word the first probe is sent.
    pub idle: Option<Duration>,
    /// The time between probes.
    pub interval: Option<Duration>,
    /// How many probes may be lost.
    pub count: Option<u32>,
    /// How many milliseconds what was sent may stay without an answer.
    pub user_timeout: u32,
}

/// Whether TLS is spoken, as `sslmode` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server lets us not in without.
    Allow,
    /// If the server can, whoever it is: protects from those who only listen.
    #[default]
    Prefer,
    /// Always; whoever the server is, unless `sslrootcert` is there: then as `VerifyCa`.
    Require,
    /// Always, and one of the authorities has to vouch for the server, whatever its name.
    VerifyCa,
    /// Always, and the server has to prove that it has the name that was asked for.
    VerifyFull,
}

/// Which sessions are wanted, as `target_session_attrs` says: with several hosts, that of the first
/// that gives one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetSession {
    /// Whatever comes.
    #[default]
    Any,
    /// One whose transactions may write.
    ReadWrite,
    /// One whose transactions may not.
    ReadOnly,
    /// On a server that is not a standby.
    Primary,
    /// On a standby.
    Standby,
    /// On a standby, or, if there is none, whatever comes.
    PreferStandby,
}

impl SslMode {
    pub(super) const NAMES: [(&'static str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        parameters::one_of("sslmode", name, &Self::NAMES)
    }
}

impl TargetSession {
    pub(super) const NAMES: [(&'static str, Self); 6] = [
        ("any", Self::Any),
        ("read-write", Self::ReadWrite),
        ("read-only", Self::ReadOnly),
        ("primary", Self::Primary),
        ("standby", Self::Standby),
        ("prefer-standby", Self::PreferStandby),
    ];
}

impl FromStr for TargetSession {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        parameters::one_of("target_session_attrs", name, &Self::NAMES)
    }
}

impl Config {
    /// What the environment says.
    ///
    /// # Errors
    ///
    /// [`Error::Config`].
    pub fn from_env() -> Result<Self, Error> {
        Self::read("", &|name| env::var(name).ok())
    }

    /// What `text` says, and what it does not say by `variable`, the environment.
    fn read(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut parameters = Parameters::default();
        text::read(text, &mut parameters)?;
        parameters.complete(variable)?;
        parameters.config(variable)
    }

    /// The password for this host: the one that is said, or that of the file.
    pub(super) fn password(&self, host: &Host) -> Option<Vec<u8>> {
        self.session.password.clone().or_else(|| {
            let user = &self.session.user;
            let database = self.session.database.as_ref().unwrap_or(user);
            files::password(self.pass_file.as_ref()?, host, database, user)
        })
    }
}

impl FromStr for Config {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::read(text, &|name| env::var(name).ok())
    }
}

impl fmt::Debug for Config {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("session", &self.session)
            .field("hosts", &self.hosts)
            .field("target_session", &self.target_session)
            .field("ssl_mode", &self.ssl_mode)
            .finish_non_exhaustive()
    }
}
