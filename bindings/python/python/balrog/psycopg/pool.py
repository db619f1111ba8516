"""A connection pool for tasks and threads."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from psycopg import Error, OperationalError
from psycopg.pq import TransactionStatus

from balrog._balrog import Waiter, shield
from balrog.psycopg.connection import Connection


class PoolTimeout(OperationalError):
    """No connection became free in time."""


class Pool:
    """Connections to one database, never more than ``max_size`` at once.

    They are opened when needed and handed to those who wait in the order of asking. One that
    comes back is rolled back; a broken one is dropped and makes room.

    Parameters
    ----------
    connect: makes a new connection.
    max_size: most connections, those being opened included.
    timeout: seconds that ``getconn`` waits; then ``PoolTimeout``.
    max_idle: seconds after which an unused connection is closed instead of used.
    max_lifetime: seconds, give or take a tenth, after which a connection is replaced.
    check_idle: a connection unused for so many seconds is asked whether it still works.
    """

    def __init__(
        self,
        connect: Callable[[], Connection[Any]] | str = "",
        *,
        max_size: int = 20,
        timeout: float = 5.0,
        max_idle: float = 600.0,
        max_lifetime: float = 3600.0,
        check_idle: float = 30.0,
    ) -> None:
        if max_size < 1:
            raise ValueError("max_size must be at least 1")
        self._connect = (lambda: Connection.connect(connect)) if isinstance(connect, str) else connect
        self.max_size = max_size
        self.timeout = timeout
        self.max_idle = max_idle
        self.max_lifetime = max_lifetime
        self.check_idle = check_idle
        self._lock = threading.Lock()  # never held over a wait
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[tuple[Any, float]] = deque()
        self._waiting: deque[_Place] = deque()
        self._size = 0
        self._expires: dict[int, float] = {}
        self.closed = False

    @property
    def size(self) -> int:
        """Connections that are open or being opened."""
        return self._size

    @property
    def idle(self) -> int:
        """Open connections that nobody uses."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._waiting)

    def getconn(self, timeout: float | None = None, spare: Callable[[], Any] | None = None) -> Any:
        """A connection for the caller alone, until ``putconn``.

        ``spare()`` may give one that its holder does not need now; it is asked before waiting.
        Raises ``PoolTimeout`` after ``timeout`` seconds (the pool's own unless given), or what
        opening a connection raises.
        """
        if self._pid != os.getpid():
            # The sockets belong to the parent: neither use nor close them here.
            self._lock = threading.Lock()
            self._reset()
        limit = self.timeout if timeout is None else timeout
        until = time.monotonic() + limit
        while True:
            place = None
            with self._lock:
                if self.closed:
                    raise OperationalError("the pool is closed")
                found = self._idle.pop() if self._idle else None
                if found is None:
                    if self._size < self.max_size:
                        self._size += 1
                        break
                    spared = spare() if spare is not None else None
                    if spared is not None:
                        return spared
                    place = _Place()
                    self._waiting.append(place)
            if place is not None:
                found = self._wait(place, until, limit)
                if found is None:  # somebody made room: a new one may be opened
                    break
            connection, since = found  # type: ignore[misc]
            if self._usable(connection, since):
                return connection
            self._drop(connection)
        return self._open()

    def _wait(self, place: _Place, until: float, limit: float) -> tuple[Any, float] | None:
        try:
            served = place.waiter.wait(max(until - time.monotonic(), 0))
        except BaseException:
            if not self._leave(place):
                # Served and cancelled at once: it goes to the next one.
                if place.connection is None:
                    self._make_room()
                else:
                    self._give(place.connection)
            raise
        if not served and self._leave(place):
            raise PoolTimeout(
                f"no connection became free within {limit:g} s: all {self.max_size} are in use and "
                f"{self.waiting} others wait; raise the pool's max_size, or hold connections for less time"
            )
        return None if place.connection is None else (place.connection, time.monotonic())

    def _leave(self, place: _Place) -> bool:
        with self._lock:
            try:
                self._waiting.remove(place)
            except ValueError:
                return False
            return True

    def _usable(self, connection: Any, since: float) -> bool:
        now = time.monotonic()
        unused = now - since
        if connection.closed or unused > self.max_idle or now > self._expires.get(id(connection), now):
            return False
        if unused > self.check_idle:
            try:
                connection.execute("")
            except Error:
                return False
        return True

    def _open(self) -> Any:
        try:
            connection = self._connect()
        except BaseException:
            self._make_room()
            raise
        spread = self.max_lifetime * random.uniform(0.9, 1.1)
        self._expires[id(connection)] = time.monotonic() + spread
        return connection

    def putconn(self, connection: Any) -> None:
        """Give a connection back. A transaction that is open is rolled back."""
        if self._pid != os.getpid():
            return
        if self._clean(connection) and not self.closed:
            self._give(connection)
        else:
            self._drop(connection)
            self._make_room(taken=False)

    def _clean(self, connection: Any) -> bool:
        status = connection.pgconn.transaction_status
        if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            try:
                with shield():
                    connection.rollback()
            except Exception:
                return False
            status = connection.pgconn.transaction_status
        return status == TransactionStatus.IDLE and time.monotonic() <= self._expires.get(id(connection), 0)

    def _give(self, connection: Any) -> None:
        with self._lock:
            if self._waiting:
                place = self._waiting.popleft()
                place.connection = connection
            else:
                self._idle.append((connection, time.monotonic()))
                return
        place.waiter.wake()

    def _make_room(self, taken: bool = True) -> None:
        """A connection is gone: the first who waits may open one."""
        with self._lock:
            if taken:
                self._size -= 1
            if not self._waiting or self._size >= self.max_size:
                return
            self._size += 1
            place = self._waiting.popleft()
        place.waiter.wake()

    def _drop(self, connection: Any) -> None:
        self._expires.pop(id(connection), None)
        with self._lock:
            self._size -= 1
        connection.close()

    def close(self) -> None:
        """Close what nobody uses; the others are closed when they come back."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, deque()
        for connection, _ in idle:
            self._drop(connection)

    def __repr__(self) -> str:
        return f"<Pool size={self.size}/{self.max_size} idle={self.idle} waiting={self.waiting}>"


class _Place:
    """A place in the queue."""

    __slots__ = ("connection", "waiter")

    def __init__(self) -> None:
        self.waiter = Waiter()
        self.connection: Any = None
