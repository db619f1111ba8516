//! Whole messages: what each changes, and the event that it is.

use std::ops::Range;

use crate::postgres::config::Protocol;
use crate::postgres::decode::{self, Fields};
use crate::postgres::event::{CopyFormat, FrontendEvent, Unit};
use crate::postgres::flow::Answer;
use crate::postgres::frontend::{Found, Frontend, UNLIKE_DESCRIPTION};
use crate::postgres::report::Report;
use crate::postgres::rows::{self, Types};
use crate::postgres::session::{CancelKey, TransactionStatus};
use crate::{Error, Inbox, Outbox};

impl Frontend {
    /// A whole message.
    #[inline]
    pub(super) fn message(
        &mut self,
        tag: u8,
        range: Range<usize>,
        inbox: &Inbox,
        outbox: &mut Outbox,
    ) -> Result<Option<Found>, Error> {
        let body = &inbox.bytes()[range.clone()];
        if let Some(startup) = &mut self.startup {
            startup.count()?;
        }
        match tag {
            b'N' => drop(Report::parse(body)?),
            b'E' => self.error(Report::parse(body)?, outbox),
            b'S' => {
                let mut fields = Fields::new(body);
                let (name, value) = (fields.string()?, fields.string()?);
                fields.end()?;
                self.parameters.set(name, value, self.config.limits.parameters)?;
            }
            b'A' => drop(notification(body)?),
            _ if self.startup.is_some() => return self.startup_message(tag, body, outbox),
            _ => return self.answer(tag, range, inbox),
        }
        Ok(Some(Found::Message(tag, range)))
    }

    fn error(&mut self, report: Report<'_>, outbox: &mut Outbox) {
        self.quick = 0;
        // An error that answers nothing is the last word too: the server is going down, or has
        // no patience with an idle session.
        if self.startup.is_some() || report.is_fatal() || !self.flow.fail() {
            self.closed = true;
            outbox.shutdown();
        } else if self.flow.owes_fence() {
            self.end_copy_in(outbox);
        }
    }

    fn startup_message(&mut self, tag: u8, body: &[u8], outbox: &mut Outbox) -> Result<Option<Found>, Error> {
        let Some(startup) = &mut self.startup else { return Ok(None) };
        match tag {
            b'R' => {
                let job = startup.authentication(body, outbox)?;
                return Ok(job.map(|job| Found::DeriveKey(Box::new(job))));
            }
            b'v' => startup.negotiate(body)?,
            b'K' => self.key = Some(CancelKey::parse(body, startup.protocol() > Protocol::V3_0)?),
            _ => {
                self.status = TransactionStatus::parse(body)?;
                self.protocol = startup.protocol();
                self.timers.connect = None;
                self.startup = None;
                self.parameters.shrink();
                return Ok(Some(Found::Started));
            }
        }
        Ok(None)
    }

    /// A message that answers one of ours.
    #[inline]
    fn answer(&mut self, tag: u8, range: Range<usize>, inbox: &Inbox) -> Result<Option<Found>, Error> {
        let body = &inbox.bytes()[range.clone()];
        let answer = self.flow.accept(tag)?;
        self.quick = 0;
        match tag {
            b'D' => return self.row(inbox, range).map(Some),
            b'Z' => {
                self.status = TransactionStatus::parse(body)?;
                self.columns = None;
                if answer == Answer::Ready {
                    let unit = Unit(self.flow.done - 1);
                    self.starts.pop_front();
                    if self.flow.is_idle() {
                        self.rest();
                    }
                    self.timers.done(unit);
                    return Ok(Some(Found::Ready(unit)));
                }
            }
            b'T' => {
                let columns = rows::columns(body)?;
                self.columns = self.flow.in_rows().then_some(columns.len());
                return Ok(Some(Found::Columns(columns.into())));
            }
            b't' => drop(Types::parse(body)?),
            b'C' => {
                let mut fields = Fields::new(body);
                fields.string()?;
                fields.end()?;
                self.columns = None;
            }
            b'G' | b'H' | b'W' => drop(CopyFormat::parse(body)?),
            b'd' => {}
            // ParseComplete, BindComplete, CloseComplete, NoData, EmptyQueryResponse,
            // PortalSuspended, CopyDone
            _ => decode::empty(body)?,
        }
        Ok((answer != Answer::Hidden).then_some(Found::Message(tag, range)))
    }

    /// An idle session keeps little, however long its pipeline was.
    fn rest(&mut self) {
        const KEPT: usize = 16;
        self.flow.shrink(KEPT);
        self.starts.shrink_to(KEPT);
    }

    fn row(&mut self, inbox: &Inbox, body: Range<usize>) -> Result<Found, Error> {
        let width = usize::from(Fields::new(&inbox.bytes()[body.clone()]).count()?);
        if self.columns.is_some_and(|described| described != width) {
            return Err(UNLIKE_DESCRIPTION);
        }
        self.width = width;
        if self.drain.is_none() {
            let limits = &self.config.limits;
            self.quick = limits.whole.min(limits.message);
        }
        Ok(Found::Row(body.start + 2..body.end))
    }
}

/// NotificationResponse: `Int32` process, `String` channel, `String` payload.
fn notification(body: &[u8]) -> Result<(i32, &[u8], &[u8]), Error> {
    let mut fields = Fields::new(body);
    let notification = (fields.int32()?, fields.string()?, fields.string()?);
    fields.end()?;
    Ok(notification)
}

/// The event that a message is. Everything in it has been read before, so this cannot fail.
#[inline]
pub(super) fn view(tag: u8, body: &[u8]) -> Result<FrontendEvent<'_>, Error> {
    let mut fields = Fields::new(body);
    Ok(match tag {
        b'C' => FrontendEvent::Complete { tag: fields.string()? },
        b'1' => FrontendEvent::Parsed,
        b'2' => FrontendEvent::Bound,
        b'3' => FrontendEvent::Closed,
        b'n' => FrontendEvent::NoColumns,
        b'I' => FrontendEvent::Empty,
        b's' => FrontendEvent::Suspended,
        b't' => FrontendEvent::Parameters(Types::parse(body)?),
        b'G' => FrontendEvent::CopyIn(CopyFormat::parse(body)?),
        b'H' => FrontendEvent::CopyOut(CopyFormat::parse(body)?),
        b'W' => FrontendEvent::CopyBoth(CopyFormat::parse(body)?),
        b'd' => FrontendEvent::CopyData { data: body, last: true },
        b'c' => FrontendEvent::CopyDone,
        b'N' => FrontendEvent::Notice(Report::parsed(body)),
        b'A' => {
            let (process, channel, payload) = notification(body)?;
            FrontendEvent::Notification { process, channel, payload }
        }
        b'S' => FrontendEvent::Parameter { name: fields.string()?, value: fields.string()? },
        _ => FrontendEvent::ServerError(Report::parsed(body)),
    })
}
