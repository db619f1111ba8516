"""Who is connected by WebSocket, and how a message reaches them: ``to(user).send("hi")``."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest

from balrog.django import conf

logger = logging.getLogger("balrog.django")

#: Messages without a receiver, by the reason ("missing" or "gone"): for tests and metrics.
undelivered: Counter[str] = Counter()


class NotConnected(ConnectionError):
    """Nobody with an open WebSocket is there to get the message."""


class MemoryEngine:
    """Carries messages to the WebSockets of this process, by the name of their audience.

    An audience is a name such as ``session:…``, ``user:…`` or ``group:…``. Any task or thread
    may call any method.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._audiences: dict[str, list[Any]] = {}

    def join(self, audience: str, ws: Any) -> None:
        """Add a WebSocket to an audience."""
        with self._lock:
            self._audiences.setdefault(audience, []).append(ws)

    def leave(self, audience: str, ws: Any) -> None:
        """Take it out; nothing happens if it is not in."""
        with self._lock:
            members = [one for one in self._audiences.get(audience, ()) if one is not ws]
            if members:
                self._audiences[audience] = members
            else:
                self._audiences.pop(audience, None)

    def members(self, audiences: Iterable[str]) -> list[Any]:
        """The WebSockets in any of the audiences, each once."""
        with self._lock:
            found = {id(ws): ws for audience in audiences for ws in self._audiences.get(audience, ())}
        return list(found.values())

    def send(self, audiences: Iterable[str], message: str | bytes) -> int:
        """Send to them all without waiting; returns how many took it."""
        sent = 0
        for ws in self.members(audiences):
            try:
                ws.send(message)
                sent += 1
            except OSError:  # it has just been closed, or reads too slowly
                undelivered["gone"] += 1
        return sent


engine = MemoryEngine()


class Audience:
    """Whoever is connected under some names; may be nobody."""

    def __init__(self, names: Iterable[str], missing: str | None = None) -> None:
        self._names = list(names)
        self._missing = conf.get("WEBSOCKET_MISSING") if missing is None else missing
        if self._missing not in ("raise", "count"):
            raise ImproperlyConfigured(f"missing is 'raise' or 'count', not {self._missing!r}")

    @property
    def connected(self) -> int:
        """How many WebSockets there are."""
        return len(engine.members(self._names))

    def send(self, message: str | bytes, *, now: bool = False, using: str | None = None) -> int:
        """Send to every WebSocket of the audience, and return how many took it. Never waits.

        Inside ``transaction.atomic()`` (of the database ``using``) the message leaves at the
        commit, and never if it is rolled back; the result is then how many are connected now.
        ``now=True`` sends at once. Raises ``NotConnected`` if nobody is there, unless that is
        only to be counted; of a message that leaves at the commit a late absence is logged.
        """
        if not now and transaction.get_connection(using).in_atomic_block:
            connected = self.connected
            if not connected:
                self._nobody()
            transaction.on_commit(partial(self._send_committed, message), using=using)
            return connected
        sent = engine.send(self._names, message)
        if not sent:
            self._nobody()
        return sent

    def _nobody(self) -> None:
        undelivered["missing"] += 1
        if self._missing == "raise":
            raise NotConnected(
                f"no open WebSocket of {', '.join(self._names) or 'this request'}; "
                "missing='count' only counts such messages"
            )

    def _send_committed(self, message: str | bytes) -> None:
        # The transaction is over: an exception here could not undo it, only hide the success.
        if not engine.send(self._names, message):
            undelivered["missing"] += 1
            logger.warning("the WebSockets of %s were closed before the commit", ", ".join(self._names))


def names_of(request: HttpRequest) -> list[str]:
    """Under which names the customer who sent the request is connected."""
    names = []
    session = getattr(request, "session", None)
    user_id = None
    if session is not None:
        user_id = session.get("_auth_user_id")
        if session.session_key:
            names.append(f"session:{session.session_key}")
    if user_id is None:
        # Told by something else than the session, as a token is.
        user = getattr(request, "user", None)
        user_id = user.pk if user is not None and user.is_authenticated else None
    if user_id is not None:
        names.append(f"user:{user_id}")
    return names


def get_ws_connection(request: HttpRequest, *, missing: str | None = None) -> Audience:
    """The WebSockets of the customer who sent ``request``: of the same session or the same user.

    ``missing`` says what a message does that finds nobody: ``"raise"`` ``NotConnected`` or
    ``"count"`` it in ``undelivered``; the default is the setting ``BALROG["WEBSOCKET_MISSING"]``.
    """
    return Audience(names_of(request), missing)


def to(user: Any, *, missing: str | None = None) -> Audience:
    """The WebSockets of a user, or of the user with this primary key."""
    return Audience([f"user:{getattr(user, 'pk', user)}"], missing)


def group(name: str, *, missing: str | None = "count") -> Audience:
    """The WebSockets that have joined a group; an empty one is no error unless ``missing`` says so."""
    return Audience([f"group:{name}"], missing)


@contextmanager
def member(name: str, ws: Any) -> Iterator[None]:
    """In a handler: be in the group for a block."""
    with joined([f"group:{name}"], ws):
        yield


@contextmanager
def joined(names: Iterable[str], ws: Any) -> Iterator[None]:
    """Be in these audiences for a block."""
    names = list(names)
    for name in names:
        engine.join(name, ws)
    try:
        yield
    finally:
        for name in names:
            engine.leave(name, ws)
