use std::env;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use balrog_proto::postgres as proto;

use super::Error;
use crate::percent;

/// Where a database is, and who wants in.
///
/// Read from a URL, `postgres://user:password@host:port,host2/database?sslmode=require`, or from
/// libpq's `host=localhost user=me dbname=kitchen`. What is not said comes from the environment:
/// `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT`,
/// `PGAPPNAME`, `PGOPTIONS`, `PGCONNECT_TIMEOUT`; else it is `localhost`, 5432, the user's name.
#[derive(Clone)]
pub struct Config {
    /// What the session begins with: user, database, password, settings, demands and limits.
    pub session: proto::Config,
    /// Tried in this order: names, addresses, or directories of Unix sockets, which begin with `/`.
    pub hosts: Vec<(String, u16)>,
    /// Whether TLS is spoken. Unix sockets never do.
    pub ssl_mode: SslMode,
    /// A PEM file, or a directory of them, with the authorities for [`SslMode::VerifyFull`].
    pub ssl_root_cert: Option<PathBuf>,
    /// How long one host may take, from looking its name up to the end of the log-in (10 s).
    pub connect_timeout: Duration,
}

/// Whether TLS is spoken, as `sslmode` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server can, whoever it is: protects from those who only listen.
    #[default]
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, and the server has to prove that it has the name that was asked for.
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "disable" => Ok(Self::Disable),
            "prefer" | "allow" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(Error::Config(format!(
                "sslmode {name:?}; there are disable, prefer, require and verify-full"
            ))),
        }
    }
}

/// What can be said, as it was said.
#[derive(Default)]
struct Said {
    hosts: String,
    ports: String,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    ssl_mode: Option<SslMode>,
    ssl_root_cert: Option<PathBuf>,
    connect_timeout: Option<Duration>,
    settings: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Said {
    fn set(&mut self, name: &str, value: String) -> Result<(), Error> {
        match name {
            "host" => self.hosts = value,
            "port" => self.ports = value,
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "dbname" => self.database = Some(value),
            "sslmode" => self.ssl_mode = Some(value.parse()?),
            "sslrootcert" => self.ssl_root_cert = Some(value.into()),
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| {
                    Error::Config(format!("connect_timeout {value:?} is no number of seconds"))
                })?;
                self.connect_timeout = Some(Duration::from_secs(seconds));
            }
            "application_name" | "options" | "client_encoding" => {
                self.settings.retain(|(other, _)| other != name.as_bytes());
                self.settings.push((name.into(), value.into()));
            }
            _ => return Err(Error::Config(format!("there is no option {name:?}"))),
        }
        Ok(())
    }

    /// What the environment says.
    fn environment() -> Result<Self, Error> {
        let mut said = Self::default();
        for (variable, name) in [
            ("PGHOST", "host"),
            ("PGPORT", "port"),
            ("PGUSER", "user"),
            ("PGPASSWORD", "password"),
            ("PGDATABASE", "dbname"),
            ("PGSSLMODE", "sslmode"),
            ("PGSSLROOTCERT", "sslrootcert"),
            ("PGAPPNAME", "application_name"),
            ("PGOPTIONS", "options"),
            ("PGCONNECT_TIMEOUT", "connect_timeout"),
        ] {
            if let Some(value) = env::var(variable).ok().filter(|value| !value.is_empty()) {
                said.set(name, value)?;
            }
        }
        Ok(said)
    }

    /// `postgres://[user[:password]@][host[:port]][,…][/database][?name=value[&…]]`
    fn url(&mut self, rest: &str) -> Result<(), Error> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = place.rsplit_once('@').unwrap_or(("", place));
        if !user.is_empty() {
            let (user, password) = user.split_once(':').map_or((user, None), |(a, b)| (a, Some(b)));
            self.user = Some(decoded(user)?);
            self.password = password.map(decoded).transpose()?.or(self.password.take());
        }
        if !database.is_empty() {
            self.database = Some(decoded(database)?);
        }
        if !hosts.is_empty() {
            let mut ports = Vec::new();
            let mut names = Vec::new();
            for host in hosts.split(',') {
                // The colons of an IPv6 address are in brackets.
                let bracket = host.rfind(']').map_or(0, |at| at + 1);
                let (name, port) =
                    host[bracket..].find(':').map_or((host, ""), |at| host.split_at(bracket + at));
                names.push(decoded(name)?);
                ports.push(port.trim_start_matches(':'));
            }
            (self.hosts, self.ports) = (names.join(","), ports.join(","));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.set(name, decoded(value)?)?;
        }
        Ok(())
    }

    /// `name = value name = 'a value'`, `\` before what is meant literally.
    fn pairs(&mut self, text: &str) -> Result<(), Error> {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let Some((name, after)) = rest.split_once('=') else {
                return Err(Error::Config(format!("{rest:?} is no name=value")));
            };
            let after = after.trim_start();
            let quoted = after.starts_with('\'');
            let mut value = String::new();
            let mut letters = after.char_indices().skip(usize::from(quoted));
            let mut end = (!quoted).then_some(after.len());
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
                    '\'' if quoted => {
                        end = Some(at + 1);
                        break;
                    }
                    letter if letter.is_whitespace() && !quoted => {
                        end = Some(at);
                        break;
                    }
                    letter => value.push(letter),
                }
            }
            let end = end.ok_or_else(|| Error::Config("a quotation mark is missing".to_owned()))?;
            self.set(name.trim_end(), value)?;
            rest = after[end..].trim_start();
        }
        Ok(())
    }

    fn config(self) -> Result<Config, Error> {
        let ports: Vec<&str> = self.ports.split(',').collect();
        let hosts: Vec<&str> = self.hosts.split(',').collect();
        if ports.len() > 1 && ports.len() != hosts.len() {
            let (ports, hosts) = (ports.len(), hosts.len());
            return Err(Error::Config(format!("{ports} ports for {hosts} hosts")));
        }
        let port = |index: usize| match *ports.get(index).unwrap_or(&ports[0]) {
            "" => Ok(5432),
            port => port.parse().map_err(|_| Error::Config(format!("{port:?} is no port"))),
        };
        let host = |host: &str| if host.is_empty() { "localhost" } else { host }.to_owned();
        let hosts: Result<Vec<_>, Error> =
            hosts.iter().enumerate().map(|(index, name)| Ok((host(name), port(index)?))).collect();
        let user = self.user.or_else(|| env::var("USER").ok()).unwrap_or_else(|| "postgres".to_owned());
        let mut session = proto::Config::new(user);
        session.database = self.database.map(String::into_bytes);
        session.password = self.password.map(String::into_bytes);
        session.settings = self.settings;
        // What is asked for is handed out whole, up to this size.
        (session.limits.whole, session.limits.message) = (64 << 20, 64 << 20);
        Ok(Config {
            session,
            hosts: hosts?,
            ssl_mode: self.ssl_mode.unwrap_or_default(),
            ssl_root_cert: self.ssl_root_cert,
            connect_timeout: self.connect_timeout.unwrap_or(Duration::from_secs(10)),
        })
    }
}

