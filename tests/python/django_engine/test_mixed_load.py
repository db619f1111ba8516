"""Many tasks at once on few connections, doing all kinds of things, some of them interrupted."""

import random
import threading

import balrog
import pytest
from django.db import DatabaseError, connection, transaction


class Interrupted(Exception):
    """What some of the tasks raise inside their transactions."""


class Worker:
    """One task's work, and what it must have left in the table."""

    def __init__(self, thing, name, seed):
        self.thing, self.name, self.random = thing, name, random.Random(seed)
        self.committed, self.hooks = set(), set()

    def run(self):
        for step in range(8):
            action = self.random.choice([self.plain, self.atomic, self.nested, self.iterate, self.session, self.slow])
            action(f"{self.name}-{step}")
            if self.random.random() < 0.3:
                balrog.sleep(self.random.random() / 100)
            assert self.rows() == self.committed

    def rows(self):
        return set(self.thing.objects.filter(name__startswith=f"{self.name}-").values_list("name", flat=True))

    def plain(self, name):
        # Alone in its statement: how it ends is how it is counted.
        with balrog.shield(60):
            self.thing.objects.create(name=name)
            self.committed.add(name)

    def atomic(self, name):
        def after():
            self.hooks.add(name)
            self.committed.add(name)

        try:
            with transaction.atomic():
                self.thing.objects.create(name=name)
                balrog.sleep(self.random.random() / 200)
                assert self.thing.objects.filter(name=name).count() == 1
                transaction.on_commit(after)
                if self.random.random() < 0.3:
                    raise Interrupted
        except Interrupted:
            assert name not in self.hooks

    def nested(self, name):
        with transaction.atomic():
            self.thing.objects.create(name=name)
            try:
                with transaction.atomic():
                    self.thing.objects.create(name=name)
            except DatabaseError:
                pass
            transaction.on_commit(lambda: self.committed.add(name))

    def iterate(self, name):
        found = set()
        for row in self.thing.objects.filter(name__startswith=f"{self.name}-").iterator(chunk_size=2):
            balrog.sleep(0)
            found.add(row.name)
        assert found == self.committed

    def session(self, name):
        with connection.cursor() as cursor:
            cursor.execute("select set_config('balrog.mine', %s, false)", [name])
            balrog.sleep(self.random.random() / 200)
            cursor.execute("select current_setting('balrog.mine')")
            assert cursor.fetchone() == (name,)

    def slow(self, name):
        try:
            with balrog.timeout(0.01), connection.cursor() as cursor:
                cursor.execute("select pg_sleep(5)")
        except TimeoutError:
            pass


def crowd(thing, prefix, seed, size=30):
    """Runs the workers as tasks of this thread and cancels every fifth; returns them."""
    workers = [Worker(thing, f"{prefix}{number}", seed * 1000 + number) for number in range(size)]

    def main():
        tasks = [balrog.spawn(worker.run) for worker in workers]
        balrog.sleep(0.1)
        for task in tasks[::5]:
            task.cancel()
            balrog.sleep(0.01)
        for task in tasks:
            task.join()
        for task in tasks:
            if not isinstance(task.exception(), balrog.Cancelled):
                task.result()

    balrog.run(main)
    return workers


def check(workers):
    for worker in workers:
        assert worker.rows() == worker.committed, worker.name


@pytest.mark.parametrize("seed", range(3))
def test_one_thread(thing, seed):
    check(crowd(thing, "w", seed))


def test_two_threads_share_the_pool(thing):
    """Each has a hub of its own; the limit holds for both together."""
    done = {}

    def thread(prefix):
        done[prefix] = crowd(thing, prefix, 7, size=15)

    threads = [threading.Thread(target=thread, args=(prefix,)) for prefix in ("a", "b")]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert set(done) == {"a", "b"}
    for workers in done.values():
        check(workers)
