"""asyncio both ways, on the loop's own thread, with asyncio's and uvloop's loops."""

import asyncio
import contextvars
import gc
import socket
import subprocess
import sys
import threading
import time

import balrog
import pytest
import uvloop
from support.green import green

variable = contextvars.ContextVar("variable", default="none")


@pytest.fixture(params=["asyncio", "uvloop", "balrog"])
def run(request):
    """``asyncio.run`` on each kind of loop."""
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop, "balrog": balrog.new_event_loop}

    def run(main):
        with asyncio.Runner(loop_factory=factory[request.param]) as runner:
            return runner.run(main)

    return run


async def echo(value, delay=0.01):
    await asyncio.sleep(delay)
    return value


async def at_once(value):
    return value


async def fails(error, delay=0.0):
    await asyncio.sleep(delay)
    raise error


# Synchronous code called by coroutines.


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


# Coroutines awaited by synchronous code.


def test_await_gives_results_and_errors(run):
    def work():
        assert balrog.await_(at_once(1)) == 1
        assert balrog.await_(echo(2)) == 2
        assert balrog.await_(asyncio.sleep(0, 3)) == 3
        with pytest.raises(KeyError) as caught:
            balrog.await_(fails(KeyError("lost"), 0.01))
        assert caught.traceback[-1].name == "fails"
        with pytest.raises(TypeError, match="not awaitable"):
            balrog.await_(5)
        return "done"

    async def main():
        assert await balrog.as_async(work)() == "done"
        loop = asyncio.get_running_loop()

        def futures():
            future = loop.create_future()
            loop.call_later(0.01, future.set_result, 7)
            task = loop.create_task(echo(8))
            return balrog.await_(future), balrog.await_(task), balrog.sync(asyncio.gather)(echo(1), echo(2))

        assert await balrog.as_async(futures)() == (7, 8, [1, 2])

    run(main())


def test_awaiting_in_spawned_tasks(run):
    def work():
        with balrog.TaskGroup() as group:
            tasks = [group.spawn(lambda n=n: balrog.await_(echo(n, 0.2))) for n in range(100)]
        return [task.result() for task in tasks]

    async def main():
        start = time.monotonic()
        assert await balrog.as_async(work)() == list(range(100))
        assert time.monotonic() - start < 15

    run(main())


def test_the_caller_is_the_current_task_of_what_is_awaited(run):
    async def name():
        first = asyncio.current_task().get_name()
        await asyncio.sleep(0)
        return first, asyncio.current_task().get_name()

    def work():
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.current_task()
        child = balrog.spawn(lambda: balrog.await_(name()))
        return balrog.await_(name()), child.result()

    async def main():
        asyncio.current_task().set_name("caller")
        ours, childs = await balrog.as_async(work)()
        assert ours == ("caller", "caller")
        assert childs[0] == childs[1] != "caller"
        assert asyncio.current_task().get_name() == "caller"

    run(main())


def test_timeouts_of_both_kinds_work_in_both_kinds_of_code(run):
    async def slow():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ends.append("slow")

    ends = []

    def ours_around_theirs():
        with balrog.timeout(0.02):
            balrog.await_(slow())

    def theirs_around_theirs():
        with balrog.sync(asyncio.timeout)(0.02):
            balrog.await_(slow())

    def theirs_around_ours():
        with balrog.sync(asyncio.timeout)(0.02):
            balrog.sleep(60)

    def in_a_child():
        balrog.spawn(theirs_around_ours).result()

    async def main():
        for work in (ours_around_theirs, theirs_around_theirs, theirs_around_ours, in_a_child):
            with pytest.raises(TimeoutError):
                await balrog.as_async(work)()
            assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0.01)

    run(main())
    assert ends == ["slow", "slow"]


def test_cancelling_a_task_of_ours_reaches_into_what_it_awaits(run):
    ends = []

    async def slow():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            ends.append("slow")
            raise

    def work():
        child = balrog.spawn(lambda: balrog.await_(slow()))
        balrog.sleep(0.01)
        child.cancel()
        child.join()
        assert isinstance(child.exception(), balrog.Cancelled)
        return balrog.await_(echo("still fine"))

    async def main():
        assert await balrog.as_async(work)() == "still fine"

    run(main())
    assert ends == ["slow"]


