//! Against a real PostgreSQL server: COPY in every direction, and all the ways it can fail.

mod support;

use std::time::Instant;

use balrog_proto::Step;
use balrog_proto::postgres::{Batch, Config, Unit};
use support::{Client, server};

fn client() -> Client {
    let mut client = Client::admin(server());
    client.run("create temp table t(a int check (a < 100), b text)");
    client
}

/// Sends `sql` through the extended protocol, its Sync at once or not.
fn extended(client: &mut Client, sql: &str, sync: bool) -> Unit {
    let mut batch = Batch::new();
    batch.query(sql, &[]).unwrap();
    if sync {
        batch.sync();
    } else {
        batch.flush();
    }
    client.link.send(&mut batch).unwrap()
}

/// Begins a COPY FROM in one of the three ways, and waits until the server takes data.
fn begin(client: &mut Client, how: usize) -> Unit {
    const SQL: &str = "copy t from stdin";
    let unit = match how {
        0 => client.link.query(SQL).unwrap(),
        _ => extended(client, SQL, how == 1),
    };
    let events = client.read("copy in");
    assert_eq!(events.last().unwrap(), "copy in Text 2");
    unit
}

/// Whatever came before: the session still answers each question with its own answer.
fn in_step(client: &mut Client, unit: Unit) {
    let mut batch = Batch::new();
    batch.query("select 'a'", &[]).unwrap().sync();
    batch.query("select 'b'", &[]).unwrap().sync();
    let next = client.link.send(&mut batch).unwrap();
    assert_eq!(next, Unit(unit.0 + 1));
    let events = client.read("");
    let told: Vec<&String> =
        events.iter().filter(|it| it.starts_with("row") || it.starts_with("ready")).collect();
    assert_eq!(
        told,
        ["row a", &format!("ready {} Idle", next.0), "row b", &format!("ready {} Idle", next.0 + 1)]
    );
    assert!(client.link.is_idle() && matches!(client.link.poll_event(Instant::now()), Ok(Step::NeedInput)));
}

#[test]
fn copy_in() {
    for how in 0..3 {
        let mut client = client();
        let unit = begin(&mut client, how);
        for piece in [&b"1\to"[..], b"ne\n2\t\\N", b"\n"] {
            client.link.copy_data(piece).unwrap();
        }
        client.link.copy_done().unwrap();
        assert_eq!(client.read(""), ["complete COPY 2".into(), format!("ready {} Idle", unit.0)]);
        in_step(&mut client, unit);
        assert_eq!(client.run("select * from t")[1..3], ["row 1|one", "row 2|NULL"]);
    }
}

#[test]
fn copy_in_that_the_client_gives_up() {
    for how in 0..3 {
        let mut client = client();
        let unit = begin(&mut client, how);
        client.link.copy_data(b"1\tone\n").unwrap();
        client.link.copy_fail("no more").unwrap();
        assert!(client.link.copy_data(b"2\ttwo\n").is_err());
        let events = client.read("");
        assert_eq!(events[0], "error 57014 COPY from stdin failed: no more");
        assert_eq!(events[1..], [format!("ready {} Idle", unit.0)]);
        in_step(&mut client, unit);
        assert_eq!(client.run("select count(*) from t")[1], "row 0");
    }
}

#[test]
fn copy_in_that_is_abandoned() {
    for how in 0..3 {
        let mut client = client();
        let unit = begin(&mut client, how);
        client.link.copy_data(b"1\tone\n").unwrap();
        client.link.recover(Instant::now()).unwrap();
        assert_eq!(client.read(""), [format!("ready {} Idle", unit.0)]);
        in_step(&mut client, unit);
    }
}

