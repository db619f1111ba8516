"""What becomes of a loop that a task runs when the task is cancelled, or its time is over."""

import asyncio

import balrog
import pytest
from support.green import green


async def program(steps):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        steps.append("told")
        await asyncio.sleep(0.01)
        steps.append("cleaned")
        raise


def run(steps):
    with asyncio.Runner(loop_factory=balrog.new_event_loop) as runner:
        runner.run(program(steps))


@green
def test_cancelling_the_task_cancels_the_coroutine_that_may_clean_up():
    steps = []
    task = balrog.spawn(run, steps)
    balrog.sleep(0.01)
    task.cancel()
    with pytest.raises(balrog.Cancelled):
        task.result(60)
    assert steps == ["told", "cleaned"]


@green
def test_a_timeout_cancels_the_coroutine_which_may_not_wait_any_more():
    steps = []
    with pytest.raises(TimeoutError), balrog.timeout(0.02):
        run(steps)
    assert steps == ["told"]


@green
def test_a_coroutine_that_is_cancelled_by_itself_is_no_cut():
    async def give_up():
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    with asyncio.Runner(loop_factory=balrog.new_event_loop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(give_up())


@green
def test_the_loop_can_be_used_again():
    async def quick():
        await asyncio.sleep(0.001)
        return "done"

    with asyncio.Runner(loop_factory=balrog.new_event_loop) as runner:
        for _ in range(3):
            with pytest.raises(TimeoutError), balrog.timeout(0.01):
                runner.run(program([]))
            assert runner.run(quick()) == "done"
