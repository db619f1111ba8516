use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use balrog_proto::postgres::{AuthMethods, ChannelBinding, Protocol};

use super::{Config, Error, Host, SslMode, TargetSession};

/// In an environment of these variables.
fn read_in(text: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
    let find =
        |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
    Config::read(text, &find)
}

fn read(text: &str) -> Config {
    read_in(text, &[]).unwrap()
}

fn host(name: &str, port: u16) -> Host {
    Host { name: name.to_owned(), address: None, port }
}

fn setting(config: &Config, name: &str) -> Option<String> {
    let found = config.session.settings.iter().find(|(other, _)| other == name.as_bytes());
    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

/// A folder that is removed when it goes.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("balrog-config-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join(".postgresql")).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn urls_and_pairs_say_the_same() {
    for text in [
        "postgres://me:p%40ss@one:5433,[::1]/kitchen?sslmode=require&application_name=soup%20bowl",
        "host=one,[::1] port=5433, user=me password='p@ss' dbname = kitchen sslmode=require \
         application_name='soup bowl'",
    ] {
        let config = read(text);
        assert_eq!(config.hosts, [host("one", 5433), host("[::1]", 5432)], "{text}");
        assert_eq!(config.session.user, b"me");
        assert_eq!(config.session.password.as_deref(), Some(&b"p@ss"[..]));
        assert_eq!(config.session.database.as_deref(), Some(&b"kitchen"[..]));
        assert_eq!(setting(&config, "application_name").as_deref(), Some("soup bowl"));
        assert_eq!(config.ssl_mode, SslMode::Require);
        assert!(!format!("{config:?}").contains("p@ss"));
    }
    assert_eq!(read("postgres:///kitchen?host=/run/postgresql").hosts[0].name, "/run/postgresql");
    assert_eq!(read(r"user='it\'s me'").session.user, b"it's me");
    assert_eq!(read("host=a,b port=7").hosts, [host("a", 7), host("b", 7)]);
    assert_eq!(read("").hosts, [host("localhost", 5432)]);
}

