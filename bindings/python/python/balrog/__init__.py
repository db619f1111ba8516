"""Plain synchronous network code that blocks or runs asynchronously, as its user chooses.

Inside ``balrog.run``, ``balrog.spawn`` or ``balrog serve`` a wait lets other tasks run;
anywhere else the same call simply blocks its thread.
"""

from typing import TYPE_CHECKING, Any

from balrog import _lifetime, _repl
from balrog._balrog import (
    Cancelled,
    Hub,
    Task,
    __version__,
    at_task_end,
    current_hub,
    current_task,
    run,
    shield,
    sleep,
    spawn,
    tasks,
    timeout,
    wait_readable,
    wait_writable,
)
from balrog._groups import GreenExecutor, TaskGroup, as_completed, map
from balrog._inspect import Deadlock, counters, debug, print_stacks
from balrog._install import install, uninstall
from balrog._local import local
from balrog._sync import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    RLock,
    Semaphore,
)
from balrog._threads import to_thread

if TYPE_CHECKING:
    from balrog._asyncio import as_async, await_, new_event_loop, sync

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Cancelled",
    "Condition",
    "Deadlock",
    "Event",
    "GreenExecutor",
    "Hub",
    "LifoQueue",
    "Lock",
    "PriorityQueue",
    "Queue",
    "RLock",
    "Semaphore",
    "Task",
    "TaskGroup",
    "__version__",
    "as_async",
    "as_completed",
    "at_task_end",
    "await_",
    "counters",
    "current_hub",
    "current_task",
    "debug",
    "install",
    "local",
    "map",
    "new_event_loop",
    "print_stacks",
    "run",
    "shield",
    "sleep",
    "spawn",
    "sync",
    "tasks",
    "timeout",
    "to_thread",
    "uninstall",
    "wait_readable",
    "wait_writable",
]

#: What needs asyncio, which takes longer to import than all else.
_LAZY = frozenset({"as_async", "await_", "new_event_loop", "sync"})


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'balrog' has no attribute {name!r}")
    from balrog import _asyncio

    value = getattr(_asyncio, name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext balrog``; see ``balrog.ipython``."""
    from balrog.ipython import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext balrog``."""
    from balrog.ipython import unload

    unload(shell)


_lifetime.install()
_repl.install()
