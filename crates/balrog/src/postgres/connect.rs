//! From a configuration to a session.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use balrog_backends::offload;
use balrog_proto::Step;
use balrog_proto::postgres::{
    ALPN, Channel, ChannelBinding, Frontend, FrontendEvent, KeyDerivation, TlsAnswer, TlsRequest,
};
use rustix::net::sockopt;

use super::client::READ;
use super::{Client, Config, Error, Host, ServerError, SslMode, TargetSession};
use crate::drive::Connection;
use crate::net::{AnyStream, TcpStream, UnixStream};
use crate::random::Random;
use crate::tls::TlsConfig;

/// How a session was made, so that another connection can be made in the same way to the same server.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) config: Arc<Config>,
    /// With the address that answered.
    host: Host,
    encryption: Encryption,
}

/// What is tried with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Never,
    /// Without it if the server has none.
    IfOffered,
    Always,
}

/// The first session of one of the hosts that is as is wanted.
pub(super) fn connect(config: &Arc<Config>) -> Result<Client, Error> {
    let mut order: Vec<_> = config.hosts.iter().collect();
    if config.load_balance {
        shuffle(&mut order);
    }
    let targets: &[_] = match config.target_session {
        TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
        target => &[target],
    };
    let mut last = Error::Config("no host".to_owned());
    for target in targets {
        for host in &order {
            let found = log_in(config, host).and_then(|client| wanted(client, *target, host));
            match found {
                Err(error) if another_may_do(&error) => last = error,
                done => return done,
            }
        }
    }
    Err(last)
}

/// Whether it is worth trying another host. One that does not know us is to be heard.
fn another_may_do(error: &Error) -> bool {
    // cannot_connect_now: it starts, or stops, or recovers.
    (matches!(error, Error::Connect(..)) && error.interrupt().is_none()) || error.code() == Some("57P03")
}

/// By Fisher and Yates.
fn shuffle<T>(items: &mut [T]) {
    let mut random = Random::default();
    for index in (1..items.len()).rev() {
        let mut bytes = [0; 8];
        balrog_proto::Entropy::fill(&mut random, &mut bytes);
        let other = u64::from_ne_bytes(bytes) % (index as u64 + 1);
        items.swap(index, other as usize);
    }
}

/// `client`, if its session is as is wanted.
fn wanted(mut client: Client, target: TargetSession, host: &Host) -> Result<Client, Error> {
    if target == TargetSession::Any {
        return Ok(client);
    }
    // From PostgreSQL 14 on it is reported.
    let reported = |name| client.parameter(name).map(|value| value == "on");
    let (standby, read_only) = match (reported("in_hot_standby"), reported("default_transaction_read_only")) {
        (Some(standby), Some(read_only)) => (standby, read_only || standby),
        _ => {
            let sql = "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
            let row = client.query_one(sql, &[])?;
            (row.get(0)?, row.get(1)?)
        }
    };
    let (right, is) = match target {
        TargetSession::ReadWrite => (!read_only, "is read-only"),
        TargetSession::ReadOnly => (read_only, "is not read-only"),
        TargetSession::Primary => (!standby, "is on a standby"),
        _ => (standby, "is on no standby"),
    };
    if right {
        return Ok(client);
    }
    Err(Error::Connect(
        host.to_string(),
        io::Error::other(format!("its session {is}, and target_session_attrs asks for another")),
    ))
}

/// A session with one host, in one of the ways that `sslmode` allows.
fn log_in(config: &Arc<Config>, host: &Host) -> Result<Client, Error> {
    let deadline = config.connect_timeout.and_then(|time| Instant::now().checked_add(time));
    let ways: &[_] = match config.ssl_mode {
        _ if host.is_unix() => &[Encryption::Never],
        SslMode::Disable => &[Encryption::Never],
        SslMode::Allow => &[Encryption::Never, Encryption::Always],
        SslMode::Prefer => &[Encryption::IfOffered, Encryption::Never],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Always],
    };
    let mut result = Err(Error::Closed);
    for encryption in ways {
        let place = Place { config: Arc::clone(config), host: host.clone(), encryption: *encryption };
        result = place.log_in(deadline);
        if !matches!(&result, Err(error) if another_way_may_do(error)) {
            break;
        }
    }
    result
}

