"""Locks, conditions, events and queues with the names and behaviour of the standard library.

All are right between tasks of one thread, between threads, and between both, and serve their
waiters in the order of asking. A wait in a task never blocks the hub.
"""

import contextlib
import heapq
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from balrog._balrog import Semaphore, Task, Waiter, current_task

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "LifoQueue",
    "Lock",
    "PriorityQueue",
    "Queue",
    "RLock",
    "Semaphore",
]

T = TypeVar("T")


def _owner() -> Task | int:
    """Who runs: the task, else the thread."""
    return current_task() or threading.get_ident()


class BoundedSemaphore(Semaphore):
    """A semaphore that refuses to be released more often than it was acquired."""

    _initial: int

    def __new__(cls, value: int = 1) -> "BoundedSemaphore":
        self = super().__new__(cls, value)
        self._initial = value
        return self

    def release(self, n: int = 1) -> None:
        if self._value + n > self._initial:
            raise ValueError("Semaphore released too many times")
        super().release(n)


class Lock(Semaphore):
    """``threading.Lock``, for tasks and threads alike."""

    def __new__(cls) -> "Lock":
        return super().__new__(cls, 1)

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        """Take the lock; ``False`` if that did not work at once or within ``timeout`` seconds.

        ``None`` or a negative ``timeout`` waits as long as it takes.
        """
        return super().acquire(blocking, None if timeout is None or timeout < 0 else timeout)

    def release(self, n: int = 1) -> None:
        """Free the lock, or hand it to the first who waits. ``RuntimeError`` if it is free."""
        if self._value:
            raise RuntimeError("release unlocked lock")
        super().release()

    def locked(self) -> bool:
        return not self._value

    __enter__ = acquire


class RLock:
    """``threading.RLock``: its owner, a task or a thread, may take it again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._holder: Task | int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = _owner()
        if self._holder == me:
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._holder, self._count = me, 1
        return True

    def release(self) -> None:
        if self._holder != _owner():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._holder = None
            self._lock.release()

    __enter__ = acquire

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self._holder == _owner()

    def _release_save(self) -> tuple[Task | int | None, int]:
        saved = self._holder, self._count
        self._holder, self._count = None, 0
        self._lock.release()
        return saved

    def _acquire_restore(self, saved: tuple[Task | int | None, int]) -> None:
        self._lock.acquire()
        self._holder, self._count = saved


class Condition:
    """``threading.Condition``."""

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        self._lock: Any = RLock() if lock is None else lock
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._waiters: deque[Waiter] = deque()

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._lock.__exit__(*exc)

    def _owned(self) -> bool:
        owned = getattr(self._lock, "_is_owned", None)
        return owned() if owned else self._lock.locked()

    def wait(self, timeout: float | None = None) -> bool:
        """Free the lock, wait for a notification, take the lock again.

        ``False`` if ``timeout`` seconds passed before. The lock is held again in every case,
        also when the task is cancelled.
        """
        if not self._owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = Waiter()
        self._waiters.append(waiter)
        if isinstance(self._lock, RLock):
            saved = self._lock._release_save()
        else:
            saved = None
            self._lock.release()
        try:
            woken = waiter.wait(timeout)
        except BaseException:
            self._forget(waiter)
            if waiter.woken:
                # Notified and cancelled at once: the notification is somebody else's now.
                self._notify(1)
            raise
        finally:
            self._take_back(saved)
        if not woken:
            self._forget(waiter)
        return woken or waiter.woken

    def _take_back(self, saved: Any) -> None:
        from balrog._balrog import shield

        with shield(float("inf")):
            if saved is None:
                self._lock.acquire()
            else:
                self._lock._acquire_restore(saved)

    def _forget(self, waiter: Waiter) -> None:
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until ``predicate()`` is true; returns its last value."""
        end = None if timeout is None else time.monotonic() + timeout
        result = predicate()
        while not result:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def _notify(self, n: int) -> None:
        while n > 0 and self._waiters:
            self._waiters.popleft().wake()
            n -= 1

    def notify(self, n: int = 1) -> None:
        """Wake ``n`` of those who wait, longest first."""
        if not self._owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        self._notify(n)

    def notify_all(self) -> None:
        self.notify(len(self._waiters))


class Event:
    """``threading.Event``."""

    def __init__(self) -> None:
        self._flag = False
        self._waiters: deque[Waiter] = deque()

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        self._flag = True
        while self._waiters:
            self._waiters.popleft().wake()

    def clear(self) -> None:
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set; ``False`` if ``timeout`` seconds passed before."""
        if self._flag:
            return True
        waiter = Waiter()
        self._waiters.append(waiter)
        if self._flag:
            # Set by another thread in between, which may have missed this waiter.
            return True
        try:
            return waiter.wait(timeout)
        finally:
            if not waiter.woken:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)


class Queue(Generic[T]):
    """``queue.Queue``, with its exceptions ``queue.Empty`` and ``queue.Full``."""

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._items: Any = self._new()
        self._filled = Semaphore(0)
        self._free = Semaphore(maxsize) if maxsize > 0 else None
        self._unfinished = 0
        self._done = Condition(Lock())

    def _new(self) -> Any:
        return deque()

    def _put(self, item: T) -> None:
        self._items.append(item)

    def _get(self) -> T:
        return self._items.popleft()

    def qsize(self) -> int:
        return len(self._items)

    def empty(self) -> bool:
        return not self._items

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._items)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append an item; ``queue.Full`` if there is no room (in time)."""
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if self._free is not None and not self._free.acquire(block, timeout):
            raise queue.Full
        with self._done:
            self._unfinished += 1
            self._put(item)
        self._filled.release()

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take an item; ``queue.Empty`` if there is none (in time)."""
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if not self._filled.acquire(block, timeout):
            raise queue.Empty
        item = self._get()
        if self._free is not None:
            self._free.release()
        return item

    def put_nowait(self, item: T) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> T:
        return self.get(block=False)

    def task_done(self) -> None:
        """Say that an item taken with ``get`` has been worked on."""
        with self._done:
            if self._unfinished <= 0:
                raise ValueError("task_done() called too many times")
            self._unfinished -= 1
            if not self._unfinished:
                self._done.notify_all()

    def join(self) -> None:
        """Wait until every item has been worked on."""
        with self._done:
            while self._unfinished:
                self._done.wait()

    def __iter__(self) -> Iterator[T]:
        while True:
            yield self.get()


class LifoQueue(Queue[T]):
    """``queue.LifoQueue``."""

    def _get(self) -> T:
        return self._items.pop()


class PriorityQueue(Queue[T]):
    """``queue.PriorityQueue``."""

    def _new(self) -> Any:
        return []

    def _put(self, item: T) -> None:
        heapq.heappush(self._items, item)

    def _get(self) -> T:
        return heapq.heappop(self._items)


class Barrier(threading.Barrier):
    """``threading.Barrier``, with its exception ``threading.BrokenBarrierError``."""

    def __init__(self, parties: int, action: Callable[[], None] | None = None, timeout: float | None = None) -> None:
        super().__init__(parties, action, timeout)
        self._cond: Any = Condition(Lock())
