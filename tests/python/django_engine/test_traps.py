"""What may go wrong with Django in tasks; ``docs/django-traps.md`` lists it all."""

import contextlib
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import balrog
import pytest
from support.green import green, ticking

POOL_SIZE = 5  # as in conftest.py


@green
def test_queries_of_tasks_overlap(thing):  # traps 1 and 2
    from django.db import connection, transaction

    def work(number):
        with transaction.atomic():
            thing.objects.create(name=f"{number}")
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("select pg_sleep(0.1)")
                thing.objects.filter(name=f"{number}").update(name=f"x{number}")
        assert [one.name for one in thing.objects.filter(name=f"x{number}").iterator()] == [f"x{number}"]

    began = time.monotonic()
    for task in [balrog.spawn(work, number) for number in range(20)]:
        task.result()
    assert time.monotonic() - began < 1.5  # 2 s one after another
    assert thing.objects.count() == 20


@green
def test_a_view_that_waits_for_something_else_holds_no_connection(thing):
    def work(number):
        one = thing.objects.create(name=f"{number}")
        balrog.sleep(0.3)
        one.refresh_from_db()

    began = time.monotonic()
    for task in [balrog.spawn(work, number) for number in range(100)]:
        task.result()
    assert time.monotonic() - began < 1.5  # 6 s if each of 5 connections were held


@green
def test_a_child_does_not_inherit_its_parents_transaction(thing):  # trap 3
    from django.db import connection, transaction

    def child():
        assert not connection.in_atomic_block
        return thing.objects.count()

    with transaction.atomic():
        thing.objects.create(name="not committed")
        assert balrog.spawn(child).result() == 0


@green
def test_lent_connections_show_a_childs_queries_the_transaction(thing):  # traps 10 and 19
    from balrog.django import lend_connections
    from django.db import transaction

    with transaction.atomic():
        thing.objects.create(name="not committed")
        with lend_connections("default"):
            assert balrog.spawn(thing.objects.count).result() == 1
        with lend_connections("default", to_all=True):
            assert balrog.spawn(thing.objects.count).result() == 1
        assert balrog.spawn(thing.objects.count).result() == 0


@green
def test_parents_that_wait_for_children_inside_transactions_end_in_time(thing):  # trap 10
    from django.db import OperationalError, transaction

    def parent():
        with transaction.atomic():
            thing.objects.count()
            balrog.sleep(0.05)
            return balrog.spawn(thing.objects.count).result()

    began = time.monotonic()
    tasks = [balrog.spawn(parent) for _ in range(POOL_SIZE)]
    failed = [task.exception() for task in tasks if task.join(10) and task.exception()]
    assert failed and all(isinstance(error, OperationalError) for error in failed)
    assert "raise the pool's max_size" in str(failed[0])
    assert time.monotonic() - began < 8


@green
def test_a_cancelled_query_leaves_the_connection_usable_inside_atomic(thing):  # trap 6
    from django.db import connection, transaction

    seen = []

    def work():
        with transaction.atomic():
            thing.objects.create(name="gone")
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("select pg_sleep(30)")
            except balrog.Cancelled:
                seen.append(thing.objects.count())
                raise

    task = balrog.spawn(work)
    balrog.sleep(0.1)
    began = time.monotonic()
    task.cancel()
    task.join(5)
    assert time.monotonic() - began < 2
    assert isinstance(task.exception(), balrog.Cancelled)
    assert seen == [1]
    assert thing.objects.count() == 0


@green
def test_a_cancel_at_any_moment_never_parts_a_commit_from_its_hooks(thing):  # trap 7
    from django.db import transaction

    ran = []

    def work(name):
        with transaction.atomic():
            thing.objects.create(name=name)
            transaction.on_commit(lambda: (balrog.sleep(0.002), ran.append(name)))

    for number in range(60):
        task = balrog.spawn(work, f"{number}")
        balrog.sleep(number * 0.0001)
        task.cancel()
        task.join(5)
    stored = set(thing.objects.values_list("name", flat=True))
    assert stored == set(ran)
    assert len(ran) == len(set(ran))


@green
def test_a_task_that_ends_inside_a_transaction_is_rolled_back_and_reported(thing, caplog):  # traps 8 and 9
    from django.db import transaction

    def generator():
        with transaction.atomic():
            thing.objects.create(name="never committed")
            yield 1

    kept = []

    def work():
        steps = generator()
        next(steps)
        kept.append(steps)  # so that it is not closed by being forgotten

    with caplog.at_level(logging.ERROR, "balrog.django"):
        balrog.spawn(work).result()
    assert "ended inside a transaction" in caplog.text
    assert thing.objects.count() == 0
    with contextlib.suppress(Exception):  # the generator's own matter: its task is over
        kept.pop().close()


def test_django_s_pool_option_is_mapped_or_refused(project):  # trap 11
    from balrog.django.postgresql.options import pool_options
    from django.core.exceptions import ImproperlyConfigured

    given = {"OPTIONS": {"pool": {"min_size": 2, "max_size": 7, "timeout": 3}}}
    assert pool_options(given, "default") == {"max_size": 7, "timeout": 3}
    assert pool_options({"OPTIONS": {"pool": True}}, "default") == {}
    for name in ("pool", "balrog_pool"):
        with pytest.raises(ImproperlyConfigured, match="kwargs"):
            pool_options({"OPTIONS": {name: {"kwargs": {}}}}, "default")


