"""``balrog.psycopg``: the pool and the connection, without Django."""

import os
import threading
import time

import balrog
import psycopg
import pytest
from balrog.psycopg import Connection, Pool, PoolTimeout, connect


@pytest.fixture
def dsn(postgres):
    return f"host={postgres.host} user={postgres.user} dbname={postgres.database}"


@pytest.fixture
def pool(dsn):
    pool = Pool(lambda: Connection.connect(dsn, autocommit=True), max_size=3, timeout=2)
    yield pool
    stats = pool.stats()
    assert stats.size == stats.idle and stats.waiting == 0
    pool.close()
    assert pool.size == 0


def test_overlaps_on_one_thread_and_never_opens_more(pool):
    peak = 0

    def work():
        nonlocal peak
        connection = pool.getconn()
        peak = max(peak, pool.size)
        connection.execute("select pg_sleep(0.1)")
        pool.putconn(connection)

    def main():
        began = time.monotonic()
        for task in [balrog.spawn(work) for _ in range(9)]:
            task.result()
        return time.monotonic() - began

    assert 0.3 <= balrog.run(main) < 0.7  # 0.9 s one after another
    assert peak == 3
    assert pool.stats().opened == 3


def test_serves_in_the_order_of_asking(pool):
    order = []

    def work(number):
        connection = pool.getconn()
        order.append(number)
        balrog.sleep(0.005)
        pool.putconn(connection)

    def main():
        # All are open: opening takes longer for one than for another.
        for connection in [pool.getconn() for _ in range(3)]:
            pool.putconn(connection)
        for task in [balrog.spawn(work, number) for number in range(30)]:
            task.result()

    balrog.run(main)
    assert order == list(range(30))


def test_says_what_to_do_when_none_becomes_free(pool):
    def main():
        held = [pool.getconn() for _ in range(3)]
        began = time.monotonic()
        with pytest.raises(PoolTimeout, match="raise the pool's max_size") as caught:
            pool.getconn(timeout=0.1)
        assert 0.09 < time.monotonic() - began < 1
        assert isinstance(caught.value, psycopg.OperationalError)
        for connection in held:
            pool.putconn(connection)

    balrog.run(main)
    assert pool.stats().timeouts == 1


def test_one_who_is_cancelled_when_served_passes_it_on(pool):
    got = []

    def work(name):
        connection = pool.getconn()
        got.append(name)
        pool.putconn(connection)

    def main():
        held = [pool.getconn() for _ in range(3)]
        first, second = balrog.spawn(work, "first"), balrog.spawn(work, "second")
        balrog.sleep(0.01)
        pool.putconn(held.pop())  # handed to the first, which has not run yet
        first.cancel()
        second.join(1)
        for connection in held:
            pool.putconn(connection)
        first.join(1)

    balrog.run(main)
    assert "second" in got


def test_one_who_is_cancelled_while_waiting_leaves_the_queue(pool):
    def main():
        held = [pool.getconn() for _ in range(3)]
        waiter = balrog.spawn(pool.getconn)
        balrog.sleep(0.01)
        assert pool.waiting == 1
        waiter.cancel()
        waiter.join(1)
        assert pool.waiting == 0
        for connection in held:
            pool.putconn(connection)

    balrog.run(main)


def test_rolls_back_and_restores_autocommit(pool):
    def main():
        connection = pool.getconn()
        connection.autocommit = False
        connection.execute("create table left_open (n int)")
        pool.putconn(connection)
        again = pool.getconn()
        assert again is connection and again.autocommit
        assert again.execute("select to_regclass('left_open')").fetchone() == (None,)
        pool.putconn(again)

    balrog.run(main)


def test_replaces_a_session_that_was_killed(pool, postgres):
    def main():
        connection = pool.getconn()
        pid = connection.info.backend_pid
        pool.putconn(connection)
        with connect(connection.info.dsn) as other:
            other.execute("select pg_terminate_backend(%s)", [pid])
        balrog.sleep(0.1)
        fresh = pool.getconn()
        assert fresh.execute("select 1").fetchone() == (1,)
        pool.putconn(fresh)

    balrog.run(main)
    assert pool.stats().dropped == 1


def test_makes_room_when_a_borrower_closes(pool):
    def main():
        for _ in range(10):
            connection = pool.getconn()
            connection.close()
            pool.putconn(connection)

    balrog.run(main)


def test_serves_tasks_and_threads_at_once(pool):
    done = []

    def work():
        for _ in range(10):
            with pool.connection() as connection:
                connection.execute("select pg_sleep(0.002)")
        done.append(1)

    def main():
        for task in [balrog.spawn(work) for _ in range(10)]:
            task.result()

    threads = [threading.Thread(target=work) for _ in range(4)]
    threads.append(threading.Thread(target=balrog.run, args=[main]))
    for thread in threads:
        thread.start()
    balrog.run(main)
    for thread in threads:
        thread.join(20)
    assert len(done) == 24


def test_a_forked_child_starts_with_an_empty_pool(pool):
    connection = pool.getconn()
    pool.putconn(connection)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            mine = pool.getconn()
            if mine is not connection and mine.execute("select 1").fetchone() == (1,):
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    again = pool.getconn()
    assert again is connection
    assert again.execute("select 1").fetchone() == (1,)
    pool.putconn(again)


