"""Plain synchronous network code that blocks or runs asynchronously, as its user chooses.

Inside ``balrog.run``, ``balrog.spawn`` or ``balrog serve`` a wait lets other tasks run;
anywhere else the same call simply blocks its thread.
"""

import os

from balrog._balrog import (
    Cancelled,
    Task,
    __version__,
    _after_fork,
    at_task_end,
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
from balrog._local import local
from balrog._threads import to_thread
from balrog.sync import (
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    Queue,
    RLock,
    Semaphore,
)

__all__ = [
    "BoundedSemaphore",
    "Cancelled",
    "Condition",
    "Event",
    "Lock",
    "Queue",
    "RLock",
    "Semaphore",
    "Task",
    "__version__",
    "at_task_end",
    "current_task",
    "local",
    "run",
    "shield",
    "sleep",
    "spawn",
    "tasks",
    "timeout",
    "to_thread",
    "wait_readable",
    "wait_writable",
]

os.register_at_fork(after_in_child=_after_fork)
