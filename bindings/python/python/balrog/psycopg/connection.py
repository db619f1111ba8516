"""A psycopg connection whose waits are the hub's."""

from __future__ import annotations

import types
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import connection as _original
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import Row

from balrog import to_thread
from balrog._balrog import Cancelled, current_task, shield, wait_fd
from balrog.sync import Lock

T = TypeVar("T")

#: How long a cancelled query has to end on the server before the connection is given up.
CANCEL_GRACE = 5.0


def _drive(gen: Any, fileno: int) -> Any:
    """Run a psycopg generator to its end; it yields what to wait for on ``fileno``."""
    try:
        events = next(gen)
        while True:
            events = gen.send(wait_fd(fileno, events))
    except StopIteration as done:
        return done.value


def _drive_until(gen: Any, fileno: int, deadline: float) -> Any:
    try:
        events = next(gen)
        while True:
            left = deadline - monotonic()
            ready = wait_fd(fileno, events, max(left, 0))
            if not ready:
                raise errors._WaitTimeout("wait timeout expired")
            events = gen.send(ready)
    except StopIteration as done:
        return done.value


def wait_conn(gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
    """Run a connecting generator, which yields a descriptor and what to wait for on it.

    The descriptor may change in between: libpq tries one address after another.
    """
    deadline = None if timeout is None else monotonic() + timeout
    try:
        fileno, events = next(gen)
        while True:
            ready = wait_fd(fileno, events, None if deadline is None else max(deadline - monotonic(), 0))
            if not ready:
                raise errors._WaitTimeout("wait timeout expired")
            fileno, events = gen.send(ready)
    except StopIteration as done:
        return done.value


def _with(function: Callable[..., T], **names: Any) -> Callable[..., T]:
    """The same function, with other values for some of its module's names.

    psycopg waits in ``wait_conn``, which is a name of its module and no method, so this is how
    its own code comes to wait elsewhere without being changed for anybody else.
    """
    copy = types.FunctionType(
        function.__code__,
        function.__globals__ | names,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_waiting = types.SimpleNamespace(wait_conn=wait_conn)
_connect = _with(
    psycopg.Connection.connect.__func__,  # type: ignore[attr-defined]
    waiting=_waiting,
    # Looks names up with the blocking resolver, and passes on what it found as hostaddr.
    conninfo_attempts=lambda params: to_thread(_original.conninfo_attempts, params),
)
_cancel_safe = _with(psycopg.Connection.cancel_safe, waiting=_waiting)


class Connection(psycopg.Connection[Row]):
    """``psycopg.Connection`` for tasks and threads alike.

    When a wait is cancelled or times out, the query is cancelled on the server and its rest
    read, for 5 s at most; then the connection is usable as before, or else closed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # psycopg's own excludes threads only: a second task would block its whole thread.
        self.lock = Lock()  # type: ignore[assignment]

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
        """Open a connection; arguments and errors are those of ``psycopg.Connection.connect``."""
        if current_task() is None:
            return super().connect(conninfo, **kwargs)
        return _connect(cls, conninfo, **kwargs)

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        if current_task() is None:
            return super().cancel_safe(timeout=timeout)
        return _cancel_safe(self, timeout=timeout)

    def wait(self, gen: Any, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        if current_task() is None:
            if timeout is not None:
                kwargs["timeout"] = timeout
            return super().wait(gen, *args, **kwargs)
        pgconn = self.pgconn
        try:
            if timeout is None:
                return _drive(gen, pgconn.socket)
            return _drive_until(gen, pgconn.socket, monotonic() + timeout)
        except (Cancelled, TimeoutError, KeyboardInterrupt):
            if pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._stop(gen)
            raise

    def _stop(self, gen: Any) -> None:
        """Cancel the running query and read what it still sends."""
        pgconn = self.pgconn
        try:
            with shield(CANCEL_GRACE):
                self._try_cancel(timeout=CANCEL_GRACE)
                _drive_until(gen, pgconn.socket, monotonic() + CANCEL_GRACE)
        except errors.QueryCanceled:
            return
        except BaseException:
            # Nobody knows what the server still sends: an answer to this query must never be
            # taken for the next one's.
            pgconn.finish()

    def commit(self) -> None:
        # Cancelled here, the caller could not know whether the commit has happened.
        with shield(CANCEL_GRACE):
            super().commit()

    def rollback(self) -> None:
        with shield(CANCEL_GRACE):
            super().rollback()
