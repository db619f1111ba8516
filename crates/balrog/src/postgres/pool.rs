use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use balrog_sched::sync::Semaphore;
use balrog_sched::{GRACE, Interrupt, with_deadline, with_shield};

use super::{Client, Config, Error};

/// How long a connection lives; then the next one takes up what changed on the way to the server.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Connections for many tasks, never more than a limit. Cheap to clone.
///
/// Who comes first is served first. A connection that was lent goes back rolled back and with
/// nothing in progress, and is looked at before it is lent again.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    /// A permit for each connection that may be out.
    permits: Semaphore,
    /// Idle ones, with when they were made.
    idle: Mutex<Vec<(Client, Instant)>>,
    /// How long [`Pool::get`] waits.
    patience: Duration,
}

/// A connection that was lent by a [`Pool`].
#[derive(Debug)]
pub struct Pooled {
    /// There until it is dropped.
    client: Option<(Client, Instant)>,
    pool: Pool,
}

impl Pool {
    /// At most `most` connections to where `config` says. None is made before it is needed.
    ///
    /// # Errors
    ///
    /// [`Error::Config`].
    pub fn new(config: &str, most: usize) -> Result<Self, Error> {
        Ok(Self::with_config(config.parse::<Config>()?, most, Duration::from_secs(30)))
    }

    /// As [`Pool::new`], where [`Pool::get`] waits for `patience`.
    pub fn with_config(config: impl Into<Arc<Config>>, most: usize, patience: Duration) -> Self {
        let idle = Mutex::default();
        Self(Arc::new(Shared { config: config.into(), permits: Semaphore::new(most.max(1)), idle, patience }))
    }

    /// Lends a connection, once there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with `TimedOut` when there is none for 30 s, and as [`Client::connect`].
    pub fn get(&self) -> Result<Pooled, Error> {
        let until = Instant::now() + self.0.patience;
        let permit =
            with_deadline(until, || self.0.permits.acquire()).map_err(|interrupt| match interrupt {
                Interrupt::Deadline if until <= Instant::now() => {
                    let why = format!("no connection of the pool came free in {:?}", self.0.patience);
                    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
                }
                interrupt => Error::Io(interrupt.into()),
            })?;
        let client = loop {
            let Some((mut client, made)) = self.idle().pop() else {
                break (Client::with_config(Arc::clone(&self.0.config))?, Instant::now());
            };
            if made.elapsed() < LIFETIME && client.is_alive() {
                break (client, made);
            }
        };
        permit.forget();
        Ok(Pooled { client: Some(client), pool: self.clone() })
    }

    /// How many connections are idle.
    pub fn idle_connections(&self) -> usize {
        self.idle().len()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Client, Instant)>> {
        // Nothing that can panic runs under the lock.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Pooled {
    type Target = Client;

    #[expect(clippy::unwrap_used, reason = "there until it is dropped")]
    fn deref(&self) -> &Client {
        &self.client.as_ref().unwrap().0
    }
}

impl DerefMut for Pooled {
    #[expect(clippy::unwrap_used, reason = "there until it is dropped")]
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client.as_mut().unwrap().0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some((mut client, made)) = self.client.take() {
            let clean = with_shield(Instant::now() + GRACE, || {
                client.begin()?;
                if client.in_transaction() { client.batch_execute("ROLLBACK") } else { Ok(()) }
            });
            if clean.is_ok() && !client.is_closed() {
                self.pool.idle().push((client, made));
            }
        }
        self.pool.0.permits.release(1);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle().len()).finish_non_exhaustive()
    }
}
