//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677, and "SASL Authentication" of the
//! protocol's documentation), with a nonce from outside and a key derivation in steps.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::postgres::decode::bad;
use crate::{Error, Rule, Violation};

type HmacSha256 = Hmac<Sha256>;

/// Server nonces and salts are 18 and 16 bytes in PostgreSQL; more than this helps nobody.
const LONGEST: usize = 1024;

/// What the exchange says about channel binding, the `gs2-cbind-flag` of RFC 5802.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binding {
    /// `n`: we cannot, or are not to.
    Unsupported,
    /// `y`: we could, and the server has not offered it. Were that a lie of somebody between, the
    /// server would notice.
    NotOffered,
    /// `p=tls-server-end-point`, with the hash of the server's certificate.
    EndPoint(Vec<u8>),
}

impl Binding {
    const fn gs2_header(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }
}

/// One exchange.
pub(super) struct Scram {
    binding: Binding,
    nonce: String,
    state: State,
}

enum State {
    /// The client's first message is sent.
    First,
    /// The server's first message is here; the key is being derived.
    Deriving { server_first: Vec<u8>, nonce_end: usize },
    /// The client's proof is sent. Holds what the server has to sign, and the key for it.
    Proven { auth_message: Vec<u8>, server_key: [u8; 32] },
    /// The server has proven that it knows the password too.
    Done,
}

impl Scram {
    pub(super) fn new(binding: Binding, nonce: &[u8]) -> Self {
        Self { binding, nonce: STANDARD.encode(nonce), state: State::First }
    }

    /// The server takes the user's name from the start-up message and ignores this one.
    fn client_first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    pub(super) fn client_first(&self) -> Vec<u8> {
        format!("{}{}", self.binding.gs2_header(), self.client_first_bare()).into_bytes()
    }

    /// AuthenticationSASLContinue: `r=nonce,s=salt,i=iterations`.
    pub(super) fn server_first(
        &mut self,
        message: &[u8],
        password: &[u8],
        most: u32,
    ) -> Result<KeyDerivation, Error> {
        if !matches!(self.state, State::First) {
            return Err(bad("a SCRAM message out of order"));
        }
        let mut attributes = message.split(|&byte| byte == b',');
        let mut attribute = |name: &[u8]| attributes.next().and_then(|it| it.strip_prefix(name));
        let malformed = rfc5802("the server's first SCRAM message is malformed", 7);
        let nonce = attribute(b"r=").ok_or(malformed)?;
        let salt = attribute(b"s=").ok_or(malformed)?;
        let iterations = attribute(b"i=").ok_or(malformed)?;
        // "The client MUST verify that the initial part of the nonce used in subsequent messages
        // is the same as the nonce it initially specified." And the server must have added to it.
        let own = nonce.strip_prefix(self.nonce.as_bytes()).filter(|added| !added.is_empty());
        let printable = |byte: &u8| matches!(byte, b'!'..=b'~');
        if own.is_none() || nonce.len() > LONGEST || !nonce.iter().all(printable) {
            return Err(rfc5802("the server's SCRAM nonce is not ours continued", 5));
        }
        let salt = STANDARD.decode(salt).map_err(|_| malformed)?;
        if salt.is_empty() || salt.len() > LONGEST {
            return Err(rfc5802("the SCRAM salt is empty or too long", 5));
        }
        // posit-number = %x31-39 *DIGIT
        if !iterations.first().is_some_and(|digit| matches!(digit, b'1'..=b'9')) {
            return Err(malformed);
        }
        let iterations = iterations.iter().try_fold(0_u64, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0')).ok_or(malformed)?;
            Ok(number.saturating_mul(10).saturating_add(digit))
        })?;
        let iterations = u32::try_from(iterations).unwrap_or(u32::MAX);
        if iterations > most {
            return Err(Error::limit(0, "scram_iterations", u64::from(most)));
        }
        self.state = State::Deriving { server_first: message.to_vec(), nonce_end: 2 + nonce.len() };
        Ok(KeyDerivation::new(&prepare(password), salt, iterations))
    }

    /// The client's last message: `c=binding,r=nonce,p=proof`.
    pub(super) fn client_final(&mut self, key: &SaltedPassword) -> Result<Vec<u8>, Error> {
        let State::Deriving { server_first, nonce_end } = &self.state else {
            return Err(bad("a SCRAM message out of order"));
        };
        let mut bound = self.binding.gs2_header().as_bytes().to_vec();
        if let Binding::EndPoint(hash) = &self.binding {
            bound.extend_from_slice(hash);
        }
        let mut last = format!("c={},", STANDARD.encode(bound)).into_bytes();
        last.extend_from_slice(&server_first[..*nonce_end]);
        // AuthMessage := client-first-message-bare + "," + server-first-message + "," +
        //                client-final-message-without-proof
        let mut auth_message = self.client_first_bare().into_bytes();
        for part in [server_first, &last] {
            auth_message.push(b',');
            auth_message.extend_from_slice(part);
        }
        // ClientProof := ClientKey XOR HMAC(H(ClientKey), AuthMessage)
        let client_key = hmac(&key.0, &[b"Client Key"]);
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let mut proof = hmac(&stored_key, &[&auth_message]);
        proof.iter_mut().zip(client_key).for_each(|(proof, key)| *proof ^= key);
        last.extend_from_slice(b",p=");
        last.extend_from_slice(STANDARD.encode(proof).as_bytes());
        self.state = State::Proven { auth_message, server_key: hmac(&key.0, &[b"Server Key"]) };
        Ok(last)
    }

    /// AuthenticationSASLFinal: `v=signature`, by which the server proves itself.
    pub(super) fn server_final(&mut self, message: &[u8]) -> Result<(), Error> {
        let State::Proven { auth_message, server_key } = &self.state else {
            return Err(bad("a SCRAM message out of order"));
        };
        let malformed = rfc5802("the server's last SCRAM message is malformed", 7);
        let signature = message.strip_prefix(b"v=").ok_or(malformed)?;
        let signature = signature.split(|&byte| byte == b',').next().unwrap_or_default();
        let signature = STANDARD.decode(signature).map_err(|_| malformed)?;
        // Compared in constant time.
        let mut mac = keyed(server_key);
        mac.update(auth_message);
        mac.verify_slice(&signature)
            .map_err(|_| bad("the server does not know the password: its signature is wrong"))?;
        self.state = State::Done;
        Ok(())
    }

    /// Whether the server has proven itself.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) const fn is_deriving(&self) -> bool {
        matches!(self.state, State::Deriving { .. })
    }
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").finish_non_exhaustive()
    }
}

