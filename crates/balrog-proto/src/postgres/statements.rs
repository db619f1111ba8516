use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::postgres::report::Report;
use crate::postgres::rows::Column;
use crate::postgres::session::TransactionStatus;

/// Which statements of a session are prepared, under which names.
///
/// A statement that comes often enough is prepared; the one that has not been used for the longest
/// time makes room. What cannot be known beforehand, that the server does not have a statement (any
/// more) or that its columns have changed, is told by [`failed`](Self::failed), which says whether to
/// try again. Behind a pooler that gives each transaction another server session, nothing is prepared:
/// [`Statements::unnamed`].
///
/// ```
/// use balrog_proto::postgres::{Batch, Bind, Choice, Statements};
///
/// let mut statements = Statements::new(100, 5);
/// let mut batch = Batch::new();
/// # let sql = "select 1";
/// while let Some(name) = statements.take_closed() {
///     batch.close_statement(&name)?;
/// }
/// match statements.choose(sql, &[]) {
///     Choice::Unnamed => batch.query(sql, &[])?,
///     Choice::Prepare(name) => {
///         let bind = Bind { statement: &name, ..Bind::default() };
///         batch.parse(&name, sql, &[])?.describe_statement(&name)?.bind(&bind)?.execute("", 0)?
///         // ... and at `Columns`: statements.prepared(&name, columns)
///     }
///     Choice::Prepared(name, _columns) => {
///         batch.bind(&Bind { statement: &name, ..Bind::default() })?.execute("", 0)?
///     }
/// }
/// .sync();
/// # Ok::<(), balrog_proto::Misuse>(())
/// ```
#[derive(Debug)]
pub struct Statements {
    /// Prepared or counted, by text and types of parameters.
    entries: BTreeMap<(Box<str>, Box<[u32]>), Entry>,
    /// To be closed on the server.
    closed: VecDeque<Arc<str>>,
    most: usize,
    threshold: u32,
    names: u64,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    uses: u32,
    last: u64,
    name: Option<Arc<str>>,
    /// Once the server has told them.
    columns: Option<Arc<[Column]>>,
}

/// How to run a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// As the unnamed statement, with text and parameters in one round trip.
    Unnamed,
    /// Prepare it under this name, describe it, and use it.
    Prepare(Arc<str>),
    /// It is prepared under this name, and returns these columns (none if it returns no rows).
    Prepared(Arc<str>, Arc<[Column]>),
}

/// What to do about an error of a prepared statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing: it is the statement's own error.
    None,
    /// The statement was forgotten, and nothing of it has happened: run it again.
    Retry,
    /// The statement was forgotten, and the transaction is lost: it is for the caller to begin it again.
    Forgotten,
}

impl Statements {
    /// Keeps at most `most` statements; one is prepared at the use behind the first `threshold` ones.
    pub const fn new(most: usize, threshold: u32) -> Self {
        Self { entries: BTreeMap::new(), closed: VecDeque::new(), most, threshold, names: 0, clock: 0 }
    }

    /// Prepares nothing.
    pub const fn unnamed() -> Self {
        Self::new(0, 0)
    }

