//! What names a TLS session's server to the protocol inside of it (RFC 5929).

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// The `tls-server-end-point` of a server's certificate in DER: its hash "using the same hash function
/// as in the certificate's signatureAlgorithm", but SHA-256 in place of MD5 and SHA-1 (RFC 5929
/// section 4.1). `None` when that is undefined, as for Ed25519, or when it is no certificate.
pub(super) fn of(certificate: &[u8]) -> Option<Vec<u8>> {
    // Certificate: tbsCertificate, signatureAlgorithm { algorithm, parameters }, signatureValue.
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (_, behind) = element(fields, SEQUENCE)?;
    let (algorithm, _) = element(behind, SEQUENCE)?;
    let (name, parameters) = element(algorithm, OBJECT)?;
    let hash = match name {
        [rsa @ .., 10] if rsa == RSA => pss_hash(parameters)?,
        [rsa @ .., number] if rsa == RSA => match number {
            4 | 5 | 11 => Hash::Sha256,
            12 => Hash::Sha384,
            13 => Hash::Sha512,
            14 => Hash::Sha224,
            _ => return None,
        },
        [ecdsa @ .., 1] if ecdsa == ECDSA => Hash::Sha256,
        [ecdsa @ .., 3, number] if ecdsa == ECDSA => match number {
            1 => Hash::Sha224,
            2 => Hash::Sha256,
            3 => Hash::Sha384,
            4 => Hash::Sha512,
            _ => return None,
        },
        _ => return None,
    };
    Some(match hash {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
/// `[0]`, constructed.
const FIRST: u8 = 0xa0;

/// 1.2.840.113549.1.1: `4` md5WithRSAEncryption, `5` sha1, `10` RSASSA-PSS, `11` sha256, … (RFC 8017)
const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
/// 1.2.840.10045.4: `1` ecdsa-with-SHA1, `3.1` SHA224, `3.2` SHA256, … (RFC 5758)
const ECDSA: [u8; 6] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4];
/// 2.16.840.1.101.3.4.2: `1` SHA-256, `2` SHA-384, `3` SHA-512, `4` SHA-224 (RFC 5754)
const SHA2: [u8; 8] = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];

/// `RSASSA-PSS-params`: `[0]` hash (SHA-1 if it is not there), … (RFC 4055 section 3.1)
fn pss_hash(parameters: &[u8]) -> Option<Hash> {
    let (fields, _) = element(parameters, SEQUENCE)?;
    let Some((hash, _)) = element(fields, FIRST) else { return Some(Hash::Sha256) };
    let (hash, _) = element(hash, SEQUENCE)?;
    match element(hash, OBJECT)?.0 {
        [sha @ .., 2] if sha == SHA2 => Some(Hash::Sha384),
        [sha @ .., 3] if sha == SHA2 => Some(Hash::Sha512),
        [sha @ .., 4] if sha == SHA2 => Some(Hash::Sha224),
        _ => Some(Hash::Sha256),
    }
}

/// The content of the DER element with this tag that comes first, and what is behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[first, length], rest) = der.split_first_chunk()?;
    if first != tag {
        return None;
    }
    // From 128 on, the length is in as many bytes as the first one says.
    let (bytes, length) = match length {
        0..=127 => (0, usize::from(length)),
        0x81..=0x84 => {
            let bytes = usize::from(length & 0x7f);
            (bytes, rest.get(..bytes)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
        _ => return None,
    };
    rest[bytes..].split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(of(&der).unwrap(), Sha256::digest(&der).to_vec());
        let der = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(of(&der).unwrap(), Sha384::digest(&der).to_vec());
        assert_eq!(of(&certificate(&rcgen::PKCS_ED25519)), None);
    }

    /// A certificate as far as it is looked at.
    fn signed_by(algorithm: &[u8]) -> Vec<u8> {
        let sequence = |content: &[u8]| [&[SEQUENCE, content.len() as u8], content].concat();
        sequence(&[sequence(b"tbs"), sequence(algorithm)].concat())
    }

    #[test]
    fn algorithms_of_rsa() {
        let object =
            |prefix: &[u8], number: u8| [&[OBJECT, prefix.len() as u8 + 1], prefix, &[number]].concat();
        for (number, size) in [(4, 32), (5, 32), (11, 32), (12, 48), (13, 64), (14, 28)] {
            let der = signed_by(&object(&RSA, number));
            assert_eq!(of(&der).map(|hash| hash.len()), Some(size), "{number}");
        }
        for (number, size) in [(1, 32), (2, 48), (3, 64), (4, 28)] {
            let hash = object(&SHA2, number);
            let length = hash.len() as u8;
            let parameters =
                [&[SEQUENCE, length + 4, FIRST, length + 2, SEQUENCE, length][..], &hash].concat();
            let der = signed_by(&[object(&RSA, 10), parameters].concat());
            assert_eq!(of(&der).map(|hash| hash.len()), Some(size), "{number}");
        }
        let der = signed_by(&[object(&RSA, 10), vec![SEQUENCE, 0]].concat());
        assert_eq!(of(&der).map(|hash| hash.len()), Some(32));
        // Cut anywhere, it is none.
        assert!((0..der.len()).all(|end| of(&der[..end]).is_none()));
        assert_eq!(of(&signed_by(&object(&RSA, 1))), None);
    }
}
