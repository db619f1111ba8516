"""What a type checker makes of tasks. `make lint` checks this file, strictly; test_types.py runs it."""

# pyright: strict

from collections.abc import Iterator
from typing import Any, assert_type

import balrog


def length(text: str, *, factor: int = 1) -> int:
    balrog.sleep(0)
    return len(text) * factor


def main() -> balrog.Task[int]:
    task = balrog.spawn(length, "abc", factor=2)
    assert_type(task, balrog.Task[int])
    assert_type(task.result(), int)
    assert_type(balrog.current_task(), balrog.Task[Any] | None)
    with balrog.TaskGroup() as group:
        assert_type(group.spawn(length, "x"), balrog.Task[int])
    assert_type(balrog.map(length, ["a", "b"]), Iterator[int])
    assert_type(balrog.to_thread(length, "abc"), int)
    return task


def of_objects(task: balrog.Task[object]) -> object:
    return task.result()


ended = balrog.run(main)
assert_type(ended, balrog.Task[int])
# A task only gives its result, so it is a task of something more general, too.
of_objects(ended)
