//! From the start-up message to the first ReadyForQuery.

use std::sync::Arc;

use crate::postgres::auth::Auth;
use crate::postgres::config::{Config, Protocol};
use crate::postgres::decode::{Fields, bad};
use crate::postgres::encode::{int32, string, untagged};
use crate::postgres::scram::{KeyDerivation, SaltedPassword};
use crate::{Entropy, Error, Outbox};

#[derive(Debug)]
pub(super) struct Startup {
    config: Arc<Config>,
    nonce: [u8; 18],
    auth: Auth,
    protocol: Protocol,
    /// NegotiateProtocolVersion came.
    negotiated: bool,
    messages: u32,
}

impl Startup {
    pub(super) fn new(config: Arc<Config>, entropy: &mut dyn Entropy) -> Self {
        let mut nonce = [0; 18];
        entropy.fill(&mut nonce);
        let protocol = config.protocol;
        Self { config, nonce, auth: Auth::Open, protocol, negotiated: false, messages: 0 }
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// StartupMessage: `Int32` version, then `String` names and values, and a zero.
    pub(super) fn begin(&self, outbox: &mut Outbox) {
        let config = &self.config;
        untagged(&mut outbox.tail(), |out| {
            int32(out, self.protocol.code());
            let database = config.database.as_ref().map(|database| (&b"database"[..], database));
            let own = [(&b"user"[..], &config.user)].into_iter().chain(database);
            let further = config.settings.iter().map(|(name, value)| (&name[..], value));
            for (name, value) in own.chain(further) {
                string(out, name);
                string(out, value);
            }
            out.push(0);
        });
    }

    /// Whether this type of message may come now.
    pub(super) fn admits(&self, tag: u8) -> bool {
        match tag {
            b'E' | b'N' => true,
            b'R' => !self.auth.is_done(),
            b'v' => !self.negotiated && matches!(self.auth, Auth::Open),
            b'K' | b'S' | b'Z' => self.auth.is_done(),
            _ => false,
        }
    }

    /// One more message: somebody may send notices for ever.
    pub(super) fn count(&mut self) -> Result<(), Error> {
        self.messages += 1;
        let most = self.config.limits.startup_messages;
        if self.messages > most { Err(Error::limit(0, "startup_messages", most.into())) } else { Ok(()) }
    }

    pub(super) fn authentication(
        &mut self,
        body: &[u8],
        outbox: &mut Outbox,
    ) -> Result<Option<KeyDerivation>, Error> {
        self.auth.request(body, &self.config, &self.nonce, outbox)
    }

    pub(super) fn derived(&mut self, key: &SaltedPassword, outbox: &mut Outbox) -> Result<(), Error> {
        self.auth.derived(key, outbox)
    }

    pub(super) const fn is_deriving(&self) -> bool {
        self.auth.is_deriving()
    }

    /// NegotiateProtocolVersion: `Int32` newest minor version that the server supports, `Int32`
    /// count, and the names of options that it does not know.
    pub(super) fn negotiate(&mut self, body: &[u8]) -> Result<(), Error> {
        let mut fields = Fields::new(body);
        // Servers send the minor version alone or the major one with it.
        let version = fields.int32()?;
        let minor = match version >> 16 {
            0 | 3 => version & 0xffff,
            _ => return Err(bad("the server speaks another major version of the protocol")),
        };
        let unknown = fields.int32()?;
        for _ in 0..unknown {
            let name = fields.string()?;
            let sent = |(it, _): &(Vec<u8>, _)| it == name && name.starts_with(b"_pq_.");
            if !self.config.settings.iter().any(sent) {
                return Err(bad("the server does not know an option that was not sent"));
            }
        }
        fields.end()?;
        // Protocol 3.1 does not exist.
        let protocol = match minor {
            0 => Protocol::V3_0,
            2 => Protocol::V3_2,
            _ => return Err(bad("the server speaks a protocol that is not known here")),
        };
        if protocol > self.protocol {
            return Err(bad("the server asks for a newer protocol than it was offered"));
        }
        if unknown < 0 || (protocol == self.protocol && unknown == 0) {
            return Err(bad("the server negotiates what needs no negotiation"));
        }
        (self.protocol, self.negotiated) = (protocol, true);
        Ok(())
    }
}

impl Protocol {
    /// "The protocol version number. The most significant 16 bits are the major version number.
    /// The least significant 16 bits are the minor version number."
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::V3_0 => 0x0003_0000,
            Self::V3_2 => 0x0003_0002,
        }
    }
}
