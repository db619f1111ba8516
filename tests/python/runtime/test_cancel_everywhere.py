"""Tasks that wait for balrog's own things and for asyncio's are cancelled at every wait: nothing may be left behind."""

import asyncio
import contextlib
import gc
import os
import queue
import threading
import time

import balrog
import pytest
from support.sweep import PATIENCE, Scenarios, sweep

scenario = Scenarios()


# Waits of balrog's own.


@scenario
def sleeping():
    yield lambda: [balrog.sleep(0.002) for _ in range(3)]


@scenario
def cleaning_up():
    steps = []

    def body():
        try:
            balrog.sleep(0.002)
            balrog.sleep(0.002)
        finally:
            steps.append("asked" if balrog.current_task().cancelling else "not asked")
            balrog.sleep(0.002)
            steps.append("cleaned")

    yield body
    # Cancelled before, it may wait in its clean-up; only one that comes in it cuts it.
    assert steps[0] == "not asked" or steps == ["asked", "cleaned"]


@scenario
def lock():
    lock = balrog.Lock()

    def body():
        for _ in range(2):
            with lock:
                balrog.sleep(0.002)

    with holding(lock):
        yield body
    assert lock.acquire(timeout=PATIENCE)


@contextlib.contextmanager
def holding(lock):
    """Somebody else has the lock for a moment."""

    def hold():
        with lock:
            balrog.sleep(0.005)

    other = balrog.spawn(hold)
    balrog.sleep(0)
    yield
    other.join()


@scenario
def rlock():
    lock = balrog.RLock()

    def body():
        with lock, lock:
            balrog.sleep(0.002)

    with holding(lock):
        yield body
    assert lock.acquire(timeout=PATIENCE)


@scenario
def semaphore():
    semaphore = balrog.BoundedSemaphore(1)

    def body():
        for _ in range(2):
            with semaphore:
                balrog.sleep(0.002)

    with holding(semaphore):
        yield body
    assert (semaphore._value, semaphore._waiting) == (1, 0)


@scenario
def condition():
    condition = balrog.Condition()
    told = []

    def tell():
        balrog.sleep(0.002)
        with condition:
            told.append(True)
            condition.notify_all()

    def body():
        with condition:
            condition.wait_for(lambda: told, PATIENCE)
            condition.wait(0.002)

    other = balrog.spawn(tell)
    yield body
    other.join()
    assert condition.acquire(timeout=PATIENCE)


@scenario
def event():
    event = balrog.Event()
    other = balrog.spawn(lambda: (balrog.sleep(0.002), event.set()))
    yield lambda: (event.wait(), event.clear(), event.wait(0.002))
    other.join()


@scenario
def barrier():
    barrier = balrog.Barrier(2)

    def meet():
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(0.01)

    other = balrog.spawn(lambda: (balrog.sleep(0.002), meet()))
    yield meet
    # Who is left alone is not left waiting.
    assert other.join(PATIENCE)


@scenario
def queues():
    numbers, taken = balrog.Queue(1), []

    def produce():
        for number in range(4):
            numbers.put(number)

    def body():
        for _ in range(4):
            taken.append(numbers.get())
            numbers.task_done()
        numbers.join()

    producer = balrog.spawn(produce)
    yield body
    with contextlib.suppress(queue.Empty):
        while len(taken) < 4:
            taken.append(numbers.get(timeout=PATIENCE))
    # None is lost, none comes twice.
    assert taken == [0, 1, 2, 3]
    producer.join()


@scenario
def full_queue():
    numbers, sent, taken = balrog.Queue(1), [], []

    def body():
        for number in range(4):
            numbers.put(number)
            sent.append(number)

    def consume():
        while (number := numbers.get()) is not None:
            taken.append(number)
            balrog.sleep(0.001)

    consumer = balrog.spawn(consume)
    yield body
    numbers.put(None)
    consumer.join()
    assert taken[: len(sent)] == sent and len(taken) <= len(sent) + 1


@scenario
def joining():
    def body():
        child = balrog.spawn(balrog.sleep, 0.003)
        child.join()
        child.result()
        balrog.spawn(balrog.sleep, 0.001).result()

    yield body


@scenario
def group():
    ended = []

    def child():
        try:
            balrog.sleep(0.004)
        finally:
            balrog.sleep(0.001)
            ended.append(True)

    def body():
        with balrog.TaskGroup() as group:
            group.spawn(child)
            balrog.sleep(0.001)
            group.spawn(child)
            with balrog.TaskGroup() as inner:
                inner.spawn(child)

    yield body
    assert balrog.tasks() == [balrog.current_task()], "the group's tasks end before it does"


