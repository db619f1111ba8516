use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{KeyLogFile, RootCertStore, ServerConfig, ServerConnection};

use super::{TlsStream, private_key, trust};
use crate::net::Transport;

/// The server's side of TLS: who it is, and whom it lets in. Cheap to clone.
#[derive(Clone)]
pub struct TlsAcceptor(Arc<ServerConfig>);

impl TlsAcceptor {
    /// A server with the certificate chain and the key of these PEM files, which may be the same
    /// file. With `authorities`, a PEM file or a directory of them as in
    /// [`TlsConfig::new`](super::TlsConfig::new), clients have to have a certificate of theirs.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, has no certificate or key in it, or they do not fit together.
    pub fn new(chain: &Path, key: &Path, authorities: Option<&Path>) -> io::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(trust::all(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
            }
        };
        let chain = trust::certificates(chain)?;
        let mut config = builder.with_single_cert(chain, private_key(key)?).map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.key_log = Arc::new(KeyLogFile::new());
        Ok(Self(Arc::new(config)))
    }

    /// Does the handshake with whoever has connected.
    ///
    /// # Errors
    ///
    /// `InvalidData` when the peer's messages or its certificate are not sound; `TimedOut` by the
    /// transport's time-outs.
    pub fn accept<T: Transport>(&self, transport: T) -> io::Result<TlsStream<T>> {
        let session = ServerConnection::new(Arc::clone(&self.0)).map_err(io::Error::other)?;
        TlsStream::handshake(session.into(), transport)
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").finish_non_exhaustive()
    }
}
