//! Whose certificates are believed.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// A verifier that trusts the certificates in a file or a directory, for the name that is asked for
/// or for any.
pub(super) fn these(
    path: &Path,
    any_name: bool,
    provider: Arc<CryptoProvider>,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    let found = all(path)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.iter().cloned());
    if roots.is_empty() {
        return Err(file_error(path, "no certificate in it"));
    }
    let roots = Arc::new(roots);
    let any_name = any_name.then(|| (Arc::clone(&roots), provider.signature_verification_algorithms));
    let web =
        WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(io::Error::other)?;
    Ok(Arc::new(These { web, pinned: found.into_iter().collect(), any_name }))
}

/// A verifier that believes everybody, for `verify=False`.
pub(super) fn anybody(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody(provider))
}

/// The file itself, or those of a directory that OpenSSL would look at.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir()? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_hashed_name) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// `HHHHHHHH.D`: the hash of the subject, and a number to tell equal ones apart.
fn is_hashed_name(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The certificates of a file, or of those files of a directory that OpenSSL would look at.
pub(super) fn all(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    for file in files(path)? {
        found.extend(certificates(&file)?);
    }
    Ok(found)
}

pub(super) fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| file_error(path, error))
}

pub(super) fn file_error(path: &Path, error: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

#[derive(Debug)]
struct These {
    web: Arc<WebPkiServerVerifier>,
    /// All that are trusted, authorities or not.
    pinned: HashSet<CertificateDer<'static>>,
    /// Names are not looked at.
    any_name: Option<(Arc<RootCertStore>, WebPkiSupportedAlgorithms)>,
}

impl These {
    /// Whether an authority vouches for the certificate, and for the name if that matters.
    fn vouched(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((roots, algorithms)) = &self.any_name else {
            let web = &self.web;
            return web.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for These {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.vouched(end_entity, intermediates, server_name, ocsp_response, now) {
            // A self-signed certificate that calls itself an authority (what `openssl req -x509`
            // makes), or one whose issuer is unknown: trusted itself, nobody need vouch for it.
            // Its dates are in order, for they are looked at first.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)))
                if self.pinned.contains(end_entity) =>
            {
                if self.any_name.is_none() {
                    let parsed = ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&parsed, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashed_names_of_a_directory_count() {
        for name in ["5ed36f99.0", "ABCDEF01.12"] {
            assert!(is_hashed_name(name), "{name}");
        }
        for name in ["5ed36f99", "5ed36f99.", "5ed36f99.r0", "5ed36f9.0", "ca.pem", "5ed36f9g.0"] {
            assert!(!is_hashed_name(name), "{name}");
        }
    }
}
