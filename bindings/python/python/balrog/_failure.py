"""What of an exchange's failure becomes which of requests' exceptions.

The way leads over urllib3's, as in requests itself: ``Retry`` decides by them, and ``error.args[0]`` is one.
"""

from __future__ import annotations

import socket
from typing import Any

from requests import exceptions
from urllib3 import exceptions as urllib3

from balrog._balrog import HttpError


class BodyTimeout(exceptions.ConnectionError, exceptions.ReadTimeout):
    """Nothing came, or could be sent, in the middle of a body.

    requests raises ``ConnectionError`` there; that it is a time-out can be said as well.
    """


class Origin:
    """Whom a request goes to, in the place of the connection pool that urllib3's exceptions name."""

    def __init__(self, scheme: str, host: str, port: int, proxy: str | None = None) -> None:
        self.scheme, self.host, self.port, self.proxy = scheme, host, port, proxy

    def __str__(self) -> str:
        by = f" by proxy {self.proxy}" if self.proxy else ""
        return f"{self.scheme}://{self.host}:{self.port}{by}"

    __repr__ = __str__


#: What to do about it, by phase and kind.
_CURES = {
    ("resolve", "timeout"): "the resolver is slow or out of reach, or `timeout` too short",
    ("resolve", "other"): "is the host's name right, and the network up?",
    ("connect", "timeout"): "the host is down, or a firewall drops its packets, or `timeout` is too short",
    ("connect", "other"): "is the server running, and is this its port?",
    ("tls", "certificate"): "`verify=PATH` names whom to trust instead of certifi's authorities",
    ("tls", "protocol"): "is this a TLS port?",
    ("head", "timeout"): "the server is slow, or `timeout` too short",
    ("body", "timeout"): "the server stalled, or `timeout` is too short",
    ("body", "closed"): "the server, or something on the way, gave up; ask again",
}


def urllib3_error(error: HttpError, origin: Origin, url: str, timeouts: tuple[Any, Any]) -> Exception:
    """The exception that urllib3 would have for what happened before the response."""
    phase, kind, message = error.args
    cure = _CURES.get((phase, kind))
    text = f"{message} ({cure})" if cure else message
    if phase in ("resolve", "connect"):
        if kind == "timeout":
            found: Exception = urllib3.ConnectTimeoutError(
                origin, f"Connection to {origin.host} timed out. (connect timeout={timeouts[0]}) {text}"
            )
        elif phase == "resolve":
            found = urllib3.NameResolutionError(origin.host, origin, socket.gaierror(text))  # type: ignore[arg-type]
        else:
            found = urllib3.NewConnectionError(origin, f"Failed to establish a new connection: {text}")  # type: ignore[arg-type]
        return urllib3.ProxyError("Unable to connect to proxy", found) if origin.proxy else found
    if phase == "proxy":
        return urllib3.ProxyError("Unable to connect to proxy", OSError(f"Tunnel connection failed: {text}"))
    if phase == "tls":
        if kind == "timeout":
            return urllib3.ConnectTimeoutError(
                origin, f"Connection to {origin.host} timed out. (connect timeout={timeouts[0]}) {text}"
            )
        return urllib3.SSLError(f"{origin}: {text}")
    if kind == "timeout":
        return urllib3.ReadTimeoutError(
            origin,  # type: ignore[arg-type]
            url,
            f"Read timed out. (read timeout={timeouts[1]}) {text}",
        )
    return urllib3.ProtocolError("Connection aborted.", ConnectionError(f"{origin}: {text}"))


def of_request(error: HttpError, request: Any) -> exceptions.RequestException:
    """For a request that is not sound: nothing of it was sent."""
    message = error.args[2]
    where = "target" in message or "host" in message or "neither a name" in message
    kind = exceptions.InvalidURL if where else exceptions.InvalidHeader
    return kind(f"{request.url}: {message}", request=request)


def of_head(error: HttpError, cause: Exception, request: Any) -> exceptions.RequestException:
    """For what ended before there was a response, and is not tried again."""
    phase, kind, message = error.args
    if isinstance(cause, urllib3.MaxRetryError):
        reason = cause.reason
        if isinstance(reason, urllib3.ProxyError):
            return exceptions.ProxyError(cause, request=request)
        if isinstance(reason, urllib3.SSLError):
            return exceptions.SSLError(cause, request=request)
        if isinstance(reason, urllib3.ConnectTimeoutError) and kind == "timeout":
            return exceptions.ConnectTimeout(cause, request=request)
        if isinstance(reason, urllib3.ResponseError):
            return exceptions.RetryError(cause, request=request)
        return exceptions.ConnectionError(cause, request=request)
    if isinstance(cause, urllib3.ReadTimeoutError):
        known = BodyTimeout if phase == "send" else exceptions.ReadTimeout
        return known(cause, request=request)
    if isinstance(cause, urllib3.ConnectTimeoutError) and kind == "timeout":
        return exceptions.ConnectTimeout(cause, request=request)
    if isinstance(cause, urllib3.ProxyError):
        return exceptions.ProxyError(cause, request=request)
    if isinstance(cause, urllib3.SSLError):
        return exceptions.SSLError(cause, request=request)
    if kind == "protocol" and "Content-Length" in message:
        return exceptions.InvalidHeader(cause, request=request)
    return exceptions.ConnectionError(cause, request=request)


def of_body(error: HttpError, origin: Origin, request: Any, timeouts: tuple[Any, Any]) -> exceptions.RequestException:
    """For what ended in the body of the response."""
    _phase, kind, message = error.args
    cure = _CURES.get(("body", kind))
    text = f"{origin}: {message}" + (f" ({cure})" if cure else "")
    if kind == "timeout":
        inner: Exception = urllib3.ReadTimeoutError(
            origin,  # type: ignore[arg-type]
            request.url,
            f"Read timed out. (read timeout={timeouts[1]}) {text}",
        )
        return BodyTimeout(inner, request=request)
    return exceptions.ChunkedEncodingError(urllib3.ProtocolError(text), request=request)
