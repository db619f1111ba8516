"""One loop after another, beside another, and none."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time

import balrog
import pytest
import uvloop
from support.coroutines import at_once, echo, fails
from support.green import green

variable = contextvars.ContextVar("variable", default="none")


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
