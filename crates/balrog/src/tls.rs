//! TLS by rustls, for clients and servers.

mod acceptor;
mod end_point;
mod stream;
mod trust;

pub use acceptor::TlsAcceptor;
pub use stream::TlsStream;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, KeyLogFile};

use crate::net::Transport;

/// Whom to trust, and who to be. Cheap to clone; connections of different ones are never mixed.
#[derive(Clone)]
pub struct TlsConfig(Arc<ClientConfig>);

impl TlsConfig {
    /// Trusts the certificates in a PEM file, or in the files of a directory that are named as
    /// `openssl rehash` does (`5ed36f99.0`); without either, trusts anybody, which is no
    /// protection against whoever sits in between. A server's own certificate among those
    /// trusted is enough, whoever issued it. `identity` is a client certificate: PEM files with
    /// its chain and its key, which may be the same. The keys of connections are written to the
    /// file that the environment's `SSLKEYLOGFILE` names, if it does.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or has no certificate or key in it.
    pub fn new(authorities: Option<&Path>, identity: Option<(&Path, &Path)>) -> io::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match authorities {
            Some(path) => trust::these(path, false, Arc::clone(&provider))?,
            None => trust::anybody(Arc::clone(&provider)),
        };
        Self::with_verifier(provider, verifier, identity)
    }

    /// As [`new`](Self::new), but whatever name a certificate is for, if one of the authorities
    /// vouches for it.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn any_name(authorities: &Path, identity: Option<(&Path, &Path)>) -> io::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = trust::these(authorities, true, Arc::clone(&provider))?;
        Self::with_verifier(provider, verifier, identity)
    }

    fn with_verifier(
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ServerCertVerifier>,
        identity: Option<(&Path, &Path)>,
    ) -> io::Result<Self> {
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(trust::certificates(chain)?, private_key(key)?)
                .map_err(io::Error::other)?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.key_log = Arc::new(KeyLogFile::new());
        Ok(Self(Arc::new(config)))
    }

    /// Whether both are the same configuration, not merely equal ones.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Which protocols are offered, in this order (ALPN, RFC 7301). Default: `http/1.1`.
    #[must_use]
    pub fn with_alpn(&self, protocols: &[&str]) -> Self {
        let mut config = (*self.0).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Does the handshake with `host`, whose certificate has to be for that name.
    ///
    /// # Errors
    ///
    /// `InvalidData` when the certificate or the handshake is not sound.
    pub fn connect<T: Transport>(&self, host: &str, transport: T) -> io::Result<TlsStream<T>> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // A name may be written with the dot of the root, a certificate has it without.
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{host} is no name that a certificate can have"),
            )
        })?;
        let session = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        TlsStream::handshake(session.into(), transport)
    }
}

fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        trust::file_error(path, format_args!("no private key without a passphrase: {error}"))
    })
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}
