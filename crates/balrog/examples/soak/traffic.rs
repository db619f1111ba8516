use std::fmt;
use std::io;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog::http::Method;
use balrog::postgres::{Client, Error, Pool};
use balrog::{Interrupt, JoinError, sleep_until, spawn, with_deadline};

use crate::proxy::{Fault, Of, Proxy};
use crate::site::{At, hear, pattern};

/// So many talk at once, in each way of talking.
const EACH: u64 = 8;
/// Connections to PostgreSQL, with and without trouble.
const POOL: usize = 6;

/// Who is talked to, and through what.
pub(crate) struct Traffic {
    /// In the clear, and by TLS.
    pub(crate) sites: [At; 2],
    /// In front of both, and of PostgreSQL.
    pub(crate) proxies: [Proxy; 3],
    pub(crate) url: String,
}

/// How it went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    right: u64,
    /// Broken by the proxy.
    broken: u64,
    /// By a deadline or a cancellation.
    interrupted: u64,
    /// Failed where nothing was in the way.
    pub(crate) wrong: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.broken += other.broken;
        self.interrupted += other.interrupted;
        self.wrong += other.wrong;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, broken, interrupted, wrong } = self;
        write!(f, "{right} right, {broken} broken, {interrupted} interrupted, {wrong} wrong")
    }
}

/// Numbers that are as good as random, the same in every run.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// Small mostly, and up to `most` sometimes.
    fn size(&mut self, most: usize) -> usize {
        let most = if self.roll(4) == 0 { most } else { 2_000 };
        self.roll(most as u64) as usize
    }
}

/// Something that is said to somebody.
type Work = Box<dyn FnOnce() -> io::Result<()> + Send>;

impl Traffic {
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let sql = "create table if not exists soak(number bigint)";
        Ok(Client::connect(&self.url)?.batch_execute(sql)?)
    }

    /// Everybody talks until then.
    pub(crate) fn round(self: &Arc<Self>, number: u64, until: Instant) -> io::Result<Counts> {
        let proxied = "host=127.0.0.1 user=postgres dbname=balrog sslmode=disable";
        let proxied = format!("{proxied} port={}", self.proxies[2].port);
        let mut config: balrog::postgres::Config = proxied.parse()?;
        config.session.limits.drain_time = Some(Duration::from_millis(500));
        let pools = [Pool::new(&self.url, POOL)?, Pool::with_config(config, POOL, Duration::from_secs(30))];
        let mut tasks = Vec::new();
        for who in 0..3 * EACH {
            let (this, pools) = (Arc::clone(self), pools.clone());
            tasks.push(spawn(move || {
                let mut dice = Dice((number << 8 | who).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
                let mut counts = Counts::default();
                while Instant::now() < until {
                    counts += this.say(&mut dice, &pools)?;
                }
                io::Result::Ok(counts)
            })?);
        }
        let mut trouble = Dice(number + 1);
        while Instant::now() < until {
            self.spoil(&mut trouble);
            sleep_until(Instant::now() + Duration::from_millis(20))?;
        }
        for proxy in &self.proxies {
            proxy.set(Fault::None, 0);
        }
        let mut counts = Counts::default();
        for mut task in tasks {
            counts += task.join()??;
        }
        // Both rows of each transaction are there, or none.
        let row =
            pools[0].get()?.query_one("select count(*) from soak group by number having count(*) <> 2", &[]);
        counts.wrong += u64::from(row.is_ok());
        pools[0].get()?.batch_execute("truncate soak")?;
        Ok(counts)
    }

    fn spoil(&self, dice: &mut Dice) {
        for proxy in &self.proxies {
            let fault = match dice.roll(6) {
                0 => Fault::None,
                1 => Fault::Close,
                2 => Fault::Reset,
                3 => Fault::Silence,
                4 => Fault::Pause(Duration::from_millis(dice.roll(50))),
                _ => Fault::Dribble(1 + dice.size(500)),
            };
            let of = if dice.roll(2) == 0 { Of::Client } else { Of::Server };
            proxy.set_of(of, fault, dice.size(50_000));
        }
    }

    /// Says one thing; interrupts it, perhaps.
    fn say(&self, dice: &mut Dice, pools: &[Pool; 2]) -> io::Result<Counts> {
        let spoiled = dice.roll(2) == 1;
        let kind = dice.roll(2) as usize;
        let at = if spoiled {
            self.sites[kind].through(self.proxies[kind].port)
        } else {
            self.sites[kind].clone()
        };
        let work = work(dice, at, &pools[usize::from(spoiled)]);
        let soon = Instant::now() + Duration::from_millis(dice.roll(150));
        // A silent proxy says nothing until somebody gives up.
        let how = if spoiled { dice.roll(2) } else { dice.roll(4) };
        let result = match how {
            0 => with_deadline(soon, work),
            1 => {
                let mut task = spawn(move || with_deadline(soon + Duration::from_secs(2), work))?;
                sleep_until(soon)?;
                task.cancel();
                task.join().unwrap_or_else(|error| match error {
                    JoinError::Interrupted(interrupt) => Err(interrupt.into()),
                    error => panic!("{error}"),
                })
            }
            _ => work(),
        };
        Ok(match result {
            Ok(()) => Counts { right: 1, ..Counts::default() },
            Err(error) => match Interrupt::of(&error) {
                Some(_) if how < 2 => Counts { interrupted: 1, ..Counts::default() },
                _ if spoiled => Counts { broken: 1, ..Counts::default() },
                _ => {
                    println!("wrong: {error}");
                    Counts { wrong: 1, ..Counts::default() }
                }
            },
        })
    }
}