def test_a_task_cancelled_in_the_moment_it_first_awaits(run):
    ends = []

    async def slow():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            ends.append("slow")
            raise

    def work():
        child = balrog.spawn(lambda: balrog.await_(slow()))
        balrog.sleep(0)
        child.cancel()
        child.join()
        assert isinstance(child.exception(), balrog.Cancelled)

    async def main():
        await balrog.as_async(work)()

    run(main())
    assert ends == ["slow"]


def test_a_loop_that_shuts_down_ends_what_is_awaited(run):
    tasks = []

    async def main():
        def work():
            tasks.append(balrog.spawn(lambda: balrog.await_(asyncio.sleep(60))))
            tasks.append(balrog.spawn(lambda: balrog.await_(asyncio.sleep(60))))
            balrog.sleep(0)

        await balrog.as_async(work)()

    run(main())
    for task in tasks:
        assert task.join(30)
        assert isinstance(task.exception(), asyncio.CancelledError)


def test_cancelled_before_the_await_began_in_the_host(run):
    """The caller is cancelled in the very moment in which the task asks for an await."""

    async def slow():
        await asyncio.sleep(60)

    async def main():
        caller = asyncio.current_task()

        def work():
            balrog.sleep(0.01)
            caller.cancel()
            balrog.await_(slow())

        with pytest.raises(asyncio.CancelledError):
            await balrog.as_async(work)()
        caller.uncancel()

    run(main())


def test_managers_and_iterators(run):
    class Manager:
        async def __aenter__(self):
            await asyncio.sleep(0)
            return "entered"

        async def __aexit__(self, kind, error, traceback):
            await asyncio.sleep(0)
            return kind is KeyError

    async def numbers(ends):
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            ends.append("closed")

    def work():
        with balrog.sync(Manager()) as value:
            assert value == "entered"
            raise KeyError
        ends = []
        assert list(balrog.sync(numbers)(ends)) == [0, 1, 2]
        early = balrog.sync(numbers(ends))
        assert next(early) == 0
        early.close()
        assert ends == ["closed"] * 2
        assert balrog.sync(echo)("x") == "x"
        with pytest.raises(TypeError):
            balrog.sync(5)
        with balrog.sync(asyncio.TaskGroup()) as group:
            task = group.create_task(echo("in a group"))
        return task.result()

    async def main():
        assert await balrog.as_async(work)() == "in a group"

    run(main())


def test_nesting_one_in_the_other_many_times(run):
    def sync_side(depth):
        return balrog.await_(async_side(depth - 1)) if depth else balrog.await_(echo("bottom", 0))

    async def async_side(depth):
        await asyncio.sleep(0)
        return await balrog.as_async(sync_side)(depth)

    async def main():
        assert await asyncio.gather(*(async_side(20) for _ in range(10))) == ["bottom"] * 10

    run(main())


def test_await_in_a_coroutine_is_refused(run):
    async def main():
        with pytest.raises(RuntimeError, match="use await there"):
            balrog.await_(echo(1))

    run(main())


def test_the_running_loop_is_hidden_and_comes_back(run):
    def work():
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        balrog.sleep(0.01)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        # A loop of its own, as if there were no other.
        return asyncio.run(inner())

    async def inner():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        # Code that waits inside of a coroutine: its loop is its own business.
        balrog.sleep(0.01)
        assert asyncio.get_running_loop() is loop
        return asyncio.current_task().get_coro().__name__

    def other():
        for _ in range(10):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            balrog.sleep(0.005)

    async def main():
        loop = asyncio.get_running_loop()
        others = [asyncio.ensure_future(balrog.as_async(other)()) for _ in range(3)]
        assert await asyncio.gather(*(balrog.as_async(work)() for _ in range(3))) == ["inner"] * 3
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is not None
        await asyncio.gather(*others)

    run(main())


def test_a_blocking_call_in_a_coroutine_lets_our_tasks_run(run):
    async def main():
        seen = []
        await balrog.as_async(balrog.sleep)(0)
        balrog.spawn(lambda: (balrog.sleep(0.01), seen.append(balrog.await_(at_once("task")))))
        balrog.sleep(0.05)
        assert seen == ["task"]
        assert asyncio.current_task().get_coro().__name__ == "main"

    run(main())


