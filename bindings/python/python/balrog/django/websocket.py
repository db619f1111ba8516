"""WebSockets in Django: a view to open them, and a way to find them from any other view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.request import is_same_domain

from balrog.django import conf
from balrog.django.connections import release

Handler = Callable[..., None]

#: What happened to messages without a receiver, by the reason: for tests and metrics.
undelivered: Counter[str] = Counter()


class NotConnected(ConnectionError):
    """The customer has no open WebSocket."""


class WebSocketResponse(HttpResponse):
    """Tells the server to switch to the WebSocket that the request offered."""

    status_code = 101


class Registry:
    """Who is connected, in this process. Keys are strings such as ``session:…`` and ``user:…``."""

    def __init__(self) -> None:
        self._sockets: dict[str, list[Any]] = {}

    def add(self, keys: Iterable[str], ws: Any) -> None:
        for key in keys:
            self._sockets.setdefault(key, []).append(ws)

    def remove(self, keys: Iterable[str], ws: Any) -> None:
        for key in keys:
            sockets = self._sockets.get(key, [])
            if ws in sockets:
                sockets.remove(ws)
            if not sockets:
                self._sockets.pop(key, None)

    def find(self, key: str) -> list[Any]:
        return list(self._sockets.get(key, ()))

    def __len__(self) -> int:
        return len(self._sockets)


registry = Registry()


class Customer:
    """Every WebSocket of one customer; may be none."""

    def __init__(self, keys: list[str], missing: str | None = None) -> None:
        self._keys = keys
        self._missing = conf.get("WEBSOCKET_MISSING") if missing is None else missing
        if self._missing not in ("raise", "count"):
            raise ImproperlyConfigured("a missing WebSocket is to 'raise' or to be 'count'-ed")

    def _sockets(self) -> list[Any]:
        # The session is the browser at hand; the user may have others.
        for key in self._keys:
            found = registry.find(key)
            if found:
                return found
        return []

    @property
    def connected(self) -> bool:
        return bool(self._sockets())

    def send(self, message: str | bytes, *, now: bool = False) -> int:
        """Send to every WebSocket of the customer; returns to how many.

        Inside ``transaction.atomic()`` the message leaves at the commit, and never if it is
        rolled back; 0 is returned then. ``now=True`` sends at once. Never waits. Raises
        ``NotConnected`` if nobody is there, unless that is only to be counted.
        """
        connection = transaction.get_connection()
        if not now and connection.in_atomic_block:
            transaction.on_commit(partial(self._send, message))
            return 0
        return self._send(message)

    def _send(self, message: str | bytes) -> int:
        sent = 0
        for ws in self._sockets():
            try:
                ws.send(message)
                sent += 1
            except OSError:
                undelivered["gone"] += 1
        if not sent:
            undelivered["missing"] += 1
            if self._missing == "raise":
                raise NotConnected("the customer has no open WebSocket; missing='count' ignores that")
        return sent


def get_ws_connection(request: HttpRequest, *, missing: str | None = None) -> Customer:
    """The WebSockets of the customer who sent ``request``, by the session, else by the user.

    ``missing`` says what a message does that finds nobody: ``"raise"`` ``NotConnected`` or
    ``"count"`` it; the default is the setting ``BALROG["WEBSOCKET_MISSING"]``.
    """
    return Customer(_keys(request), missing)


def to(user: Any, *, missing: str | None = None) -> Customer:
    """The WebSockets of a user, or of the user with this primary key."""
    return Customer([f"user:{getattr(user, 'pk', user)}"], missing)


def _keys(request: HttpRequest) -> list[str]:
    keys = []
    session = getattr(request, "session", None)
    if session is not None and session.session_key:
        keys.append(f"session:{session.session_key}")
    # Only where it is known already: finding the user out would be a query for every message.
    user = getattr(request, "user", None) if session is None or "_auth_user_id" in session else None
    if user is not None and user.is_authenticated:
        keys.append(f"user:{user.pk}")
    return keys


def websocket(
    handler: Handler, *, origins: Iterable[str] | None = None, subprotocols: Iterable[str] = ()
) -> Callable[..., HttpResponse]:
    """A view that opens a WebSocket and calls ``handler(request, ws, **kwargs)``.

    Middleware has run before it: session, user and the rest are the request's. The handler
    returns when it wants the WebSocket closed. ``origins`` are allowed beside the site's own
    (a browser on another site could else act as its visitor). Answers 403 to another origin,
    426 to a request that offers no WebSocket, 501 where the server cannot open one.
    """
    allowed = None if origins is None else list(origins)
    spoken = list(subprotocols)

    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        offer = request.META.get("balrog.websocket")
        if offer is None:
            if "websocket" in request.META.get("HTTP_UPGRADE", "").lower():
                text = "This server cannot open WebSockets, or the handshake is not valid: run it by 'balrog serve'.\n"
                return HttpResponse(text, status=501, content_type="text/plain")
            return HttpResponse(
                "A WebSocket is spoken here.\n",
                status=426,
                content_type="text/plain",
                headers={"Upgrade": "websocket"},
            )
        if not _origin_allowed(request, allowed):
            return HttpResponse("This origin may not open a WebSocket here.\n", status=403, content_type="text/plain")
        session = getattr(request, "session", None)
        if session is not None and not session.session_key:
            # So that a later request of the same browser finds this WebSocket.
            session.create()
        keys = _keys(request)
        wanted = getattr(offer, "subprotocols", [])
        protocol = next((name for name in wanted if name in spoken), None)
        offer.accept(partial(_serve, handler, request, keys, args, kwargs), subprotocol=protocol)
        return WebSocketResponse()

    view.csrf_exempt = True  # type: ignore[attr-defined]
    view._non_atomic_requests = set(settings.DATABASES) if settings.configured else set()  # type: ignore[attr-defined]
    return view


def _serve(handler: Handler, request: HttpRequest, keys: list[str], args: Any, kwargs: Any, ws: Any) -> None:
    # A WebSocket lives long; what the middleware asked the database is over.
    release()
    registry.add(keys, ws)
    try:
        handler(request, ws, *args, **kwargs)
    finally:
        registry.remove(keys, ws)


def _origin_allowed(request: HttpRequest, origins: list[str] | None) -> bool:
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        # No browser: browsers always say where a WebSocket comes from.
        return True
    parts = urlsplit(origin)
    if origin == f"{request.scheme}://{request.get_host()}":
        return True
    trusted = list(settings.CSRF_TRUSTED_ORIGINS) + list(conf.get("WEBSOCKET_ORIGINS")) + list(origins or ())
    for one in trusted:
        scheme, _, host = one.partition("://")
        if parts.scheme == scheme and is_same_domain(
            parts.netloc, host.removeprefix("*") if host.startswith("*") else host
        ):
            return True
    return False
