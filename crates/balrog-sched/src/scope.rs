//! Tasks that end before the code that began them goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{fmt, io};

use crate::sync::Event;
use crate::{Canceller, GRACE, JoinError, Panic, limits, spawn, with_deadline, with_shield};

/// Calls `f`, and then waits for every task that it spawned in the scope.
///
/// If one of them fails (returns an error or panics), or `f` does, or the wait for them is
/// interrupted, all of them are cancelled; they are waited for all the same.
///
/// The tasks own what they use: a task can be forgotten, so none may borrow from the code
/// around the scope.
///
/// ```
/// use balrog_sched::{JoinError, scope};
///
/// let all: Result<(), JoinError> = scope(|scope| {
///     for _ in 0..3 {
///         scope.spawn(|| Ok(())).unwrap();
///     }
///     Ok(())
/// });
/// assert!(all.is_ok());
/// ```
///
/// # Errors
///
/// That of `f`, else of the task that failed first, else the interrupt as
/// [`JoinError::Interrupted`]. A panic of `f` goes on after the tasks have ended.
pub fn scope<T, E>(f: impl FnOnce(&Scope<E>) -> Result<T, E>) -> Result<T, E>
where
    E: From<JoinError> + Send + 'static,
{
    let scope = Scope(Arc::new(Shared::default()));
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    if !matches!(result, Ok(Ok(_))) {
        scope.cancel();
    }
    let waited = scope.0.wait_for_all();
    match (result, waited) {
        (Err(panic), _) => std::panic::resume_unwind(panic),
        (Ok(Err(error)), _) | (Ok(Ok(_)), Err(error)) => Err(error),
        (Ok(Ok(value)), Ok(())) => Ok(value),
    }
}

/// Where the tasks of a [`scope`] are spawned.
pub struct Scope<E>(Arc<Shared<E>>);

impl<E> fmt::Debug for Scope<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("running", &self.0.lock().running).finish_non_exhaustive()
    }
}

impl<E: From<JoinError> + Send + 'static> Scope<E> {
    /// Runs `f` beside the caller, within the caller's deadline. Once the scope is cancelled,
    /// it is so from its first wait.
    ///
    /// # Errors
    ///
    /// As [`spawn`].
    pub fn spawn(&self, f: impl FnOnce() -> Result<(), E> + Send + 'static) -> io::Result<()> {
        let deadline = limits().deadline;
        let running = Running::enter(&self.0);
        let handle = spawn(move || {
            let run = || match deadline {
                Some(deadline) => with_deadline(deadline, f),
                None => f(),
            };
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => running.0.fail(error),
                Err(panic) => running.0.fail(JoinError::Panicked(Panic::new(panic)).into()),
            }
        })?;
        let canceller = handle.canceller();
        let mut state = self.0.lock();
        if state.cancelled {
            drop(state);
            canceller.cancel();
        } else {
            state.cancellers.push(canceller);
        }
        Ok(())
    }

    /// Cancels every task of the scope, also those that come.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

struct Shared<E> {
    state: Mutex<State<E>>,
    /// Set while no task runs.
    idle: Event,
}

struct State<E> {
    running: usize,
    cancelled: bool,
    cancellers: Vec<Canceller>,
    error: Option<E>,
}

impl<E> Default for Shared<E> {
    fn default() -> Self {
        let state = State { running: 0, cancelled: false, cancellers: Vec::new(), error: None };
        let idle = Event::new();
        idle.set();
        Self { state: Mutex::new(state), idle }
    }
}

impl<E> Shared<E> {
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        // No code of others runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) {
        let cancellers = {
            let mut state = self.lock();
            state.cancelled = true;
            std::mem::take(&mut state.cancellers)
        };
        for canceller in cancellers {
            canceller.cancel();
        }
    }

    fn fail(&self, error: E) {
        let later = {
            let mut state = self.lock();
            if state.error.is_none() {
                state.error = Some(error);
                None
            } else {
                Some(error)
            }
        };
        // What is dropped may run any code.
        drop(later);
        self.cancel();
    }

    /// Waits until no task runs any more; why they did not all succeed.
    fn wait_for_all(&self) -> Result<(), E>
    where
        E: From<JoinError>,
    {
        let Err(interrupt) = self.idle.wait() else {
            return self.lock().error.take().map_or(Ok(()), Err);
        };
        // What the tasks say from now on is only that they were cancelled.
        let error = self.lock().error.take();
        self.cancel();
        // Their waits fail now, and for good when their grace is over.
        let _ = with_shield(Instant::now() + 2 * GRACE, || self.idle.wait());
        Err(error.unwrap_or_else(|| JoinError::Interrupted(interrupt).into()))
    }
}

/// One task of the scope; ends with it, even if it never ran.
struct Running<E>(Arc<Shared<E>>);

impl<E> Running<E> {
    fn enter(shared: &Arc<Shared<E>>) -> Self {
        let mut state = shared.lock();
        state.running += 1;
        shared.idle.clear();
        drop(state);
        Self(Arc::clone(shared))
    }
}

impl<E> Drop for Running<E> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        if state.running == 0 {
            self.0.idle.set();
        }
    }
}