/// The slow part of SCRAM, `Hi(password, salt, iterations)`: PBKDF2 with HMAC-SHA-256.
///
/// 4,096 iterations, PostgreSQL's default, take about a millisecond, and a server may ask for many
/// more. So the machine does not do it: whoever owns the link does, at once with
/// [`finish`](Self::finish), on another thread (it is `Send`), in slices with [`step`](Self::step),
/// or not at all when it kept the key of an earlier connection with the same password,
/// [`salt`](Self::salt) and [`iterations`](Self::iterations).
#[derive(Clone)]
pub struct KeyDerivation {
    mac: HmacSha256,
    salt: Vec<u8>,
    iterations: u32,
    done: u32,
    last: [u8; 32],
    sum: [u8; 32],
}

/// What a password, a salt and a number of iterations come to. It is as secret as the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SaltedPassword([u8; 32]);

impl KeyDerivation {
    fn new(password: &[u8], salt: Vec<u8>, iterations: u32) -> Self {
        Self { mac: keyed(password), salt, iterations, done: 0, last: [0; 32], sum: [0; 32] }
    }

    /// The server's salt for this user.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// How many iterations the server asks for; at most the limit `scram_iterations`.
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Does at most so many iterations (0.2 to 0.5 microseconds each); gives the key once all are
    /// done.
    pub fn step(&mut self, iterations: u32) -> Option<SaltedPassword> {
        let end = self.iterations.min(self.done.saturating_add(iterations));
        while self.done < end {
            // U1 := HMAC(str, salt + INT(1)), U2 := HMAC(str, U1), ... all XORed together
            let mut mac = self.mac.clone();
            if self.done == 0 {
                mac.update(&self.salt);
                mac.update(&1_u32.to_be_bytes());
            } else {
                mac.update(&self.last);
            }
            self.last = mac.finalize().into_bytes().into();
            self.sum.iter_mut().zip(self.last).for_each(|(sum, byte)| *sum ^= byte);
            self.done += 1;
        }
        (self.done == self.iterations).then_some(SaltedPassword(self.sum))
    }

    /// Does all of it.
    pub fn finish(mut self) -> SaltedPassword {
        self.step(u32::MAX).unwrap_or(SaltedPassword(self.sum))
    }
}

impl fmt::Debug for KeyDerivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyDerivation").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl fmt::Debug for SaltedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltedPassword(..)")
    }
}

/// "If the password is not valid UTF-8, or contains characters prohibited by SASLprep, it is used
/// as is": so do the server and libpq (`pg_saslprep`).
fn prepare(password: &[u8]) -> Vec<u8> {
    std::str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok())
        .map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes())
}

const fn rfc5802(reason: &'static str, section: u8) -> Error {
    Error::Violation(Violation { reason, rule: Rule::Rfc(5802, [section, 0, 0]), code: 0 })
}

