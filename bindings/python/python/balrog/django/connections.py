"""Django's database connections, one set per task."""

from types import SimpleNamespace
from typing import Any

from balrog._balrog import current_task


class TaskLocalConnections:
    """What ``django.db.connections`` stores its wrappers in.

    Keyed on the task, never on the context, which child tasks copy: two tasks must not share a
    transaction by accident. Outside of tasks it is Django's own storage, one set per thread.
    """

    def __init__(self, outside: Any) -> None:
        object.__setattr__(self, "_outside", outside)

    def _here(self) -> Any:
        task = current_task()
        if task is None:
            return self._outside
        return task._locals.setdefault(TaskLocalConnections, _Wrappers())

    def __getattr__(self, alias: str) -> Any:
        return getattr(self._here(), alias)

    def __setattr__(self, alias: str, wrapper: Any) -> None:
        setattr(self._here(), alias, wrapper)

    def __delattr__(self, alias: str) -> None:
        delattr(self._here(), alias)


class _Wrappers(SimpleNamespace):
    pass


def install() -> None:
    """Put the storage into ``django.db.connections``; a second call does nothing."""
    from django.db import connections

    if not isinstance(connections._connections, TaskLocalConnections):
        connections._connections = TaskLocalConnections(connections._connections)


def release() -> None:
    """Give the current task's pooled connections back, those that no transaction needs."""
    task = current_task()
    wrappers = None if task is None else task._locals.get(TaskLocalConnections)
    for wrapper in list(vars(wrappers).values()) if wrappers else ():
        if hasattr(wrapper, "spare_connection"):
            wrapper.give_back()
