//! A session of PostgreSQL's protocol, and an independent reading of what it sends.

use std::time::Instant;

use balrog_proto::postgres::{
    Batch, Bind, ChannelBinding, Config, Format, Frontend, FrontendEvent, Parameter, Piece, Protocol,
};
use balrog_proto::{Link, Step};

use super::{Seen, Subject};

/// A session whose owner does one of a few things, chosen by a number, when the server is ready.
#[derive(Debug, Clone, Copy)]
pub struct Session(pub u8);

/// How often the owner asks for something.
const ROUNDS: usize = 3;

impl Session {
    fn config(self) -> Config {
        let mut config = Config::new("me");
        config.password = Some(b"sesame".to_vec());
        config.allow_cleartext = self.0 & 8 != 0;
        config.channel_binding = ChannelBinding::Disable;
        config.protocol = if self.0 & 16 != 0 { Protocol::V3_2 } else { Protocol::V3_0 };
        // So that no change of a few bytes makes hours of work, and every limit is in reach.
        config.limits.scram_iterations = 8;
        config.limits.startup = 8 * 1_024;
        config.limits.control = 4 * 1_024;
        config.limits.whole = if self.0 & 32 != 0 { 24 } else { 4 * 1_024 };
        config.limits.message = 1 << 20;
        config.limits.parameters = 2 * 1_024;
        config
    }

    fn ask(self, link: &mut Link<Frontend>) {
        match self.0 & 7 {
            0 => {
                link.query("select 1").unwrap();
            }
            1 => {
                let mut batch = Batch::new();
                batch.query("select $1", &[Parameter::Text(b"x")]).unwrap().sync();
                link.send(&mut batch).unwrap();
            }
            2 => {
                // Two units at once.
                let mut batch = Batch::new();
                batch.parse("s", "select $1", &[25]).unwrap().describe_statement("s").unwrap();
                batch.sync();
                let bind = Bind {
                    portal: "p",
                    statement: "s",
                    parameters: &[Parameter::Null],
                    results: &[Format::Binary],
                };
                batch.bind(&bind).unwrap().describe_portal("p").unwrap().execute("p", 2).unwrap();
                batch.close_portal("p").unwrap().close_statement("s").unwrap().sync();
                link.send(&mut batch).unwrap();
            }
            3 => {
                link.query("copy t from stdin; copy t to stdout").unwrap();
            }
            4 => {
                link.query("select 1").unwrap();
                link.query("select 2").unwrap();
            }
            _ => {
                link.query("select 1").unwrap();
                link.recover(Instant::now()).unwrap();
            }
        }
    }

    fn note(event: FrontendEvent<'_>, seen: &mut Seen) {
        match event {
            FrontendEvent::Piece(Piece::Data(data)) => seen.piece("column", data),
            FrontendEvent::CopyData { data, last } => {
                seen.piece("copy", data);
                if last {
                    seen.say("last");
                }
            }
            FrontendEvent::ServerError(report) => seen.say(format!("error {}", report.body().escape_ascii())),
            FrontendEvent::Notice(report) => seen.say(format!("notice {}", report.body().escape_ascii())),
            event => seen.say(format!("{event:?}")),
        }
    }
}

impl Subject for Session {
    type Machine = Frontend;

    fn open(&self) -> Link<Frontend> {
        let mut entropy = |bytes: &mut [u8]| bytes.fill(7);
        let mut link = Link::new(Frontend::new(self.config(), &mut entropy).unwrap());
        assert!(matches!(link.poll_event(Instant::now()), Ok(Step::NeedInput)));
        link
    }

    fn turn(&self, link: &mut Link<Frontend>, now: Instant, seen: &mut Seen) -> bool {
        enum Then {
            Nothing,
            Ask,
            Copy,
            CopyBoth,
        }
        let Some(event) = seen.event(link.poll_event(now)) else { return false };
        let then = match event {
            FrontendEvent::DeriveKey(job) => {
                seen.say("derive");
                let key = job.finish();
                link.key_derived(&key).unwrap();
                return true;
            }
            event => {
                let then = match &event {
                    FrontendEvent::Started => Then::Ask,
                    FrontendEvent::Ready { .. } => Then::Ask,
                    FrontendEvent::CopyIn(_) => Then::Copy,
                    FrontendEvent::CopyBoth(_) => Then::CopyBoth,
                    _ => Then::Nothing,
                };
                Self::note(event, seen);
                then
            }
        };
        match then {
            Then::Ask if link.is_idle() => {
                if seen.said().filter(|what| what.starts_with("Ready")).count() < ROUNDS {
                    self.ask(link);
                } else {
                    link.terminate();
                }
            }
            Then::Copy => {
                link.copy_data(b"1\n").unwrap();
                link.copy_done().unwrap();
            }
            Then::CopyBoth => link.copy_fail("no").unwrap(),
            Then::Ask | Then::Nothing => {}
        }
        true
    }

    fn room(&self) -> usize {
        // What is collected whole, or a piece of what is not.
        64 * 1_024 + 5
    }

    fn check(&self, seen: &Seen) {
        let (_, messages) = messages(&seen.sent);
        for (index, (tag, _)) in messages.iter().enumerate() {
            assert!(b"pQPBDECSHdcfX".contains(tag), "{}", tag.escape_ascii());
            assert!(*tag != b'X' || index == messages.len() - 1, "messages behind Terminate");
        }
        if seen.is_over() {
            assert!(seen.shutdown);
        }
    }
}

/// The start-up message without its length, and each message behind it; panics if they are none.
pub fn messages(sent: &[u8]) -> (&[u8], Vec<(u8, &[u8])>) {
    let take = |bytes: &mut &'_ [u8]| -> usize {
        let (length, rest) = bytes.split_first_chunk::<4>().expect("a length");
        *bytes = rest;
        usize::try_from(u32::from_be_bytes(*length)).unwrap().checked_sub(4).expect("a length of 4 or more")
    };
    let mut rest = sent;
    let n = take(&mut rest);
    let (startup, mut rest) = rest.split_at(n);
    let mut found = Vec::new();
    while let [tag, behind @ ..] = rest {
        rest = behind;
        let n = take(&mut rest);
        let (body, behind) = rest.split_at(n);
        found.push((*tag, body));
        rest = behind;
    }
    (startup, found)
}
