//! What the scheduler costs, in nanoseconds each: `sched NAME WORK COUNT`.
//!
//! NAME is `balrog`, `tokio` or `may`. WORK is `spawn` (a task begun and joined), `switch` (two
//! tasks that yield to each other) or `ping-pong` (a round trip of two tasks that wake each
//! other: two wakes); of `tokio` and `balrog` also `wait`, a future of tokio's that is pending once:
//! awaited, and waited for in a task of balrog's on tokio; of `balrog` also `parked`, COUNT tasks that
//! wait at once, in bytes each.

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

use balrog::Runtime;
use balrog_bench_rust::spent;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut word = |what| words.next().ok_or(what);
    let (name, work, count) = (word("a name")?, word("a work")?, word("a count")?.parse()?);
    let each = match name.as_str() {
        "balrog" => {
            let runtime = if work == "wait" { Runtime::tokio() } else { Runtime::native() };
            runtime.run(move || balrog(&work, count))??
        }
        "tokio" => {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, tokio(&work, count))
        }
        "may" => {
            may::config().set_workers(1);
            may::go!(move || may(&work, count)).join().map_err(|_| "a panic")?
        }
        _ => return Err("balrog, tokio or may".into()),
    };
    println!("{each:.1}");
    Ok(())
}

/// Of `count` things since `start`, in nanoseconds each: of the processor's time, for what else runs
/// here costs the clock's.
fn each(start: f64, count: u32) -> f64 {
    (spent() - start) * 1e3 / f64::from(count)
}

fn balrog(work: &str, count: u32) -> std::io::Result<f64> {
    let start = spent();
    match work {
        "spawn" => {
            for _ in 0..count {
                balrog::spawn(|| {})?.join()?;
            }
        }
        "switch" => {
            let turn = move || (0..count / 2).try_for_each(|_| balrog::yield_now());
            let mut other = balrog::spawn(turn)?;
            turn()?;
            other.join()??;
        }
        "ping-pong" => {
            let mut other = balrog::spawn(move || balrog::wait(play(1, count)))?;
            balrog::wait(play(0, count))?;
            other.join()??;
        }
        "wait" => {
            // As the rival's: the main function is no task of the executor's.
            let turn = move || (0..count).try_for_each(|_| balrog::wait(tokio::task::yield_now()));
            balrog::spawn(turn)?.join()??;
        }
        "parked" => return parked(count),
        _ => return Err(std::io::Error::other("spawn, switch, ping-pong, wait or parked")),
    }
    Ok(each(start, count))
}

async fn tokio(work: &str, count: u32) -> f64 {
    let start = spent();
    match work {
        "spawn" => {
            for _ in 0..count {
                tokio::task::spawn_local(async {}).await.expect("it ends");
            }
        }
        "switch" => {
            let turn = move || async move {
                for _ in 0..count / 2 {
                    tokio::task::yield_now().await;
                }
            };
            let other = tokio::task::spawn_local(turn());
            turn().await;
            other.await.expect("it ends");
        }
        "wait" => {
            let turn = async move {
                for _ in 0..count {
                    tokio::task::yield_now().await;
                }
            };
            tokio::task::spawn_local(turn).await.expect("it ends");
        }
        _ => {
            let other = tokio::task::spawn_local(play(1, count));
            play(0, count).await;
            other.await.expect("it ends");
        }
    }
    each(start, count)
}

fn may(work: &str, count: u32) -> f64 {
    let start = spent();
    match work {
        "spawn" => {
            for _ in 0..count {
                may::go!(|| {}).join().expect("it ends");
            }
        }
        "switch" => {
            let turn = move || (0..count / 2).for_each(|_| may::coroutine::yield_now());
            let other = may::go!(turn);
            turn();
            other.join().expect("it ends");
        }
        _ => {
            let main = may::coroutine::current();
            let other = may::go!(move || {
                for _ in 0..count {
                    may::coroutine::park();
                    main.unpark();
                }
            });
            for _ in 0..count {
                other.coroutine().unpark();
                may::coroutine::park();
            }
            other.join().expect("it ends");
        }
    }
    each(start, count)
}

/// What two tasks of one thread play with: whose turn it is, and who waits for his.
#[derive(Default)]
struct Ball {
    turn: Cell<u32>,
    waiting: [Cell<Option<Waker>>; 2],
}

thread_local! {
    static BALL: Rc<Ball> = Rc::default();
}

/// Takes the ball `count` times and hands it over, as player `me`.
fn play(me: usize, count: u32) -> impl Future<Output = ()> + 'static {
    let (ball, mut played) = (BALL.with(Rc::clone), 0);
    poll_fn(move |context| {
        while played < count {
            if ball.turn.get() as usize % 2 != me {
                let kept = ball.waiting[me].take().filter(|waker| waker.will_wake(context.waker()));
                ball.waiting[me].set(Some(kept.unwrap_or_else(|| context.waker().clone())));
                return Poll::Pending;
            }
            played += 1;
            ball.turn.set(ball.turn.get().wrapping_add(1));
            let other = ball.waiting[1 - me].take();
            if let Some(waker) = &other {
                waker.wake_by_ref();
            }
            ball.waiting[1 - me].set(other);
        }
        Poll::Ready(())
    })
}

/// Memory of a task that waits, its guarded stack in it.
fn parked(count: u32) -> std::io::Result<f64> {
    let before = resident()?;
    let mut tasks = Vec::with_capacity(count as usize);
    for _ in 0..count {
        tasks.push(balrog::spawn(|| balrog::wait(std::future::pending::<()>()))?);
    }
    balrog::yield_now()?;
    let bytes = (resident()? - before) as f64 / f64::from(count);
    tasks.iter().for_each(balrog::JoinHandle::cancel);
    for task in &mut tasks {
        assert!(task.join()?.is_err(), "a cancelled wait");
    }
    Ok(bytes)
}

/// Resident memory of this process, in bytes.
fn resident() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}
