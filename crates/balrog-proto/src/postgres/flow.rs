//! Which answer belongs to which message.
//!
//! Every message that is sent and gets an answer is put into a queue. Answers come in the same
//! order; the table in [`Flow::accept`] says which message types may come for the first in the
//! queue, and when it is answered. After an error the server skips what it was sent up to the next
//! Sync ("Extended Query"), and so does the queue.

use std::collections::VecDeque;

use crate::Error;
use crate::postgres::decode::bad;

/// A message that the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// A simple query, which ends with ReadyForQuery of its own.
    Query,
    /// Prepares a statement.
    Parse,
    /// Makes a portal of a statement and its parameters.
    Bind,
    /// Asks for the parameters and columns of a statement.
    DescribeStatement,
    /// Asks for the columns of a portal.
    DescribePortal,
    /// Runs a portal.
    Execute,
    /// Drops a statement or a portal.
    Close,
    /// Ends a group of messages: an implicit transaction, and what an error skips.
    Sync,
}

/// The first in the queue, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Nothing has come for it, or a result of a simple query is complete and another may follow.
    #[default]
    Waiting,
    /// The parameters of a statement came; its columns follow.
    Parameters,
    /// Rows come.
    Rows,
    /// COPY, in one direction or both.
    Copy { to_server: bool, from_server: bool },
    /// COPY is over in all directions; CommandComplete follows.
    Copied,
    /// An error came. Up to the next Sync nothing is answered.
    Failed,
}

/// See [`Flow::begin_copy_in`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fence {
    #[default]
    None,
    /// A Sync went out before the server said that it wants data.
    Needed,
    /// The fence is sent; so many ReadyForQuery came before it.
    Sent(u8),
}

#[derive(Debug, Default)]
pub(super) struct Flow {
    queue: VecDeque<Command>,
    state: State,
    fence: Fence,
    /// Units (see [`Unit`](super::Unit)) that were begun and that are complete.
    pub(super) begun: u64,
    pub(super) done: u64,
}

/// What the caller has to do about a message, beside telling its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    Plain,
    /// Not even tell: it belongs to a fence.
    Hidden,
    /// A unit is complete.
    Ready,
}

impl Flow {
    /// A message was sent.
    pub(super) fn push(&mut self, command: Command) {
        self.queue.push_back(command);
        if matches!(command, Command::Sync | Command::Query) {
            self.begun += 1;
        }
    }

