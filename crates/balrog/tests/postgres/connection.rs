//! Who is let in, how, and where.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use balrog::postgres::{Client, Config, Error, TargetSession};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::{Tested, in_every_mode};

/// A session of `cook`, whose password is sesame, with these further parameters.
fn cook(parameters: &str) -> Result<Client, Error> {
    let mut config: Config = format!("{}?{parameters}", Tested::get().tcp).parse()?;
    config.session.password = Some(b"sesame".to_vec());
    Client::with_config(config)
}

/// Whether the session is encrypted.
fn encrypted(db: &mut Client) -> Result<bool, Error> {
    db.query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[])?.get(0)
}

#[test]
fn sslmode_means_what_it_means_for_libpq() {
    in_every_mode(|_| {
        let pem = Tested::get().certificate.display();
        let right = format!("sslrootcert={pem}");
        for (parameters, expected) in [
            ("sslmode=disable", false),
            ("sslmode=allow", false),
            ("sslmode=prefer", true),
            ("sslmode=require", true),
            (&format!("sslmode=verify-ca&{right}"), true),
            (&format!("sslmode=verify-full&{right}"), true),
        ] {
            assert_eq!(encrypted(&mut cook(parameters)?)?, expected, "{parameters}");
        }
        // TLS from the first byte, for servers that know it.
        let version = cook("")?.query_one("select current_setting('server_version_num')::int", &[])?;
        let direct = cook(&format!("sslmode=verify-full&sslnegotiation=direct&{right}"));
        if version.get::<i32>(0)? >= 170_000 {
            assert!(encrypted(&mut direct?)?);
        } else {
            assert!(matches!(direct, Err(Error::Connect(..))));
        }
        for mode in ["verify-ca", "verify-full"] {
            assert!(matches!(cook(&format!("sslmode={mode}")), Err(Error::Config(_))));
        }
        // By another name only verify-full objects; without the authority, require does too.
        let address = "host=127.0.0.1";
        assert!(encrypted(&mut cook(&format!("sslmode=verify-ca&{address}&{right}"))?)?);
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let path = Tested::get().certificate.with_file_name("other.crt");
        fs::write(&path, other).unwrap();
        let wrong = format!("sslrootcert={}", path.display());
        for parameters in [
            format!("sslmode=verify-full&{address}&{right}"),
            format!("sslmode=verify-full&{wrong}"),
            format!("sslmode=verify-ca&{wrong}"),
            format!("sslmode=require&{wrong}"),
        ] {
            let error = cook(&parameters).unwrap_err();
            assert!(matches!(error, Error::Connect(..)), "{parameters}: {error}");
            assert!(error.to_string().contains("certificate"), "{parameters}: {error}");
        }
        assert!(encrypted(&mut cook(&format!("sslmode=prefer&{wrong}"))?)?);
        // A name for the certificate, an address for the way.
        let named = format!("sslmode=verify-full&{right}&host=localhost&hostaddr=127.0.0.1");
        assert!(encrypted(&mut cook(&named)?)?);
        Ok(())
    });
}

