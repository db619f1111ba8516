//! The primitives between tasks, between threads and between both, from one body.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Lock};
use std::time::{Duration, Instant};

use balrog_sched::sync::{Barrier, Condvar, Event, Mutex, Once, RecvError, Semaphore, channel};
use balrog_sched::{
    Executor, Interrupt, JoinError, JoinHandle, Park, scope, sleep_until, spawn, wait, with_deadline,
    yield_now,
};

const SOON: Duration = Duration::from_millis(20);

/// The same body as tasks of one thread, and as threads.
fn in_both(body: fn()) {
    body();
    Executor::new(Box::new(Park)).run(body).unwrap();
}

fn spawn_all<T: Send + 'static>(
    n: usize,
    f: impl Fn(usize) -> T + Clone + Send + 'static,
) -> Vec<JoinHandle<T>> {
    (0..n)
        .map(|number| {
            let f = f.clone();
            spawn(move || f(number)).unwrap()
        })
        .collect()
}

fn join_all<T>(handles: Vec<JoinHandle<T>>) -> Vec<T> {
    handles.into_iter().map(|mut handle| handle.join().unwrap()).collect()
}

fn pause() {
    sleep_until(Instant::now() + SOON).unwrap();
}

#[test]
fn a_mutex_is_held_over_waits() {
    in_both(|| {
        let shared = Arc::new(Mutex::new((0, false)));
        let inside = Arc::clone(&shared);
        let tasks = spawn_all(8, move |_| {
            for _ in 0..50 {
                let mut guard = inside.lock().unwrap();
                assert!(!std::mem::replace(&mut guard.1, true), "two at once");
                yield_now().unwrap();
                guard.0 += 1;
                guard.1 = false;
            }
        });
        join_all(tasks);
        assert_eq!(shared.lock().unwrap().0, 400);
    });
}

