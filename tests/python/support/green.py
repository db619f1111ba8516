"""Tests that run inside a task."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import balrog


def green(test: Callable[..., Any]) -> Callable[..., Any]:
    """The test, run by ``balrog.run``; fixtures are made outside."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return balrog.run(test, *args, **kwargs)

    return run


class Ticks:
    """How many turns another task had."""

    count = 0


@contextmanager
def ticking() -> Iterator[Ticks]:
    """Another task runs every 10 ms meanwhile: it would stand still if something blocked the thread."""
    ticks = Ticks()

    def tick() -> None:
        while True:
            balrog.sleep(0.01)
            ticks.count += 1

    task = balrog.spawn(tick)
    try:
        yield ticks
    finally:
        task.cancel()
