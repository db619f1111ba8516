"""Plain synchronous network code that blocks or runs asynchronously, as its user chooses.

Inside ``balrog.run``, ``balrog.spawn`` or ``balrog serve`` a wait lets other tasks run;
anywhere else the same call simply blocks its thread.
"""

from balrog import _lifetime
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
from balrog._local import local
from balrog._threads import to_thread
from balrog.sync import (
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
    "as_completed",
    "at_task_end",
    "counters",
    "current_hub",
    "current_task",
    "debug",
    "local",
    "map",
    "print_stacks",
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

_lifetime.install()
