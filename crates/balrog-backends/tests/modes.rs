//! One body in every mode: a blocked thread, our own loop, tokio, async-io.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use balrog_backends::{Interest, Interrupt, Source, native, offload, sleep_until, wait_io};
use balrog_sched::{JoinHandle, in_task, spawn, with_deadline, yield_now};

const SOON: Duration = Duration::from_millis(20);

fn in_every_mode(body: fn()) {
    body();
    as_tasks(body);
}

fn as_tasks(body: fn()) {
    native::run(body).unwrap();
    #[cfg(feature = "tokio")]
    balrog_backends::tokio::run(body).unwrap();
    #[cfg(feature = "async-io")]
    balrog_backends::async_io::run(body).unwrap();
}

/// The least of a stream: system calls on a [`Source`], which waits when they would block.
struct Stream(Source<UnixStream>);

impl Stream {
    fn pair() -> (Self, Self) {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        b.set_nonblocking(true).unwrap();
        (Self(Source::new(a)), Self(Source::new(b)))
    }

    fn retry<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(&UnixStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(self.0.get()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.0.wait(interest, None)?,
                result => return result,
            }
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(Interest::Readable, |mut stream| stream.read(buffer))
    }

    fn read_exact(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let n = self.read(buffer)?;
            if n == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            buffer = &mut buffer[n..];
        }
        Ok(())
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = self.retry(Interest::Writable, |mut stream| stream.write(bytes))?;
            bytes = &bytes[n..];
        }
        Ok(())
    }
}

fn join_all<T>(handles: Vec<JoinHandle<T>>) -> Vec<T> {
    handles.into_iter().map(|mut handle| handle.join().unwrap()).collect()
}

#[test]
fn a_mode_is_what_it_says() {
    assert!(!in_task());
    assert!(native::run(in_task).unwrap());
    #[cfg(feature = "tokio")]
    assert!(balrog_backends::tokio::run(in_task).unwrap());
    #[cfg(feature = "async-io")]
    assert!(balrog_backends::async_io::run(in_task).unwrap());
}

#[test]
fn fifty_pairs_talk_at_once() {
    in_every_mode(|| {
        let mut handles = Vec::new();
        for number in 0..50_u64 {
            let (a, b) = Stream::pair();
            let echo = move || -> io::Result<u64> {
                let mut sum = 0;
                for _ in 0..20 {
                    let mut bytes = [0; 8];
                    b.read_exact(&mut bytes)?;
                    sum += u64::from_ne_bytes(bytes);
                    b.write_all(&bytes)?;
                }
                Ok(sum)
            };
            let ask = move || -> io::Result<u64> {
                let mut sum = 0;
                for round in 0..20 {
                    let bytes = (number * round).to_ne_bytes();
                    a.write_all(&bytes)?;
                    let mut back = [0; 8];
                    a.read_exact(&mut back)?;
                    assert_eq!(back, bytes);
                    sum += number * round;
                }
                Ok(sum)
            };
            handles.push(spawn(echo).unwrap());
            handles.push(spawn(ask).unwrap());
        }
        let sum = join_all(handles).into_iter().map(Result::unwrap).sum::<u64>();
        assert_eq!(sum, 2 * (0..50).sum::<u64>() * (0..20).sum::<u64>());
    });
}

#[test]
fn more_than_a_buffer_goes_through_both_ways_on_one_stream() {
    in_every_mode(|| {
        const MUCH: usize = 3 << 20;
        let (a, b) = Stream::pair();
        let (a, b) = (Arc::new(a), Arc::new(b));
        let mut handles = Vec::new();
        for (ours, theirs) in [(Arc::clone(&a), Arc::clone(&b)), (Arc::clone(&b), Arc::clone(&a))] {
            handles.push(spawn(move || ours.write_all(&vec![7; MUCH]).map(|()| MUCH)).unwrap());
            let read = move || {
                let (mut buffer, mut got) = (vec![0; 40_000], 0);
                while got < MUCH {
                    got += theirs.read(&mut buffer)?;
                }
                Ok(got)
            };
            handles.push(spawn(read).unwrap());
        }
        for got in join_all(handles) {
            assert_eq!(got.unwrap(), MUCH);
        }
    });
}

