use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};

/// One server for all tests of a file. Its supervisor ends it when this process ends.
pub struct Server {
    _supervisor: Child,
    /// Directory of the Unix socket.
    pub directory: PathBuf,
    pub port: u16,
    pub certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    client: (CertificateDer<'static>, Vec<u8>),
}

/// Who may come in how, over TCP. Over the Unix socket everybody may.
const HBA: &str = "
local   all all                         trust
local   replication all                 trust
host    all scram_user     127.0.0.1/32 scram-sha-256
host    all long_user      127.0.0.1/32 scram-sha-256
host    all unicode_user   127.0.0.1/32 scram-sha-256
host    all md5_user       127.0.0.1/32 md5
host    all password_user  127.0.0.1/32 password
host    all trust_user     127.0.0.1/32 trust
hostssl all cert_user      127.0.0.1/32 cert
host    all reject_user    127.0.0.1/32 reject
";

const ROLES: &str = "
set password_encryption = 'scram-sha-256';
create role scram_user login password 'sesame';
create role long_user login password 'a password that is longer than the sixty-four bytes that HMAC takes as it is, so it is hashed';
create role unicode_user login password E'I\\u00ADX \\u2168';
create role password_user login password 'sesame';
create role trust_user login;
create role cert_user login;
create role reject_user login;
set password_encryption = 'md5';
create role md5_user login password 'sesame';
";

/// The server, started at the first call.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

impl Server {
    fn start() -> Self {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority_certificate = authority.self_signed(&key).unwrap();
        let authority = Issuer::new(authority, key);
        let issue = |name: &str| {
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &authority).unwrap(), key)
        };
        let (certificate, key) = issue("localhost");
        let (client, client_key) = issue("cert_user");

        let files = std::env::temp_dir().join(format!("balrog-proto-{}", std::process::id()));
        std::fs::create_dir_all(&files).unwrap();
        let mut arguments = Vec::new();
        for (name, content) in [
            ("pg_hba.conf", HBA.to_owned()),
            ("server.crt", certificate.pem()),
            ("server.key", key.serialize_pem()),
            ("root.crt", authority_certificate.pem()),
        ] {
            std::fs::write(files.join(name), content).unwrap();
            arguments.push(format!("--file={name}={}", files.join(name).display()));
        }
        let (supervisor, directory, port) = loop {
            let port = free_port();
            match supervise(&arguments, port) {
                Ok((supervisor, directory)) => break (supervisor, directory, port),
                // Somebody else was faster.
                Err(why) if why.contains("could not create any TCP/IP sockets") => {}
                Err(why) => panic!("{why}"),
            }
        };
        std::fs::remove_dir_all(&files).unwrap();
        let server = Self {
            _supervisor: supervisor,
            directory,
            port,
            certificate: certificate.der().clone(),
            authority: authority_certificate.der().clone(),
            client: (client.der().clone(), client_key.serialize_der()),
        };
        super::Client::admin(&server).run(ROLES);
        server
    }

    /// `tls-server-end-point`: the certificate is signed with SHA-256.
    pub fn end_point(&self) -> Vec<u8> {
        Sha256::digest(&self.certificate).to_vec()
    }

    /// TLS as a client that knows the server, with a certificate of `cert_user` or without.
    pub fn tls(&self, with_certificate: bool) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let (certificate, key) = self.client.clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        Arc::new(if with_certificate {
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        } else {
            config.with_no_client_auth()
        })
    }
}

/// Starts the server. What its supervisor answers is its directory, or why there is none.
fn supervise(arguments: &[String], port: u16) -> Result<(Child, PathBuf), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/postgres.py");
    let mut supervisor = Command::new("python3")
        .args([script, "supervise"])
        .args(arguments)
        .args(["balrog", "listen_addresses=127.0.0.1", &format!("port={port}")])
        .args(["ssl=on", "ssl_ca_file=root.crt", "fsync=off", "max_connections=60", "log_min_messages=fatal"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts the server");
    let mut answer = String::new();
    BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    match answer.trim().strip_prefix("ok ") {
        Some(directory) => Ok((supervisor, directory.into())),
        None => {
            supervisor.wait().unwrap();
            Err(answer)
        }
    }
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
