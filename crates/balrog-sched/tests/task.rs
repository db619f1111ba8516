//! Tasks as their users meet them: ends, panics, cancellation, drops, stacks.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use balrog_sched::{
    Builder, Executor, GRACE, Interrupt, JoinError, Park, TaskLocal, deferred, in_task, limits, runtime,
    sleep_until, spawn, task, wait, wait_until, with_deadline, with_shield, yield_now,
};

const SOON: Duration = Duration::from_millis(20);

fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    Executor::new(Box::new(Park)).run(f).unwrap()
}

fn never() -> std::future::Pending<()> {
    std::future::pending()
}

fn pending_once() -> impl Future<Output = ()> {
    let mut asked = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn tasks_take_turns_on_one_thread() {
    let order = run(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut tasks: Vec<_> = (0..3)
            .map(|number| {
                let sender = sender.clone();
                spawn(move || {
                    for round in 0..3 {
                        sender.send((round, number)).unwrap();
                        yield_now().unwrap();
                    }
                    std::thread::current().id()
                })
                .unwrap()
            })
            .collect();
        for task in &mut tasks {
            assert_eq!(task.join().unwrap(), std::thread::current().id());
        }
        drop(sender);
        receiver.iter().collect::<Vec<_>>()
    });
    assert_eq!(order, (0..3).flat_map(|round| (0..3).map(move |number| (round, number))).collect::<Vec<_>>());
}

#[test]
fn without_a_runtime_a_task_is_a_thread() {
    assert!(!in_task() && runtime().is_none());
    let mut task = spawn(|| std::thread::current().id()).unwrap();
    assert_ne!(task.join().unwrap(), std::thread::current().id());
    assert!(matches!(task.join(), Err(JoinError::Closed)));
}

#[test]
fn a_panic_is_the_joiners_error_and_nobody_elses() {
    let both = || {
        let mut bad = spawn(|| panic!("on purpose")).unwrap();
        let mut good = spawn(|| 1).unwrap();
        let error = bad.join().unwrap_err();
        assert!(matches!(error, JoinError::Panicked(_)));
        assert_eq!(error.to_string(), "the task panicked: on purpose");
        good.join().unwrap()
    };
    assert_eq!(run(both), 1);
    assert_eq!(both(), 1);
}

#[test]
#[should_panic(expected = "the main task")]
fn a_panic_of_the_main_task_goes_on() {
    run(|| panic!("the main task"));
}

