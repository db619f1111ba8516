"""Task groups, ``map``, ``as_completed``, the executor, and tasks started from other threads."""

import asyncio
import concurrent.futures
import itertools
import threading
import time

import balrog
import pytest
from support.green import green


def sleep_and(value, seconds=0.01):
    balrog.sleep(seconds)
    return value


def fail(error, seconds=0.0):
    balrog.sleep(seconds)
    raise error


@green
def test_a_group_ends_when_all_its_tasks_have():
    with balrog.TaskGroup() as group:
        tasks = [group.spawn(sleep_and, number) for number in range(10)]
        tasks.append(group.spawn(lambda: group.spawn(sleep_and, "child of a child").result()))
    assert all(task.done() for task in tasks)
    assert [task.result() for task in tasks] == [*range(10), "child of a child"]
    assert balrog.tasks() == [balrog.current_task()]


@pytest.mark.parametrize("inside", [True, False], ids=["task", "thread"])
def test_the_first_error_cancels_the_rest_and_the_body(inside):
    ends = []

    def patient():
        try:
            balrog.sleep(60)
        finally:
            balrog.sleep(0.01)
            ends.append("patient")

    def body():
        start = time.monotonic()
        with pytest.raises(ExceptionGroup) as caught, balrog.TaskGroup() as group:
            group.spawn(patient)
            group.spawn(fail, KeyError("one"), 0.02)
            try:
                balrog.sleep(60)
            finally:
                ends.append("body")
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        assert time.monotonic() - start < 30
        # The group is over, and with it its cancellation.
        balrog.sleep(0.01)

    balrog.run(body) if inside else body()
    assert sorted(ends) == ["body", "patient"]


@green
def test_every_error_is_in_the_group():
    def fails_in_cleanup():
        try:
            balrog.sleep(60)
        finally:
            raise ValueError("cleanup")

    with pytest.raises(ExceptionGroup) as caught, balrog.TaskGroup() as group:
        group.spawn(fails_in_cleanup)
        balrog.sleep(0)
        raise OSError("body")
    assert {type(error) for error in caught.value.exceptions} == {ValueError, OSError}


@green
def test_cancelling_one_task_of_a_group_is_no_error():
    with balrog.TaskGroup() as group:
        lazy = group.spawn(balrog.sleep, 60)
        busy = group.spawn(sleep_and, "done")
        balrog.sleep(0)
        lazy.cancel()
    assert busy.result() == "done"
    assert isinstance(lazy.exception(), balrog.Cancelled)


@green
def test_a_cancelled_group_takes_its_tasks_along():
    children = []

    def holder():
        with balrog.TaskGroup() as group:
            children.append(group.spawn(balrog.sleep, 60))
            balrog.sleep(60)

    task = balrog.spawn(holder)
    balrog.sleep(0.01)
    task.cancel()
    with pytest.raises(balrog.Cancelled):
        task.result(60)
    assert isinstance(children[0].exception(), balrog.Cancelled)


@green
def test_a_group_may_be_cancelled_by_hand():
    with balrog.TaskGroup() as group:
        task = group.spawn(balrog.sleep, 60)
        balrog.sleep(0)
        group.cancel()
        balrog.sleep(60)
    assert task.done()
    with pytest.raises(RuntimeError, match="finished"):
        group.spawn(print)


@green
def test_a_timeout_around_a_group_ends_it():
    with pytest.raises(TimeoutError), balrog.timeout(0.02), balrog.TaskGroup() as group:
        task = group.spawn(balrog.sleep, 60)
    assert isinstance(task.exception(), balrog.Cancelled)


@green
def test_a_task_that_swallows_its_cancellation_is_waited_for():
    def stubborn():
        try:
            balrog.sleep(60)
        except balrog.Cancelled:
            balrog.sleep(0.05)
            return "had its way"

    with pytest.raises(ExceptionGroup), balrog.TaskGroup() as group:
        task = group.spawn(stubborn)
        group.spawn(fail, KeyError())
    assert task.result() == "had its way"


@green
def test_groups_nest_and_only_the_failing_one_is_cancelled():
    with balrog.TaskGroup() as outer:
        sibling = outer.spawn(sleep_and, "sibling", 0.05)
        with pytest.raises(ExceptionGroup), balrog.TaskGroup() as inner:
            inner.spawn(fail, KeyError())
        balrog.sleep(0.01)
    assert sibling.result() == "sibling"


