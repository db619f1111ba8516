"""A psycopg connection whose waits are the hub's."""

from __future__ import annotations

import os
import socket
import types
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import connection as _original
from psycopg import errors, generators
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import Row

from balrog import to_thread
from balrog._balrog import current_task, shield, wait_fd
from balrog._sync import Lock

T = TypeVar("T")

#: Seconds that a cancelled query has to end on the server before the connection is given up.
CANCEL_GRACE = 5.0
#: Seconds after which it is cancelled once more; then twice as many, and so on.
CANCEL_AGAIN = 0.1

#: Generators of psycopg that end a transaction: cut short, the caller could not know whether it is committed.
INDIVISIBLE = frozenset({"_commit_gen", "_rollback_gen", "_exit_gen", "_tpc_finish_gen"})

# psycopg 3.2 has no such error, and nobody there who passes a timeout.
WaitTimeout: type[psycopg.Error] = getattr(errors, "_WaitTimeout", errors.ConnectionTimeout)


def _drive(gen: Any, fileno: int) -> Any:
    """Run a psycopg generator to its end; it yields what to wait for on ``fileno``."""
    try:
        events = next(gen)
        while True:
            events = gen.send(wait_fd(fileno, events))
    except StopIteration as done:
        return done.value


def _drive_until(gen: Any, fileno: int, deadline: float | None, interval: float | None = None) -> Any:
    """The same with a deadline; every ``interval`` seconds the generator is told "nothing yet"."""
    try:
        events = next(gen)
        while True:
            left = interval
            if deadline is not None:
                left = max(deadline - monotonic(), 0)
                left = left if interval is None else min(left, interval)
            events = gen.send(wait_fd(fileno, events, left))
            # After the generator had its turn: what has arrived already counts.
            if deadline is not None and monotonic() >= deadline:
                raise WaitTimeout("wait timeout expired")
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
            # psycopg 3.2 looks at its own deadline whenever it is resumed.
            left = interval or None
            if deadline is not None:
                left = max(deadline - monotonic(), 0)
            fileno, events = gen.send(wait_fd(fileno, events, left))
            if deadline is not None and monotonic() >= deadline:
                raise WaitTimeout("wait timeout expired")
    except StopIteration as done:
        return done.value
    finally:
        # Interrupted: libpq's half-made connection goes now, not with the traceback.
        gen.close()


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
    conninfo_attempts=lambda params: _resolve(params),
)
_cancel_safe = _with(psycopg.Connection.cancel_safe, waiting=_waiting)


def _resolve(params: Any) -> Any:
    host = params.get("host", "")
    if isinstance(host, str) and host.startswith("/") and "," not in host:
        return _original.conninfo_attempts(params)  # pyright: ignore[reportPrivateImportUsage]
    return to_thread(_original.conninfo_attempts, params)  # pyright: ignore[reportPrivateImportUsage]


class Connection(psycopg.Connection[Row]):
    """``psycopg.Connection`` for tasks and threads alike.

    When a wait is cancelled or times out, the query is cancelled on the server and its rest
    read, for 5 s at most; then the connection is usable as before, or else closed.
    """

    #: Set by the pool: the moment to replace it, and whose it is.
    _expires = 0.0
    _owner: Any = None
    #: How many tasks wait for the server's answer on this connection.
    _waits = 0

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

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by the program or by the server."""
        return self._closed or super().closed

    def close(self) -> None:
        """Close the connection; a task that waits for an answer on it gets ``OperationalError``."""
        if not self._waits or self.closed:
            return super().close()
        # Nothing would ever wake that task if the descriptor just went: it finds the end of the
        # stream instead, and frees the connection itself.
        self._closed = True
        with socket.socket(fileno=os.dup(self.pgconn.socket)) as copy:
            copy.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        # libpq's old cancel opens a second connection and blocks until it is answered.
        if current_task() is None:
            return super().cancel()
        to_thread(super().cancel)

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        if current_task() is None:
            return super().cancel_safe(timeout=timeout)
        return _cancel_safe(self, timeout=timeout)

    def wait(self, gen: Any, interval: float | None = None, timeout: float | None = None) -> Any:
        """Run a generator of psycopg's on this connection, and let other tasks run meanwhile.

        ``interval`` only serves Ctrl-C where it is not given, and is not needed in a task.
        """
        if current_task() is None:
            given = {"interval": interval, "timeout": timeout}
            return super().wait(gen, **{name: value for name, value in given.items() if value is not None})
        if getattr(gen, "__name__", "") in INDIVISIBLE:
            with shield(CANCEL_GRACE):
                return self._wait(gen, interval, timeout)
        return self._wait(gen, interval, timeout)

    def _wait(self, gen: Any, interval: float | None, timeout: float | None) -> Any:
        pgconn = self.pgconn
        self._waits += 1
        try:
            if timeout is None and interval is None:
                return _drive(gen, pgconn.socket)
            deadline = None if timeout is None else monotonic() + timeout
            return _drive_until(gen, pgconn.socket, deadline, interval)
        except psycopg.Error:
            raise
        except BaseException as error:
            # Cancelled, timed out or interrupted by the keyboard, at the wait.
            if pgconn.status == psycopg.pq.ConnStatus.OK and pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._stop(gen)
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise psycopg.OperationalError("connection socket closed") from error
            raise
        finally:
            self._waits -= 1
            if self._closed:
                pgconn.finish()

    def _stop(self, gen: Any) -> None:
        """Cancel the running query and read what it still sends."""
        pgconn = self.pgconn
        try:
            with shield(CANCEL_GRACE):
                # Not by `gen`: after a BEGIN it would go on and send the statement.
                gen.close()
                self._cancel_and_drain()
        except BaseException:
            # Nobody knows what the server still sends: an answer to this query must never be
            # taken for the next one's.
            pgconn.finish()

    def _cancel_and_drain(self) -> None:
        pgconn = self.pgconn
        if pgconn.pipeline_status != PipelineStatus.OFF:
            # Which statements ran, and whose answers are due, cannot be told any more.
            self._try_cancel(timeout=CANCEL_GRACE)
            pgconn.finish()
            return
        until, pause = monotonic() + CANCEL_GRACE, CANCEL_AGAIN
        while True:
            self._try_cancel(timeout=max(until - monotonic(), 0.1))
            now = monotonic()
            try:
                _drive_until(generators.execute(pgconn), pgconn.socket, min(now + pause, until))
                return
            except WaitTimeout:
                # The server drops a request that comes before it has begun the statement.
                if now >= until:
                    raise
                pause *= 2
