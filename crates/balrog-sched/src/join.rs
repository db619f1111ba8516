//! New tasks, and waiting for their ends.

use std::any::Any;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::{error, fmt, io};

use crate::cancel::{Canceller, Control, Controlled};
use crate::oneshot::Oneshot;
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
    let shared = Arc::new(Controlled { control: Control::default(), shared: Ending::new() });
    let control: Arc<Controlled> = Arc::<Controlled<Ending<T>>>::clone(&shared);
    // SAFETY: it is in `run`, which `Deferred` and then the task or the thread drop before
    // `control`; and it is the only one.
    let promise = unsafe { Promise::new(&shared) };
    let run = move || promise.keep(catch_unwind(AssertUnwindSafe(f)));
    (JoinHandle { shared }, Deferred { control, run })
}

/// The other half of [`deferred`]. Dropped, it tells the handle that the task never ran.
#[must_use = "the task never begins otherwise"]
pub struct Deferred<F> {
    /// First, so that it is dropped first: there is a pointer to `control` in it.
    run: F,
    control: Arc<Controlled>,
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
        match runtime() {
            Some(runtime) => {
                // What comes last here is dropped first.
                let Self { control, run } = self;
                runtime.spawn_task(builder.controlled_task(control, run)?);
            }
            None => builder.thread(move || self.run_here())?,
        }
        Ok(())
    }

    fn run_here(self) {
        // What comes last here is dropped first.
        let Self { control, run } = self;
        control_thread(&control);
        run();
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
    shared: Arc<Controlled<Ending<T>>>,
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
        self.shared.control.cancel();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.shared.shared.is_given()
    }
}

impl<T: Send + 'static> JoinHandle<T> {
    /// What cancels the task from elsewhere.
    pub fn canceller(&self) -> Canceller {
        let shared: Arc<Controlled> = Arc::<Controlled<Ending<T>>>::clone(&self.shared);
        Canceller::new(&shared)
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        // SAFETY: the handle is the only taker, and ends here.
        drop(unsafe { self.shared.shared.refuse() });
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the handle is the only taker, and borrowed mutably.
        let ended = unsafe { self.shared.shared.poll(context) };
        ended.map(|ended| ended.unwrap_or(Err(JoinError::Closed)))
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

/// Where a task's end is left for its handle.
type Ending<T> = Oneshot<Result<T, JoinError>>;

/// The task's side: whatever becomes of the task, its joiner learns of it.
///
/// A pointer instead of one more count: every task would pay for that.
struct Promise<T>(NonNull<Controlled<Ending<T>>>);

// SAFETY: a shared reference to what is `Sync` when `T` is `Send`.
unsafe impl<T: Send> Send for Promise<T> {}

impl<T> Promise<T> {
    /// # Safety
    ///
    /// `shared` outlives the promise, which is the only one for it.
    unsafe fn new(shared: &Arc<Controlled<Ending<T>>>) -> Self {
        Self(NonNull::from(&**shared))
    }

    fn keep(self, result: Result<T, Box<dyn Any + Send>>) {
        let this = ManuallyDrop::new(self);
        this.give(result.map_err(|payload| JoinError::Panicked(Panic::new(payload))));
    }

    /// To be called once.
    fn give(&self, result: Result<T, JoinError>) {
        // SAFETY: it is there, and given to once: `keep` is, or else `drop`.
        unsafe { self.0.as_ref().shared.give(result) };
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.give(Err(JoinError::Closed));
    }
}
