"""``async_to_sync`` in a task: other tasks run while it waits.

asgiref runs the coroutine in a thread, and its caller waits on a ``threading.Condition``, where
sync parts that belong to the caller's thread come back to it. In a task that would stop every
other task, so there the condition is balrog's.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from asgiref import sync
from asgiref.current_thread_executor import CurrentThreadExecutor

from balrog._balrog import Cancelled, current_task, shield
from balrog._sync import Condition


class TaskExecutor(CurrentThreadExecutor):
    """asgiref's executor of the waiting caller, right in tasks too."""

    def __init__(self, old_executor: Any) -> None:
        super().__init__(old_executor)
        if current_task() is not None:
            self._work_ready = Condition()  # type: ignore[assignment]

    def run_until_future(self, future: Future[Any]) -> None:
        try:
            super().run_until_future(future)
        except (Cancelled, TimeoutError, KeyboardInterrupt):
            if future.done():
                raise
            # The coroutine must not go on alone: cancel it, and serve it until it has ended.
            for loop, executor in list(sync.AsyncToSync.loop_thread_executors.items()):
                if executor is self:
                    loop.call_soon_threadsafe(_cancel_all, loop)
            with shield():
                super().run_until_future(future)
            raise


def _cancel_all(loop: Any) -> None:
    import asyncio

    for task in asyncio.all_tasks(loop):
        task.cancel()


def install() -> None:
    """Let asgiref use it; a second call does nothing."""
    sync.CurrentThreadExecutor = TaskExecutor  # type: ignore[misc]