@green
def test_exit_exceptions_come_out_as_they_are():
    with pytest.raises(SystemExit), balrog.TaskGroup() as group:
        group.spawn(fail, SystemExit(3))
        group.spawn(balrog.sleep, 60)
    with pytest.raises(KeyboardInterrupt), balrog.TaskGroup() as group:
        group.spawn(balrog.sleep, 60)
        raise KeyboardInterrupt


@pytest.mark.parametrize("inside", [True, False], ids=["task", "thread"])
def test_map_is_concurrent_ordered_and_bounded(inside):
    running, most = 0, 0

    def work(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        balrog.sleep(0.02 if number % 2 else 0.001)
        running -= 1
        return number * number

    def body():
        assert list(balrog.map(work, range(100), limit=10)) == [number**2 for number in range(100)]
        assert most == 10

    balrog.run(body) if inside else body()


@green
def test_map_is_lazy_and_leaves_nothing_behind():
    taken = []

    def numbers():
        for number in itertools.count():
            taken.append(number)
            yield number

    results = balrog.map(lambda number: sleep_and(number, 0.001), numbers(), limit=5)
    assert taken == []
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) == 7
    results.close()
    assert balrog.tasks() == [balrog.current_task()]


@green
def test_map_raises_the_first_error_in_order_and_cancels_the_rest():
    cancelled = []

    def work(number):
        if number == 1:
            raise KeyError(number)
        try:
            balrog.sleep(60 if number > 1 else 0.01)
        except balrog.Cancelled:
            cancelled.append(number)
            raise

    results = balrog.map(work, range(5))
    assert next(results) is None
    with pytest.raises(KeyError):
        next(results)
    assert sorted(cancelled) == [2, 3, 4]
    assert list(balrog.map(lambda a, b: a + b, "ab", "cd")) == ["ac", "bd"]


@green
def test_as_completed_gives_the_first_to_end_first():
    tasks = [balrog.spawn(sleep_and, delay, delay) for delay in (0.06, 0.02, 0.04)]
    assert [task.result() for task in balrog.as_completed(tasks)] == [0.02, 0.04, 0.06]
    lazy = balrog.spawn(balrog.sleep, 60)
    with pytest.raises(TimeoutError, match="1 of 1"):
        next(balrog.as_completed([lazy], timeout=0.01))
    lazy.cancel()


@green
def test_an_executor_runs_its_jobs_as_tasks():
    with balrog.GreenExecutor(max_workers=3) as executor:
        start = time.monotonic()
        assert list(executor.map(lambda n: sleep_and(n, 0.02), range(9))) == list(range(9))
        assert time.monotonic() - start >= 0.06
        failing = executor.submit(fail, KeyError("job"))
        with pytest.raises(KeyError):
            failing.result()
        queued = [executor.submit(balrog.sleep, 0.05) for _ in range(6)]
        balrog.sleep(0.01)
        executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in queued] == [False] * 3 + [True] * 3
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(print)


@green
def test_an_executor_serves_other_threads_and_loops():
    me = threading.get_ident()
    executor = balrog.GreenExecutor()

    async def program():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor, lambda: sleep_and(threading.get_ident()))

    assert balrog.to_thread(asyncio.run, program()) == me
    futures = balrog.to_thread(lambda: [executor.submit(sleep_and, n) for n in range(5)])
    done = list(balrog.as_completed(futures))
    assert sorted(future.result() for future in done) == list(range(5))
    assert balrog.to_thread(lambda: concurrent.futures.wait([executor.submit(sleep_and, 1)])).not_done == set()


@green
def test_another_thread_may_start_tasks_here():
    hub, me = balrog.current_hub(), threading.get_ident()

    def elsewhere():
        task = hub.spawn(lambda: sleep_and(threading.get_ident()))
        assert task.result(60) == me
        return "joined"

    assert balrog.to_thread(elsewhere) == "joined"


@green
def test_done_callbacks_get_the_task():
    seen = []
    task = balrog.spawn(sleep_and, 5)
    task.add_done_callback(seen.append)
    assert seen == []
    task.join()
    assert seen == [task]
    task.add_done_callback(seen.append)
    assert seen == [task, task]


@green
def test_a_barrier_lets_its_parties_go_together():
    barrier = balrog.Barrier(3)
    passed = []

    def party(number):
        balrog.sleep(number / 100)
        passed.append(barrier.wait(5))

    with balrog.TaskGroup() as group:
        for number in range(3):
            group.spawn(party, number)
        balrog.sleep(0.01)
        assert passed == []
    assert sorted(passed) == [0, 1, 2]
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0.01)


@green
def test_an_endless_shield_is_a_shield():
    with balrog.timeout(0.01), balrog.shield(float("inf")):
        balrog.sleep(0.03)