/// What is said next.
fn work(dice: &mut Dice, at: At, pool: &Pool) -> Work {
    let (seed, pool, mut own) = (dice.roll(1 << 40), pool.clone(), dice.clone());
    match dice.roll(8) {
        // What may be sent twice: an idle connection is closed by the server at any time.
        0 | 1 => {
            let size = dice.size(200_000);
            Box::new(move || at.echo(Method::PUT, seed, size))
        }
        2 => {
            let size = dice.size(2_000_000);
            // Half of them read slowly.
            let pause = Duration::from_millis(own.roll(2) * own.roll(10));
            Box::new(move || at.download(seed, size, || Ok(sleep_until(Instant::now() + pause)?)))
        }
        3 => {
            let size = dice.size(100_000);
            Box::new(move || at.chat(seed, 5, size))
        }
        4 => Box::new(move || chat_slowly(&at, seed, &mut own)),
        5 => Box::new(move || Ok(ask(&pool, seed)?)),
        6 => Box::new(move || Ok(order(&pool, seed)?)),
        _ => Box::new(move || Ok(list(&pool, &mut own)?)),
    }
}

/// Says more than there is room for, until that takes too long, and hears it then.
fn chat_slowly(at: &At, seed: u64, dice: &mut Dice) -> io::Result<()> {
    let mut ws = at.websocket()?;
    let (mut said, size) = (0, 1 + dice.size(200_000));
    let soon = Instant::now() + Duration::from_millis(dice.roll(200));
    while said < 30 {
        let sent = with_deadline(soon, || ws.send(&pattern(seed + said, size)));
        // One that was interrupted goes out later.
        said += 1;
        match sent {
            Err(error) if Interrupt::of(&error) == Some(Interrupt::Deadline) && soon <= Instant::now() => {
                break;
            }
            sent => sent?,
        }
    }
    for number in 0..said {
        hear(&mut ws, seed + number, size)?;
    }
    ws.close(1000, "")
}

fn ask(pool: &Pool, seed: u64) -> Result<(), Error> {
    let row = pool.get()?.query_one("select $1, $1 + 1", &[&(seed as i64)])?;
    assert_eq!((row.get::<i64>(0)?, row.get::<i64>(1)?), (seed as i64, seed as i64 + 1), "another answer");
    Ok(())
}

/// Two rows, or none.
fn order(pool: &Pool, seed: u64) -> Result<(), Error> {
    let mut db = pool.get()?;
    let mut transaction = db.transaction()?;
    for _ in 0..2 {
        transaction.execute("insert into soak values ($1)", &[&(seed as i64)])?;
    }
    transaction.commit()
}

fn list(pool: &Pool, dice: &mut Dice) -> Result<(), Error> {
    let (count, mut expected) = (dice.size(20_000) as i64, 0);
    let sql = "select i, repeat('x', 50) from generate_series(1, $1::bigint) i";
    let rows = pool.get()?.for_each(sql, &[&count], |row| {
        expected += 1;
        assert_eq!(row.get::<i64>(0).unwrap(), expected, "another row");
    })?;
    assert_eq!(rows as i64, count);
    Ok(())
}