#[test]
fn copy_in_that_fails_while_data_is_sent() {
    for how in 0..3 {
        for ended in [false, true] {
            let mut client = client();
            let unit = begin(&mut client, how);
            client.link.copy_data(b"1\tone\nnonsense\ttwo\n").unwrap();
            if ended {
                client.link.copy_done().unwrap();
            } else {
                assert!(client.read("error").last().unwrap().starts_with("error 22P02"));
                assert!(client.link.copy_data(b"3\tthree\n").is_err());
                if how == 2 {
                    let mut batch = Batch::new();
                    batch.sync();
                    client.link.send(&mut batch).unwrap();
                }
            }
            let mut events = client.read("");
            if ended {
                assert!(events.remove(0).starts_with("error 22P02"));
            }
            assert_eq!(events, [format!("ready {} Idle", unit.0)], "way {how}");
            in_step(&mut client, unit);
        }
    }
}

/// The trigger raises before the server reads what was sent behind Execute: that Sync counts now.
#[test]
fn copy_in_that_fails_before_data_is_read() {
    for how in 0..3 {
        for ended in [false, true] {
            let mut client = client();
            client.run(
                "create function pg_temp.no() returns trigger language plpgsql as
                    'begin raise exception ''not today''; end';
                 create trigger no before insert on t execute function pg_temp.no()",
            );
            let unit = begin(&mut client, how);
            if ended {
                client.link.copy_data(b"1\tone\n").unwrap();
                client.link.copy_done().unwrap();
            } else {
                assert_eq!(client.read("error"), ["error P0001 not today"]);
                if how == 2 {
                    let mut batch = Batch::new();
                    batch.sync();
                    client.link.send(&mut batch).unwrap();
                }
            }
            let mut events = client.read("");
            if ended {
                assert_eq!(events.remove(0), "error P0001 not today");
            }
            assert_eq!(events, [format!("ready {} Idle", unit.0)], "way {how}");
            in_step(&mut client, unit);
        }
    }
}

#[test]
fn copy_in_whose_commit_fails() {
    for how in 0..3 {
        let mut client = client();
        client.run("alter table t add unique (a) deferrable initially deferred");
        let unit = begin(&mut client, how);
        client.link.copy_data(b"1\tone\n1\ttwo\n").unwrap();
        client.link.copy_done().unwrap();
        let events = client.read("");
        assert!(events.iter().any(|it| it.starts_with("error 23505")), "{events:?}");
        assert_eq!(events.last().unwrap(), &format!("ready {} Idle", unit.0));
        in_step(&mut client, unit);
    }
}

#[test]
fn copy_in_inside_a_transaction_stays_in_it() {
    let mut client = client();
    client.run("begin");
    begin(&mut client, 1);
    client.link.copy_data(b"1\tone\n").unwrap();
    client.link.copy_done().unwrap();
    assert_eq!(client.read("").last().unwrap(), "ready 2 InTransaction");
    begin(&mut client, 1);
    client.link.copy_data(b"1000\tone\n").unwrap();
    client.link.copy_done().unwrap();
    assert_eq!(client.read("").last().unwrap(), "ready 3 Failed");
    assert_eq!(client.run("rollback"), ["complete ROLLBACK"]);
}

#[test]
fn copy_in_cannot_be_in_the_middle_of_a_pipeline() {
    let mut client = client();
    let mut batch = Batch::new();
    batch.query("copy t from stdin", &[]).unwrap().sync();
    batch.query("select 1", &[]).unwrap().sync();
    client.link.send(&mut batch).unwrap();
    let events = client.read("");
    assert!(events.last().unwrap().contains("middle of a pipeline"), "{events:?}");
    assert!(client.link.is_shutdown());
}

#[test]
fn several_statements_of_a_simple_query_may_copy() {
    let mut client = client();
    client.link.query("copy t from stdin; copy t(a) from stdin; copy t to stdout; select 1").unwrap();
    client.read("copy in");
    client.link.copy_data(b"1\tone\n").unwrap();
    client.link.copy_done().unwrap();
    assert_eq!(client.read("copy in"), ["complete COPY 1", "copy in Text 1"]);
    client.link.copy_data(b"2\n").unwrap();
    client.link.copy_done().unwrap();
    assert_eq!(
        client.read(""),
        [
            "complete COPY 1",
            "copy out Text 2",
            r"copied 1\tone\n true",
            r"copied 2\t\\N\n true",
            "copydone",
            "complete COPY 2",
            "columns ?column?:23",
            "row 1",
            "complete SELECT 1",
            "ready 1 Idle"
        ]
    );
}

