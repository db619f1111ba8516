"""Coroutines awaited by synchronous code, on the loop's own thread, with asyncio's, uvloop's and balrog's loops."""

import asyncio
import contextvars
import time

import balrog
import pytest
from support.coroutines import at_once, echo, fails

variable = contextvars.ContextVar("variable", default="none")


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


@pytest.mark.parametrize("pause", [0, 0.01], ids=["as-it-first-awaits", "later"])
def test_cancelling_a_task_of_ours_reaches_into_what_it_awaits(run, pause):
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
        balrog.sleep(pause)
        child.cancel()
        child.join()
        assert isinstance(child.exception(), balrog.Cancelled)
        return balrog.await_(echo("still fine"))

    async def main():
        assert await balrog.as_async(work)() == "still fine"

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
