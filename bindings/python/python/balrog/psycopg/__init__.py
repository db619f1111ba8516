"""psycopg 3 whose waits are balrog's: in a task other tasks run on, elsewhere the thread blocks.

Import it in psycopg's place::

    import balrog.psycopg as psycopg

Names, types, adapters and exceptions are psycopg's own; only ``Connection`` and ``connect``
are replaced, and ``Pool`` is added.
"""

from psycopg import *  # noqa: F403
from psycopg import __all__ as _names
from psycopg import adapt, adapters, errors, pq, sql, types

from balrog.psycopg.connection import Connection
from balrog.psycopg.pool import Pool, PoolStats, PoolTimeout

connect = Connection.connect

__all__ = [*_names, "Pool", "PoolStats", "PoolTimeout", "adapt", "adapters", "errors", "pq", "sql", "types"]