#[test]
fn permits_are_given_in_the_order_of_asking() {
    in_both(|| {
        let semaphore = Arc::new(Semaphore::new(0));
        let order = Arc::new(Lock::new(Vec::new()));
        let mut tasks = VecDeque::new();
        for number in 0..10 {
            let (semaphore, order) = (Arc::clone(&semaphore), Arc::clone(&order));
            tasks.push_back(
                spawn(move || {
                    semaphore.acquire().unwrap().forget();
                    order.lock().unwrap().push(number);
                })
                .unwrap(),
            );
            pause();
        }
        assert!(semaphore.try_acquire().is_none());
        for _ in 0..10 {
            semaphore.release(1);
            tasks.pop_front().unwrap().join().unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn an_interrupted_waiter_hands_on_what_it_was_given() {
    // Granted and cancelled in the same instant, over and over: no permit may be lost.
    Executor::new(Box::new(Park))
        .run(|| {
            let semaphore = Arc::new(Semaphore::new(0));
            for _ in 0..200 {
                let waiting = Arc::clone(&semaphore);
                let mut first = spawn(move || waiting.acquire().map(drop)).unwrap();
                yield_now().unwrap();
                first.cancel();
                semaphore.release(1);
                // Woken for both reasons: a future that is ready wins.
                assert_eq!(first.join().unwrap(), Ok(()));
                assert_eq!(semaphore.available(), 1);
                semaphore.try_acquire().unwrap().forget();

                let waiting = Arc::clone(&semaphore);
                let mut first = spawn(move || waiting.acquire().map(drop)).unwrap();
                yield_now().unwrap();
                first.cancel();
                assert_eq!(first.join().unwrap(), Err(Interrupt::Cancelled));
                semaphore.release(1);
                assert_eq!(semaphore.available(), 1);
                semaphore.try_acquire().unwrap().forget();
            }
        })
        .unwrap();
}

#[test]
fn an_event_lets_all_through_until_it_is_cleared() {
    in_both(|| {
        let event = Arc::new(Event::new());
        let inside = Arc::clone(&event);
        let tasks = spawn_all(5, move |_| inside.wait());
        pause();
        event.set();
        assert_eq!(join_all(tasks), [Ok(()); 5]);
        assert_eq!(event.wait(), Ok(()));
        event.clear();
        let waited = with_deadline(Instant::now() + SOON, || event.wait());
        assert_eq!(waited, Err(Interrupt::Deadline));
    });
}

#[test]
fn a_condition_misses_no_notification() {
    in_both(|| {
        let queue = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
        let inside = Arc::clone(&queue);
        let takers = spawn_all(4, move |_| {
            let mut sum = 0;
            for _ in 0..25 {
                let guard = inside.0.lock().unwrap();
                let mut guard =
                    inside.1.wait_while(guard, |queue: &mut VecDeque<u64>| queue.is_empty()).unwrap();
                sum += guard.pop_front().unwrap();
            }
            sum
        });
        for number in 0..100 {
            queue.0.lock().unwrap().push_back(number);
            queue.1.notify_one();
            if number % 7 == 0 {
                yield_now().unwrap();
            }
        }
        assert_eq!(join_all(takers).iter().sum::<u64>(), (0..100).sum());
    });
}

#[test]
fn a_barrier_lets_nobody_through_early_and_can_be_used_again() {
    in_both(|| {
        let barrier = Arc::new(Barrier::new(4));
        let arrived = Arc::new(AtomicUsize::new(0));
        let (inside, count) = (Arc::clone(&barrier), Arc::clone(&arrived));
        let tasks = spawn_all(4, move |_| {
            (1..=10)
                .filter(|round| {
                    count.fetch_add(1, Ordering::SeqCst);
                    let last = inside.wait().unwrap();
                    assert!(count.load(Ordering::SeqCst) >= 4 * round);
                    last
                })
                .count()
        });
        assert_eq!(join_all(tasks).iter().sum::<usize>(), 10);
        // One that gave up is not counted.
        let alone = with_deadline(Instant::now() + SOON, || barrier.wait());
        assert_eq!(alone, Err(Interrupt::Deadline));
        let inside = Arc::clone(&barrier);
        let three = spawn_all(3, move |_| inside.wait().unwrap());
        pause();
        assert!(three.iter().all(|task| !task.is_finished()));
        assert!(barrier.wait().unwrap());
        join_all(three);
    });
}

#[test]
fn once_is_once() {
    in_both(|| {
        let once = Arc::new(Once::new());
        let made = Arc::new(AtomicUsize::new(0));
        let (inside, count) = (Arc::clone(&once), Arc::clone(&made));
        let tasks = spawn_all(8, move |number| {
            let value = inside.get_or_try_init(|| {
                yield_now()?;
                // The first one fails, and the next one tries.
                if count.fetch_add(1, Ordering::SeqCst) == 0 { Err(Interrupt::Closed) } else { Ok(number) }
            });
            value.copied()
        });
        let got = join_all(tasks);
        assert_eq!(made.load(Ordering::SeqCst), 2);
        let value = *once.get().unwrap();
        assert_eq!(got.iter().filter(|got| **got == Ok(value)).count(), 7);
        assert_eq!(got.iter().filter(|got| got.is_err()).count(), 1);
    });
}

#[test]
fn a_channel_keeps_order_and_bound_and_tells_both_ends() {
    in_both(|| {
        let (sender, receiver) = channel(3);
        let mut producer = spawn(move || {
            for number in 0..100 {
                sender.send(number).unwrap();
            }
        })
        .unwrap();
        assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert_eq!(receiver.recv(), Err(RecvError::Closed));
        producer.join().unwrap();

        let (sender, receiver) = channel(1);
        sender.send(1).unwrap();
        let full = with_deadline(Instant::now() + SOON, || sender.send(2)).unwrap_err();
        assert_eq!((full.value, full.interrupt), (2, Some(Interrupt::Deadline)));
        let mut blocked = spawn(move || sender.send(3).unwrap_err()).unwrap();
        pause();
        drop(receiver);
        let gone = blocked.join().unwrap();
        assert_eq!((gone.value, gone.interrupt), (3, None));
    });
}

#[test]
fn values_cross_between_threads_and_tasks() {
    let (to_tasks, in_tasks) = channel(2);
    let (to_thread, in_thread) = channel::<u64>(2);
    let feeder = std::thread::spawn(move || (0..200_u64).for_each(|number| to_tasks.send(number).unwrap()));
    let tasks = std::thread::spawn(move || {
        Executor::new(Box::new(Park)).run(move || {
            join_all(spawn_all(5, move |_| {
                in_tasks.iter().for_each(|number| to_thread.send(number * 2).unwrap());
            }));
        })
    });
    assert_eq!(in_thread.iter().sum::<u64>(), (0..200).sum::<u64>() * 2);
    feeder.join().unwrap();
    tasks.join().unwrap().unwrap();
}

#[test]
fn a_scope_ends_with_its_tasks() {
    in_both(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        let result: Result<i32, JoinError> = scope(|scope| {
            for _ in 0..5 {
                let count = Arc::clone(&count);
                scope
                    .spawn(move || {
                        pause();
                        count.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    })
                    .unwrap();
            }
            Ok(7)
        });
        assert_eq!(result.unwrap(), 7);
        assert_eq!(ended.load(Ordering::SeqCst), 5);
    });
}

#[test]
fn the_first_failure_cancels_the_others() {
    #[derive(Debug)]
    enum Failed {
        Own,
        Join(String),
    }
    impl From<JoinError> for Failed {
        fn from(error: JoinError) -> Self {
            Self::Join(error.to_string())
        }
    }
    in_both(|| {
        let cancelled = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let count = Arc::clone(&cancelled);
        let result: Result<(), Failed> = scope(|scope| {
            for _ in 0..3 {
                let count = Arc::clone(&count);
                let sleeper = move || {
                    let waited = wait(std::future::pending::<()>());
                    assert_eq!(waited, Err(Interrupt::Cancelled));
                    count.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                };
                scope.spawn(sleeper).unwrap();
            }
            scope.spawn(|| Err(Failed::Own)).unwrap();
            Ok(())
        });
        assert!(matches!(result, Err(Failed::Own)), "{result:?}");
        assert_eq!(cancelled.load(Ordering::SeqCst), 3);
        let result: Result<(), Failed> = scope(|scope| {
            scope.spawn(|| panic!("on purpose")).unwrap();
            Ok(())
        });
        assert!(matches!(&result, Err(Failed::Join(text)) if text.contains("on purpose")), "{result:?}");
        assert!(start.elapsed() < Duration::from_secs(4));
    });
}

#[test]
fn a_deadline_reaches_into_a_scope() {
    in_both(|| {
        let start = Instant::now();
        let result: Result<(), JoinError> = with_deadline(start + SOON, || {
            scope(|scope| {
                let child = || match wait(std::future::pending::<()>()) {
                    Err(interrupt) => Err(JoinError::Interrupted(interrupt)),
                    Ok(()) => Ok(()),
                };
                scope.spawn(child).unwrap();
                Ok(())
            })
        });
        assert!(matches!(result, Err(JoinError::Interrupted(Interrupt::Deadline))), "{result:?}");
        assert!(start.elapsed() < Duration::from_secs(4));
    });
}