/// Whether it is worth trying with TLS what failed without, or the other way round.
fn another_way_may_do(error: &Error) -> bool {
    use io::ErrorKind::{ConnectionReset, InvalidData, UnexpectedEof};
    match error {
        // The handshake failed.
        Error::Connect(_, error) => matches!(error.kind(), InvalidData | UnexpectedEof | ConnectionReset),
        // invalid_authorization_specification: "no pg_hba.conf entry for [...] no encryption"
        error => error.code() == Some("28000"),
    }
}

impl Place {
    fn log_in(mut self, deadline: Option<Instant>) -> Result<Client, Error> {
        let (mut stream, channel) = self.open(deadline)?;
        stream.timeouts_mut().deadline = deadline;
        let mut session = self.config.session.clone();
        session.password = self.config.password(&self.host);
        if session.channel_binding == ChannelBinding::Require
            && !matches!(&channel, Channel::Tls { end_point: Some(_) })
        {
            return Err(Error::Config(format!(
                "channel_binding require needs TLS and a server's certificate that defines one; {} has not",
                self.host
            )));
        }
        session.channel = channel;
        let mut connection = Connection::new(Frontend::new(session, &mut Random::default())?, stream);
        loop {
            enum Next {
                Key(Box<KeyDerivation>),
                Started,
                Refused(Error),
            }
            let next = connection.event(READ, |step| match step {
                Step::Event(FrontendEvent::DeriveKey(job)) => Some(Next::Key(job)),
                Step::Event(FrontendEvent::Started) => Some(Next::Started),
                Step::Event(FrontendEvent::ServerError(report)) => {
                    Some(Next::Refused(Error::Server(Box::new(ServerError::new(&report)))))
                }
                Step::Event(_) => None,
                _ => Some(Next::Refused(self.failed(io::ErrorKind::UnexpectedEof.into()))),
            });
            match next.map_err(|error| self.failed(error))? {
                Next::Started => break,
                Next::Refused(error) => return Err(error),
                // It may take a while, and others are not to wait for it.
                Next::Key(job) => {
                    let key = offload(move || job.finish(), deadline);
                    let key = key.map_err(|interrupt| self.failed(interrupt.into()))?;
                    connection.link.key_derived(&key)?;
                }
            }
        }
        connection.stream.timeouts_mut().deadline = None;
        // Where a cancel request has to go, if there are several.
        let peer = connection.stream.tcp().and_then(|tcp| tcp.peer_addr().ok());
        self.host.address = peer.map(|peer| peer.ip()).or(self.host.address);
        Ok(Client::new(connection, self))
    }