impl Config {
    /// What the environment says.
    ///
    /// # Errors
    ///
    /// [`Error::Config`].
    pub fn from_env() -> Result<Self, Error> {
        Said::environment()?.config()
    }
}

impl FromStr for Config {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut said = Said::environment()?;
        match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            Some(rest) => said.url(rest)?,
            None => said.pairs(text)?,
        }
        said.config()
    }
}

impl fmt::Debug for Config {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (session, hosts) = (&self.session, &self.hosts);
        let mode = &self.ssl_mode;
        f.debug_struct("Config")
            .field("session", session)
            .field("hosts", hosts)
            .field("ssl_mode", mode)
            .finish()
    }
}

/// Without percent-encoding.
fn decoded(text: &str) -> Result<String, Error> {
    percent::decode(text).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
        Error::Config(format!("{text:?} has a percent sign that does not stand for a part of UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        text.parse().unwrap()
    }

    #[test]
    fn urls_and_pairs_say_the_same() {
        for text in [
            "postgres://me:p%40ss@one:5433,[::1]/kitchen?sslmode=require&application_name=soup%20bowl",
            "host=one,[::1] port=5433, user=me password='p@ss' dbname = kitchen sslmode=require \
             application_name='soup bowl'",
        ] {
            let config = read(text);
            assert_eq!(config.hosts, [("one".to_owned(), 5433), ("[::1]".to_owned(), 5432)], "{text}");
            assert_eq!(config.session.user, b"me");
            assert_eq!(config.session.password.as_deref(), Some(&b"p@ss"[..]));
            assert_eq!(config.session.database.as_deref(), Some(&b"kitchen"[..]));
            assert_eq!(config.session.settings, [(b"application_name".to_vec(), b"soup bowl".to_vec())]);
            assert_eq!(config.ssl_mode, SslMode::Require);
            assert!(!format!("{config:?}").contains("p@ss"));
        }
        assert_eq!(read("postgres:///kitchen?host=/run/postgresql").hosts[0].0, "/run/postgresql");
        assert_eq!(read(r"user='it\'s me'").session.user, b"it's me");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, part) in [
            ("postgres://a/b?sslmode=maybe", "maybe"),
            ("postgres://a:x/b", "\"x\" is no port"),
            ("host=a,b port=1,2,3", "3 ports for 2 hosts"),
            ("colour=blue", "colour"),
            ("user='me", "quotation"),
            ("postgres://%zz/", "percent"),
            ("kitchen", "name=value"),
        ] {
            let error = text.parse::<Config>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
