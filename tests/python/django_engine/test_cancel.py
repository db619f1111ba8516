"""A task cancelled, or out of time, at each of its database waits in turn."""

import time

import balrog
import pytest
from balrog.django.postgresql import base
from balrog.psycopg import connection as psycopg_connection


class Waits:
    """Counts a task's database waits, and calls `interrupt` before the one that is chosen."""

    def __init__(self, monkeypatch):
        self._wait = psycopg_connection.wait_fd
        self._task = self._interrupt = None
        self._left = 0
        self.reached = False
        monkeypatch.setattr(psycopg_connection, "wait_fd", self._counted)

    def _counted(self, *args):
        if self._left and balrog.current_task() is self._task:
            self._left -= 1
            if not self._left:
                self.reached = True
                self._interrupt()
        return self._wait(*args)

    def run(self, number, fn, interrupt=None):
        """Runs `fn` in a task that is interrupted at its wait `number`; gives the task."""

        def counted():
            self._task = balrog.current_task()
            self._interrupt = interrupt or self._task.cancel
            self._left, self.reached = number, False
            try:
                return fn()
            finally:
                self._left = 0

        task = balrog.spawn(counted)
        task.join(20)
        assert task.done(), f"hangs when interrupted at wait {number}"
        return task


@pytest.fixture
def waits(monkeypatch):
    return Waits(monkeypatch)


def empty_pool():
    """Makes the next task open a connection of its own, so that these waits are counted too."""
    from django.db import connection

    connection.close_pool()


def sweep(waits, fn, check, fresh=False):
    """Cancels `fn` at wait 1, 2, ... until it has no more of them; returns how many it has."""
    for number in range(1, 200):
        if fresh:
            empty_pool()
        task = waits.run(number, lambda number=number: fn(number))
        if not waits.reached:
            assert task.exception() is None
            return number - 1
        check(number, task)
    raise AssertionError("there is no end of waits")


def test_commit_and_hooks_go_together(thing):
    """Whatever wait the cancellation hits: the row is there if and only if its hook has run."""
    from django.db import transaction

    monkey = pytest.MonkeyPatch()
    waits, hooks = Waits(monkey), []

    def order(number):
        with transaction.atomic():
            thing.objects.create(name=f"n{number}")
            with transaction.atomic():
                thing.objects.filter(name=f"n{number}").update(name=f"m{number}")
            transaction.on_commit(lambda: hooks.append(number))

    outcomes = []

    def check(number, task):
        committed = balrog.run(lambda: thing.objects.filter(name__endswith=str(number)).exists())
        assert committed == (number in hooks)
        assert committed or isinstance(task.exception(), balrog.Cancelled)
        outcomes.append(committed)
        # Undone for the next round, whose number may end alike.
        balrog.run(lambda: thing.objects.all().delete())

    try:
        assert sweep(waits, order, check) >= 5  # INSERT, SAVEPOINT, UPDATE, RELEASE, COMMIT
    finally:
        monkey.undo()
    assert not all(outcomes)


def test_opening_a_connection(thing, waits):
    """Cancelled while the connection opens: the pool has its place back."""

    def check(number, task):
        assert isinstance(task.exception(), balrog.Cancelled)
        stats = base._pools["default"].stats()
        assert stats.size == stats.idle and stats.waiting == 0

    assert sweep(waits, lambda number: thing.objects.count(), check, fresh=True) >= 2


def test_autocommit_statements(thing, waits):
    def check(number, task):
        assert isinstance(task.exception(), balrog.Cancelled)
        assert balrog.run(lambda: thing.objects.filter(name="after").count()) == 0

    def body(number):
        thing.objects.count()
        list(thing.objects.all())
        thing.objects.count()

    assert sweep(waits, body, check) >= 3


def test_server_side_cursor(thing, waits):
    thing.objects.bulk_create(thing(name=str(i)) for i in range(50))

    def check(number, task):
        assert isinstance(task.exception(), balrog.Cancelled)

    def body(number):
        assert sum(1 for _ in thing.objects.iterator(chunk_size=10)) == 50

    assert sweep(waits, body, check) >= 6


def test_copy_both_ways(thing, waits):
    from django.db import connection

    table = thing._meta.db_table

    def check(number, task):
        assert isinstance(task.exception(), balrog.Cancelled)

    def body(number):
        with connection.cursor() as cursor:
            with cursor.copy(f"copy {table} (name) from stdin") as copy:
                for i in range(10):
                    copy.write(f"{number}-{i}\n")
            with cursor.copy(f"copy {table} to stdout") as copy:
                assert sum(1 for _ in copy) >= 10

    assert sweep(waits, body, check) >= 2


def test_the_query_is_gone_from_the_server_and_the_connection_is_kept(thing):
    from django.db import connection

    def sleeper():
        with connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            pids.append(cursor.fetchone()[0])
            cursor.execute("select pg_sleep(30)")

    def running():
        with connection.cursor() as cursor:
            cursor.execute(
                "select count(*) from pg_stat_activity where pid <> pg_backend_pid() and query like 'select pg_sleep%'"
                " and state = 'active'"
            )
            return cursor.fetchone()[0]

    def main():
        task = balrog.spawn(sleeper)
        while not pids or not running():
            balrog.sleep(0.01)
        begun = time.monotonic()
        task.cancel()
        assert task.join(5)
        assert time.monotonic() - begun < 2
        assert running() == 0
        assert balrog.run(same) in pids or base._pools["default"].stats().dropped == dropped

    def same():
        with connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            return cursor.fetchone()[0]

    pids = []
    balrog.run(same)
    dropped = base._pools["default"].stats().dropped
    balrog.run(main)
    assert base._pools["default"].stats().dropped == dropped, "the connection was usable, and closed all the same"


