"""Blocking calls out of the hub's way."""

import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from balrog._balrog import Waiter, current_task

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None
_pid = 0
_running = 0


def _pool() -> ThreadPoolExecutor:
    global _executor, _pid
    with _lock:
        # The threads of an executor do not survive a fork.
        if _executor is None or _pid != os.getpid():
            _executor, _pid = ThreadPoolExecutor(thread_name_prefix="balrog"), os.getpid()
        return _executor


def _count(change: int) -> None:
    global _running
    with _lock:
        _running += change


def idle() -> int:
    """How many threads of ours are there with nothing to do."""
    if _executor is None or _pid != os.getpid() or _running:
        return 0
    return len(_executor._threads)


def to_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``fn(*args, **kwargs)`` on another thread while other tasks of this one go on.

    For calls that would block the whole hub: a C library's own sockets, a slow disk, a name
    look-up. The function sees a copy of the context. When the wait is cancelled or times out,
    the function runs on and its result is dropped. Outside of tasks it is called right here.
    """
    if current_task() is None:
        return fn(*args, **kwargs)
    waiter = Waiter()
    context = contextvars.copy_context()
    future = _pool().submit(context.run, fn, *args, **kwargs)
    _count(1)

    def done(_: object) -> None:
        waiter.wake()
        _count(-1)

    future.add_done_callback(done)
    waiter.wait()
    return future.result()
