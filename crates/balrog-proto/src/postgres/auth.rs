//! The server's authentication requests, against what the configuration accepts.

use md5::{Digest, Md5};

use crate::postgres::config::{AuthMethods, Channel, ChannelBinding, Config};
use crate::postgres::decode::{Fields, bad};
use crate::postgres::encode::{int32, message, string};
use crate::postgres::scram::{Binding, KeyDerivation, SaltedPassword, Scram};
use crate::{Error, Outbox};

/// How far the log-in is.
#[derive(Debug)]
pub(super) enum Auth {
    /// The server has not asked for anything yet.
    Open,
    /// A password is sent, in clear text or hashed.
    Answered,
    /// SCRAM, bound to the TLS session or not.
    Scram { scram: Scram, bound: bool },
    /// AuthenticationOk came.
    Done,
}

impl Auth {
    /// An authentication request, `R`: `Int32` kind and what belongs to it.
    pub(super) fn request(
        &mut self,
        body: &[u8],
        config: &Config,
        nonce: &[u8],
        outbox: &mut Outbox,
    ) -> Result<Option<KeyDerivation>, Error> {
        let mut fields = Fields::new(body);
        match (fields.int32()?, &mut *self) {
            // AuthenticationOk
            (0, _) => {
                fields.end()?;
                self.accept(config)?;
                *self = Self::Done;
            }
            // AuthenticationCleartextPassword
            (3, Self::Open) => {
                fields.end()?;
                demand(config, AuthMethods::PASSWORD)?;
                if config.channel == Channel::Plain && !config.allow_cleartext {
                    return Err(bad("the server wants the password in clear text, without TLS"));
                }
                password_message(outbox, password(config)?);
                *self = Self::Answered;
            }
            // AuthenticationMD5Password: Byte4 salt
            (5, Self::Open) => {
                let salt = fields.oid()?.to_be_bytes();
                fields.end()?;
                demand(config, AuthMethods::MD5)?;
                password_message(outbox, &md5_password(&config.user, password(config)?, salt));
                *self = Self::Answered;
            }
            // AuthenticationSASL: names of mechanisms, each a string, and a zero
            (10, Self::Open) => *self = begin_sasl(fields, config, nonce, outbox)?,
            // AuthenticationSASLContinue
            (11, Self::Scram { scram, .. }) => {
                let most = config.limits.scram_iterations;
                return scram.server_first(fields.rest(), password(config)?, most).map(Some);
            }
            // AuthenticationSASLFinal
            (12, Self::Scram { scram, .. }) => scram.server_final(fields.rest())?,
            (3 | 5 | 10..=12, _) => return Err(bad("an authentication request out of order")),
            (2 | 6..=9, _) => {
                return Err(bad("the server wants Kerberos, GSSAPI or SSPI, which are not supported"));
            }
            _ => return Err(bad("the server wants an unknown way to log in")),
        }
        Ok(None)
    }

    /// Whether AuthenticationOk may come: a server that skips what was demanded is not to be
    /// talked to.
    fn accept(&self, config: &Config) -> Result<(), Error> {
        let (method, bound) = match self {
            Self::Open => (AuthMethods::NONE, false),
            Self::Answered => return Ok(()),
            Self::Scram { scram, bound } if scram.is_done() => (AuthMethods::SCRAM, *bound),
            Self::Scram { .. } => {
                return Err(bad("the server has not proven that it knows the password"));
            }
            Self::Done => return Err(bad("AuthenticationOk came twice")),
        };
        if !bound && config.channel_binding == ChannelBinding::Require {
            return Err(NOT_BOUND);
        }
        if config.require_auth.contains(method) { Ok(()) } else { Err(NOT_ACCEPTED) }
    }

