"""A Django view that opens a WebSocket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial, wraps
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import is_same_domain

from balrog.django import conf
from balrog.django.connections import release
from balrog.django.ws import joined, names_of

#: ``handler(request, ws, **kwargs)``.
Handler = Callable[..., Any]


class WebSocketResponse(HttpResponse):
    """Status 101: the server switches to the WebSocket that was accepted, and calls the handler."""

    status_code = 101


class WebSocket:
    """What a handler gets: the server's WebSocket, which holds no database connection while it waits.

    ``recv``, iteration, ``send``, ``ping`` and ``close`` are those of ``balrog.websocket.WebSocket``.
    """

    def __init__(self, ws: Any) -> None:
        self._ws = ws

    def recv(self, timeout: float | None = None) -> str | bytes:
        """The next message. Outside of a transaction the task's database connections go back first."""
        release()
        return self._ws.recv(timeout)

    def __iter__(self) -> Iterator[str | bytes]:
        messages = iter(self._ws)
        while True:
            release()
            try:
                message = next(messages)
            except StopIteration:
                return
            yield message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ws, name)


def websocket(
    handler: Handler, *, origins: Iterable[str] | None = None, subprotocols: Iterable[str] = ()
) -> Callable[..., HttpResponse]:
    """A view that opens a WebSocket and calls ``handler(request, ws, **kwargs)``.

    The middleware has run before: session, user and the rest are the request's. An anonymous
    visitor gets a session, so that later requests of the same browser find this WebSocket. When
    the handler returns, the WebSocket is closed.

    A page of another site could open WebSockets in its visitor's name, so ``Origin`` has to be
    the site itself, or be named in ``origins``, ``CSRF_TRUSTED_ORIGINS`` or
    ``BALROG["WEBSOCKET_ORIGINS"]`` (``"https://shop.example"``, ``"https://*.example"``); else the
    answer is 403. It is 426 to a request that offers no WebSocket, and 501 where the server
    cannot open one. ``subprotocols`` are what the handler speaks, in the order of preference.
    """
    allowed = list(origins or ())
    spoken = list(subprotocols)

    @wraps(handler)
    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        offer = request.META.get("balrog.websocket")
        if offer is None:
            return _no_websocket(request)
        if not origin_allowed(request, allowed):
            return _text(403, "This origin may not open a WebSocket here.")
        session = getattr(request, "session", None)
        if session is not None:
            # Reading finds out whether the key in the cookie is one of ours.
            session.get("_auth_user_id")
            if not session.session_key:
                session.create()
        wanted = [one.strip() for one in request.META.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")]
        protocol = next((name for name in spoken if name in wanted), None)
        offer.accept(partial(_serve, handler, request, args, kwargs), subprotocol=protocol)
        return WebSocketResponse()

    # ATOMIC_REQUESTS: a transaction for as long as the WebSocket lives would help nobody.
    if settings.configured:
        view._non_atomic_requests = set(settings.DATABASES)  # type: ignore[attr-defined]
    return view


def _no_websocket(request: HttpRequest) -> HttpResponse:
    if "websocket" in request.META.get("HTTP_UPGRADE", "").lower():
        return _text(501, "This server cannot open WebSockets: run the project by 'balrog serve'.")
    response = _text(426, "A WebSocket is spoken here: ask for one by 'Upgrade: websocket'.")
    response["Upgrade"] = "websocket"
    return response


def _text(status: int, text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n".encode(), status=status, content_type="text/plain")


def _serve(handler: Handler, request: HttpRequest, args: Any, kwargs: Any, ws: Any) -> None:
    # A WebSocket lives long; what the middleware asked the database is over.
    names = names_of(request)
    release()
    with joined(names, ws):
        handler(request, WebSocket(ws), *args, **kwargs)


def origin_allowed(request: HttpRequest, origins: Iterable[str] = ()) -> bool:
    """Whether a page of the request's ``Origin`` may open a WebSocket here."""
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return bool(conf.get("WEBSOCKET_ALLOW_NO_ORIGIN"))
    scheme = "https" if request.is_secure() else "http"
    if origin == f"{scheme}://{request.get_host()}":
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    for one in [*settings.CSRF_TRUSTED_ORIGINS, *conf.get("WEBSOCKET_ORIGINS"), *origins]:
        trusted, _, host = one.partition("://")
        if parts.scheme == trusted and (
            parts.netloc == host or (host.startswith("*.") and is_same_domain(parts.netloc, host[1:]))
        ):
            return True
    return False