#[test]
fn sleepers_sleep_at_the_same_time() {
    in_every_mode(|| {
        let start = Instant::now();
        let until = start + Duration::from_millis(200);
        join_all((0..50).map(|_| spawn(move || sleep_until(until).unwrap()).unwrap()).collect());
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_deadline_ends_a_wait_and_the_stream_goes_on() {
    in_every_mode(|| {
        let (a, b) = Stream::pair();
        let start = Instant::now();
        let error = with_deadline(start + SOON, || a.read(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(Interrupt::of(&error), Some(Interrupt::Deadline));
        assert!(start.elapsed() >= SOON);
        let error = a.0.wait(Interest::Readable, Some(Instant::now() + SOON)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        b.write_all(b"x").unwrap();
        assert_eq!(a.read(&mut [0]).unwrap(), 1);
    });
}

#[test]
fn a_cancelled_reader_leaves_the_stream_to_others() {
    as_tasks(|| {
        let (a, b) = Stream::pair();
        let a = Arc::new(a);
        let reader = Arc::clone(&a);
        let mut task = spawn(move || reader.read(&mut [0])).unwrap();
        for _ in 0..3 {
            yield_now().unwrap();
        }
        task.cancel();
        let error = task.join().unwrap().unwrap_err();
        assert_eq!(Interrupt::of(&error), Some(Interrupt::Cancelled));
        b.write_all(b"x").unwrap();
        assert_eq!(a.read(&mut [0]).unwrap(), 1);
    });
}

#[test]
fn a_foreign_descriptor_is_watched_for_one_wait_at_a_time() {
    in_every_mode(|| {
        for _ in 0..3 {
            // The same number each time.
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let waited = wait_io(theirs.as_fd(), Interest::Readable, Some(Instant::now() + SOON));
            assert_eq!(waited, Err(Interrupt::Deadline));
            let mut writer = spawn(move || {
                sleep_until(Instant::now() + SOON).unwrap();
                ours.write_all(b"x").unwrap();
                ours
            })
            .unwrap();
            wait_io(theirs.as_fd(), Interest::Readable, None).unwrap();
            drop(writer.join().unwrap());
        }
    });
}

#[test]
fn a_source_goes_from_one_mode_to_another() {
    let (a, b) = Stream::pair();
    let (a, b) = (Arc::new(a), Arc::new(b));
    let ping = move || {
        let there = Arc::clone(&b);
        let mut writer = spawn(move || {
            sleep_until(Instant::now() + SOON).unwrap();
            there.write_all(b"x").unwrap();
        })
        .unwrap();
        assert_eq!(a.read(&mut [0]).unwrap(), 1);
        writer.join().unwrap();
    };
    for _ in 0..2 {
        ping();
        native::run(ping.clone()).unwrap();
        #[cfg(feature = "tokio")]
        balrog_backends::tokio::run(ping.clone()).unwrap();
        #[cfg(feature = "async-io")]
        balrog_backends::async_io::run(ping.clone()).unwrap();
    }
}

#[test]
fn a_source_dropped_on_another_thread_frees_its_number() {
    native::run(|| {
        for _ in 0..20 {
            let (a, b) = Stream::pair();
            let waited = a.0.wait(Interest::Readable, Some(Instant::now() + Duration::from_millis(1)));
            assert!(waited.is_err());
            std::thread::spawn(move || drop(a)).join().unwrap();
            drop(b);
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(b"x").unwrap();
            let soon = Some(Instant::now() + Duration::from_secs(5));
            wait_io(theirs.as_fd(), Interest::Readable, soon).unwrap();
        }
    })
    .unwrap();
}

#[test]
fn blocking_calls_are_out_of_the_way() {
    static TICKS: AtomicUsize = AtomicUsize::new(0);
    in_every_mode(|| {
        TICKS.store(0, Ordering::SeqCst);
        let mut ticker = spawn(|| {
            for _ in 0..5 {
                sleep_until(Instant::now() + Duration::from_millis(5)).unwrap();
                TICKS.fetch_add(1, Ordering::SeqCst);
            }
        })
        .unwrap();
        let call = || {
            std::thread::sleep(Duration::from_millis(100));
            TICKS.load(Ordering::SeqCst)
        };
        assert!(offload(call, None).unwrap() >= 1);
        ticker.join().unwrap();
        let slow = || std::thread::sleep(Duration::from_millis(300));
        assert_eq!(offload(slow, Some(Instant::now() + SOON)), Err(Interrupt::Deadline));
    });
    as_tasks(|| assert_eq!(offload(|| panic!("on purpose"), None), Err::<(), _>(Interrupt::Closed)));
}

#[cfg(feature = "tokio")]
#[test]
fn a_tokio_program_awaits_synchronous_code() {
    use balrog_backends::tokio::task;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (a, b) = Stream::pair();
        let read = move || {
            let mut bytes = [0; 5];
            a.read_exact(&mut bytes).map(|()| bytes)
        };
        let reader = tokio::task::spawn_local(task(read).unwrap());
        tokio::time::sleep(SOON).await;
        task(move || b.write_all(b"hello")).unwrap().await.unwrap();
        assert_eq!(&reader.await.unwrap().unwrap(), b"hello");
        // tokio's own futures inside of a task.
        let waited = task(|| balrog_sched::wait(tokio::time::sleep(SOON))).unwrap().await;
        assert_eq!(waited, Ok(()));
        // A panic is tokio's to report.
        let bad = tokio::task::spawn_local(task(|| panic!("on purpose")).unwrap());
        assert!(bad.await.unwrap_err().is_panic());
    });
}

#[test]
fn a_source_may_outlive_the_loop_in_a_thread_local() {
    thread_local! {
        static KEPT: std::cell::RefCell<Option<Stream>> = const { std::cell::RefCell::new(None) };
    }
    // Locals are dropped in the order opposite to that of their first use: the loop's before this.
    std::thread::spawn(|| {
        KEPT.set(None);
        native::run(|| {
            let (a, _b) = Stream::pair();
            let soon = Some(Instant::now() + Duration::from_millis(1));
            assert!(a.0.wait(Interest::Readable, soon).is_err());
            KEPT.set(Some(a));
        })
        .unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn readiness_as_a_future_misses_nothing_that_came_before_its_first_poll() {
    in_every_mode(|| {
        let (ours, theirs) = Stream::pair();
        let read = || (&mut theirs.0.get()).read(&mut [0; 8]);
        assert_eq!(read().unwrap_err().kind(), ErrorKind::WouldBlock);
        let Some(mut ready) = theirs.0.ready(Interest::Readable).unwrap() else {
            return assert!(!in_task());
        };
        ours.write_all(b"early").unwrap();
        // The drivers look at what has happened meanwhile.
        sleep_until(Instant::now() + SOON).unwrap();
        while {
            balrog_sched::wait(&mut ready).unwrap();
            read().is_err()
        } {
            // tokio's first readiness may be an old one.
            ready = theirs.0.ready(Interest::Readable).unwrap().unwrap();
        }
        // One that is dropped leaves the descriptor to the next.
        drop(theirs.0.ready(Interest::Readable).unwrap());
        let late = theirs.0.ready(Interest::Readable).unwrap().unwrap();
        let mut writer = spawn(move || ours.write_all(b"late")).unwrap();
        balrog_sched::wait_until(late, Some(Instant::now() + Duration::from_secs(10))).unwrap();
        writer.join().unwrap().unwrap();
    });
}
