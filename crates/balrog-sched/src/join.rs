//! New tasks, and waiting for their ends.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::{error, fmt, io};

use crate::cancel::{Canceller, Control, Controlled};
use crate::wait::control_thread;
use crate::{Builder, Interrupt, runtime, wait};

/// Runs `f` beside the caller: as a task on this thread where there is a runtime, else on a
/// thread of its own.
///
/// # Errors
///
/// When the system has no memory for a stack, or no further thread.
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().spawn(f)
}

impl Builder {
    /// [`spawn`] with this name and stack.
    ///
    /// # Errors
    ///
    /// As [`spawn`].
    pub fn spawn<T: Send + 'static>(
        self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let (handle, deferred) = deferred(f);
        deferred.spawn_with(self)?;
        Ok(handle)
    }
}

/// Makes the handle of a task that somebody else is to begin, on another thread for example,
/// by [`Deferred::spawn`].
pub fn deferred<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> (JoinHandle<T>, Deferred<impl FnOnce() + Send + 'static>) {
    let state = Shared(Mutex::new(State::Running(None)));
    let shared = Arc::new(Controlled { control: Control::default(), shared: state });
    let control: Arc<Controlled> = Arc::<Controlled<Shared<T>>>::clone(&shared);
    let promise = Promise(Arc::clone(&shared));
    let run = move || promise.keep(catch_unwind(AssertUnwindSafe(f)));
    let canceller = Canceller::new(&control);
    (JoinHandle { shared, canceller }, Deferred { control, run })
}

/// The other half of [`deferred`]. Dropped, it tells the handle that the task never ran.
#[must_use = "the task never begins otherwise"]
pub struct Deferred<F> {
    control: Arc<Controlled>,
    run: F,
}

impl<F: FnOnce() + Send + 'static> Deferred<F> {
    /// [`spawn`]s it from here.
    ///
    /// # Errors
    ///
    /// As [`spawn`].
    pub fn spawn(self) -> io::Result<()> {
        self.spawn_with(Builder::new())
    }

    fn spawn_with(self, builder: Builder) -> io::Result<()> {
        let Self { control, run } = self;
        match runtime() {
            Some(runtime) => runtime.spawn_local(Box::pin(builder.controlled_task(control, run)?)),
            None => builder.thread(move || {
                control_thread(&control);
                run();
            })?,
        }
        Ok(())
    }
}

impl<F> fmt::Debug for Deferred<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").finish_non_exhaustive()
    }
}

/// A running task's end. Dropped, it lets the task go on by itself.
#[derive(Debug)]
#[must_use = "dropping the handle detaches the task; its result and its panic are lost"]
pub struct JoinHandle<T> {
    shared: Arc<Controlled<Shared<T>>>,
    canceller: Canceller,
}

impl<T> JoinHandle<T> {
    /// Waits for the task's end and takes its result, once. From async code, await the handle.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; after [`JoinError::Interrupted`], which is about the caller's own wait,
    /// it can be called again.
    pub fn join(&mut self) -> Result<T, JoinError> {
        wait(self).map_err(JoinError::Interrupted)?
    }

    /// Cancels the task: its current wait, or its next, fails. See [`Canceller::cancel`].
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// What cancels the task from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        !matches!(*self.shared.shared.lock(), State::Running(_))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        // What it holds is dropped outside of the lock.
        let before = std::mem::replace(&mut *self.shared.shared.lock(), State::Taken);
        drop(before);
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.shared.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Poll::Ready(result),
            State::Running(_) => {
                *state = State::Running(Some(context.waker().clone()));
                Poll::Pending
            }
            State::Taken => Poll::Ready(Err(JoinError::Closed)),
        }
    }
}

/// Why a join gave no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// The task panicked, with this.
    Panicked(Panic),
    /// The task's executor went away before it had begun, or its result was taken before.
    Closed,
    /// The wait for the task was interrupted; the task runs on.
    Interrupted(Interrupt),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(panic) => write!(f, "the task panicked: {panic}"),
            Self::Closed => f.write_str("the task never ran, or its result was taken before"),
            Self::Interrupted(interrupt) => write!(f, "the wait for the task: {interrupt}"),
        }
    }
}

impl error::Error for JoinError {}

/// What a task panicked with; shown as its message.
///
/// The lock is never waited for: it makes errors that hold one [`Sync`], as `?` wants them.
pub struct Panic(Mutex<Box<dyn Any + Send>>);

impl Panic {
    pub(crate) const fn new(payload: Box<dyn Any + Send>) -> Self {
        Self(Mutex::new(payload))
    }

    /// For [`resume_unwind`](std::panic::resume_unwind), which goes on with it.
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        f.write_str(text.unwrap_or("(no message)"))
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Panic({self})")
    }
}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Interrupted(interrupt) => interrupt.into(),
            error => Self::other(error.to_string()),
        }
    }
}

struct Shared<T>(Mutex<State<T>>);

enum State<T> {
    /// With who waits for the end.
    Running(Option<Waker>),
    Done(Result<T, JoinError>),
    Taken,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<T, JoinError>) {
        let mut state = self.lock();
        if matches!(*state, State::Taken) {
            // Nobody will ask. Dropped without the lock, and here: a canceller may live on.
            drop(state);
            drop(result);
            return;
        }
        let before = std::mem::replace(&mut *state, State::Done(result));
        drop(state);
        if let State::Running(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// The task's side: whatever becomes of the task, its joiner learns of it.
struct Promise<T>(Arc<Controlled<Shared<T>>>);

impl<T> Promise<T> {
    fn keep(self, result: Result<T, Box<dyn Any + Send>>) {
        self.0.shared.finish(result.map_err(|payload| JoinError::Panicked(Panic::new(payload))));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if matches!(*self.0.shared.lock(), State::Running(_)) {
            self.0.shared.finish(Err(JoinError::Closed));
        }
    }
}
