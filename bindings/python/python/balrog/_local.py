"""Storage of a task."""

import threading
from typing import Any

from balrog._balrog import current_task

_thread = threading.local()


class local:
    """Attributes that each task has for itself, and outside of tasks each thread.

    A child task starts with none. What a task stored is dropped when it ends.
    """

    __slots__ = ("__weakref__",)

    def _attributes(self) -> dict[str, Any]:
        task = current_task()
        stores = task._locals if task is not None else _thread.__dict__.setdefault("stores", {})
        # Keyed by the object itself, which therefore lives as long as what was stored in it.
        return stores.setdefault(self, {})

    def __getattr__(self, name: str) -> Any:
        try:
            return self._attributes()[name]
        except KeyError:
            raise AttributeError(f"the current task has no {name!r} here") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._attributes()[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self._attributes()[name]
        except KeyError:
            raise AttributeError(f"the current task has no {name!r} here") from None
