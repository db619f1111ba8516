"""Django's PostgreSQL engine on balrog's psycopg, with a pool for tasks.

In a task a connection is taken from the pool at the first query and stays until somebody else
needs it: while no transaction is open, the pool may hand it on between two queries. So a
thousand views that wait for something else need no thousand connections. At the task's end it
goes back, rolled back. Outside of tasks everything is as in the stock engine.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db.backends import utils
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

import balrog.psycopg
from balrog._balrog import at_task_end, current_task, shield
from balrog.django.connections import install

logger = logging.getLogger("balrog.django")

install()

#: What Django calls `Database`: psycopg's names, and our `connect`.
Database = SimpleNamespace(**{name: getattr(psycopg, name) for name in dir(psycopg) if not name.startswith("__")})
Database.__name__ = "psycopg"
Database.__version__ = psycopg.__version__
Database.connect = balrog.psycopg.Connection.connect

POOL_OPTIONS = {"max_size", "timeout", "max_idle", "max_lifetime", "check_idle"}
#: Options of psycopg_pool that mean the same or nothing here.
IGNORED_POOL_OPTIONS = {"min_size", "open", "name", "num_workers", "reconnect_timeout", "max_waiting"}

#: Statements whose effect lasts longer than themselves without a transaction around them.
SESSION = re.compile(
    r"\s*(?:set\s+(?!local\b)|reset\b|listen\b|prepare\b|declare\b|create\s+(?:local\s+|global\s+)?temp|load\b"
    r"|select\s+(?:pg_(?:try_)?advisory_lock|set_config|setseed)|begin\b|start\s+transaction)",
    re.IGNORECASE,
)

_pools: dict[str, balrog.psycopg.Pool] = {}
#: Per thread: wrappers that hold a pooled connection, in the order of taking.
_holders = threading.local()


def holders() -> OrderedDict[int, DatabaseWrapper]:
    try:
        return _holders.wrappers
    except AttributeError:
        _holders.wrappers = OrderedDict()
        return _holders.wrappers


class CursorWrapper(utils.CursorWrapper):
    """Notices that its connection was handed on between two statements."""

    def _ready(self, sql: Any) -> None:
        db = self.db
        if self.cursor.connection is not db.connection and db._pooled_before:
            db.ensure_connection()
            self.cursor = db.create_cursor()
        if db._pooled and not db._pinned and isinstance(sql, str) and SESSION.match(sql):
            db._pinned = True

    def execute(self, sql: Any, params: Any = None) -> Any:
        self._ready(sql)
        try:
            return super().execute(sql, params)
        finally:
            self.db.offer()

    def executemany(self, sql: Any, param_list: Any) -> Any:
        self._ready(sql)
        try:
            return super().executemany(sql, param_list)
        finally:
            self.db.offer()


class CursorDebugWrapper(utils.CursorDebugWrapper, CursorWrapper):
    def execute(self, sql: Any, params: Any = None) -> Any:
        self._ready(sql)
        try:
            return super().execute(sql, params)
        finally:
            self.db.offer()


class DatabaseWrapper(base.DatabaseWrapper):
    Database = Database

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Whether `self.connection` comes from the pool, and whether one ever did.
        self._pooled = False
        self._pooled_before = False
        #: Something of this task lives in the session: nobody else may have the connection.
        self._pinned = False

    @property
    def pool(self) -> None:
        """Django's own pool, which would block the whole thread, is never used."""
        return None

    def close_pool(self) -> None:
        """Close the alias's pool; connections in use are closed when they come back."""
        pool = _pools.pop(self.alias, None)
        if pool is not None:
            pool.close()

    def _pool_options(self) -> dict[str, Any]:
        options = self.settings_dict["OPTIONS"].get("pool") or {}
        if options is True:
            options = {}
        unknown = set(options) - POOL_OPTIONS - IGNORED_POOL_OPTIONS
        if unknown:
            raise ImproperlyConfigured(
                f"OPTIONS['pool'] of {self.alias!r} has {sorted(unknown)}; balrog's pool knows {sorted(POOL_OPTIONS)}"
            )
        return {name: value for name, value in options.items() if name in POOL_OPTIONS}

    def _task_pool(self, params: dict[str, Any]) -> balrog.psycopg.Pool:
        pool = _pools.get(self.alias)
        if pool is None or pool.closed:
            params = {**params, "autocommit": True}
            pool = balrog.psycopg.Pool(lambda: self._connect_for_pool(params), **self._pool_options())
            _pools[self.alias] = pool
        return pool

    def _connect_for_pool(self, params: dict[str, Any]) -> Any:
        connection = Database.connect(**params)
        if self._configure_connection(connection) and not connection.autocommit:
            connection.commit()
        return connection

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if current_task() is None or self.alias == base.NO_DB_ALIAS:
            self._pooled = False
            return super().get_new_connection(conn_params)
        level = self.settings_dict["OPTIONS"].get("isolation_level", psycopg.IsolationLevel.READ_COMMITTED)
        try:
            self.isolation_level = psycopg.IsolationLevel(level)
        except ValueError:
            raise ImproperlyConfigured(
                f"Invalid transaction isolation level {level} specified. Use one of the psycopg.IsolationLevel values."
            ) from None
        pool = self._task_pool(conn_params)
        connection = pool.getconn(spare=self._spare_of_others)
        if "isolation_level" in self.settings_dict["OPTIONS"]:
            connection.isolation_level = self.isolation_level
        if not self._pooled_before:
            at_task_end(self._end_of_task)
        self._source = pool
        self._pooled = self._pooled_before = True
        holders()[id(self)] = self
        return connection

    def _spare_of_others(self) -> Any:
        for wrapper in holders().values():
            if wrapper is not self and wrapper.alias == self.alias and wrapper.can_spare():
                return wrapper.spare_connection()
        return None

    def can_spare(self) -> bool:
        """Whether the connection is needed for nothing but, perhaps, the next query."""
        connection = self.connection
        return (
            self._pooled
            and connection is not None
            and not self.in_atomic_block
            and not self._pinned
            and connection.autocommit
            and not connection.lock.locked()
            and connection.pgconn.transaction_status == TransactionStatus.IDLE
        )

    def spare_connection(self) -> Any:
        """Part with the connection; the next query takes one from the pool again."""
        connection, self.connection = self.connection, None
        self._pooled = False
        holders().pop(id(self), None)
        return connection

    def offer(self) -> None:
        """After a statement: let somebody who waits have the connection."""
        if self._pooled and self._source.waiting and self.can_spare():
            self.give_back()

    def give_back(self) -> None:
        """Return the connection to the pool if nothing needs it."""
        if self.can_spare():
            self._source.putconn(self.spare_connection())

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)
        # The end of a transaction. Not while connecting: the caller is about to use it.
        if autocommit and self._pooled and self.connection is not None and not self._connecting:
            self.offer()

    _connecting = False

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def _close(self) -> None:
        if not self._pooled:
            return super()._close()
        if self.connection is not None:
            pinned, self._pinned = self._pinned, False
            connection = self.spare_connection()
            if pinned:
                _discard_session(connection)
            with self.wrap_database_errors:
                self._source.putconn(connection)

    def _end_of_task(self) -> None:
        if self.connection is not None and self.in_atomic_block:
            logger.error("a task ended inside a transaction on %r, which is rolled back", self.alias)
        self.close()

    def _commit(self) -> None:
        with shield():
            super()._commit()

    def _rollback(self) -> None:
        with shield():
            super()._rollback()

    def run_and_clear_commit_hooks(self) -> None:
        # Cancelled between the commit and its hooks, nobody would ever run them.
        with shield():
            super().run_and_clear_commit_hooks()

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = super().create_cursor(name)
        if name is not None:
            # Its rows are still on the server.
            self._pinned = True
        return cursor

    def make_cursor(self, cursor: Any) -> Any:
        return CursorWrapper(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> Any:
        return CursorDebugWrapper(cursor, self)


def _discard_session(connection: Any) -> None:
    """Forget what a task has left in its session."""
    try:
        if connection.pgconn.transaction_status != TransactionStatus.IDLE:
            with shield():
                connection.rollback()
        connection.autocommit = True
        with shield():
            connection.execute("DISCARD ALL")
    except Exception:
        connection.close()
