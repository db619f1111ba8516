//! Against a real PostgreSQL server: logging in, in every way.

mod support;

use std::time::Instant;

use balrog_proto::postgres::{AuthMethods, Channel, ChannelBinding, Config, Protocol};
use support::{Client, server};

fn config(user: &str, password: Option<&str>) -> Config {
    let mut config = Config::new(user);
    config.database = Some(b"balrog".to_vec());
    config.password = password.map(|password| password.as_bytes().to_vec());
    config
}

#[test]
fn a_session() {
    let mut client = Client::admin(server());
    assert_eq!(
        client.run("select 1 as one, null, 'a' || 'b'"),
        ["columns one:23 ?column?:25 ?column?:25", "row 1|NULL|ab", "complete SELECT 1"]
    );
    assert!(client.link.parameter("server_version").is_some());
    assert!(client.link.key().is_some_and(|key| key.process() > 0));
    client.link.terminate();
    assert!(client.link.query("select 1").is_err());
    assert_eq!(client.read("x"), Vec::<String>::new());
    assert!(client.link.poll_event(Instant::now()).is_ok());
}

#[test]
fn every_way_to_log_in() {
    let server = server();
    let long =
        "a password that is longer than the sixty-four bytes that HMAC takes as it is, so it is hashed";
    for (user, password) in [
        ("scram_user", Some("sesame")),
        ("long_user", Some(long)),
        // Prepared differently, and the same to SASLprep.
        ("unicode_user", Some("IX IX")),
        ("md5_user", Some("sesame")),
        ("trust_user", None),
    ] {
        let config = config(user, password);
        let who = [format!("row {user}")];
        let mut plain = Client::tcp(server, config.clone()).unwrap();
        assert_eq!(plain.run("select current_user")[1..2], who);
        let mut tls = Client::tls(server, server.tls(false), config).unwrap();
        assert_eq!(tls.run("select current_user")[1..2], who);
        assert_eq!(tls.run("select ssl from pg_stat_ssl where pid = pg_backend_pid()")[1], "row t");
    }
    // In clear text through TLS only, unless it is allowed.
    let mut clear = config("password_user", Some("sesame"));
    assert!(Client::tls(server, server.tls(false), clear.clone()).is_ok());
    let refused = Client::tcp(server, clear.clone()).err().unwrap();
    assert!(refused.contains("clear text"), "{refused}");
    clear.allow_cleartext = true;
    assert!(Client::tcp(server, clear).is_ok());
    // By certificate.
    assert!(Client::tls(server, server.tls(true), config("cert_user", None)).is_ok());
}

#[test]
fn what_the_server_refuses() {
    let server = server();
    let error = |config: Config| Client::tcp(server, config).err().unwrap();
    for user in ["scram_user", "md5_user"] {
        let wrong = error(config(user, Some("wrong")));
        assert!(wrong.starts_with("error 28P01"), "{wrong}");
        let none = error(config(user, None));
        assert!(none.contains("there is none"), "{none}");
    }
    let rejected = error(config("reject_user", None));
    assert!(rejected.starts_with("error 28000"), "{rejected}");
    let no_certificate = Client::tls(server, server.tls(false), config("cert_user", None)).err().unwrap();
    assert!(no_certificate.starts_with("error 28000"), "{no_certificate}");
    let mut no_database = config("trust_user", None);
    no_database.database = Some(b"nowhere".to_vec());
    assert!(error(no_database).starts_with("error 3D000"));
}

#[test]
fn what_we_refuse() {
    let server = server();
    for (user, method) in [
        ("scram_user", AuthMethods::SCRAM),
        ("md5_user", AuthMethods::MD5),
        ("password_user", AuthMethods::PASSWORD),
        ("trust_user", AuthMethods::NONE),
    ] {
        for (allowed, works) in [(method, true), (AuthMethods::ALL, true), (without(method), false)] {
            let mut config = config(user, Some("sesame"));
            config.require_auth = allowed;
            let outcome = Client::tls(server, server.tls(false), config).map(|_| ());
            assert_eq!(outcome.is_ok(), works, "{user} {allowed:?}: {outcome:?}");
            assert!(works || outcome.unwrap_err().contains("require_auth"));
        }
    }
}

fn without(method: AuthMethods) -> AuthMethods {
    [AuthMethods::NONE, AuthMethods::PASSWORD, AuthMethods::MD5, AuthMethods::SCRAM]
        .into_iter()
        .filter(|other| *other != method)
        .reduce(AuthMethods::union)
        .unwrap()
}

#[test]
fn channel_binding() {
    let server = server();
    let connect = |user: &str, binding, channel: Option<Channel>| {
        let mut config = config(user, Some("sesame"));
        config.channel_binding = binding;
        config.channel = channel.unwrap_or(Channel::Plain);
        Client::tls(server, server.tls(user == "cert_user"), config).map(|_| ())
    };
    // All three work with SCRAM, and the server checks what was bound.
    for binding in [ChannelBinding::Disable, ChannelBinding::Prefer, ChannelBinding::Require] {
        assert_eq!(connect("scram_user", binding, None), Ok(()));
    }
    let foreign = Channel::Tls { end_point: Some(vec![7; 32]) };
    let between = connect("scram_user", ChannelBinding::Prefer, Some(foreign.clone())).unwrap_err();
    assert!(between.starts_with("error 28000") || between.starts_with("error 08P01"), "{between}");
    assert_eq!(connect("scram_user", ChannelBinding::Disable, Some(foreign)), Ok(()));
    // A certificate without a hash to bind to.
    let nothing = Channel::Tls { end_point: None };
    assert_eq!(connect("scram_user", ChannelBinding::Prefer, Some(nothing.clone())), Ok(()));
    assert!(connect("scram_user", ChannelBinding::Require, Some(nothing)).is_err());
    // Every other way is a downgrade.
    for user in ["md5_user", "password_user", "trust_user", "cert_user"] {
        let refused = connect(user, ChannelBinding::Require, None).unwrap_err();
        assert!(refused.contains("channel binding is required"), "{user}: {refused}");
    }
}

#[test]
fn an_old_server_negotiates_the_protocol_down() {
    let mut config = config("trust_user", None);
    config.protocol = Protocol::V3_2;
    config.settings =
        vec![(b"application_name".to_vec(), b"newest".to_vec()), (b"_pq_.later".to_vec(), b"1".to_vec())];
    let mut client = Client::tcp(server(), config).unwrap();
    let version: u32 = String::from_utf8_lossy(client.link.parameter("server_version").unwrap())
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap();
    let expected = if version < 18 { Protocol::V3_0 } else { Protocol::V3_2 };
    assert_eq!(client.link.protocol(), expected);
    assert_eq!(client.run("show application_name")[1], "row newest");
}