    /// How to run `sql` with parameters of these types (0 for unknown ones).
    pub fn choose(&mut self, sql: &str, types: &[u32]) -> Choice {
        if self.most == 0 {
            return Choice::Unnamed;
        }
        self.clock += 1;
        let key = (Box::from(sql), Box::from(types));
        if !self.entries.contains_key(&key) {
            self.make_room();
        }
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { uses: 0, last: 0, name: None, columns: None });
        entry.last = self.clock;
        entry.uses = entry.uses.saturating_add(1);
        if entry.uses <= self.threshold {
            return Choice::Unnamed;
        }
        match (&entry.name, &entry.columns) {
            (Some(name), Some(columns)) => Choice::Prepared(Arc::clone(name), Arc::clone(columns)),
            // On its way, in this pipeline: until it is known to be there, do without.
            (Some(_), None) => Choice::Unnamed,
            (None, _) => {
                self.names += 1;
                let name: Arc<str> = format!("balrog_{}", self.names).into();
                entry.name = Some(Arc::clone(&name));
                Choice::Prepare(name)
            }
        }
    }

    /// The server has prepared and described it.
    pub fn prepared(&mut self, name: &str, columns: Arc<[Column]>) {
        if let Some(entry) = self.entries.values_mut().find(|entry| entry.name.as_deref() == Some(name)) {
            entry.columns = Some(columns);
        }
    }

    /// A statement that is to be closed, with the next messages that are sent.
    pub fn take_closed(&mut self) -> Option<Arc<str>> {
        self.closed.pop_front()
    }

    /// A statement of any kind is complete: some change what is prepared, or what its columns are.
    pub fn complete(&mut self, tag: &[u8]) {
        match tag {
            // The server has closed them.
            b"DISCARD ALL" | b"DEALLOCATE ALL" => {
                self.entries.clear();
                self.closed.clear();
            }
            // "cached plan must not change result type" would come of it, in the middle of a
            // transaction where nothing helps any more. (Closing one that is gone does no harm.)
            b"DEALLOCATE" | b"ROLLBACK" => self.clear(),
            _ if tag.starts_with(b"ALTER ") || tag.starts_with(b"DROP ") => self.clear(),
            _ => {}
        }
    }

    /// Forgets all, and closes them.
    pub fn clear(&mut self) {
        let names = std::mem::take(&mut self.entries).into_values().filter_map(|entry| entry.name);
        self.closed.extend(names);
    }

    /// The unit in which the statement `name` was to be prepared or used has failed with this error.
    /// `status` is that of the unit's end, and that its unit began outside of a transaction is for the
    /// caller to know: only then a statement before it in the unit may be repeated.
    pub fn failed(&mut self, name: &str, report: &Report<'_>, status: TransactionStatus) -> Remedy {
        let cured = match report.code() {
            // invalid_sql_statement_name: closed by somebody, or never there (a pooler).
            "26000" => true,
            // duplicate_prepared_statement: a pooler's other client has that name.
            "42P05" => true,
            // feature_not_supported: "cached plan must not change result type".
            "0A000" => report.field(b'R') == Some(b"RevalidateCachedQuery"),
            _ => false,
        };
        let unknown = !self.forget(name, cured);
        match status {
            _ if !cured || unknown => Remedy::None,
            TransactionStatus::Failed => Remedy::Forgotten,
            TransactionStatus::Idle | TransactionStatus::InTransaction => Remedy::Retry,
        }
    }

    /// Forgets `name` if it is stale, or if it was being prepared and never will be now.
    fn forget(&mut self, name: &str, stale: bool) -> bool {
        let Some(entry) = self.entries.values_mut().find(|entry| entry.name.as_deref() == Some(name)) else {
            return false;
        };
        if stale || entry.columns.is_none() {
            self.closed.extend(entry.name.take());
            entry.columns = None;
        }
        true
    }

    /// Gives up the statement that has not been used for the longest time, if there are too many.
    fn make_room(&mut self) {
        while self.entries.len() >= self.most {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last).map(|(key, _)| key.clone());
            let Some(entry) = oldest.and_then(|key| self.entries.remove(&key)) else { return };
            self.closed.extend(entry.name);
        }
    }
}