    /// A stream to the host, with TLS as is wanted.
    pub(super) fn open(&self, deadline: Option<Instant>) -> Result<(AnyStream, Channel), Error> {
        let failed = |error| self.failed(error);
        let (config, host) = (&*self.config, &self.host);
        if host.is_unix() {
            let path = format!("{}/.s.PGSQL.{}", host.name, host.port);
            return Ok((UnixStream::connect(path, deadline).map_err(failed)?.into(), Channel::Plain));
        }
        let mut tcp = match host.address {
            Some(address) => TcpStream::connect_any(vec![(address, host.port).into()], deadline),
            None => TcpStream::connect(&host.name, host.port, deadline),
        }
        .map_err(failed)?;
        self.keep_alive(&tcp).map_err(failed)?;
        tcp.timeouts.deadline = deadline;
        if self.encryption == Encryption::Never {
            return Ok((tcp.into(), Channel::Plain));
        }
        if !config.ssl_direct {
            let request = TlsRequest::new(self.encryption == Encryption::Always, None);
            let mut asking = Connection::new(request, tcp);
            let answer = asking.event(1, |step| match step {
                Step::Event(answer) => Some(Some(answer)),
                _ => Some(None),
            });
            let answer = answer.map_err(failed)?;
            let AnyStream::Tcp(stream) = asking.stream else { return Err(Error::Closed) };
            match answer {
                Some(TlsAnswer::Accepted) => tcp = stream,
                Some(TlsAnswer::Refused) => return Ok((stream.into(), Channel::Plain)),
                None => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let session = self.tls()?.connect(&host.name, tcp).map_err(failed)?;
        if config.ssl_direct && session.session().alpn_protocol() != Some(ALPN) {
            let why = "the server does not speak PostgreSQL directly over TLS (sslnegotiation)";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let end_point = session.server_end_point();
        Ok((session.into(), Channel::Tls { end_point }))
    }

    /// Whom to trust, as `sslmode` says.
    fn tls(&self) -> Result<TlsConfig, Error> {
        let config = &*self.config;
        let roots = config.ssl_root_cert.as_deref();
        let identity = config.ssl_identity.as_ref();
        let identity = identity.map(|(chain, key)| (chain.as_path(), key.as_path()));
        let tls = match (config.ssl_mode, roots) {
            (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
                return Err(Error::Config(
                    "sslmode verify-ca and verify-full need sslrootcert, which says whom to trust".into(),
                ));
            }
            (SslMode::VerifyFull, roots) => TlsConfig::new(roots, identity),
            (SslMode::Require | SslMode::VerifyCa, Some(roots)) => TlsConfig::any_name(roots, identity),
            _ => TlsConfig::new(None, identity),
        };
        let alpn = std::str::from_utf8(ALPN).unwrap_or_default();
        Ok(tls.map_err(|error| Error::Config(error.to_string()))?.with_alpn(&[alpn]))
    }

    fn keep_alive(&self, tcp: &TcpStream) -> io::Result<()> {
        let keepalive = self.config.keepalive;
        sockopt::set_socket_keepalive(tcp, keepalive.on)?;
        if let Some(idle) = keepalive.idle {
            sockopt::set_tcp_keepidle(tcp, idle)?;
        }
        if let Some(interval) = keepalive.interval {
            sockopt::set_tcp_keepintvl(tcp, interval)?;
        }
        if let Some(count) = keepalive.count {
            sockopt::set_tcp_keepcnt(tcp, count)?;
        }
        if keepalive.user_timeout > 0 {
            sockopt::set_tcp_user_timeout(tcp, keepalive.user_timeout)?;
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::Connect(self.host.to_string(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    fn socket(parameters: &str) -> AnyStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config: Config = format!("host=127.0.0.1 port={port} {parameters}").parse().unwrap();
        let host = config.hosts[0].clone();
        let place = Place { config: config.into(), host, encryption: Encryption::Never };
        place.open(None).unwrap().0
    }

    #[test]
    fn the_kernel_looks_after_the_connection() {
        let stream =
            socket("keepalives_idle=7 keepalives_interval=8 keepalives_count=3 tcp_user_timeout=9000");
        let tcp = stream.tcp().unwrap();
        assert!(sockopt::socket_keepalive(tcp).unwrap());
        assert_eq!(sockopt::tcp_keepidle(tcp).unwrap(), Duration::from_secs(7));
        assert_eq!(sockopt::tcp_keepintvl(tcp).unwrap(), Duration::from_secs(8));
        assert_eq!(sockopt::tcp_keepcnt(tcp).unwrap(), 3);
        assert_eq!(sockopt::tcp_user_timeout(tcp).unwrap(), 9000);
        assert!(sockopt::socket_keepalive(socket("").tcp().unwrap()).unwrap());
        assert!(!sockopt::socket_keepalive(socket("keepalives=0").tcp().unwrap()).unwrap());
    }
}
