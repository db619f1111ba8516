"""Django's PostgreSQL engine on balrog's psycopg, with a pool for tasks.

In a task a connection is taken from the pool at the first query and stays until somebody else
needs it: while no transaction is open, the pool may hand it on between two statements. So a
thousand views that wait for something else need no thousand connections. At the task's end it
goes back, rolled back. Outside of tasks everything is as in the stock engine.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db.backends import utils
from django.db.backends.postgresql import base
from django.db.backends.signals import connection_created
from psycopg.pq import TransactionStatus

import balrog.psycopg
from balrog._balrog import shield
from balrog.django.connections import install, own
from balrog.django.postgresql.options import pool_options

install()

#: What Django calls `Database`: psycopg's names, and our `connect`.
Database = SimpleNamespace(**{name: getattr(psycopg, name) for name in dir(psycopg) if not name.startswith("__")})
Database.__name__ = "psycopg"
Database.__version__ = psycopg.__version__
Database.connect = balrog.psycopg.Connection.connect

#: Statements whose effect outlasts them in the session: all that do not begin with one of these words, ...
STATELESS = re.compile(
    r"[\s(]*(?:select|insert|update|delete|with|values|savepoint|release|rollback|explain|merge|table|show)\b", re.I
)
#: ... and those in which one of these occurs.
SESSION = re.compile(r"advisory_lock|set_config|setseed|currval|lastval|pg_temp|\btemp(?:orary)?\b", re.I)

#: A connection that was left alone for longer, in seconds, is looked at before the next statement.
RESTED = 0.05

_pools: dict[str, balrog.psycopg.Pool] = {}
#: Per thread: wrappers that hold a pooled connection, in the order of taking.
_holders = threading.local()
#: Which texts of statements leave something in the session: the ORM's repeat themselves.
_verdicts: dict[str, bool] = {}


def holders() -> OrderedDict[int, DatabaseWrapper]:
    try:
        return _holders.wrappers
    except AttributeError:
        _holders.wrappers = OrderedDict()
        return _holders.wrappers


def outlasts(sql: Any) -> bool:
    """Whether the statement may leave something in the session; in doubt it does."""
    if not isinstance(sql, str):
        return True
    verdict = _verdicts.get(sql)
    if verdict is None:
        if len(_verdicts) >= 4096:
            _verdicts.clear()
        verdict = _verdicts[sql] = not STATELESS.match(sql) or bool(SESSION.search(sql))
    return verdict


class CursorWrapper(utils.CursorWrapper):
    """Notices that its connection was handed on between two statements."""

    def _ready(self, sql: Any) -> None:
        db = self.db
        if db._leased_before and self.cursor.connection is not db.connection and not self.cursor.closed:
            db.ensure_connection()
            self.cursor = db.create_cursor()
        if db._leased and not db._pinned and outlasts(sql):
            db._pinned = True

    # Inside of any execute_wrapper(): those may wait.
    def _execute(self, sql: Any, params: Any, *ignored: Any) -> Any:
        self._ready(sql)
        try:
            return super()._execute(sql, params, *ignored)
        finally:
            self.db.offer()

    def _executemany(self, sql: Any, param_list: Any, *ignored: Any) -> Any:
        self._ready(sql)
        try:
            return super()._executemany(sql, param_list, *ignored)
        finally:
            self.db.offer()

    def callproc(self, procname: Any, params: Any = None, kparams: Any = None) -> Any:
        self._ready(None)
        return super().callproc(procname, params, kparams)

    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        self._ready(None)
        return self.cursor.copy(statement, *args, **kwargs)

    def stream(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        self._ready(None)
        return self.cursor.stream(sql, *args, **kwargs)


class CursorDebugWrapper(base.CursorDebugWrapper, CursorWrapper):
    """The same, and logs."""

    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        self._ready(None)
        return super().copy(statement, *args, **kwargs)


class DatabaseWrapper(base.DatabaseWrapper):
    """``django.db.backends.postgresql`` for tasks; see the module."""

    Database = Database

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Whether `self.connection` comes from the task's pool, and whether one ever did.
        self._leased = self._leased_before = False
        #: Something of this task lives in the session: nobody else may have the connection.
        self._pinned = False
        #: How many `hold()` blocks are open.
        self.held = 0
        #: Server-side cursors: their rows are still on the server.
        self._named: list[weakref.ref[Any]] = []
        self._source: Any = None
        #: When the last statement ended.
        self._used = 0.0

    def _task_pool(self) -> balrog.psycopg.Pool:
        settings = self.settings_dict
        # What the parameters of a connection are made of: cheaper to compare than to make.
        key = [settings[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")]
        key += (self.timezone_name, self.timezone)
        pool = _pools.get(self.alias)
        if pool is None or pool.closed or pool.key != key:  # type: ignore[attr-defined]
            if pool is not None:  # the settings have changed, as at the start of tests
                pool.close()
            # A wrapper of its own: it must not keep a task's alive.
            maker = type(self)(settings, self.alias)
            params = {**self.get_connection_params(), "autocommit": True}
            options = pool_options(settings, self.alias)
            pool = _pools[self.alias] = balrog.psycopg.Pool(lambda: maker._connect_for_pool(params), **options)
            key[5] = {**settings["OPTIONS"]}
            pool.key = key  # type: ignore[attr-defined]
        return pool

    def _connect_for_pool(self, params: dict[str, Any]) -> Any:
        connection = self.Database.connect(**params)
        try:
            if "isolation_level" in self.settings_dict["OPTIONS"]:
                connection.isolation_level = self._isolation_level()
            self._configure_connection(connection)
        except BaseException:
            connection.close()
            raise
        connection._announced = False
        return connection

    def _isolation_level(self) -> psycopg.IsolationLevel:
        level = self.settings_dict["OPTIONS"].get("isolation_level", psycopg.IsolationLevel.READ_COMMITTED)
        try:
            return psycopg.IsolationLevel(level)
        except ValueError:
            raise ImproperlyConfigured(
                f"Invalid transaction isolation level {level} specified. Use one of the psycopg.IsolationLevel values."
            ) from None

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        params.pop("balrog_pool", None)
        return params

    def close_pool(self) -> None:
        """Close the alias's pools; connections in use are closed when they come back."""
        pool = _pools.pop(self.alias, None)
        if pool is not None:
            pool.close()
        if self.alias in self._connection_pools:
            self._connection_pools.pop(self.alias).close()

    def connect(self) -> None:
        # A wrapper that somebody made for himself, with copy() say, has its own connection: nobody
        # would give it back at the task's end.
        if not any(wrapper is self for wrapper in own()):
            return super().connect()
        self.check_settings()
        pool = self._task_pool()
        if not self._leased_before:
            self._first_lease()
        self._lease(pool, pool.getconn(spare=lambda: self._spare_of_others(pool)))

    def _first_lease(self) -> None:
        self.isolation_level = self._isolation_level()
        self._leased_before = True

    def _lease(self, pool: Any, connection: Any) -> None:
        self.in_atomic_block = self.needs_rollback = self.closed_in_transaction = self.errors_occurred = False
        self.savepoint_ids, self.atomic_blocks = [], []
        # Given back at `request_finished`, unless the project keeps connections.
        age = self.settings_dict["CONN_MAX_AGE"]
        self.close_at = 0 if age == 0 else None
        self.health_check_enabled = self.settings_dict["CONN_HEALTH_CHECKS"]
        self.health_check_done = True
        self.connection = connection
        self._source, self._leased, self._used = pool, True, time.monotonic()
        holders()[id(self)] = self
        self.autocommit = True
        if not connection._announced:
            # To its receivers a connection is new when it is opened, not when a task borrows it.
            connection._announced = True
            try:
                base.BaseDatabaseWrapper.init_connection_state(self)
                connection_created.send(sender=self.__class__, connection=self)
            except BaseException:
                connection.close()
                self._give_up()
                raise
            self._pinned = False
        if not self.settings_dict["AUTOCOMMIT"]:
            self.set_autocommit(False)
        self.run_on_commit = []

    def _give_up(self) -> None:
        self._source.putconn(self._part())

    def _spare_of_others(self, pool: Any) -> Any:
        for wrapper in holders().values():
            if wrapper._source is pool and wrapper.can_spare():
                return wrapper._part()
        return None

    def can_spare(self) -> bool:
        """Whether the connection is needed for nothing but, perhaps, the next statement."""
        connection = self.connection
        return (
            self._leased
            and connection is not None
            and not self.in_atomic_block
            and not self._pinned
            and not self.held
            and connection.autocommit
            and connection.pgconn.transaction_status == TransactionStatus.IDLE
            and not connection.lock.locked()
            and not self._open_named()
        )

    def _open_named(self) -> bool:
        if self._named:
            self._named = [one for one in self._named if (cursor := one()) is not None and not cursor.closed]
        return bool(self._named)

    def _part(self) -> Any:
        connection, self.connection = self.connection, None
        self._leased = False
        holders().pop(id(self), None)
        return connection

    def offer(self) -> None:
        """After a statement: let somebody who waits have the connection."""
        self._used = time.monotonic()
        if self._leased and self._source.waiting and self.can_spare():
            self._source.putconn(self._part())

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)
        if autocommit:  # the end of a transaction
            self.offer()

    def close_if_health_check_failed(self) -> None:
        if self.connection is None:
            return  # and Django's would load psycopg_pool for the option `pool`, which is ours
        if not self._leased:
            super().close_if_health_check_failed()
        elif self.health_check_enabled and not self.health_check_done:
            if not self.is_usable():
                self.connection.close()  # pyright: ignore[reportOptionalMemberAccess]  # so the pool drops it
                self.close()
            self.health_check_done = True

    def _cursor(self, name: str | None = None) -> Any:
        if self._leased and not self.in_atomic_block and self._has_died():
            self.connection.close()  # pyright: ignore[reportOptionalMemberAccess]  # so the pool drops it
            self.close()  # a task that lives on gets another
        return super()._cursor(name)

    def _has_died(self) -> bool:
        """Whether the session has ended, as far as can be told.

        While a task waits for something else its connection may as well lie in the pool, so it is looked at as if it
        had. Not where it holds something for the task: that is lost, and the next statement says so.
        """
        connection = self.connection
        if connection.closed:  # pyright: ignore[reportOptionalMemberAccess]
            return True
        rested = time.monotonic() - self._used > RESTED
        return rested and self.can_spare() and not self._source.usable(connection, self._used)

    def _close(self) -> None:
        if not self._leased:
            return super()._close()
        if self.connection is not None:
            pinned = self._pinned or self._open_named()
            self._pinned = False
            connection = self._part()
            try:
                if pinned:
                    self._discard_session(connection)
            finally:
                with self.wrap_database_errors:  # pyright: ignore[reportGeneralTypeIssues]
                    self._source.putconn(connection)

    def _discard_session(self, connection: Any) -> None:
        """Forget what the task has left in its session; what fails closes it."""
        try:
            with shield():
                if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                    connection.rollback()
                connection.autocommit = True
                connection.execute("DISCARD ALL")
                connection._prepared.clear()
                self._configure_connection(connection)
            connection._announced = False
        except BaseException as error:
            connection.close()
            if not isinstance(error, Exception):
                raise

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
        if name is not None and self._leased:
            self._named.append(weakref.ref(cursor))
        return cursor

    def make_cursor(self, cursor: Any) -> Any:
        return CursorWrapper(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> Any:
        return CursorDebugWrapper(cursor, self)