def test_a_cancelled_query_ends_on_the_server_and_the_connection_is_usable(pool, dsn):
    def query(connection):
        connection.execute("select pg_sleep(30), 'to be cancelled'")

    def main():
        connection = pool.getconn()
        task = balrog.spawn(query, connection)
        balrog.sleep(0.05)
        began = time.monotonic()
        task.cancel()
        task.join(5)
        assert time.monotonic() - began < 2
        assert isinstance(task.exception(), balrog.Cancelled)
        assert connection.execute("select 42").fetchone() == (42,)
        running = "select count(*) from pg_stat_activity where query like '%to be cancelled%' and state = 'active'"
        with connect(dsn) as other:
            assert other.execute(running + " and pid <> pg_backend_pid()").fetchone() == (0,)
        pool.putconn(connection)

    balrog.run(main)


def test_a_query_obeys_a_timeout(pool):
    def main():
        connection = pool.getconn()
        with pytest.raises(TimeoutError), balrog.timeout(0.05):
            connection.execute("select pg_sleep(30)")
        assert connection.execute("select 42").fetchone() == (42,)
        pool.putconn(connection)

    balrog.run(main)


def test_a_commit_is_not_cut_by_cancel(dsn):
    def work(connection):
        connection.execute("insert into slow_commit values (1)")
        connection.commit()

    def main():
        with connect(dsn, autocommit=True) as connection:
            connection.execute("create table slow_commit (n int)")
            connection.execute(
                "create function slow() returns trigger language plpgsql as "
                "$$ begin perform pg_sleep(0.3); return null; end $$"
            )
            connection.execute(
                "create constraint trigger slow after insert on slow_commit "
                "deferrable initially deferred for each row execute function slow()"
            )
            with connect(dsn) as other:
                task = balrog.spawn(work, other)
                balrog.sleep(0.1)
                task.cancel()
                task.join(5)
            assert connection.execute("select count(*) from slow_commit").fetchone() == (1,)
            connection.execute("drop table slow_commit")
            connection.execute("drop function slow")

    balrog.run(main)


def test_two_tasks_may_share_a_connection(dsn):
    def main():
        with connect(dsn) as connection:
            tasks = [
                balrog.spawn(lambda n=n: connection.execute("select pg_sleep(0.01), %s", [n]).fetchone()[1])
                for n in range(10)
            ]
            assert [int(task.result(5)) for task in tasks] == list(range(10))

    balrog.run(main)


def test_a_slow_resolver_stops_nobody(dsn, monkeypatch):
    import socket

    def slow(host, *args, **kwargs):
        time.sleep(0.3)
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    ticks = 0

    def tick():
        nonlocal ticks
        while True:
            balrog.sleep(0.01)
            ticks += 1

    def main():
        ticker = balrog.spawn(tick)
        with pytest.raises(psycopg.OperationalError, match="failed to resolve host"):
            connect("host=database.invalid")
        ticker.cancel()

    balrog.run(main)
    assert ticks > 5


def test_copy_and_pipeline_and_notifies(dsn):
    def main():
        with connect(dsn, autocommit=True) as connection:
            connection.execute("create temp table t (n int)")
            with connection.cursor() as cursor, cursor.copy("copy t from stdin") as copy:
                for n in range(1000):
                    copy.write_row([n])
            with connection.pipeline():
                total = connection.execute("select sum(n) from t")
                assert total.fetchone() == (499500,)
            connection.execute("listen news")
            connection.execute("notify news, 'hello'")
            assert [n.payload for n in connection.notifies(timeout=1, stop_after=1)] == ["hello"]
            assert list(connection.notifies(timeout=0.05)) == []

    balrog.run(main)
    main()


def test_outside_of_tasks_it_is_psycopg(dsn):
    with connect(dsn) as connection:
        assert isinstance(connection, psycopg.Connection)
        assert connection.execute("select 1").fetchone() == (1,)
        assert Connection[tuple] is not None


def test_closing_a_connection_wakes_the_task_that_waits_on_it(dsn):
    def main():
        connection = connect(dsn)
        task = balrog.spawn(connection.execute, "select pg_sleep(30)")
        balrog.sleep(0.1)
        connection.close()
        assert connection.closed
        with pytest.raises(psycopg.OperationalError):
            task.result(2)

    balrog.run(main)


def test_closing_the_pool_sends_those_who_wait_away(dsn):
    pool = Pool(dsn, max_size=1)

    def main():
        held = pool.getconn()
        task = balrog.spawn(pool.getconn)
        balrog.sleep(0.05)
        pool.close()
        with pytest.raises(psycopg.OperationalError, match="closed"):
            task.result(2)
        pool.putconn(held)
        assert held.closed and pool.size == 0

    balrog.run(main)


def test_a_queue_that_moves_is_waited_in_and_one_that_stands_still_is_not(dsn):
    # A connection is given back every 0.2 s: the last waits three times as long as the pool lets a queue stand still.
    pool = Pool(lambda: Connection.connect(dsn, autocommit=True), max_size=1, timeout=60, stall_timeout=1)

    def work(seconds):
        connection = pool.getconn()
        balrog.sleep(seconds)
        pool.putconn(connection)

    def main():
        began = time.monotonic()
        for task in [balrog.spawn(work, 0.2) for _ in range(15)]:
            task.result()
        assert time.monotonic() - began >= 3
        holder = balrog.spawn(work, 3)
        balrog.sleep(0)
        began = time.monotonic()
        waiting = [balrog.spawn(work, 0) for _ in range(3)]
        for task in waiting:
            with pytest.raises(PoolTimeout, match="within 1 s"):
                task.result()
        assert 1 <= time.monotonic() - began < 3
        holder.result()

    balrog.run(main)
    assert pool.stats().timeouts == 3
    pool.close()