/// By its `pg_hba.conf`, the server has `waiter` with TLS only and `guest` without only.
#[test]
fn allow_and_prefer_try_the_other_way() {
    in_every_mode(|_| {
        for (user, mode, expected) in [
            ("waiter", "allow", Some(true)),
            ("waiter", "prefer", Some(true)),
            ("waiter", "disable", None),
            ("guest", "prefer", Some(false)),
            ("guest", "allow", Some(false)),
            ("guest", "require", None),
        ] {
            match cook(&format!("user={user}&sslmode={mode}")) {
                Ok(mut db) => assert_eq!(Some(encrypted(&mut db)?), expected, "{user} {mode}"),
                Err(error) => {
                    assert_eq!((error.code(), expected), (Some("28000"), None), "{user} {mode}: {error}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn scram_is_bound_to_the_channel() {
    in_every_mode(|_| {
        for parameters in [
            "sslmode=require&channel_binding=require",
            "sslmode=require&channel_binding=prefer",
            "sslmode=require&channel_binding=disable",
            "sslmode=disable&channel_binding=prefer",
            "sslmode=require&channel_binding=require&require_auth=scram-sha-256",
        ] {
            encrypted(&mut cook(parameters)?)?;
        }
        let error = cook("sslmode=disable&channel_binding=require").unwrap_err();
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains("TLS"), "{error}");
        // A server that asks for nothing proves nothing.
        let error = cook("user=waiter&sslmode=require&channel_binding=require").unwrap_err();
        assert!(matches!(error, Error::Connect(..)), "{error}");
        assert!(cook("sslmode=require&require_auth=md5").is_err());
        Ok(())
    });
}

/// `chef` has to have a certificate.
#[test]
fn a_client_certificate_lets_in() {
    in_every_mode(|_| {
        let folder = Tested::get().certificate.parent().unwrap();
        let (chain, key) = (folder.join("chef.crt"), folder.join("chef.key"));
        let identity = format!("sslcert={}&sslkey={}", chain.display(), key.display());
        assert!(encrypted(&mut cook(&format!("user=chef&sslmode=require&{identity}"))?)?);
        assert!(cook("user=chef&sslmode=require").is_err());
        let error = cook("sslmode=require&sslcert=/nowhere").unwrap_err();
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains("/nowhere"), "{error}");
        Ok(())
    });
}

#[test]
fn the_password_comes_from_the_file() {
    in_every_mode(|_| {
        let path = Tested::get().certificate.with_file_name("pass");
        fs::write(&path, "localhost:*:balrog:cook:sesame\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let tcp = &Tested::get().tcp;
        Client::connect(&format!("{tcp}?passfile={}", path.display()))?.batch_execute("select 1")?;
        let error = Client::connect(&format!("{tcp}?passfile=/nowhere")).unwrap_err();
        assert!(error.to_string().contains("password"), "{error}");
        Ok(())
    });
}

#[test]
fn the_first_host_whose_session_is_right_is_taken() {
    in_every_mode(|url| {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = Tested::get().tcp.rsplit([':', '/']).nth(1).unwrap();
        let several = |parameters: &str| -> Result<Client, Error> {
            cook(&format!("host=127.0.0.1,localhost&port={gone},{port}&{parameters}"))
        };
        several("")?.batch_execute("select 1")?;
        several("load_balance_hosts=random")?.batch_execute("select 1")?;
        for (wanted, found) in [
            ("any", true),
            ("primary", true),
            ("read-write", true),
            ("read-only", false),
            ("standby", false),
            ("prefer-standby", true),
        ] {
            match several(&format!("target_session_attrs={wanted}")) {
                Ok(_) => assert!(found, "{wanted}"),
                Err(error) => {
                    let Error::Connect(host, _) = &error else { panic!("{wanted}: {error}") };
                    assert_eq!((host.as_str(), found), (&*format!("localhost:{port}"), false));
                    assert!(error.to_string().contains("target_session_attrs"), "{error}");
                }
            }
        }
        let read_only = "options=-c%20default_transaction_read_only%3Don";
        several(&format!("target_session_attrs=read-only&{read_only}"))?;
        assert!(several(&format!("target_session_attrs=read-write&{read_only}")).is_err());
        // Whoever is not let in at one is not let in by asking around.
        let error = cook(&format!("host=localhost,127.0.0.1&port={port},{port}&user=nobody")).unwrap_err();
        assert!(error.code().is_some(), "{error}");
        let mut config: Config = url.parse()?;
        config.target_session = TargetSession::Primary;
        Client::with_config(config)?.batch_execute("select 1")
    });
}

#[test]
fn parameters_reach_the_session_and_the_socket() {
    in_every_mode(|_| {
        let parameters = "application_name=soup%20bowl&options=-c%20statement_timeout%3D50\
                          &keepalives_idle=7&tcp_user_timeout=9000";
        let mut db = cook(parameters)?;
        let show = "select current_setting('application_name'), current_setting('statement_timeout'), \
                    current_setting('client_encoding'), current_setting('datestyle')";
        let row = db.query_one(show, &[])?;
        let values: Vec<String> = (0..4).map(|index| row.get(index).unwrap()).collect();
        assert_eq!(values, ["soup bowl", "50ms", "UTF8", "ISO, MDY"]);
        assert_eq!(db.query("select pg_sleep(30)", &[]).unwrap_err().code(), Some("57014"));
        Ok(())
    });
}

/// The kernel takes the connection, and nobody ever says a word.
#[test]
fn a_host_that_says_nothing_costs_connect_timeout() {
    in_every_mode(|_| {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        for mode in ["disable", "prefer"] {
            let begun = Instant::now();
            let config = format!("host=127.0.0.1 port={port} user=me sslmode={mode} connect_timeout=1");
            let error = Client::connect(&config).unwrap_err();
            let Error::Connect(_, why) = &error else { panic!("{error}") };
            assert_eq!(why.kind(), io::ErrorKind::TimedOut, "{error}");
            let took = begun.elapsed();
            assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "{mode}: {took:?}");
        }
        Ok(())
    });
}

/// An authority, and `chef`'s certificate by it: written to `folder`.
pub(crate) fn write_client_certificate(folder: &std::path::Path) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "kitchen");
    let key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let mut chef = CertificateParams::default();
    chef.distinguished_name.push(DnType::CommonName, "chef");
    let key = KeyPair::generate().unwrap();
    let certificate = chef.signed_by(&key, &issuer).unwrap();
    for (name, text) in
        [("root.crt", root.pem()), ("chef.crt", certificate.pem()), ("chef.key", key.serialize_pem())]
    {
        fs::write(folder.join(name), text).unwrap();
    }
}
