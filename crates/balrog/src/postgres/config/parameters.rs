//! What can be said, by its name, and what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use balrog_proto::postgres::{self as proto, ChannelBinding, Protocol};

use super::{Config, Host, Keepalive, SslMode, TargetSession, files};
use crate::postgres::Error;

/// Each parameter and the variable that says it, if one does.
const PARAMETERS: [(&str, &str); 29] = [
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("client_encoding", "PGCLIENTENCODING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("fallback_application_name", ""),
    ("gssencmode", "PGGSSENCMODE"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("keepalives", ""),
    ("keepalives_count", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("password", "PGPASSWORD"),
    ("port", "PGPORT"),
    ("require_auth", "PGREQUIREAUTH"),
    ("service", "PGSERVICE"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("tcp_user_timeout", ""),
    ("user", "PGUSER"),
];

/// Settings of the session that only the environment says. Results are read as text, in ISO's dates.
const SETTINGS: [(&str, &str, Option<&str>); 3] =
    [("DateStyle", "PGDATESTYLE", Some("ISO")), ("TimeZone", "PGTZ", None), ("geqo", "PGGEQO", None)];

/// What was said.
#[derive(Default)]
pub(super) struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    /// Says it, whatever was said before. An empty value says nothing.
    pub(super) fn set(&mut self, name: &str, value: String) -> Result<(), Error> {
        let known = PARAMETERS.iter().find(|(known, _)| *known == name);
        let (name, _) = known.ok_or_else(|| {
            Error::Config(format!("there is no parameter {name:?}; postgres::Config lists those there are"))
        })?;
        self.0.insert(name, value);
        Ok(())
    }

    /// What was not said: by the service, else by the environment.
    pub(super) fn complete(&mut self, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), Error> {
        let service = self.0.get("service").cloned().or_else(|| variable("PGSERVICE"));
        if let Some(service) = service.filter(|name| !name.is_empty()) {
            for (name, value) in files::service(&service, variable)? {
                if !self.0.contains_key(name.as_str()) {
                    self.set(&name, value)?;
                }
            }
        }
        for (name, from) in PARAMETERS {
            if let Some(value) = variable(from).filter(|value| !from.is_empty() && !value.is_empty()) {
                self.0.entry(name).or_insert(value);
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn one_of<T: Copy>(&self, name: &str, all: &[(&str, T)]) -> Result<Option<T>, Error> {
        self.get(name).map(|value| one_of(name, value, all)).transpose()
    }

    /// A whole number; `None` for 0 and less, as for none.
    fn number(&self, name: &str) -> Result<Option<u32>, Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number: i64 = value
            .trim()
            .parse()
            .map_err(|_| Error::Config(format!("{name} {value:?} is not a whole number")))?;
        Ok(u32::try_from(number.min(u32::MAX.into())).ok().filter(|number| *number > 0))
    }

    fn seconds(&self, name: &str) -> Result<Option<Duration>, Error> {
        Ok(self.number(name)?.map(|seconds| Duration::from_secs(seconds.into())))
    }

    pub(super) fn config(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Config, Error> {
        self.one_of("gssencmode", &[("disable", ()), ("prefer", ())])?;
        let balance = self.one_of("load_balance_hosts", &[("disable", false), ("random", true)])?;
        let target = self.one_of("target_session_attrs", &TargetSession::NAMES)?;
        let ssl_mode = self.one_of("sslmode", &SslMode::NAMES)?.unwrap_or_default();
        let direct = self.one_of("sslnegotiation", &[("postgres", false), ("direct", true)])?;
        let ssl_direct = direct.unwrap_or(false);
        if ssl_direct && matches!(ssl_mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) {
            return Err(Error::Config("sslnegotiation direct needs sslmode require or more".into()));
        }
        let home = variable("HOME").map(PathBuf::from);
        let at_home = |file: &str| home.as_ref().map(|home| home.join(file)).filter(|path| path.exists());
        let file = |name, default| self.get(name).map(PathBuf::from).or_else(|| at_home(default));
        let certificate = file("sslcert", ".postgresql/postgresql.crt");
        let key = file("sslkey", ".postgresql/postgresql.key");
        Ok(Config {
            session: self.session(variable)?,
            hosts: self.hosts()?,
            load_balance: balance.unwrap_or(false),
            target_session: target.unwrap_or_default(),
            ssl_mode,
            ssl_direct,
            ssl_root_cert: file("sslrootcert", ".postgresql/root.crt"),
            // A file may have both in it.
            ssl_identity: certificate.map(|path| (path.clone(), key.unwrap_or(path))),
            connect_timeout: self.connect_timeout()?,
            pass_file: file("passfile", ".pgpass"),
            keepalive: Keepalive {
                on: self.get("keepalives") != Some("0"),
                idle: self.seconds("keepalives_idle")?,
                interval: self.seconds("keepalives_interval")?,
                count: self.number("keepalives_count")?,
                user_timeout: self.number("tcp_user_timeout")?.unwrap_or(0),
            },
        })
    }

    fn connect_timeout(&self) -> Result<Option<Duration>, Error> {
        match self.get("connect_timeout") {
            None => Ok(Some(Duration::from_secs(10))),
            Some(_) => self.seconds("connect_timeout"),
        }
    }

    fn session(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<proto::Config, Error> {
        let user = self.get("user").map(str::to_owned).or_else(|| variable("USER"));
        let mut session = proto::Config::new(user.unwrap_or_else(|| "postgres".to_owned()));
        session.database = self.get("dbname").map(Into::into);
        session.password = self.get("password").map(Into::into);
        session.channel_binding = self
            .one_of(
                "channel_binding",
                &[
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ],
            )?
            .unwrap_or(ChannelBinding::Prefer);
        if let Some(methods) = self.get("require_auth") {
            session.require_auth =
                methods.parse().map_err(|error: balrog_proto::Misuse| Error::Config(error.0.to_owned()))?;
        }
        let versions = [("3.0", Protocol::V3_0), ("3.2", Protocol::V3_2), ("latest", Protocol::V3_2)];
        session.protocol = self.one_of("max_protocol_version", &versions)?.unwrap_or(Protocol::V3_0);
        let name = self.get("application_name").or_else(|| self.get("fallback_application_name"));
        let encoding = self.get("client_encoding").filter(|name| *name != "auto").unwrap_or("UTF8");
        let said = [("application_name", name), ("options", self.get("options"))];
        let said = said.into_iter().chain([("client_encoding", Some(encoding))]);
        session.settings.extend(said.filter_map(|(name, value)| Some((name.into(), value?.into()))));
        for (name, from, default) in SETTINGS {
            if let Some(value) = variable(from).or(default.map(str::to_owned)) {
                session.settings.push((name.into(), value.into()));
            }
        }
        session.limits.connect_time = self.connect_timeout()?;
        // What is asked for is handed out whole, up to this size.
        (session.limits.whole, session.limits.message) = (64 << 20, 64 << 20);
        Ok(session)
    }

    fn hosts(&self) -> Result<Vec<Host>, Error> {
        let list = |name| self.get(name).unwrap_or_default().split(',').collect::<Vec<_>>();
        let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let count = if self.get("hostaddr").is_some() { addresses.len() } else { names.len() };
        if self.get("host").is_some() && names.len() != count {
            return Err(Error::Config(format!("{} hosts for {count} addresses", names.len())));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(Error::Config(format!("{} ports for {count} hosts", ports.len())));
        }
        let address = |index: usize| match addresses.get(index).copied().unwrap_or_default() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Error::Config(format!("{text:?} is no address"))),
        };
        let port = |index: usize| match ports.get(index).copied().unwrap_or(ports[0]) {
            "" => Ok(5432),
            port => port.parse().map_err(|_| Error::Config(format!("{port:?} is no port"))),
        };
        let host = |index: usize| {
            let name = match (names.get(index).copied().unwrap_or_default(), addresses.get(index)) {
                ("", None | Some(&"")) => "localhost",
                ("", Some(address)) => address,
                (name, _) => name,
            };
            Ok(Host { name: name.to_owned(), address: address(index)?, port: port(index)? })
        };
        (0..count).map(host).collect()
    }
}

/// The one of `all` with this name.
pub(super) fn one_of<T: Copy>(parameter: &str, value: &str, all: &[(&str, T)]) -> Result<T, Error> {
    all.iter().find(|(name, _)| *name == value).map(|(_, one)| *one).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        Error::Config(format!("{parameter} {value:?}; there are {}", names.join(", ")))
    })
}
