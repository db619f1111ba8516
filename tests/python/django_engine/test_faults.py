"""Cancel at each wait, killed sessions, a server that restarts; after each the database is quiet and works."""

import time

import balrog
import pytest
from support.green import green


def nested(thing, name):
    """Every kind of wait that the ORM has."""
    from django.db import transaction

    one = thing.objects.create(name=name)
    with transaction.atomic():
        one.name = name + "!"
        one.save()
        with transaction.atomic():
            list(thing.objects.filter(name=name).iterator())
            thing.objects.bulk_create([thing(name=f"{name}-{number}") for number in range(3)])
    one.refresh_from_db()
    one.delete()


@green
def test_cancel_at_each_wait(thing, monkeypatch):
    """The waits of the work are counted, then it is run once for each and cancelled exactly there."""
    from balrog.psycopg import connection as module
    from django.db import connection

    real = module.wait_fd
    state = {"count": 0, "at": None, "task": None}

    def counting(fd, events, timeout=None):
        if balrog.current_task() is state["task"]:
            state["count"] += 1
            if state["count"] == state["at"]:
                state["task"].cancel()
        return real(fd, events) if timeout is None else real(fd, events, timeout)

    monkeypatch.setattr(module, "wait_fd", counting)

    def work(name):
        state.update(count=0, task=balrog.current_task())
        nested(thing, name)

    balrog.spawn(work, "whole").result()
    waits = state["count"]
    assert waits > 8
    cancelled = 0
    for at in range(1, waits + 1):
        thing.objects.all().delete()
        connection.close()
        state["at"] = at
        task = balrog.spawn(work, f"at {at}")
        assert task.join(10)
        cancelled += isinstance(task.exception(), balrog.Cancelled)
        state["at"] = None
        # What a transaction did is there as a whole or not at all.
        names = set(thing.objects.values_list("name", flat=True))
        children = {f"at {at}-{number}" for number in range(3)}
        assert names & children in (set(), children)
        assert (f"at {at}!" in names) <= (children <= names)
    assert cancelled >= waits - 2  # the last ones may come too late


@green
def test_cancel_while_waiting_for_the_pool(thing):
    from balrog.django.postgresql import base
    from django.db import transaction

    release = balrog.Event()

    def holder():
        with transaction.atomic():
            thing.objects.count()
            release.wait()

    holders = [balrog.spawn(holder) for _ in range(5)]
    balrog.sleep(0.3)
    waiter = balrog.spawn(thing.objects.count)
    balrog.sleep(0.05)
    assert base._pools["default"].waiting == 1
    waiter.cancel()
    waiter.join(2)
    assert base._pools["default"].waiting == 0
    release.set()
    for task in holders:
        task.result()
    assert thing.objects.count() == 0


@green
def test_a_timeout_reaches_into_a_query(thing):
    from django.db import connection

    with pytest.raises(TimeoutError), balrog.timeout(0.05), connection.cursor() as cursor:
        cursor.execute("select pg_sleep(30)")
    assert thing.objects.count() == 0


@green
def test_a_session_killed_in_mid_query(thing):
    from django.db import OperationalError, connection, transaction

    pids = balrog.Queue()

    def victim():
        with transaction.atomic(), connection.cursor() as cursor:
            thing.objects.create(name="lost")
            cursor.execute("select pg_backend_pid()")
            pids.put(cursor.fetchone()[0])
            cursor.execute("select pg_sleep(30)")

    task = balrog.spawn(victim)
    with connection.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(%s)", [pids.get()])
    with pytest.raises(OperationalError):
        task.result(5)
    assert thing.objects.count() == 0


@green
def test_a_long_task_gets_another_session_after_its_own_died(thing):
    from django.db import OperationalError, connection

    with connection.cursor() as cursor, pytest.raises(OperationalError):
        cursor.execute("select pg_terminate_backend(pg_backend_pid())")
    assert thing.objects.count() == 0


def kill_while_waiting(statement):
    """Runs a statement, and has its session killed while the task waits for something else."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement)
        cursor.execute("select pg_backend_pid()")
        (pid,) = cursor.fetchone()

    def kill():
        with connection.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(%s, 5000)", [pid])

    balrog.spawn(kill).result()
    balrog.sleep(0.1)


@green
def test_a_session_that_died_while_its_task_waited_is_replaced(thing):
    kill_while_waiting("select 1")
    assert thing.objects.count() == 0


@green
def test_a_session_that_held_something_is_missed(thing):
    from django.db import OperationalError

    kill_while_waiting("set work_mem = '8MB'")
    with pytest.raises(OperationalError):
        thing.objects.count()
    assert thing.objects.count() == 0


@green
def test_the_server_restarts(thing, postgres):
    from balrog.django.postgresql import base
    from django.db import Error

    def work():
        for _ in range(20):
            thing.objects.count()
            balrog.sleep(0.02)

    balrog.spawn(work).result()
    tasks = [balrog.spawn(work) for _ in range(10)]
    balrog.sleep(0.05)
    balrog.to_thread(postgres.restart, "immediate")
    for task in tasks:
        task.join(10)
        assert task.exception() is None or isinstance(task.exception(), Error)
    # Healed at once: no session of before is handed out.
    began = time.monotonic()
    for task in [balrog.spawn(thing.objects.count) for _ in range(20)]:
        assert task.result(5) == 0
    assert time.monotonic() - began < 2
    assert base._pools["default"].size <= 5