@green
def test_async_to_sync_lets_other_tasks_run_and_keeps_the_transaction(thing):  # trap 13
    import asyncio

    from asgiref.sync import async_to_sync, sync_to_async
    from django.db import transaction

    async def work():
        await asyncio.sleep(0.2)
        return await sync_to_async(thing.objects.count)()

    with ticking() as ticks, transaction.atomic():
        thing.objects.create(name="not committed")
        assert async_to_sync(work)() == 1
        thing.objects.all().delete()
    assert ticks.count > 5


@green
def test_cancelling_async_to_sync_cancels_the_coroutine(thing):  # trap 13
    import asyncio

    from asgiref.sync import async_to_sync

    ended = []

    async def work():
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(1)

    task = balrog.spawn(async_to_sync(work))
    balrog.sleep(0.1)
    began = time.monotonic()
    task.cancel()
    task.join(5)
    assert ended == [1] and time.monotonic() - began < 2


@green
def test_language_and_time_zone_are_the_tasks_own(thing):  # trap 14
    from django.utils import timezone, translation

    def work(language, zone):
        translation.activate(language)
        timezone.activate(zone)
        balrog.sleep(0.01)
        return translation.get_language(), timezone.get_current_timezone_name()

    given = [("de", "Europe/Berlin"), ("fr", "Europe/Paris")]
    assert [task.result() for task in [balrog.spawn(work, *one) for one in given]] == given


@green
def test_a_wrapper_of_another_thread_is_refused(thing):  # trap 15
    from django.db import DatabaseError, connections

    mine = connections["default"]
    mine.ensure_connection()
    with ThreadPoolExecutor(1) as threads, pytest.raises(DatabaseError, match="same thread"):
        threads.submit(mine.cursor).result()


@green
def test_a_thread_of_a_task_has_its_own_connection(thing):  # trap 16
    from django.db import connection

    def work():
        try:
            return thing.objects.count()
        finally:
            connection.close()

    assert balrog.to_thread(work) == 0


@green
def test_request_finished_gives_the_connection_back(thing):  # trap 17
    from balrog.django.postgresql import base
    from django.core.signals import request_finished
    from django.db import connection

    thing.objects.count()
    assert connection.connection is not None
    request_finished.send(sender=None)
    assert connection.connection is None
    pool = base._pools["default"]
    assert pool.idle == pool.size


@green
def test_close_pool_leaves_nothing_that_blocks_drop_database(thing, postgres):  # trap 20
    from django.db import connection

    thing.objects.count()
    connection.close()
    connection.close_pool()
    time.sleep(0.1)
    rows = postgres.execute("select count(*) from pg_stat_activity where application_name = 'under-test'")
    assert str(rows).strip() == "0"


@green
def test_a_forked_child_opens_its_own(thing):  # trap 25
    from django.db import connection

    thing.objects.create(name="seen by the child")
    connection.close()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if thing.objects.count() == 1 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert thing.objects.count() == 1


@green
def test_session_state_stays_with_its_task_and_is_forgotten_after_it(thing):
    from django.db import connection

    def setting():
        with connection.cursor() as cursor:
            cursor.execute("set statement_timeout = '17s'")
        balrog.sleep(0.05)
        with connection.cursor() as cursor:
            cursor.execute("show statement_timeout")
            return cursor.fetchone()[0]

    def reading():
        with connection.cursor() as cursor:
            cursor.execute("show statement_timeout")
            return cursor.fetchone()[0]

    one = balrog.spawn(setting)
    others = [balrog.spawn(reading) for _ in range(4 * POOL_SIZE)]
    assert one.result() == "17s"
    assert {task.result() for task in others} == {"0"}
    assert {balrog.spawn(reading).result() for _ in range(POOL_SIZE)} == {"0"}


@green
def test_hold_keeps_an_advisory_lock(thing):
    from balrog.django import hold
    from django.db import connection

    def pid():
        with connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            return cursor.fetchone()[0]

    def held():
        with hold():
            first = pid()
            balrog.sleep(0.05)
            return first == pid()

    def busy():
        for _ in range(5):
            pid()
            balrog.sleep(0.005)

    tasks = [balrog.spawn(held)] + [balrog.spawn(busy) for _ in range(4 * POOL_SIZE)]
    assert tasks[0].result() is True
    for task in tasks:
        task.result()


@green
def test_a_server_side_cursor_keeps_its_connection(thing):
    thing.objects.bulk_create(thing(name=f"{number}") for number in range(50))

    def reading():
        names = []
        for one in thing.objects.order_by("id").iterator(chunk_size=5):
            names.append(one.name)
            balrog.sleep(0.001)
        return names

    tasks = [balrog.spawn(reading) for _ in range(2 * POOL_SIZE)]
    for task in tasks:
        assert task.result() == [f"{number}" for number in range(50)]


@green
def test_a_cursor_goes_on_after_its_connection_was_handed_on(thing):
    from django.db import connection

    def work(number):
        with connection.cursor() as cursor:
            for _ in range(5):
                cursor.execute("select %s", [number])
                balrog.sleep(0.002)
                assert cursor.fetchone()[0] == number

    for task in [balrog.spawn(work, number) for number in range(6 * POOL_SIZE)]:
        task.result()


@green
def test_another_engine_is_per_task_and_closed_with_it(project):
    from django.db import connections

    seen = []

    def work():
        with connections["lite"].cursor() as cursor:
            cursor.execute("select 1")
        seen.append(connections["lite"])

    for task in [balrog.spawn(work), balrog.spawn(work)]:
        task.result()
    assert seen[0] is not seen[1]


def test_outside_of_tasks_there_is_no_pool(thing):
    from django.db import connection

    thing.objects.count()
    assert not connection._leased and connection.connection is not None
    other = []

    def work():
        other.append(connection.connection)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert other == [None]
    connection.close()
