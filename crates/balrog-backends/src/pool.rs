use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Most threads that wait in blocking calls (name look-ups) at once; further jobs queue.
const MOST: usize = 32;
/// An idle thread ends after this time.
const IDLE: Duration = Duration::from_secs(10);

/// The process's threads for calls that cannot but block.
#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// Runs `job` on a pool thread, some time soon.
///
/// # Errors
///
/// When there is no thread and none can be started.
pub fn execute(job: Job) -> io::Result<()> {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let pool = POOL.get_or_init(Pool::default);
    let mut state = pool.lock();
    state.jobs.push_back(job);
    if state.idle >= state.jobs.len() || state.threads == MOST {
        pool.changed.notify_one();
        return Ok(());
    }
    match std::thread::Builder::new().name("balrog-pool".into()).spawn(move || pool.work()) {
        Ok(_) => {
            state.threads += 1;
            Ok(())
        }
        // Those that run will get to it.
        Err(_) if state.threads > 0 => Ok(()),
        Err(error) => {
            state.jobs.pop_back();
            Err(error)
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No job runs under the lock, so a poisoned one guards a sound state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job that panics reports by what it did not send; the thread goes on.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (next, wait) = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if wait.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn runs_more_jobs_than_threads_and_survives_a_panic() {
        let (sender, receiver) = mpsc::channel();
        for number in 0..3 * MOST {
            let sender = sender.clone();
            execute(Box::new(move || {
                std::thread::sleep(Duration::from_millis(5));
                sender.send(number).unwrap();
                assert!(number % 2 == 0, "on purpose");
            }))
            .unwrap();
        }
        let mut done: Vec<_> =
            (0..3 * MOST).map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        done.sort_unstable();
        assert_eq!(done, (0..3 * MOST).collect::<Vec<_>>());
    }
}