    /// The key was derived: sends the proof.
    pub(super) fn derived(&mut self, key: &SaltedPassword, outbox: &mut Outbox) -> Result<(), Error> {
        let Self::Scram { scram, .. } = self else { return Err(bad("nothing was to be derived")) };
        let last = scram.client_final(key)?;
        // SASLResponse
        message(&mut outbox.tail(), b'p', |out| out.extend_from_slice(&last));
        Ok(())
    }

    /// Whether the machine waits for a derived key.
    pub(super) const fn is_deriving(&self) -> bool {
        matches!(self, Self::Scram { scram, .. } if scram.is_deriving())
    }

    pub(super) const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

const NOT_BOUND: Error = bad("channel binding is required, and the server does without");
const NOT_ACCEPTED: Error = bad("the server wants a way to log in that require_auth does not allow");

/// Whether this `method`, which is not bound to the channel, may be used.
fn demand(config: &Config, method: AuthMethods) -> Result<(), Error> {
    if config.channel_binding == ChannelBinding::Require {
        return Err(NOT_BOUND);
    }
    if config.require_auth.contains(method) { Ok(()) } else { Err(NOT_ACCEPTED) }
}

fn password(config: &Config) -> Result<&[u8], Error> {
    match config.password.as_deref() {
        None | Some([]) => Err(bad("the server wants a password, and there is none")),
        Some(password) => Ok(password),
    }
}

fn password_message(outbox: &mut Outbox, password: &[u8]) {
    message(&mut outbox.tail(), b'p', |out| string(out, password));
}

fn begin_sasl(
    mut fields: Fields<'_>,
    config: &Config,
    nonce: &[u8],
    outbox: &mut Outbox,
) -> Result<Auth, Error> {
    let (mut plain, mut plus) = (false, false);
    loop {
        match fields.string()? {
            b"" => break,
            b"SCRAM-SHA-256" => plain = true,
            b"SCRAM-SHA-256-PLUS" => plus = true,
            _ => {}
        }
    }
    fields.end()?;
    if !config.require_auth.contains(AuthMethods::SCRAM) {
        return Err(NOT_ACCEPTED);
    }
    let end_point = match &config.channel {
        // "The server will offer it only on a connection with TLS."
        Channel::Plain if plus => {
            return Err(bad("the server offers SCRAM-SHA-256-PLUS without TLS"));
        }
        Channel::Tls { end_point: Some(hash) } if config.channel_binding != ChannelBinding::Disable => {
            Some(hash)
        }
        _ => None,
    };
    let (mechanism, binding) = match end_point {
        Some(hash) if plus => ("SCRAM-SHA-256-PLUS", Binding::EndPoint(hash.clone())),
        _ if config.channel_binding == ChannelBinding::Require => return Err(NOT_BOUND),
        _ if !plain => return Err(bad("the server offers no SASL mechanism that is known here")),
        Some(_) => ("SCRAM-SHA-256", Binding::NotOffered),
        None => ("SCRAM-SHA-256", Binding::Unsupported),
    };
    password(config)?;
    let bound = matches!(binding, Binding::EndPoint(_));
    let scram = Scram::new(binding, nonce);
    let first = scram.client_first();
    // SASLInitialResponse: String mechanism, Int32 length, Byten response
    message(&mut outbox.tail(), b'p', |out| {
        string(out, mechanism.as_bytes());
        int32(out, u32::try_from(first.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&first);
    });
    Ok(Auth::Scram { scram, bound })
}

/// `concat('md5', md5(concat(md5(concat(password, username)), random-salt)))`
fn md5_password(user: &[u8], password: &[u8], salt: [u8; 4]) -> Vec<u8> {
    let inner = hex(&Md5::new().chain_update(password).chain_update(user).finalize());
    let outer = hex(&Md5::new().chain_update(inner).chain_update(salt).finalize());
    [b"md5", &outer[..]].concat()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_as_postgresql_computes_it() {
        assert_eq!(
            md5_password(b"md5_user", b"password", [0x2a, 0x3d, 0x8f, 0xe0]),
            b"md562af4dd09bbb41884907a838a3233294"
        );
    }
}
