"""A connection pool for tasks and threads."""

from __future__ import annotations

import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from psycopg import Error, OperationalError
from psycopg.pq import TransactionStatus

from balrog._balrog import Waiter, shield
from balrog.psycopg.connection import Connection

#: How often the first in the queue looks for a connection that its holder can spare, in seconds. Only a
#: safety net: holders offer theirs after each statement when somebody waits.
LOOK_AGAIN = 0.5
#: How often the others find out whether they are the first.
LOOK_UP = 2.0


class PoolTimeout(OperationalError):
    """No connection became free in time."""


class PoolStats(NamedTuple):
    """Figures of a pool at one moment."""

    size: int  #: connections that are open or being opened
    idle: int  #: of these, unused
    waiting: int  #: tasks and threads that wait for one
    max_size: int
    opened: int  #: since the pool was made
    dropped: int  #: broken, too old or too long unused
    timeouts: int  #: how often nobody gave one back in time


class Pool:
    """Connections to one database, never more than ``max_size`` at once.

    They are opened when needed and handed to those who wait in the order of asking. One that
    comes back is rolled back and set to its first autocommit; a broken one is dropped and makes
    room. Session state (``SET``, ``LISTEN``, temporary tables) is left to ``reset``: asking the
    server to discard it costs a round trip each time, and few need it.

    Parameters
    ----------
    connect: a connection string, or a function that makes a new connection.
    max_size: most connections, those being opened included.
    timeout: seconds that ``getconn`` waits at most; then ``PoolTimeout``.
    stall_timeout: the same when for so many seconds no connection at all was handed on, although the thread
        had time to: a long queue that moves is worth waiting in, one that stands still may do so for ever.
    max_idle: seconds after which an unused connection is closed instead of used.
    max_lifetime: seconds, give or take a tenth, after which a connection is replaced.
    check_idle: a connection unused for so many seconds is asked whether it still works.
    reset: called with each connection that comes back; what it raises drops the connection.
    """

    def __init__(
        self,
        connect: Callable[[], Connection[Any]] | str = "",
        *,
        max_size: int = 20,
        timeout: float = 30.0,
        stall_timeout: float = 5.0,
        max_idle: float = 600.0,
        max_lifetime: float = 3600.0,
        check_idle: float = 30.0,
        reset: Callable[[Any], None] | None = None,
    ) -> None:
        if max_size < 1:
            raise ValueError("max_size must be at least 1")
        self._connect = (lambda: Connection.connect(connect)) if isinstance(connect, str) else connect
        self.max_size = max_size
        self.timeout = timeout
        self.stall_timeout = stall_timeout
        self.max_idle = max_idle
        self.max_lifetime = max_lifetime
        self.check_idle = check_idle
        self.reset = reset
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()  # never held over a wait
        self._pid = os.getpid()
        self._idle: deque[tuple[Any, float]] = deque()
        self._waiting: deque[_Place] = deque()
        #: When somebody who waited was served.
        self._moved = 0.0
        self._size = self._opened = self._dropped = self._timeouts = 0
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

    def stats(self) -> PoolStats:
        """Figures for tests and metrics."""
        with self._lock:
            return PoolStats(
                self._size,
                len(self._idle),
                len(self._waiting),
                self.max_size,
                self._opened,
                self._dropped,
                self._timeouts,
            )

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        """A connection for a block, which is one transaction: committed, or rolled back by an exception."""
        connection = self.getconn(timeout)
        try:
            yield connection
            connection.commit()
        finally:
            # Rolls back what is left open.
            self.putconn(connection)

    def getconn(self, timeout: float | None = None, spare: Callable[[], Any] | None = None) -> Any:
        """A connection for the caller alone, until ``putconn``.

        ``spare()`` may give one that its holder does not need now; it must not wait. Raises
        ``PoolTimeout`` after ``timeout`` seconds (the pool's own unless given) or after
        ``stall_timeout``, or what opening a connection raises.
        """
        if self._pid != os.getpid():
            # The sockets belong to the parent: neither use nor close them here.
            self._start()
        limit = self.timeout if timeout is None else timeout
        until = time.monotonic() + limit
        while True:
            place = found = None
            with self._lock:
                if self.closed:
                    raise OperationalError("the pool is closed")
                if self._idle:
                    found = self._idle.pop()
                elif self._size < self.max_size:
                    self._size += 1
                else:
                    place = _Place()
                    self._waiting.append(place)
            if place is not None:
                found = self._wait(place, until, limit, spare)
            if found is None:  # there is room for a new one
                return self._open()
            connection, since = found
            usable = False
            try:
                usable = self.usable(connection, since)
            finally:
                if not usable:
                    self._drop(connection)
                    self._make_room()
            if usable:
                return connection

    def _wait(
        self, place: _Place, until: float, limit: float, spare: Callable[[], Any] | None
    ) -> tuple[Any, float] | None:
        moved, stood = self._moved, 0.0
        try:
            while not place.waiter.woken:
                now = time.monotonic()
                if self._moved != moved:
                    moved, stood = self._moved, 0.0
                left = min(until - now, self.stall_timeout - stood)
                if spare is not None and (spared := self._spared(place, spare)) is not None:
                    return spared, time.monotonic()
                slice_ = max(min(left, self._pause(place, spare)), 0)
                if place.waiter.wait(slice_):
                    break
                # A busy thread looks late: what it could not give others in that time does not count.
                stood += min(time.monotonic() - now, slice_)
                if left <= 0 and self._leave(place):
                    with self._lock:
                        self._timeouts += 1
                    waited = limit if until <= now else self.stall_timeout
                    raise PoolTimeout(
                        f"no connection became free within {waited:g} s: all {self.max_size} are in use and "
                        f"{self.waiting} others wait; raise the pool's max_size, or hold connections for less "
                        "time (a task that waits for others inside a transaction holds one)"
                    )
        except PoolTimeout:
            raise
        except BaseException:
            if not self._leave(place) and not place.refused:
                # Served and cancelled at once: it goes to the next one.
                if place.connection is None:
                    self._make_room()
                else:
                    self._give(place.connection)
            raise
        if place.refused:
            raise OperationalError("the pool was closed meanwhile")
        return None if place.connection is None else (place.connection, time.monotonic())

    def _pause(self, place: _Place, spare: Callable[[], Any] | None) -> float:
        with self._lock:
            first = spare is not None and self._waiting and self._waiting[0] is place
            return LOOK_AGAIN if first else LOOK_UP

    def _spared(self, place: _Place, spare: Callable[[], Any]) -> Any:
        """For the first in the queue: a connection that its holder does not need."""
        with self._lock:
            if not self._waiting or self._waiting[0] is not place:
                return None
            spared = spare()
            if spared is not None:
                self._next()
            return spared

    def _next(self) -> _Place:
        """The first in the queue, who is served now."""
        self._moved = time.monotonic()
        return self._waiting.popleft()

    def _leave(self, place: _Place) -> bool:
        with self._lock:
            try:
                self._waiting.remove(place)
            except ValueError:
                return False
            return True

    def usable(self, connection: Any, since: float) -> bool:
        """Whether a connection that nobody has used ``since`` then still works; may ask the server."""
        now = time.monotonic()
        unused = now - since
        if connection.closed or unused > self.max_idle or now > connection._expires:
            return False
        # An idle session has nothing to say: what can be read is nearly always its end.
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        if unused > self.check_idle or poll.poll(0):
            try:
                connection.execute("")
                if not connection.autocommit:
                    connection.rollback()
            except Error:
                return False
        return True

    def _open(self) -> Any:
        try:
            connection = self._connect()
        except BaseException:
            self._make_room()
            raise
        connection._expires = time.monotonic() + self.max_lifetime * random.uniform(0.9, 1.1)
        connection._owner = (self, self._pid, connection.autocommit)
        connection._pool = None  # psycopg's sign that one may be dropped without close()
        self._opened += 1
        return connection

    def putconn(self, connection: Any) -> None:
        """Give a connection back. A transaction that is open is rolled back."""
        pool, pid, autocommit = connection._owner
        if pid != os.getpid():
            return
        if pool is not self:
            raise ValueError("this connection is another pool's")
        if self._clean(connection, autocommit) and not self.closed:
            self._give(connection)
        else:
            self._drop(connection)
            self._make_room()

    def _clean(self, connection: Any, autocommit: bool) -> bool:
        pgconn = connection.pgconn
        try:
            with shield():
                if pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                    connection.rollback()
                if pgconn.transaction_status != TransactionStatus.IDLE or time.monotonic() > connection._expires:
                    return False
                if connection.autocommit != autocommit:
                    connection.autocommit = autocommit
                if self.reset is not None:
                    self.reset(connection)
        except Exception:
            return False
        return pgconn.transaction_status == TransactionStatus.IDLE

    def _give(self, connection: Any) -> None:
        now = time.monotonic()
        old = None
        with self._lock:
            if self._waiting:
                place = self._next()
                place.connection = connection
            else:
                place = None
                self._idle.append((connection, now))
                # The least used one is the first.
                if now - self._idle[0][1] > self.max_idle:
                    old = self._idle.popleft()[0]
        if place is not None:
            place.waiter.wake()
        if old is not None:
            self._drop(old)
            self._make_room()

    def _make_room(self) -> None:
        """A connection is gone: the first who waits may open one in its place."""
        with self._lock:
            if not self._waiting:
                self._size -= 1
                return
            place = self._next()
        place.waiter.wake()

    def _drop(self, connection: Any) -> None:
        self._dropped += 1
        connection.close()

    def close(self) -> None:
        """Close what nobody uses, the rest when it comes back; those who wait get ``OperationalError``."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, deque()
            waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            place.refused = True
            place.waiter.wake()
        for connection, _ in idle:
            self._drop(connection)
            self._make_room()

    def __repr__(self) -> str:
        return f"<Pool size={self.size}/{self.max_size} idle={self.idle} waiting={self.waiting}>"


class _Place:
    """A place in the queue. Woken without a connection, its owner may open one."""

    __slots__ = ("connection", "refused", "waiter")

    def __init__(self) -> None:
        self.waiter = Waiter()
        self.connection: Any = None
        self.refused = False