impl Default for Statements {
    /// 100 statements, prepared after 5 uses, as psycopg does.
    fn default() -> Self {
        Self::new(100, 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(statements: &mut Statements, sql: &str) -> Arc<str> {
        let Choice::Prepare(name) = statements.choose(sql, &[]) else { panic!("{sql} is not new") };
        statements.prepared(&name, Arc::new([]));
        name
    }

    #[test]
    fn a_statement_is_prepared_behind_the_threshold() {
        for threshold in [0, 1, 5] {
            let mut statements = Statements::new(10, threshold);
            for _ in 0..threshold {
                assert_eq!(statements.choose("a", &[]), Choice::Unnamed);
            }
            assert_eq!(statements.choose("a", &[]), Choice::Prepare("balrog_1".into()));
            // Not known to be there yet.
            assert_eq!(statements.choose("a", &[]), Choice::Unnamed);
            statements.prepared("balrog_1", Arc::new([]));
            assert_eq!(statements.choose("a", &[]), Choice::Prepared("balrog_1".into(), Arc::new([])));
            // Other types, another statement.
            if threshold == 0 {
                assert_eq!(statements.choose("a", &[23]), Choice::Prepare("balrog_2".into()));
            }
        }
        let mut none = Statements::unnamed();
        assert!((0..20).all(|_| none.choose("a", &[]) == Choice::Unnamed));
    }

    #[test]
    fn the_one_that_was_not_used_makes_room() {
        let mut statements = Statements::new(2, 0);
        let (a, b) = (prepare(&mut statements, "a"), prepare(&mut statements, "b"));
        assert_eq!(statements.choose("a", &[]), Choice::Prepared(a, Arc::new([])));
        prepare(&mut statements, "c");
        assert_eq!((statements.take_closed(), statements.take_closed()), (Some(b), None));
        assert_eq!(statements.entries.len(), 2);
    }

    #[test]
    fn what_changes_statements() {
        for (tag, forgotten, closed) in [
            (&b"SELECT 1"[..], false, false),
            (b"INSERT 0 1", false, false),
            (b"CREATE TABLE", false, false),
            (b"COMMIT", false, false),
            (b"DISCARD ALL", true, false),
            (b"DEALLOCATE ALL", true, false),
            (b"DEALLOCATE", true, true),
            (b"ROLLBACK", true, true),
            (b"ALTER TABLE", true, true),
            (b"DROP TABLE", true, true),
        ] {
            let mut statements = Statements::new(2, 0);
            prepare(&mut statements, "a");
            statements.complete(tag);
            assert_eq!(statements.take_closed().is_some(), closed, "{}", tag.escape_ascii());
            assert_eq!(matches!(statements.choose("a", &[]), Choice::Prepare(_)), forgotten);
        }
    }

    #[test]
    fn what_helps() {
        const STALE: &[u8] = b"SERROR\0C0A000\0RRevalidateCachedQuery\0\0";
        for (report, status, remedy) in [
            (STALE, TransactionStatus::Idle, Remedy::Retry),
            (STALE, TransactionStatus::InTransaction, Remedy::Retry),
            (STALE, TransactionStatus::Failed, Remedy::Forgotten),
            (b"SERROR\0C26000\0\0", TransactionStatus::Idle, Remedy::Retry),
            (b"SERROR\0C42P05\0\0", TransactionStatus::Idle, Remedy::Retry),
            (b"SERROR\0C0A000\0Rother\0\0", TransactionStatus::Idle, Remedy::None),
            (b"SERROR\0C22012\0\0", TransactionStatus::Idle, Remedy::None),
        ] {
            let mut statements = Statements::new(2, 0);
            let name = prepare(&mut statements, "a");
            let report = Report::parse(report).unwrap();
            assert_eq!(statements.failed("balrog_9", &report, status), Remedy::None, "not one of ours");
            assert_eq!(statements.failed(&name, &report, status), remedy);
            let again = statements.choose("a", &[]);
            assert_eq!(matches!(again, Choice::Prepare(_)), remedy != Remedy::None);
            // Never the same name twice.
            assert_ne!(again, Choice::Prepare(name));
        }
        // A statement that could not be prepared is not counted on.
        let mut statements = Statements::new(2, 0);
        let Choice::Prepare(name) = statements.choose("nonsense", &[]) else { panic!("it is new") };
        let report = Report::parse(b"SERROR\0C42601\0\0").unwrap();
        assert_eq!(statements.failed(&name, &report, TransactionStatus::Idle), Remedy::None);
        assert!(matches!(statements.choose("nonsense", &[]), Choice::Prepare(_)));
    }
}