def test_cancelled_at_begin_the_query_is_not_sent(thing, waits):
    """psycopg sends BEGIN and the first statement one after the other: the second must not follow a cancellation."""
    from django.db import connection, transaction

    def body():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("select pg_sleep(30)")

    balrog.run(lambda: thing.objects.count())
    dropped = base._pools["default"].stats().dropped
    begun = time.monotonic()
    task = waits.run(1, body)
    assert isinstance(task.exception(), balrog.Cancelled)
    assert time.monotonic() - begun < 2
    assert base._pools["default"].stats().dropped == dropped


def test_out_of_time_inside_a_savepoint(thing):
    """`TimeoutError` rolls the savepoint back; the transaction around it goes on."""
    from django.db import connection, transaction

    def main():
        with transaction.atomic():
            thing.objects.create(name="kept")
            with pytest.raises(TimeoutError), balrog.timeout(0.1), transaction.atomic():
                thing.objects.create(name="lost")
                with connection.cursor() as cursor:
                    cursor.execute("select pg_sleep(30)")
            thing.objects.create(name="also kept")

    balrog.run(main)
    assert set(balrog.run(lambda: list(thing.objects.values_list("name", flat=True)))) == {"kept", "also kept"}


def test_transaction_of_plain_psycopg(thing, postgres):
    """`Connection.transaction()`: a cancellation during its COMMIT comes after it."""
    monkey = pytest.MonkeyPatch()
    waits, table = Waits(monkey), thing._meta.db_table

    def body(number):
        with psycopg_connection.Connection.connect(**address) as conn:
            with conn.transaction():
                conn.execute(f"insert into {table} (name) values (%s)", [f"p{number}"])
            ended.append(number)

    address = {"host": postgres.host, "user": postgres.user, "dbname": postgres.database}
    ended = []

    def check(number, task):
        committed = balrog.run(lambda: thing.objects.filter(name=f"p{number}").exists())
        assert committed == (number in ended)

    try:
        assert sweep(waits, body, check) >= 4
    finally:
        monkey.undo()


def test_session_ended_in_mid_query(thing, postgres):
    """`pg_terminate_backend`: the query fails as OperationalError, and the task's next one works."""
    from django.db import OperationalError, connection

    def victim():
        with pytest.raises(OperationalError), connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            pids.append(cursor.fetchone()[0])
            cursor.execute("select pg_sleep(30)")
        return thing.objects.count()

    def main():
        task = balrog.spawn(victim)
        while not pids:
            balrog.sleep(0.01)
        balrog.sleep(0.05)
        with connection.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(%s)", [pids[0]])
        return task.result(5)

    pids = []
    assert balrog.run(main) == 0


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_server_restarts(thing, postgres, mode):
    """Connections that died while idle are replaced: the next task sees nothing of it."""
    from django.db import OperationalError, connection

    def several():
        tasks = [balrog.spawn(lambda: thing.objects.count()) for _ in range(5)]
        return [task.result(10) for task in tasks]

    def broken():
        with pytest.raises(OperationalError), connection.cursor() as cursor:
            cursor.execute("select pg_sleep(30)")

    def main():
        task = balrog.spawn(broken)
        balrog.sleep(0.1)
        balrog.to_thread(postgres.restart, mode)
        task.result(10)

    assert balrog.run(several) == [0] * 5
    balrog.run(main)
    assert balrog.run(several) == [0] * 5
    connection.close()


def test_a_cancel_that_comes_too_early_is_repeated(thing, monkeypatch):
    """The server forgets a cancellation that overtakes its statement."""
    from django.db import connection

    once = psycopg_connection.Connection._try_cancel
    asked = []

    def deaf_at_first(self, **kwargs):
        asked.append(kwargs)
        if len(asked) > 1:
            once(self, **kwargs)

    def main():
        with pytest.raises(TimeoutError), balrog.timeout(0.05), connection.cursor() as cursor:
            cursor.execute("select pg_sleep(30)")
        return thing.objects.count()

    monkeypatch.setattr(psycopg_connection.Connection, "_try_cancel", deaf_at_first)
    begun = time.monotonic()
    assert balrog.run(main) == 0
    assert len(asked) >= 2
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize("atomic", [False, True])
def test_executemany_and_pipelines(thing, waits, atomic):
    """Interrupted in a pipeline, whose answers nobody can tell apart any more: the next user is not confused."""
    from django.db import connection, transaction

    table = thing._meta.db_table

    def body(number):
        with transaction.atomic() if atomic else balrog.timeout(None), connection.cursor() as cursor:
            names = [[f"{number}-{i}"] for i in range(8)]
            cursor.executemany(f"insert into {table} (name) values (%s)", names)
            with connection.connection.pipeline():
                for i in range(5):
                    cursor.cursor.execute("select pg_sleep(0.01), %s", [i])
                cursor.cursor.execute("select 7")

    def check(number, task):
        cancelled = isinstance(task.exception(), balrog.Cancelled)
        # At its COMMIT a transaction is not cancelled any more, nor is a pipeline at its end.
        assert cancelled or task.exception() is None
        left = balrog.run(lambda: thing.objects.filter(name__startswith=f"{number}-").count())
        assert left in range(9) if not atomic else left == (0 if cancelled else 8)

    assert sweep(waits, body, check) >= 3
