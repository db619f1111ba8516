"""SQLAlchemy's synchronous API in tasks: ``create_engine("postgresql+balrog://...")``.

The dialect is SQLAlchemy's own for psycopg 3, on ``balrog.psycopg``, with a pool whose waits let
other tasks run. Outside of tasks everything blocks, as always. Needs SQLAlchemy 2.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, TypeVar

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import queue as sqla_queue

import balrog

__all__ = ["Dialect", "Pool", "task_scope"]

T = TypeVar("T")


class _Queue(sqla_queue.QueueCommon[T]):
    """The pool's resting connections; who waits for one lets other tasks run."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._queue: balrog.Queue[T] = (balrog.LifoQueue if use_lifo else balrog.Queue)(maxsize)

    def empty(self) -> bool:
        return self._queue.empty()

    def full(self) -> bool:
        return self._queue.full()

    def qsize(self) -> int:
        return self._queue.qsize()

    def put_nowait(self, item: T) -> None:
        self.put(item, block=False)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        try:
            self._queue.put(item, block, timeout)
        except queue.Full:
            raise sqla_queue.Full from None

    def get_nowait(self) -> T:
        return self.get(block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        try:
            return self._queue.get(block, timeout)
        except queue.Empty:
            raise sqla_queue.Empty from None


class Pool(QueuePool):
    """``QueuePool`` for tasks and threads alike; also for other dialects, as ``poolclass=Pool``."""

    _queue_class = _Queue

    def __init__(self, creator: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(creator, *args, **kwargs)
        for name in ("first_connect", "connect"):
            # The first connection's handlers query the server under this lock, while others wait for it.
            handlers = getattr(self.dispatch, name).for_modify(self.dispatch)
            handlers._exec_once_mutex = balrog.Lock()


class Dialect(PGDialect_psycopg):
    """PostgreSQL by ``balrog.psycopg``."""

    driver = "balrog"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        import balrog.psycopg

        return balrog.psycopg

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return Pool

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> Any:
        raise NotImplementedError("postgresql+balrog is synchronous: call it by balrog.as_async")


def task_scope() -> Any:
    """For ``scoped_session(..., scopefunc=task_scope)``: a session a task, and outside of tasks one a thread."""
    return balrog.current_task() or threading.get_ident()


registry.register("postgresql.balrog", "balrog.sqlalchemy", "Dialect")
