"""Options of the pool: ``OPTIONS = {"balrog_pool": {"max_size": 20, "timeout": 30}}``."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured

#: Those of ``balrog.psycopg.Pool``.
KNOWN = {"max_size", "timeout", "stall_timeout", "max_idle", "max_lifetime", "check_idle"}
#: Options of psycopg_pool that have no meaning here: there are no worker threads, and connections are
#: opened when needed.
IGNORED = {"min_size", "open", "name", "num_workers", "reconnect_timeout", "check", "close_returns"}


def pool_options(settings: dict[str, Any], alias: str) -> dict[str, Any]:
    """Arguments for the pool of one database: ``balrog_pool``, or Django's own ``pool``.

    Raises ``ImproperlyConfigured`` for an option that the pool cannot honour.
    """
    options = settings["OPTIONS"]
    ours, django = options.get("balrog_pool") or {}, options.get("pool") or {}
    if django is True:
        django = {}
    unknown = (set(ours) - KNOWN) | (set(django) - KNOWN - IGNORED)
    if unknown:
        raise ImproperlyConfigured(
            f"The pool of database {alias!r} does not know {sorted(unknown)}; it knows {sorted(KNOWN)}."
        )
    return {name: value for name, value in {**django, **ours}.items() if name in KNOWN}