fn keyed(key: &[u8]) -> HmacSha256 {
    // A key of any length will do: the error cannot be.
    HmacSha256::new_from_slice(key).unwrap_or_else(|_| HmacSha256::new(&Default::default()))
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 section 3, but for the user's name, which PostgreSQL leaves empty.
    fn exchange(password: &[u8], first: &str) -> Result<(Scram, KeyDerivation), Error> {
        let mut scram = Scram::new(Binding::Unsupported, b"");
        scram.nonce = "rOprNGfwEbeRWgbNEkqO".into();
        let job = scram.server_first(first.as_bytes(), password, 100_000)?;
        Ok((scram, job))
    }

    const FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_key_of_rfc_7677() {
        let (_, job) = exchange(b"pencil", FIRST).unwrap();
        assert_eq!((job.iterations(), job.salt().len()), (4096, 16));
        let mut steps = job.clone();
        let mut turns = 1;
        let stepped = loop {
            match steps.step(1000) {
                Some(key) => break key,
                None => turns += 1,
            }
        };
        assert_eq!(turns, 5);
        let key = job.finish();
        assert_eq!(key, stepped);
        // The proof of the RFC, with the RFC's AuthMessage.
        let auth_message = format!(
            "n=user,r=rOprNGfwEbeRWgbNEkqO,{FIRST},c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        );
        let client_key = hmac(&key.0, &[b"Client Key"]);
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        let mut proof = hmac(&stored, &[auth_message.as_bytes()]);
        proof.iter_mut().zip(client_key).for_each(|(proof, key)| *proof ^= key);
        assert_eq!(STANDARD.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let signature = hmac(&hmac(&key.0, &[b"Server Key"]), &[auth_message.as_bytes()]);
        assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_whole_exchange_with_a_server_that_knows_the_password_and_one_that_does_not() {
        for (server_password, accepted) in [(&b"pencil"[..], true), (b"pencils", false)] {
            let (mut scram, job) = exchange(b"pencil", FIRST).unwrap();
            let (_, server) = exchange(server_password, FIRST).unwrap();
            assert!(!scram.is_done());
            let last = scram.client_final(&job.finish()).unwrap();
            assert!(last.starts_with(b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="));
            let State::Proven { auth_message, .. } = &scram.state else { panic!("no proof") };
            let signature = hmac(&hmac(&server.finish().0, &[b"Server Key"]), &[auth_message]);
            let answer = format!("v={}", STANDARD.encode(signature));
            assert_eq!(scram.server_final(answer.as_bytes()).is_ok(), accepted);
            assert_eq!(scram.is_done(), accepted);
        }
    }

    #[test]
    fn what_a_server_may_not_say_first() {
        let ours = "r=rOprNGfwEbeRWgbNEkqO";
        for first in [
            format!("{ours},s=AAAA,i=1"),
            "r=somebodyElses,s=AAAA,i=1".into(),
            format!("m=must,{ours}x,s=AAAA,i=1"),
            format!("{ours}x,s=,i=1"),
            format!("{ours}x,s=A,i=1"),
            format!("{ours}x,s=AAAA"),
            format!("{ours}x,s=AAAA,i=0"),
            format!("{ours}x,s=AAAA,i=+1"),
            format!("{ours}x,s=AAAA,i=-1"),
            format!("{ours}x,s=AAAA,i=01"),
            format!("{ours}x,s=AAAA,i=1x"),
            format!("{ours}x,s=AAAA,i=100001"),
            format!("{ours}x,s=AAAA,i=2147483648"),
            format!("{ours}x,s=AAAA,i=99999999999999999999999999"),
            format!("{ours}{},s=AAAA,i=1", "x".repeat(1024)),
            format!("{ours}x,s={},i=1", "AAAA".repeat(400)),
            format!("{ours}\u{7f},s=AAAA,i=1"),
            String::new(),
        ] {
            assert!(exchange(b"pencil", &first).is_err(), "{first}");
        }
        for first in [format!("{ours}x,s=AAAA,i=100000"), format!("{ours}x,s=AAAA,i=1,x=later")] {
            assert!(exchange(b"pencil", &first).is_ok(), "{first}");
        }
    }

    #[test]
    fn passwords_are_prepared_as_rfc_4013_says_and_taken_as_they_are_where_it_forbids_them() {
        assert_eq!(prepare("I\u{ad}X".as_bytes()), b"IX");
        assert_eq!(prepare("\u{aa}".as_bytes()), b"a");
        assert_eq!(prepare("\u{2168}".as_bytes()), b"IX");
        assert_eq!(prepare(b"\x07"), b"\x07");
        assert_eq!(prepare(b"\xff"), b"\xff");
    }

    #[test]
    fn what_is_bound() {
        for (binding, header, bound) in [
            (Binding::Unsupported, "n,,", "biws"),
            (Binding::NotOffered, "y,,", "eSws"),
            (
                Binding::EndPoint(b"hash".to_vec()),
                "p=tls-server-end-point,,",
                "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsaGFzaA==",
            ),
        ] {
            let mut scram = Scram::new(binding, b"nonce");
            assert_eq!(scram.client_first(), format!("{header}n=,r=bm9uY2U=").into_bytes());
            let job = scram.server_first(b"r=bm9uY2U=x,s=AAAA,i=1", b"", 1).unwrap();
            let last = scram.client_final(&job.finish()).unwrap();
            assert!(last.starts_with(format!("c={bound},r=bm9uY2U=x,p=").as_bytes()));
        }
    }
}