def test_one_loop_after_the_other():
    def work():
        balrog.sleep(0.001)
        return balrog.await_(echo("x", 0.001))

    async def main():
        return await balrog.as_async(work)()

    for _ in range(3):
        for factory in (asyncio.new_event_loop, uvloop.new_event_loop, balrog.new_event_loop):
            with asyncio.Runner(loop_factory=factory) as runner:
                assert runner.run(main()) == "x"
        assert balrog.run(work) == "x"
        assert balrog.await_(echo("y")) == "y"


def test_a_task_that_outlives_its_loop_goes_on_in_the_next():
    started = []

    def patient():
        started.append(balrog.current_task())
        balrog.sleep(0.05)
        return balrog.await_(echo("late", 0.001))

    async def first():
        await balrog.as_async(lambda: balrog.spawn(patient) and balrog.sleep(0.01))()

    async def second():
        return await balrog.as_async(lambda: started[0].result())()

    asyncio.run(first())
    assert asyncio.run(second()) == "late"


# Where no loop runs.


@pytest.mark.parametrize("inside", [True, False], ids=["task", "thread"])
def test_await_without_any_loop(inside):
    def work():
        assert balrog.await_(echo(1)) == 1
        assert balrog.await_(at_once(2)) == 2
        with pytest.raises(KeyError):
            balrog.await_(fails(KeyError(), 0.01))
        with pytest.raises(TimeoutError), balrog.timeout(0.02):
            balrog.await_(asyncio.sleep(60))
        with balrog.sync(asyncio.timeout)(5), balrog.sync(asyncio.TaskGroup()) as group:
            task = group.create_task(echo("grouped"))
        assert task.result() == "grouped"
        variable.set("before")

        async def change():
            assert variable.get() == "before"
            await asyncio.sleep(0)
            variable.set("after")

        balrog.await_(change())
        assert variable.get() == "after"
        variable.set("none")

    for _ in range(2):
        balrog.run(work) if inside else work()
    thread = threading.Thread(target=balrog.run if inside else work, args=[work] if inside else [])
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@green
def test_tasks_go_on_while_others_await_without_a_loop():
    start = time.monotonic()
    with balrog.TaskGroup() as group:
        awaiting = [group.spawn(lambda n=n: balrog.await_(echo(n, 0.2))) for n in range(50)]
        waiting = [group.spawn(balrog.sleep, 0.2) for _ in range(50)]
    assert [task.result() for task in awaiting] == list(range(50))
    assert all(task.done() for task in waiting)
    assert time.monotonic() - start < 15


def test_two_loops_inside_of_tasks_run_side_by_side():
    order = []

    async def program(name):
        for _ in range(3):
            await asyncio.sleep(0.2)
            order.append(name)

    def work(name):
        with asyncio.Runner(loop_factory=balrog.new_event_loop) as runner:
            runner.run(program(name))

    def main():
        with balrog.TaskGroup() as group:
            group.spawn(work, "a")
            group.spawn(work, "b")

    balrog.run(main)
    assert sorted(order[:2]) == ["a", "b"] and sorted(order) == list("aaabbb")


def test_nothing_is_left_behind():
    code = """
import asyncio, balrog, logging
logging.getLogger("asyncio").setLevel("ERROR")  # slow steps are warnings
async def echo(value):
    await asyncio.sleep(0.01)
    return value
def work():
    return balrog.await_(echo(1))
async def main():
    await balrog.as_async(work)()
    await balrog.as_async(lambda: balrog.spawn(work).result())()
asyncio.run(main(), debug=True)
balrog.run(work)
balrog.await_(echo(2))
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_tasks_are_freed():
    import weakref

    tasks = []

    def work():
        balrog.await_(echo(1, 0))
        tasks.append(weakref.ref(balrog.current_task()))

    async def main():
        await asyncio.gather(*(balrog.as_async(work)() for _ in range(10)))

    asyncio.run(main())
    balrog.run(work)
    gc.collect()
    balrog.sleep(0.01)
    gc.collect()
    assert [task() for task in tasks] == [None] * 11


def test_a_private_loop_serves_its_own_tasks_only():
    """What one task runs for itself ends without taking the awaits of the others along."""

    async def private():
        await balrog.as_async(balrog.sleep)(0.02)

    def others():
        balrog.sleep(0.01)
        return balrog.await_(echo("mine", 0.1))

    def main():
        with balrog.TaskGroup() as group:
            group.spawn(lambda: asyncio.Runner(loop_factory=balrog.new_event_loop).run(private()))
            task = group.spawn(others)
        return task.result()

    assert balrog.run(main) == "mine"