@scenario
def failing_group():
    def fail():
        balrog.sleep(0.003)
        raise LookupError

    def body():
        try:
            with balrog.TaskGroup() as group:
                group.spawn(fail)
                group.spawn(balrog.sleep, 60)
                balrog.sleep(60)
        except* LookupError:
            balrog.sleep(0.001)

    yield body
    assert balrog.tasks() == [balrog.current_task()]


@scenario
def timeout():
    def body():
        for seconds in (0.002, 60):
            with contextlib.suppress(TimeoutError), balrog.timeout(seconds), balrog.timeout(0.004):
                balrog.sleep(30)

    yield body


@scenario
def shield():
    done = []

    def body():
        balrog.sleep(0.001)
        with balrog.shield():
            balrog.sleep(0.002)
            balrog.sleep(0.002)
            done.append(True)
        balrog.sleep(0.001)

    yield body
    assert done in ([], [True])


@scenario
def mapping():
    yield lambda: list(balrog.map(balrog.sleep, [0.001, 0.003] * 3, limit=2))
    assert balrog.tasks() == [balrog.current_task()]


@scenario
def completed():
    tasks = [balrog.spawn(balrog.sleep, seconds) for seconds in (0.005, 0.001, 0.003)]
    yield lambda: list(balrog.as_completed(tasks))
    for task in tasks:
        task.join()


@scenario
def executor():
    def body():
        with balrog.GreenExecutor(max_workers=2) as executor:
            executor.submit(balrog.sleep, 0.002).result()
            list(executor.map(balrog.sleep, [0.001] * 4))

    yield body


@scenario
def thread():
    yield lambda: [balrog.to_thread(time.sleep, 0.002) for _ in range(2)]


@scenario
def task_end():
    ended = []

    def body():
        balrog.at_task_end(lambda: (balrog.sleep(0.001), ended.append(True)))
        balrog.sleep(0.001)

    yield body
    assert ended == [True]


@scenario
def descriptor():
    readable, writable = os.pipe()

    def body():
        balrog.wait_writable(writable)
        other = balrog.spawn(lambda: (balrog.sleep(0.001), os.write(writable, b"x")))
        try:
            balrog.wait_readable(readable)
        finally:
            with balrog.shield():
                other.join()
        os.read(readable, 1)
        with contextlib.suppress(TimeoutError):
            balrog.wait_readable(readable, 0.001)

    yield body
    # Whoever waited is forgotten, so that another may.
    os.write(writable, b"x")
    balrog.wait_readable(readable, PATIENCE)
    os.close(readable)
    os.close(writable)


# asyncio.


@scenario
def awaiting():
    yield lambda: [balrog.await_(asyncio.sleep(0.002)) for _ in range(2)]


@scenario
def awaiting_groups():
    async def program():
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.002))
            await asyncio.sleep(0.001)

    yield lambda: balrog.await_(program())


@scenario
def both_ways():
    def inner():
        balrog.sleep(0.001)
        balrog.await_(asyncio.sleep(0.001))

    async def program():
        await balrog.as_async(inner)()
        await asyncio.sleep(0.001)

    yield lambda: balrog.await_(program())


@scenario
def iterating():
    closed = []

    async def numbers():
        try:
            for number in range(3):
                yield number
                await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0.001)
            closed.append(True)

    def body():
        with balrog.sync(contextlib.aclosing)(numbers()) as iterator:
            for _ in balrog.sync(iterator):
                balrog.sleep(0.001)

    yield body
    assert closed in ([], [True])


@scenario
def own_loop():
    async def program():
        await asyncio.sleep(0.001)
        await asyncio.gather(asyncio.sleep(0.001), asyncio.to_thread(time.sleep, 0.001))

    def body():
        with asyncio.Runner(loop_factory=balrog.new_event_loop) as runner:
            runner.run(program())
        balrog.sleep(0.001)

    yield body


@scenario
def asgiref():
    from asgiref.sync import async_to_sync, sync_to_async

    async def program():
        await asyncio.sleep(0.001)
        await sync_to_async(balrog.sleep)(0.001)

    with balrog.install("asgiref", "asyncio"):
        yield lambda: async_to_sync(program)()
    # Its thread ends with the executor, which the cancelled caller's traceback leads to.
    gc.collect()


@pytest.mark.parametrize("name", sorted(scenario))
def test_cancelled_at_every_wait(name):
    assert balrog.run(sweep, scenario[name]) >= 1
