//! What tasks need of whoever runs them: a place for new ones, and timers.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::{Suspender, Task, Timers};

/// A future that stays on its thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// An executor of one thread, seen from the tasks on it.
pub trait Runtime {
    /// Runs `future` on this thread, some time soon.
    fn spawn_local(&self, future: LocalFuture<()>);

    /// [`Runtime::spawn_local`] for a task, for executors with a shorter way than a future.
    fn spawn_task(&self, task: Task<()>) {
        self.spawn_local(Box::pin(task));
    }

    /// A future that is ready at `at`.
    fn timer(&self, at: Instant) -> LocalFuture<()>;
}

thread_local! {
    static RUNTIME: RefCell<Option<Rc<dyn Runtime>>> = const { RefCell::new(None) };
}

/// The runtime of the code that runs here, if there is one: the task's, or else the thread's.
pub fn runtime() -> Option<Rc<dyn Runtime>> {
    crate::wait::current().and_then(Suspender::runtime).or_else(|| RUNTIME.with_borrow(Clone::clone))
}

/// Calls `f` with `runtime` as this thread's.
pub fn with_runtime<T>(runtime: Option<Rc<dyn Runtime>>, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Rc<dyn Runtime>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RUNTIME.set(self.0.take());
        }
    }
    let _restore = Restore(RUNTIME.replace(runtime));
    f()
}

/// A timer of this thread's runtime; of a thread of ours where there is no runtime, so that
/// deadlines hold on any executor.
pub fn timer(at: Instant) -> LocalFuture<()> {
    match runtime() {
        Some(runtime) => runtime.timer(at),
        None => Box::pin(SharedTimer { at, fired: None }),
    }
}

/// Waits until `at`.
///
/// # Errors
///
/// As [`crate::wait`].
pub fn sleep_until(at: Instant) -> Result<(), crate::Interrupt> {
    if crate::in_task() {
        return crate::wait(timer(at));
    }
    // A plain thread's own deadline is all the timer it needs.
    match crate::wait_until(std::future::pending::<()>(), Some(at)) {
        Err(crate::Interrupt::Deadline) if Instant::now() >= at => Ok(()),
        waited => waited,
    }
}

/// A timer of the process's timer thread.
struct SharedTimer {
    at: Instant,
    fired: Option<Arc<Mutex<Fired>>>,
}

#[derive(Default)]
struct Fired {
    done: bool,
    waker: Option<Waker>,
}

impl Future for SharedTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        let at = self.at;
        let fired = self.fired.get_or_insert_with(|| {
            let fired = Arc::new(Mutex::new(Fired::default()));
            TimerThread::get().arm(at, Arc::clone(&fired));
            fired
        });
        let mut fired = fired.lock().unwrap_or_else(PoisonError::into_inner);
        if fired.done {
            return Poll::Ready(());
        }
        fired.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[derive(Default)]
struct TimerThread {
    armed: Mutex<Armed>,
    changed: Condvar,
}

#[derive(Default)]
struct Armed {
    timers: Timers<Arc<Mutex<Fired>>>,
    /// Above so many, timers of waits that ended early are looked for.
    most: usize,
}

impl TimerThread {
    fn get() -> &'static Self {
        static THREAD: OnceLock<&'static TimerThread> = OnceLock::new();
        THREAD.get_or_init(|| {
            let thread: &'static Self = Box::leak(Box::default());
            // Without it no deadline would hold: better to end here than to hang later.
            let spawned = std::thread::Builder::new().name("balrog-timers".into()).spawn(|| thread.run());
            assert!(spawned.is_ok(), "the system has no thread left for timers");
            thread
        })
    }

    fn arm(&self, at: Instant, fired: Arc<Mutex<Fired>>) {
        let mut armed = self.lock();
        let nearest = armed.timers.next().is_none_or(|next| at < next);
        if armed.timers.len() > armed.most {
            // A wait that ended early dropped its timer: only we still hold it.
            armed.timers.retain(|fired| Arc::strong_count(fired) > 1);
            armed.most = 1024.max(2 * armed.timers.len());
        }
        armed.timers.push(at, fired);
        drop(armed);
        if nearest {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Armed> {
        // Nothing that can panic runs under the lock.
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut armed = self.lock();
        loop {
            let now = Instant::now();
            let due: Vec<_> = std::iter::from_fn(|| armed.timers.pop_due(now)).collect();
            if !due.is_empty() {
                drop(armed);
                for fired in due {
                    let waker = {
                        let mut fired = fired.lock().unwrap_or_else(PoisonError::into_inner);
                        fired.done = true;
                        fired.waker.take()
                    };
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                armed = self.lock();
                continue;
            }
            armed = match armed.timers.next() {
                Some(at) => {
                    let waited = self.changed.wait_timeout(armed, at.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(armed).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_fire_in_their_order_without_a_runtime() {
        let start = Instant::now();
        let (late, soon) = (Duration::from_millis(60), Duration::from_millis(20));
        let mut timers = [timer(start + late), timer(start + soon)];
        let mut order = Vec::new();
        crate::wait(std::future::poll_fn(|context| {
            for (index, timer) in timers.iter_mut().enumerate() {
                if !order.contains(&index) && timer.as_mut().poll(context).is_ready() {
                    order.push(index);
                }
            }
            if order.len() == 2 { Poll::Ready(()) } else { Poll::Pending }
        }))
        .unwrap();
        assert_eq!(order, [1, 0]);
        assert!(start.elapsed() >= late);
    }

    #[test]
    fn a_plain_thread_sleeps() {
        let start = Instant::now();
        sleep_until(start + Duration::from_millis(20)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