#[test]
fn ten_thousand_sleepers_take_the_time_of_one() {
    let start = Instant::now();
    let sum = run(move || {
        let until = start + Duration::from_millis(300);
        let tasks: Vec<_> = (0..10_000_u64)
            .map(|number| {
                let sleep = move || sleep_until(until).map(|()| number);
                Builder::new().stack_size(0).spawn(sleep).unwrap()
            })
            .collect();
        tasks.into_iter().map(|mut task| task.join().unwrap().unwrap()).sum::<u64>()
    });
    assert_eq!(sum, (0..10_000).sum());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// What a cancelled task gets at each of its waits.
fn cancelled() -> Vec<Result<(), Interrupt>> {
    let waits = vec![wait(never())];
    // Clean-up may wait.
    let clean_up = yield_now();
    waits.into_iter().chain([clean_up]).collect()
}

#[test]
fn cancellation_comes_at_the_wait_and_leaves_time_to_clean_up() {
    let got = run(|| {
        let mut task = spawn(cancelled).unwrap();
        yield_now().unwrap();
        task.cancel();
        task.cancel();
        task.join().unwrap()
    });
    assert_eq!(got, [Err(Interrupt::Cancelled), Ok(())]);
}

#[test]
fn a_blocked_thread_can_be_cancelled_too() {
    let mut task = spawn(cancelled).unwrap();
    std::thread::sleep(SOON);
    task.cancel();
    assert_eq!(task.join().unwrap(), [Err(Interrupt::Cancelled), Ok(())]);
}

#[test]
fn a_task_cancelled_before_it_begins_sees_it_at_its_first_wait() {
    let got = run(|| {
        let mut task =
            spawn(|| (wait(async {}), limits().cancel.is_some_and(|at| at > Instant::now() + GRACE / 2)));
        task.as_mut().unwrap().cancel();
        task.unwrap().join().unwrap()
    });
    assert_eq!(got, (Err(Interrupt::Cancelled), true));
}

#[test]
fn a_shield_holds_cancellation_back() {
    let got = run(|| {
        let mut task = spawn(|| {
            let shielded = with_shield(Instant::now() + Duration::from_secs(5), || {
                yield_now().and_then(|()| sleep_until(Instant::now() + SOON))
            });
            (shielded, wait(async {}))
        })
        .unwrap();
        yield_now().unwrap();
        task.cancel();
        task.join().unwrap()
    });
    assert_eq!(got, (Ok(()), Err(Interrupt::Cancelled)));
}

#[test]
fn deadlines_nest_and_are_told_from_a_cancel() {
    let got = run(|| {
        let start = Instant::now();
        let inner = with_deadline(start + Duration::from_secs(60), || {
            with_deadline(start + SOON, || wait_until(never(), Some(start + Duration::from_secs(30))))
        });
        (inner, start.elapsed(), yield_now())
    });
    assert_eq!((got.0, got.2), (Err(Interrupt::Deadline), Ok(())));
    assert!(got.1 >= SOON && got.1 < Duration::from_secs(10));
}

#[test]
fn a_deadline_holds_on_any_executor() {
    // Nothing of ours drives this task: the process's timer thread wakes it.
    let mut sleeper =
        task(|| (sleep_until(Instant::now() + SOON), wait_until(never(), Some(Instant::now())))).unwrap();
    let got = wait(&mut sleeper).unwrap();
    assert_eq!(got, (Ok(()), Err(Interrupt::Deadline)));
}

#[test]
fn many_short_waits_under_one_long_deadline_arm_one_timer() {
    struct Counting(Cell<usize>);
    impl balrog_sched::Runtime for Counting {
        fn spawn_local(&self, _: balrog_sched::LocalFuture<()>) {}
        fn timer(&self, _: Instant) -> balrog_sched::LocalFuture<()> {
            self.0.set(self.0.get() + 1);
            Box::pin(never())
        }
    }
    let counting = Rc::new(Counting(Cell::new(0)));
    balrog_sched::with_runtime(Some(Rc::<Counting>::clone(&counting)), || {
        let mut task = task(|| {
            with_deadline(Instant::now() + Duration::from_secs(60), || {
                (0..1000).try_for_each(|_| wait(pending_once()))
            })
        })
        .unwrap();
        while poll(&mut task).is_pending() {}
    });
    assert_eq!(counting.0.get(), 1);
}

#[test]
fn a_task_can_wait_for_another_in_place() {
    let got = run(|| {
        let inner = task(|| yield_now().map(|()| 1)).unwrap();
        wait(inner)
    });
    assert_eq!(got, Ok(Ok(1)));
}

#[test]
fn a_dropped_task_leaves_by_its_own_error_path() {
    struct Closes(Rc<Cell<Vec<Result<(), Interrupt>>>>);
    impl Drop for Closes {
        fn drop(&mut self) {
            let mut seen = self.0.take();
            seen.push(yield_now());
            self.0.set(seen);
        }
    }
    let seen = Rc::new(Cell::new(Vec::new()));
    let inside = Closes(Rc::clone(&seen));
    let mut task = task(move || {
        let closes = inside;
        let first = wait(never());
        let mut seen = closes.0.take();
        seen.push(first);
        closes.0.set(seen);
    })
    .unwrap();
    assert!(poll(&mut task).is_pending());
    drop(task);
    assert_eq!(seen.take(), [Err(Interrupt::Closed), Err(Interrupt::Closed)]);
}

#[test]
fn a_dropped_task_that_ignores_it_is_unwound() {
    struct Sets(Rc<Cell<bool>>);
    impl Drop for Sets {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let dropped = Rc::new(Cell::new(false));
    let sets = Sets(Rc::clone(&dropped));
    let mut task = task(move || {
        let _sets = sets;
        loop {
            let _ = yield_now();
        }
    })
    .unwrap();
    assert!(poll(&mut task).is_pending());
    drop(task);
    assert!(dropped.get());
}

#[test]
fn no_task_waits_while_a_panic_unwinds_but_a_thread_may() {
    struct Waits(std::sync::mpsc::Sender<Result<(), Interrupt>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.send(yield_now()).unwrap();
        }
    }
    let body = || {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut task = spawn(move || {
            let _waits = Waits(sender);
            panic!("on purpose");
        })
        .unwrap();
        let _: JoinError = task.join().map(|(): ()| ()).unwrap_err();
        receiver.recv().unwrap()
    };
    assert_eq!(run(body), Err(Interrupt::Unwinding));
    assert_eq!(body(), Ok(()));
}

#[test]
fn a_task_that_never_ran_drops_what_it_was_given() {
    let given = Rc::new(());
    let inside = Rc::clone(&given);
    drop(task(move || drop(inside)).unwrap());
    assert_eq!(Rc::strong_count(&given), 1);
}

#[test]
fn what_still_runs_at_the_end_is_dropped_and_its_joiner_learns_of_it() {
    let ended = Arc::new(AtomicUsize::new(0));
    let inside = Arc::clone(&ended);
    let mut left = run(move || {
        let task = spawn(move || {
            let waited = wait(never());
            inside.fetch_add(1, Ordering::SeqCst);
            waited
        });
        yield_now().unwrap();
        task.unwrap()
    });
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    assert_eq!(left.join().unwrap(), Err(Interrupt::Closed));
}

#[test]
fn locals_are_a_tasks_own() {
    static NUMBER: TaskLocal<Cell<u32>> = TaskLocal::new(|| Cell::new(7));
    NUMBER.with(|number| number.set(1));
    let got = run(|| {
        let mut tasks: Vec<_> = (10..13)
            .map(|number| {
                spawn(move || {
                    let before = NUMBER.with(|own| own.replace(number));
                    yield_now().unwrap();
                    (before, NUMBER.with(Cell::get))
                })
                .unwrap()
            })
            .collect();
        tasks.iter_mut().map(|task| task.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(got, [(7, 10), (7, 11), (7, 12)]);
    assert_eq!(NUMBER.with(Cell::get), 1);
}

#[test]
fn other_threads_wake_tasks() {
    let got = run(|| {
        let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
        std::thread::spawn(move || {
            for waker in receiver {
                std::thread::sleep(Duration::from_millis(1));
                waker.wake();
            }
        });
        for _ in 0..20 {
            let mut asked = false;
            wait(std::future::poll_fn(|context| {
                if std::mem::replace(&mut asked, true) {
                    return Poll::Ready(());
                }
                sender.send(context.waker().clone()).unwrap();
                Poll::Pending
            }))?;
        }
        Ok::<_, Interrupt>(())
    });
    assert_eq!(got, Ok(()));
}

#[test]
fn async_code_awaits_tasks_and_runs_beside_them() {
    let got = run(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime().unwrap().spawn_local(Box::pin(async move {
            let from_task = spawn(|| yield_now().map(|()| 2)).unwrap().await;
            sender.send(from_task.unwrap()).unwrap();
        }));
        loop {
            if let Ok(got) = receiver.try_recv() {
                break got;
            }
            yield_now().unwrap();
        }
    });
    assert_eq!(got, Ok(2));
}

#[test]
fn a_hundred_thousand_tasks_are_parked_at_once() {
    // A mapping for each stack ends at 32,000.
    let tasks: Vec<_> = (0..100_000)
        .map(|number| {
            let mut task = Builder::new().stack_size(0).task(move || yield_now().map(|()| number)).unwrap();
            assert!(poll(&mut task).is_pending());
            task
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(poll(&mut pin!(task)), Poll::Ready(Ok(number)));
    }
}

#[test]
fn an_overflow_names_the_task_and_ends_the_process() {
    if std::env::var_os("BALROG_OVERFLOW").is_some() {
        #[allow(unconditional_recursion)]
        fn deeper(array: [u8; 1024]) -> u64 {
            let array = std::hint::black_box(array);
            deeper(array) + u64::from(array[7])
        }
        let mut task =
            Builder::new().name("the deep one").stack_size(64 * 1024).task(|| deeper([1; 1024])).unwrap();
        let _ = poll(&mut task);
        return;
    }
    let name = "an_overflow_names_the_task_and_ends_the_process";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("BALROG_OVERFLOW", "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("the task 'the deep one' has overflowed its stack of 64 KiB"), "{stderr}");
}

#[test]
fn another_fault_is_not_taken_for_an_overflow() {
    if std::env::var_os("BALROG_FAULT").is_some() {
        let mut task = task(|| {
            // SAFETY: none; this process is to die of it.
            unsafe { std::ptr::null_mut::<u8>().wrapping_add(8).write_volatile(1) }
        })
        .unwrap();
        let _ = poll(&mut task);
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_fault_is_not_taken_for_an_overflow", "--nocapture"])
        .env("BALROG_FAULT", "1")
        .output()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(11));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("overflowed"));
}

#[test]
fn without_memory_for_a_stack_a_spawn_is_an_error() {
    if std::env::var_os("BALROG_MEMORY").is_some() {
        let most = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
        // SAFETY: it reads what is given, and nothing else.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &most) }, 0);
        let mut tasks = Vec::new();
        while let Ok(task) = task(|| yield_now().map(|()| 7)) {
            tasks.push(task);
        }
        // Those that there are run.
        assert!(tasks.len() > 100);
        for mut task in tasks {
            assert!(poll(&mut task).is_pending());
            assert_eq!(poll(&mut task), Poll::Ready(Ok(7)));
        }
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_memory_for_a_stack_a_spawn_is_an_error", "--nocapture"])
        .env("BALROG_MEMORY", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_task_can_be_given_more_than_a_stack_holds() {
    let given = [7_u8; 64 * 1024];
    let mut large =
        Builder::new().stack_size(0).task(move || given.iter().map(|&byte| u64::from(byte)).sum());
    assert_eq!(poll(large.as_mut().unwrap()), Poll::Ready(7_u64 * 64 * 1024));
}

#[test]
fn deferred_work_that_never_begins_tells_its_handle() {
    let given = Arc::new(());
    let inside = Arc::clone(&given);
    let (mut handle, never_begun) = deferred(move || drop(inside));
    let canceller = handle.canceller();
    drop(never_begun);
    assert!(handle.is_finished());
    assert!(matches!(handle.join(), Err(JoinError::Closed)));
    drop(handle);
    assert_eq!(Arc::strong_count(&given), 1);
    canceller.cancel();
}

#[test]
fn the_wakers_of_an_executor_serve_the_next_one() {
    let wakers: Vec<_> = (0..3)
        .map(|_| run(|| wait(std::future::poll_fn(|context| Poll::Ready(context.waker().clone()))).unwrap()))
        .collect();
    // Late wakes, here and elsewhere: nobody is there, or another who waits on.
    wakers.iter().for_each(Waker::wake_by_ref);
    let waited = run(move || {
        wakers.iter().for_each(Waker::wake_by_ref);
        std::thread::spawn(move || wakers.into_iter().for_each(Waker::wake)).join().unwrap();
        wait_until(never(), Some(Instant::now() + SOON))
    });
    assert_eq!(waited, Err(Interrupt::Deadline));
}

#[test]
fn a_task_runs_another_executor_and_is_woken_meanwhile() {
    let got = run(|| {
        let mut outer = spawn(|| {
            let executor = Executor::new(Box::new(Park));
            wait(std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::Ready(())
            }))?;
            let inner = executor.run(|| yield_now().map(|()| 1)).unwrap();
            yield_now()?;
            inner
        })
        .unwrap();
        outer.join().unwrap()
    });
    assert_eq!(got, Ok(1));
}

#[test]
fn deep_code_runs_on_a_deep_stack() {
    fn depth(n: u32) -> u32 {
        let array = std::hint::black_box([0_u8; 256]);
        if n == 0 { u32::from(array[0]) } else { 1 + depth(n - 1) }
    }
    let mut deep = Builder::new().stack_size(16 << 20).task(|| depth(10_000)).unwrap();
    assert_eq!(poll(&mut deep), Poll::Ready(10_000));
}

#[test]
fn a_wake_that_comes_late_does_not_end_the_wait_of_the_next_task() {
    let waited = run(|| {
        let mut first =
            spawn(|| wait(std::future::poll_fn(|context| Poll::Ready(context.waker().clone())))).unwrap();
        let late = first.join().unwrap().unwrap();
        let mut second = spawn(|| wait_until(never(), Some(Instant::now() + SOON))).unwrap();
        for _ in 0..5 {
            yield_now().unwrap();
            late.wake_by_ref();
            let there = late.clone();
            std::thread::spawn(move || there.wake()).join().unwrap();
        }
        second.join().unwrap()
    });
    assert_eq!(waited, Err(Interrupt::Deadline));
}

#[test]
fn a_task_that_woke_itself_and_ended_does_not_let_the_next_one_jump_the_queue() {
    let order = run(|| {
        let order = Arc::new(Mutex::new(Vec::new()));
        let wake_itself = |context: &mut Context<'_>| {
            context.waker().wake_by_ref();
            Poll::Ready(())
        };
        let mut first = spawn(move || wait(std::future::poll_fn(wake_itself))).unwrap();
        yield_now().unwrap();
        first.join().unwrap().unwrap();
        let mut tasks = Vec::new();
        for name in ["a", "b", "c"] {
            let order = Arc::clone(&order);
            tasks.push(spawn(move || order.lock().unwrap().push(name)).unwrap());
        }
        tasks.iter_mut().for_each(|task| task.join().unwrap());
        Arc::try_unwrap(order).unwrap().into_inner().unwrap()
    });
    assert_eq!(order, ["a", "b", "c"]);
}

#[test]
fn a_detached_tasks_result_is_dropped_at_its_end_although_its_canceller_lives() {
    let result = Arc::new(());
    let held = Arc::clone(&result);
    let canceller = run(move || {
        let handle = spawn(move || held).unwrap();
        let canceller = handle.canceller();
        drop(handle);
        yield_now().unwrap();
        canceller
    });
    assert_eq!(Arc::strong_count(&result), 1);
    assert!(!canceller.is_cancelled());
}