#[test]
fn copy_out() {
    for how in 0..3 {
        let mut client = client();
        let sql = "copy (select n, 'x' from generate_series(1, 3) n) to stdout";
        match how {
            0 => drop(client.link.query(sql).unwrap()),
            _ => {
                extended(&mut client, sql, how == 1);
                if how == 2 {
                    let mut batch = Batch::new();
                    batch.sync();
                    client.link.send(&mut batch).unwrap();
                }
            }
        }
        let events = client.read("");
        let from = events.iter().position(|it| it == "copy out Text 2").unwrap();
        assert_eq!(
            events[from + 1..],
            [
                r"copied 1\tx\n true",
                r"copied 2\tx\n true",
                r"copied 3\tx\n true",
                "copydone",
                "complete COPY 3",
                "ready 1 Idle"
            ]
        );
        in_step(&mut client, Unit(1));
    }
}

#[test]
fn copy_out_that_fails_and_copy_out_that_is_abandoned() {
    let mut client = client();
    let events = client.run("copy (select 10 / (3 - n) from generate_series(1, 5) n) to stdout");
    assert_eq!(events[1..], [r"copied 5\n true", r"copied 10\n true", "error 22012 division by zero"]);
    client.link.query("copy (select n from generate_series(1, 100000) n) to stdout").unwrap();
    client.read("copied");
    client.link.recover(Instant::now()).unwrap();
    assert_eq!(client.read(""), ["ready 2 Idle"]);
    in_step(&mut client, Unit(2));
}

/// Before the server has said that it takes data, nobody could tell that it was a COPY.
#[test]
fn copy_in_that_is_abandoned_before_it_begins() {
    let mut client = client();
    client.run("create temp table early(a int)");
    for _ in 0..2 {
        let unit = client.link.query("copy early from stdin").unwrap();
        client.link.recover(Instant::now()).unwrap();
        assert_eq!(client.read(""), [format!("ready {} Idle", unit.0)]);
        in_step(&mut client, unit);
    }
}

#[test]
fn copied_data_larger_than_the_limit_comes_in_pieces() {
    let mut client = client();
    let limit = 1 << 20;
    for (size, pieces) in [(limit - 1, 1), (limit, 17)] {
        let events = client.run(&format!("copy (select repeat('x', {size})) to stdout"));
        let copied: Vec<&String> = events.iter().filter(|it| it.starts_with("copied")).collect();
        assert_eq!(copied.len(), pieces);
        assert!(copied[..pieces - 1].iter().all(|it| *it == "copied 65536 bytes false"));
        assert!(copied[pieces - 1].ends_with("true"));
    }
}

#[test]
fn copy_both_ways() {
    let mut config = Config::new("postgres");
    config.settings = vec![(b"replication".to_vec(), b"true".to_vec())];
    let mut client = Client::local(server(), config).unwrap();
    let system = client.run("IDENTIFY_SYSTEM");
    let position = system[1].split('|').nth(2).unwrap().to_owned();
    for round in 1..3 {
        client.link.query(&format!("START_REPLICATION PHYSICAL {position}")).unwrap();
        assert!(client.read("copyboth")[0].contains("overall: text"));
        // Its log or that it is alive, and our status update in the other direction.
        assert!(client.read("copied")[0].starts_with("copied"));
        let mut status = b"r".to_vec();
        status.resize(1 + 8 + 8 + 8 + 8 + 1, 0);
        client.link.copy_data(&status).unwrap();
        client.link.copy_done().unwrap();
        assert!(client.link.copy_data(&status).is_err());
        let events = client.read("");
        let rest: Vec<&String> = events.iter().filter(|it| !it.starts_with("copied")).collect();
        assert_eq!(rest[0], "copydone");
        assert_eq!(rest.last().unwrap().as_str(), format!("ready {round} Idle"));
    }
}
