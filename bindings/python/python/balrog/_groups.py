"""Many tasks as one: groups, ``map``, ``as_completed``, an executor."""

from __future__ import annotations

import itertools
import queue
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, Self, TypeVar

from balrog._balrog import Cancelled, CancelScope, Semaphore, Task, Waiter, current_hub, current_task, shield
from balrog._balrog import spawn as _spawn
from balrog._sync import Condition, Queue

P = ParamSpec("P")
T = TypeVar("T")


def is_cancellation(error: BaseException | None) -> bool:
    """Whether the exception is balrog's ``Cancelled`` or asyncio's ``CancelledError``."""
    if isinstance(error, Cancelled):
        return True
    # Nobody can have raised it before the module was imported.
    asyncio = sys.modules.get("asyncio.exceptions")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


class TaskGroup:
    """Tasks that all end before the ``with`` does, as in ``asyncio.TaskGroup``.

    When one fails, or the body does, the others are cancelled; then ``ExceptionGroup`` (or
    ``BaseExceptionGroup``) with every error is raised. ``KeyboardInterrupt`` and ``SystemExit``
    come out as they are. Cancelling one task of the group by hand is no error. When the task
    that holds the group is cancelled, or its time is over, so are the tasks of the group.
    """

    def __init__(self) -> None:
        self._scope = CancelScope()
        self._tasks: set[Task] = set()
        self._errors: list[BaseException] = []
        self._fatal: BaseException | None = None
        self._empty: Waiter | None = None
        self._state = "new"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("this TaskGroup has been entered already; make one for each with")
        self._scope.__enter__()
        self._state = "open"
        return self

    def spawn(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]:
        """Start ``fn(*args, **kwargs)`` as a task of the group. ``RuntimeError`` if it is shutting down."""
        if self._state != "open" or self._scope.cancelled:
            raise RuntimeError(f"this TaskGroup is {'shutting down' if self._state == 'open' else self._state}")
        task = _spawn(fn, *args, **kwargs)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def cancel(self) -> None:
        """Cancel every task of the group, and the waits of its body."""
        self._scope.cancel()
        for task in tuple(self._tasks):
            task.cancel()

    def _ended(self, task: Task) -> None:
        self._tasks.discard(task)
        error = task.exception()
        if error is not None and not is_cancellation(error):
            self._errors.append(error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._fatal = self._fatal or error
            self.cancel()
        if not self._tasks and self._empty is not None:
            self._empty.wake()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        if error is not None:
            self.cancel()
        interrupted = error if error is not None and not isinstance(error, Exception) else self._join()
        if self._tasks:
            with shield(float("inf")):
                self._join()
        self._scope.__exit__(kind, error, traceback)
        self._state = "finished"
        try:
            return self._leave(error, interrupted)
        finally:
            # No cycle from the errors' tracebacks to this frame and back.
            self._errors, self._fatal, error, interrupted = [], None, None, None

    def _join(self) -> BaseException | None:
        """Wait for the tasks; what ended the wait early, after which they are cancelled."""
        try:
            while self._tasks:
                self._empty = Waiter()
                self._empty.wait()
        except BaseException as error:
            self.cancel()
            return error
        return None

    def _leave(self, error: BaseException | None, interrupted: BaseException | None) -> bool:
        """Raise what the group ends with; ``True`` if that is nothing."""
        for fatal in (self._fatal, interrupted):
            if isinstance(fatal, (KeyboardInterrupt, SystemExit)):
                if fatal is error:
                    return False
                raise fatal
        errors = list(self._errors)
        if error is not None and not is_cancellation(error):
            errors.append(error)
        if errors:
            raise BaseExceptionGroup("unhandled errors in a TaskGroup", errors) from None
        task = current_task()
        ours = is_cancellation(interrupted) and self._scope.cancelled and not (task and task.cancelling)
        if interrupted is None or (ours and isinstance(interrupted, Cancelled)):
            return True
        if interrupted is error:
            return False
        raise interrupted


def _end(tasks: Iterable[Task]) -> None:
    """Cancel the tasks and wait until they have ended."""
    tasks = [task for task in tasks if not task.done()]
    for task in tasks:
        task.cancel()
    with shield(float("inf")):
        for task in tasks:
            task.join()


def map(fn: Callable[..., T], /, *iterables: Iterable[Any], limit: int = 100) -> Iterator[T]:
    """Call ``fn`` with the items in tasks, ``limit`` at once, and give the results in their order.

    Lazy: items are taken as results are asked for, so endless iterables work, and at most
    ``limit`` results wait to be taken. The first error in order is raised; it, and leaving the
    loop early, cancels the tasks that are left and waits for their end.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    return _map(fn, zip(*iterables, strict=False), limit)


def _map(fn: Callable[..., T], items: Iterator[tuple[Any, ...]], limit: int) -> Iterator[T]:
    window: deque[Task] = deque()
    try:
        for arguments in items:
            window.append(_spawn(fn, *arguments))
            if len(window) == limit:
                yield window[0].result()
                window.popleft()
        while window:
            yield window[0].result()
            window.popleft()
    finally:
        _end(window)


def as_completed(tasks: Iterable[Task[Any] | Future[Any]], timeout: float | None = None) -> Iterator[Any]:
    """Give tasks (or futures) as they end, the first to end first.

    ``timeout`` is in seconds for all of them; ``TimeoutError`` once it has passed.
    """
    pending = list(tasks)
    ended: Queue[Any] = Queue()
    for task in pending:
        task.add_done_callback(ended.put)
    return _as_completed(ended, len(pending), timeout)


def _as_completed(ended: Queue[Any], count: int, seconds: float | None) -> Iterator[Any]:
    import time

    end = None if seconds is None else time.monotonic() + seconds
    for left in range(count, 0, -1):
        try:
            yield ended.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(f"{left} of {count} tasks have not ended within {seconds} s") from None


class _GreenFuture(Future):
    """A future whose waits let other tasks run."""

    def __init__(self) -> None:
        super().__init__()
        self._condition: Any = Condition()


class GreenExecutor(Executor):
    """A ``concurrent.futures.Executor`` whose jobs are tasks of the thread that made it.

    ``max_workers`` bounds how many run at once; ``None`` means no bound. Jobs may be submitted
    from any thread; they run while the executor's thread waits for something. In a task use
    ``balrog.as_completed``: ``concurrent.futures.wait`` and ``as_completed`` block the thread.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError("max_workers must be at least 1")
        self._hub = current_hub()
        self._slots = None if max_workers is None else Semaphore(max_workers)
        self._changed = Condition()
        self._pending: set[Future[Any]] = set()
        self._closed = False
        self._names = itertools.count(1)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue ``fn(*args, **kwargs)``. ``RuntimeError`` after ``shutdown()``."""
        future: Future[T] = _GreenFuture()
        with self._changed:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._pending.add(future)
        self._hub.spawn(self._work, future, fn, args, kwargs)
        return future

    def _work(self, future: Future[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        if self._slots is not None:
            self._slots.acquire()
        try:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                future.set_result(result)
        finally:
            if self._slots is not None:
                self._slots.release()
            with self._changed:
                self._pending.discard(future)
                self._changed.notify_all()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; wait for the running ones unless ``wait`` is false."""
        with self._changed:
            self._closed = True
            pending = tuple(self._pending)
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            with self._changed:
                self._changed.wait_for(lambda: not self._pending)