    /// Whether every message is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.state == State::Waiting
    }

    /// Gives back what a long pipeline took.
    pub(super) fn shrink(&mut self, kept: usize) {
        self.queue.shrink_to(kept);
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Whether messages were sent that no Sync follows yet.
    pub(super) fn is_open(&self) -> bool {
        match self.queue.back() {
            Some(command) => !matches!(command, Command::Sync | Command::Query),
            None => self.state == State::Failed,
        }
    }

    /// Whether the server takes COPY data.
    pub(super) const fn takes_data(&self) -> bool {
        matches!(self.state, State::Copy { to_server: true, .. })
    }

    /// Whether rows are coming in: the next DataRow needs no further look.
    #[inline]
    pub(super) fn in_rows(&self) -> bool {
        self.state == State::Rows
    }

    /// The next message that the server has skipped because of an error before.
    pub(super) fn skipped(&mut self) -> Option<Command> {
        match self.queue.front() {
            None | Some(Command::Sync | Command::Query) => None,
            Some(_) if self.state == State::Failed => self.queue.pop_front(),
            Some(_) => None,
        }
    }

    /// A message of this type came.
    pub(super) fn accept(&mut self, tag: u8) -> Result<Answer, Error> {
        use Command as C;
        use State as S;
        let Some(&command) = self.queue.front() else {
            return Err(bad("an answer to nothing"));
        };
        // Whether it is answered, and the state of it, or of the next one.
        let (answered, state) = match (tag, command, self.state) {
            // ParseComplete, BindComplete, CloseComplete
            (b'1', C::Parse, S::Waiting) | (b'2', C::Bind, S::Waiting) | (b'3', C::Close, S::Waiting) => {
                (true, S::Waiting)
            }
            // ParameterDescription, then RowDescription or NoData
            (b't', C::DescribeStatement, S::Waiting) => (false, S::Parameters),
            (b'T' | b'n', C::DescribeStatement, S::Parameters) => (true, S::Waiting),
            (b'T' | b'n', C::DescribePortal, S::Waiting) => (true, S::Waiting),
            (b'T', C::Query, S::Waiting | S::Copied) => (false, S::Rows),
            (b'D', C::Query | C::Execute, S::Rows) | (b'D', C::Execute, S::Waiting) => (false, S::Rows),
            // CommandComplete, EmptyQueryResponse, PortalSuspended
            (b'C', C::Execute, S::Waiting | S::Rows | S::Copied)
            | (b'I', C::Execute, S::Waiting)
            | (b's', C::Execute, S::Waiting | S::Rows) => (true, S::Waiting),
            (b'C', C::Query, S::Waiting | S::Rows | S::Copied) | (b'I', C::Query, S::Waiting) => {
                (false, S::Waiting)
            }
            // CopyInResponse, CopyOutResponse, CopyBothResponse
            (b'G', C::Query, S::Waiting) => (false, S::Copy { to_server: true, from_server: false }),
            (b'G', C::Execute, S::Waiting) => {
                self.begin_copy_in()?;
                (false, S::Copy { to_server: true, from_server: false })
            }
            (b'H', C::Query | C::Execute, S::Waiting) => {
                (false, S::Copy { to_server: false, from_server: true })
            }
            (b'W', C::Query, S::Waiting) => (false, S::Copy { to_server: true, from_server: true }),
            // CopyData, CopyDone
            (b'd', _, state @ S::Copy { from_server: true, .. }) => (false, state),
            (b'c', _, S::Copy { to_server, from_server: true }) => (false, S::copy(to_server, false)),
            // ReadyForQuery
            (b'Z', C::Query, S::Waiting | S::Failed) | (b'Z', C::Sync, S::Waiting | S::Failed) => {
                return self.ready();
            }
            (b'3', C::Sync, S::Waiting) if matches!(self.fence, Fence::Sent(1..)) => {
                self.fence = Fence::None;
                return Ok(Answer::Hidden);
            }
            _ => return Err(bad("an answer that does not fit its question")),
        };
        self.state = state;
        if answered {
            self.queue.pop_front();
        }
        Ok(Answer::Plain)
    }

    fn ready(&mut self) -> Result<Answer, Error> {
        self.state = State::Waiting;
        if let Fence::Sent(before) = &mut self.fence {
            *before += 1;
            return match before {
                1 | 2 => Ok(Answer::Hidden),
                _ => Err(bad("an answer to nothing")),
            };
        }
        self.queue.pop_front();
        self.done += 1;
        Ok(Answer::Ready)
    }

    /// An error came. Returns false if it answers nothing; the server ends the session then.
    pub(super) fn fail(&mut self) -> bool {
        match self.queue.front() {
            None => return false,
            Some(Command::Query | Command::Sync) => {}
            Some(_) => {
                self.queue.pop_front();
            }
        }
        self.state = State::Failed;
        true
    }

    /// The server wants data for an Execute.
    ///
    /// It reads nothing but CopyData, CopyDone and CopyFail now, and ignores Sync. So a Sync that
    /// was sent right behind Execute gets no ReadyForQuery; unless the COPY fails before the server
    /// reads that Sync (a trigger before the statement can do so), and then it does. To tell the
    /// ReadyForQuery of that Sync from the one behind the data, a fence goes out after the data:
    /// Sync, Close of a portal that does not exist, Sync. The ReadyForQuery behind CloseComplete is
    /// the last, whatever came before.
    fn begin_copy_in(&mut self) -> Result<(), Error> {
        match self.queue.make_contiguous() {
            [_] => {}
            [_, Command::Sync] => {
                self.queue.pop_back();
                self.begun -= 1;
                self.fence = Fence::Needed;
            }
            // The server would take what was sent behind for an error in the data.
            _ => return Err(bad("COPY FROM STDIN in the middle of a pipeline")),
        }
        Ok(())
    }

    /// The end of the data is sent, or does not have to be sent any more. Says whether a fence has
    /// to follow, or Sync; or nothing, behind a simple query.
    pub(super) fn end_copy_in(&mut self) -> Option<bool> {
        if let State::Copy { from_server, .. } = self.state {
            self.state = State::copy(false, from_server);
        }
        if self.queue.front() == Some(&Command::Query) {
            return None;
        }
        let fence = self.fence == Fence::Needed;
        if fence {
            self.fence = Fence::Sent(0);
        }
        self.push(Command::Sync);
        Some(fence)
    }

    /// Whether a COPY FROM failed before its data ended, and a fence is due.
    pub(super) fn owes_fence(&self) -> bool {
        self.state == State::Failed && self.fence == Fence::Needed
    }
}

impl State {
    const fn copy(to_server: bool, from_server: bool) -> Self {
        if to_server || from_server { Self::Copy { to_server, from_server } } else { Self::Copied }
    }
}
