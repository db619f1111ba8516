"""Django's database connections, one set per task."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from balrog._balrog import at_task_end, current_task, shield

logger = logging.getLogger("balrog.django")

#: Wrappers that a parent has lent its children, by alias. Children copy their parent's context.
_lent: ContextVar[dict[str, Any] | None] = ContextVar("balrog_lent_connections", default=None)
#: The same for every task of the process: for tests.
_lent_to_all: dict[str, Any] = {}


class TaskLocalConnections:
    """What ``django.db.connections`` stores its wrappers in.

    Keyed on the task, never on the context, which child tasks copy: two tasks must not share a
    transaction by accident. Outside of tasks it is Django's own storage, one set per thread.
    """

    def __init__(self, outside: Any) -> None:
        object.__setattr__(self, "_outside", outside)

    def __getattr__(self, alias: str) -> Any:
        task = current_task()
        if task is None:
            return getattr(self._outside, alias)
        try:
            return task._locals[TaskLocalConnections][alias]
        except KeyError:
            pass
        lent = _lent.get() or _lent_to_all
        if alias in lent:
            return lent[alias]
        raise AttributeError(alias)

    def __setattr__(self, alias: str, wrapper: Any) -> None:
        task = current_task()
        if task is None:
            return setattr(self._outside, alias, wrapper)
        wrappers = task._locals.get(TaskLocalConnections)
        if wrappers is None:
            wrappers = task._locals[TaskLocalConnections] = {}
            at_task_end(_end_of_task)
        wrappers[alias] = wrapper

    def __delattr__(self, alias: str) -> None:
        task = current_task()
        if task is None:
            return delattr(self._outside, alias)
        try:
            del task._locals[TaskLocalConnections][alias]
        except KeyError:
            raise AttributeError(alias) from None


def install() -> None:
    """Put the storage into ``django.db.connections``; a second call does nothing."""
    from django.db import connections

    if not isinstance(connections._connections, TaskLocalConnections):
        connections._connections = TaskLocalConnections(connections._connections)  # type: ignore[assignment]


def own() -> list[Any]:
    """The wrappers that the current task has made for itself."""
    task = current_task()
    return [] if task is None else list(task._locals.get(TaskLocalConnections, {}).values())


def _end_of_task() -> None:
    for wrapper in own():
        if wrapper.connection is not None and (wrapper.in_atomic_block or not wrapper.autocommit):
            logger.error(
                "a task ended inside a transaction on %r, which is rolled back: a generator with atomic() was not "
                "finished, or autocommit was left off",
                wrapper.alias,
            )
        try:
            with shield():
                wrapper.close()
        except Exception:
            logger.exception("the connection %r of a task that ended could not be given back", wrapper.alias)


def release() -> None:
    """Give the current task's connections back to the pool, those that no transaction needs."""
    for wrapper in own():
        if wrapper.connection is not None and not wrapper.in_atomic_block and wrapper.autocommit:
            wrapper.close()


@contextmanager
def hold(using: str = "default") -> Iterator[Any]:
    """Keep one connection for a block, whatever it waits for: for advisory locks and other session state.

    Without it the pool may hand the connection on between two statements outside of a transaction.
    """
    from django.db import connections

    wrapper = connections[using]
    wrapper.ensure_connection()
    held = getattr(wrapper, "held", 0)
    wrapper.held = held + 1
    try:
        yield wrapper
    finally:
        wrapper.held -= 1


@contextmanager
def lend_connections(*aliases: str, to_all: bool = False) -> Iterator[None]:
    """Lend this task's connections, transaction included, to the tasks it spawns in the block.

    Their queries run one at a time; it is the caller's matter that they do not open transactions
    at once, and that they end before the block does. ``to_all=True`` lends to every task, even
    of a server in the same thread: a test's ``TestCase`` transaction becomes visible to the views.
    """
    from django.db import connections

    names = aliases or tuple(connections)
    wrappers = {alias: connections[alias] for alias in names}
    for wrapper in wrappers.values():
        wrapper.inc_thread_sharing()
    token = None
    if to_all:
        _lent_to_all.update(wrappers)
    else:
        token = _lent.set({**(_lent.get() or {}), **wrappers})
    try:
        yield
    finally:
        if token is not None:
            _lent.reset(token)
        else:
            for alias in wrappers:
                _lent_to_all.pop(alias, None)
        for wrapper in wrappers.values():
            wrapper.dec_thread_sharing()
