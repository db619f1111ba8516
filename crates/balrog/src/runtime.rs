use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, mpsc};
use std::thread;

use balrog_sched::{JoinHandle, sync};

/// Where synchronous code runs, and so what its waits do. The code is the same on each.
///
/// ```
/// use balrog::Runtime;
///
/// fn work() -> std::io::Result<usize> {
///     let (mut one, mut other) = balrog::net::UnixStream::pair()?;
///     let mut task = balrog::spawn(move || std::io::Write::write(&mut one, b"hello"))?;
///     let n = std::io::Read::read(&mut other, &mut [0; 16])?;
///     assert_eq!(task.join()??, n);
///     Ok(n)
/// }
///
/// assert_eq!(Runtime::blocking().run(work)??, 5);
/// assert_eq!(Runtime::native().run(work)??, 5);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runtime(Mode);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Blocking,
    Native,
    #[cfg(feature = "tokio")]
    Tokio,
    #[cfg(feature = "async-io")]
    AsyncIo,
}

impl Runtime {
    /// Plain threads: a wait blocks its thread, [`spawn`](crate::spawn) makes one.
    pub const fn blocking() -> Self {
        Self(Mode::Blocking)
    }

    /// Tasks of one thread on our own readiness loop: the fastest.
    pub const fn native() -> Self {
        Self(Mode::Native)
    }

    /// Tasks of one thread on a tokio runtime: for code that uses tokio's own types as well.
    #[cfg(feature = "tokio")]
    pub const fn tokio() -> Self {
        Self(Mode::Tokio)
    }

    /// Tasks of one thread on async-io, as under smol.
    #[cfg(feature = "async-io")]
    pub const fn async_io() -> Self {
        Self(Mode::AsyncIo)
    }

    /// All that are built in, the blocking one first.
    pub const fn all() -> &'static [Self] {
        const ALL: &[Runtime] = &[
            Runtime::blocking(),
            Runtime::native(),
            #[cfg(feature = "tokio")]
            Runtime::tokio(),
            #[cfg(feature = "async-io")]
            Runtime::async_io(),
        ];
        ALL
    }

    /// Runs `f` and the tasks that it spawns on this thread until `f` returns. Tasks that are left
    /// then end at their next wait; in blocking mode they are threads, which go on by themselves.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors or memory.
    ///
    /// # Panics
    ///
    /// If `f` panics; and on tokio inside of another tokio runtime.
    pub fn run<T: Send + 'static>(self, f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        match self.0 {
            Mode::Blocking => Ok(f()),
            Mode::Native => balrog_backends::native::run(f),
            #[cfg(feature = "tokio")]
            Mode::Tokio => balrog_backends::tokio::run(f),
            #[cfg(feature = "async-io")]
            Mode::AsyncIo => balrog_backends::async_io::run(f),
        }
    }

    /// Runs `f` on `threads` threads at once, each with a loop of its own, and gives their results
    /// in order. A task never changes its thread: more cores are used by more loops, which can
    /// listen at one address together ([`Listen::reuse_port`](crate::net::Listen::reuse_port)).
    ///
    /// # Errors
    ///
    /// As [`Runtime::run`], and when no further thread can be had.
    ///
    /// # Panics
    ///
    /// If `f` does on one of them.
    pub fn run_on<T: Send + 'static>(
        self,
        threads: usize,
        f: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> io::Result<Vec<T>> {
        let f = Arc::new(f);
        let spawn = |number| {
            let f = Arc::clone(&f);
            thread::Builder::new().name(format!("balrog-{number}")).spawn(move || self.run(move || f(number)))
        };
        let running = (0..threads).map(spawn).collect::<io::Result<Vec<_>>>()?;
        let join = |thread: thread::JoinHandle<_>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().map(join).collect()
    }

    /// Begins a thread with this runtime, which other threads and async programs give work to.
    ///
    /// # Errors
    ///
    /// As [`Runtime::run_on`].
    pub fn start(self) -> io::Result<Handle> {
        let (jobs, queue) = sync::channel::<Job>(1024);
        let (begun, begin) = mpsc::sync_channel(1);
        let serve = move || {
            let _ = begun.send(());
            while let Ok(job) = queue.recv() {
                job();
            }
        };
        thread::Builder::new().name("balrog".into()).spawn(move || self.run(serve))?;
        // When it could not begin, its sender is gone.
        begin.recv().map_err(|_| io::Error::other("the runtime could not begin"))?;
        Ok(Handle { jobs })
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A runtime on a thread of its own; it ends with the last clone of this.
///
/// For async programs of many threads: sync-looking code runs there, and is awaited here.
///
/// ```
/// use balrog::Runtime;
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = Runtime::native().start()?;
/// // `.await` it, or on a plain thread:
/// let sum = runtime.spawn(|| 40 + 2)?.join()?;
/// assert_eq!(sum, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    jobs: sync::Sender<Job>,
}

impl Handle {
    /// Runs `f` as a task there.
    ///
    /// # Errors
    ///
    /// When the runtime has ended.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let (handle, deferred) = balrog_sched::deferred(f);
        let begin = move || {
            // Without memory for a stack the task is dropped, and the handle says so.
            let _ = deferred.spawn();
        };
        self.jobs.send(Box::new(begin)).map_err(|_| io::Error::other("the runtime has ended"))?;
        Ok(handle)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Mode::Blocking => "blocking",
            Mode::Native => "native",
            #[cfg(feature = "tokio")]
            Mode::Tokio => "tokio",
            #[cfg(feature = "async-io")]
            Mode::AsyncIo => "async-io",
        })
    }
}

impl FromStr for Runtime {
    type Err = io::Error;

    /// By the names `blocking`, `native`, `tokio`, `async-io`.
    fn from_str(name: &str) -> io::Result<Self> {
        Self::all().iter().copied().find(|runtime| runtime.to_string() == name).ok_or_else(|| {
            let known: Vec<_> = Self::all().iter().map(ToString::to_string).collect();
            let why = format!("there is no runtime {name:?}; there are {}", known.join(", "));
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })
    }
}