#[test]
fn every_parameter_does_something() {
    let config = read(
        "hostaddr=10.0.0.1,::1 host=one,two connect_timeout=0 target_session_attrs=prefer-standby \
         load_balance_hosts=random sslmode=verify-full sslnegotiation=direct sslrootcert=/r sslcert=/c \
         sslkey=/k channel_binding=require require_auth=scram-sha-256 max_protocol_version=latest \
         fallback_application_name=soup options='-c geqo=off' client_encoding=auto keepalives=0 \
         keepalives_idle=5 keepalives_interval=6 keepalives_count=7 tcp_user_timeout=8 gssencmode=disable \
         passfile=/p",
    );
    let addresses: Vec<_> = config.hosts.iter().map(|host| host.address.unwrap().to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1", "::1"]);
    assert_eq!((config.hosts[1].name.as_str(), config.hosts[1].port), ("two", 5432));
    assert_eq!((config.connect_timeout, config.session.limits.connect_time), (None, None));
    assert_eq!((config.target_session, config.load_balance), (TargetSession::PreferStandby, true));
    assert_eq!((config.ssl_mode, config.ssl_direct), (SslMode::VerifyFull, true));
    assert_eq!(config.ssl_root_cert, Some("/r".into()));
    assert_eq!(config.ssl_identity, Some(("/c".into(), "/k".into())));
    assert_eq!(config.session.channel_binding, ChannelBinding::Require);
    assert_eq!(config.session.require_auth, AuthMethods::SCRAM);
    assert_eq!(config.session.protocol, Protocol::V3_2);
    assert_eq!(setting(&config, "application_name").as_deref(), Some("soup"));
    assert_eq!(setting(&config, "options").as_deref(), Some("-c geqo=off"));
    assert_eq!(setting(&config, "client_encoding").as_deref(), Some("UTF8"));
    let keepalive = config.keepalive;
    assert!(!keepalive.on && keepalive.user_timeout == 8 && keepalive.count == Some(7));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!((keepalive.idle, keepalive.interval), (seconds(5), seconds(6)));
    assert_eq!(config.pass_file, Some("/p".into()));
    assert_eq!(read("").connect_timeout, seconds(10));
    // An address stands for itself, and a certificate can have its key in it.
    let config = read("hostaddr=10.0.0.1 sslcert=/both connect_timeout=-1");
    assert_eq!(config.hosts[0].name, "10.0.0.1");
    assert_eq!(config.ssl_identity, Some(("/both".into(), "/both".into())));
    assert_eq!(config.connect_timeout, None);
}

#[test]
fn what_is_not_said_comes_from_the_service_and_then_from_the_environment() {
    let folder = Folder::new("service");
    let services =
        "# ours\n[other]\nhost=wrong\n\n[kitchen]\nhost = stove\nport=7\nuser=cook\n[last]\nuser=x\n";
    let services = folder.write("services", services, 0o644);
    let variables = [
        ("PGSERVICEFILE", services.as_str()),
        ("PGHOST", "env"),
        ("PGUSER", "env"),
        ("PGDATABASE", "env"),
        ("PGPASSWORD", ""),
        ("PGTZ", "Asia/Tokyo"),
        ("USER", "system"),
    ];
    let config = read_in("service=kitchen user=me", &variables).unwrap();
    assert_eq!(config.hosts, [host("stove", 7)]);
    assert_eq!((&config.session.user[..], config.session.password), (&b"me"[..], None));
    assert_eq!(config.session.database.as_deref(), Some(&b"env"[..]));
    let named = [&variables[..], &[("PGSERVICE", "kitchen")]].concat();
    assert_eq!(read_in("", &named).unwrap().session.user, b"cook");
    let plain = read_in("", &variables).unwrap();
    assert_eq!((plain.hosts, plain.session.user), (vec![host("env", 5432)], b"env".to_vec()));
    let config = read_in("", &variables[5..]).unwrap();
    assert_eq!(config.session.user, b"system");
    assert_eq!(setting(&config, "TimeZone").as_deref(), Some("Asia/Tokyo"));
    assert_eq!(setting(&config, "DateStyle").as_deref(), Some("ISO"));
    let error = read_in("service=garden", &variables).unwrap_err().to_string();
    assert!(error.contains("[garden]"), "{error}");
    let broken = folder.write("broken", "[kitchen]\nsesame\n", 0o644);
    let error = read_in("service=kitchen", &[("PGSERVICEFILE", &broken)]).unwrap_err().to_string();
    assert!(error.contains("is no name=value") && !error.contains("sesame"), "{error}");
    // Files that are where libpq looks for them.
    let home = [("HOME", folder.0.to_str().unwrap())];
    assert_eq!(read_in("", &home).unwrap().ssl_root_cert, None);
    for name in ["root.crt", "postgresql.crt", "postgresql.key"] {
        folder.write(&format!(".postgresql/{name}"), "", 0o600);
    }
    let config = read_in("", &home).unwrap();
    assert!(config.ssl_root_cert.unwrap().ends_with("root.crt"));
    assert!(config.ssl_identity.unwrap().1.ends_with("postgresql.key"));
}

#[test]
fn passwords_come_from_the_file_for_the_place() {
    let folder = Folder::new("pass");
    let lines = "# host:port:database:user:password\none:5432:kitchen:me:first\r\n*:7:*:me:second\n\
                 a\\:b:*:*:*:th\\:ird\\\\\nlocalhost:*:*:*:local\nshort:5432:me\nempty:*:*:*:\n";
    let path = folder.write("pass", lines, 0o600);
    let find = |text: &str| {
        let config = read(&format!("passfile={path} user=me dbname=kitchen {text}"));
        config.password(&config.hosts[0]).map(|password| String::from_utf8(password).unwrap())
    };
    for (place, password) in [
        ("host=one", Some("first")),
        ("host=one dbname=other", None),
        ("host=any port=7", Some("second")),
        ("host=any port=7 user=you", None),
        ("host=a:b", Some("th:ird\\")),
        ("host=/var/run/postgresql", Some("local")),
        ("host=/elsewhere", None),
        ("host=short", None),
        ("host=empty", None),
        ("host=one password=said", Some("said")),
    ] {
        assert_eq!(find(place).as_deref(), password, "{place}");
    }
    folder.write("pass", lines, 0o640);
    assert_eq!(find("host=one"), None, "others may read it");
}

#[test]
fn what_makes_no_sense_is_named() {
    for (text, part) in [
        ("postgres://a/b?sslmode=maybe", "\"maybe\"; there are disable, allow, prefer"),
        ("postgres://a:x/b", "\"x\" is no port"),
        ("host=a,b port=1,2,3", "3 ports for 2 hosts"),
        ("host=a,b hostaddr=1.1.1.1", "2 hosts for 1 addresses"),
        ("hostaddr=a", "\"a\" is no address"),
        ("colour=blue", "no parameter \"colour\""),
        ("user='me", "quotation"),
        ("postgres://%zz/", "percent"),
        ("postgres://me:sesa%me@a/", "password has a percent sign"),
        ("postgres://a/b?password=sesa%me", "password has a percent sign"),
        ("kitchen", "behind the beginning comes something that is no name=value"),
        ("user=me password=open sesame", "behind password comes something that is no name=value"),
        ("connect_timeout=soon", "connect_timeout \"soon\""),
        ("target_session_attrs=fast", "prefer-standby"),
        ("channel_binding=yes", "require"),
        ("gssencmode=require", "gssencmode"),
        ("require_auth=gss", "require_auth"),
        ("sslnegotiation=direct", "require or more"),
        ("max_protocol_version=2", "3.2"),
    ] {
        let error = read_in(text, &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(!error.contains("sesa"), "it shows a password: {error}");
    }
}
