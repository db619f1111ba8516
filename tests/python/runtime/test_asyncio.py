"""Synchronous code called by coroutines, on the loop's own thread, with asyncio's, uvloop's and balrog's loops."""

import asyncio
import contextvars
import socket
import threading
import time

import balrog
import pytest

variable = contextvars.ContextVar("variable", default="none")


def test_as_async_returns_and_raises(run):
    def work(a, *, b):
        balrog.sleep(0.01)
        if b is None:
            raise KeyError(a)
        return a + b

    async def main():
        assert await balrog.as_async(work)(1, b=2) == 3
        with pytest.raises(KeyError) as caught:
            await balrog.as_async(work)("lost", b=None)
        assert caught.traceback[-1].name == "work"
        assert await balrog.as_async(len)("four") == 4

    run(main())
    assert asyncio.iscoroutinefunction(balrog.as_async(work))
    assert balrog.as_async(work).__name__ == "work"


def test_the_first_slice_runs_at_once(run):
    order = []

    def work():
        order.append("first slice")
        balrog.sleep(0)
        order.append("second slice")

    async def main():
        task = asyncio.ensure_future(balrog.as_async(work)())
        assert order == []
        await asyncio.sleep(0)
        assert order == ["first slice"]
        await task

    run(main())
    assert order == ["first slice", "second slice"]


def test_a_thousand_at_once_take_the_time_of_one(run):
    threads = threading.active_count()

    async def main():
        start = time.monotonic()
        results = await asyncio.gather(*(balrog.as_async(lambda n: (balrog.sleep(0.2), n)[1])(n) for n in range(1000)))
        assert results == list(range(1000))
        assert time.monotonic() - start < 60

    run(main())
    assert threading.active_count() == threads


def test_the_loop_goes_on_while_tasks_wait_and_the_other_way_round(run):
    ticks = []

    async def ticker():
        while True:
            await asyncio.sleep(0.01)
            ticks.append("loop")

    async def main():
        ticking = asyncio.ensure_future(ticker())

        def waits():
            spawned = balrog.spawn(lambda: [balrog.sleep(0.01) or ticks.append("task") for _ in range(5)])
            spawned.join()
            while ticks.count("loop") < 5:
                balrog.sleep(0.01)

        await balrog.as_async(waits)()
        ticking.cancel()

    run(main())
    assert ticks.count("loop") >= 5 and ticks.count("task") == 5


def test_readiness_and_locks_work_between_the_two(run):
    async def main():
        ours, theirs = socket.socketpair()
        event = balrog.Event()

        def reader():
            balrog.wait_readable(theirs.fileno(), timeout=60)
            event.wait(60)
            return theirs.recv(10)

        reading = asyncio.ensure_future(balrog.as_async(reader)())
        await asyncio.sleep(0.01)
        ours.send(b"hello")
        await asyncio.sleep(0.01)
        # Set by a coroutine: the task is told without any turn of the hub being due.
        event.set()
        assert await asyncio.wait_for(reading, 60) == b"hello"
        ours.close()
        theirs.close()

    run(main())


def test_a_task_spawned_by_a_coroutine_runs_on_the_loop(run):
    seen = []

    async def main():
        await balrog.as_async(balrog.sleep)(0)
        task = balrog.spawn(lambda: (balrog.sleep(0.01), seen.append(1)))
        await asyncio.sleep(0.1)
        assert seen == [1] and task.done()

    run(main())


def test_cancelling_the_caller_reaches_the_wait(run):
    steps = []

    def work():
        try:
            balrog.sleep(60)
        except asyncio.CancelledError:
            balrog.sleep(0.01)
            steps.append("cleaned up")
            raise

    async def main():
        task = asyncio.ensure_future(balrog.as_async(work)())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await balrog.as_async(work)()

    run(main())
    assert steps == ["cleaned up"] * 2


def test_a_shield_holds_the_callers_cancellation_back(run):
    steps = []

    def work():
        with balrog.shield():
            balrog.sleep(0.05)
            steps.append("shielded")
        balrog.sleep(60)

    async def main():
        task = asyncio.ensure_future(balrog.as_async(work)())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert steps == ["shielded"]


def test_a_cancelled_task_of_ours_cancels_its_caller(run):
    async def main():
        with pytest.raises(asyncio.CancelledError):
            await balrog.as_async(lambda: (balrog.current_task().cancel(), balrog.sleep(60)))()

    run(main())


def test_context_crosses_in_both_directions(run):
    def work():
        assert variable.get() == "caller"
        variable.set("work")
        assert balrog.await_(look()) == "work"
        balrog.await_(change("awaited"))
        assert variable.get() == "awaited"
        child = balrog.spawn(lambda: variable.set("child"))
        child.join()
        balrog.sleep(0.01)
        return variable.get()

    async def look():
        await asyncio.sleep(0)
        return variable.get()

    async def change(value):
        await asyncio.sleep(0)
        variable.set(value)

    async def one(number):
        variable.set("caller")
        assert await balrog.as_async(work)() == "awaited"
        assert variable.get() == "awaited"

    async def main():
        await asyncio.gather(*(one(number) for number in range(5)))
        assert variable.get() == "none"

    run(main())
