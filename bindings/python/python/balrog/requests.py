"""``import requests`` on balrog's HTTP client.

``install()`` makes every new ``requests.Session``, and so ``requests.get`` and the like, send
through balrog: connections are kept and reused across calls, and in a task other tasks run
while a request waits. ``Session().mount("https://", Adapter())`` does it for one session.

Requests through a proxy go the stock way, on another thread where a task waits for them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from email.message import Message
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from certifi import where as certificates
from requests import cookies, exceptions, sessions
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers, select_proxy
from urllib3 import HTTPHeaderDict, Timeout

from balrog._balrog import HttpError, Tls, http_send
from balrog._decode import decoder
from balrog._threads import to_thread

__all__ = ["Adapter", "install", "uninstall"]

#: A compressed body that is read as a whole (not with ``stream=True``) may have this many bytes.
MAX_DECODED = 100 << 20

_HOP = {"content-length", "transfer-encoding"}
_tls: dict[tuple[Any, ...], Tls] = {}


_NO_RETRIES = HTTPAdapter().max_retries


class Adapter(HTTPAdapter):
    """A transport adapter for ``requests.Session.mount``.

    ``timeout`` is as in requests: seconds for connecting and for each read, ``None`` unlimited.
    """

    def __init__(self) -> None:
        # Not HTTPAdapter's own, which would build urllib3 pools that are hardly ever used.
        self.max_retries = _NO_RETRIES

    def __getattr__(self, name: str) -> Any:
        # Whatever of the stock adapter is wanted after all: for proxies, or by mocks that pass through.
        if name in _STOCK and "poolmanager" not in self.__dict__:
            HTTPAdapter.__init__(self)
            return getattr(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.max_retries = _NO_RETRIES

    def close(self) -> None:
        """Connections belong to their thread, not to a session: only stock ones are closed."""
        if "poolmanager" in self.__dict__:
            super().close()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        if HTTPAdapter.send is not _stock_send:
            # A mock such as `responses` has taken the place of all sending.
            return super().send(request, stream, timeout, verify, cert, proxies)
        url = request.url or ""
        if proxies and select_proxy(url, proxies):
            return to_thread(_stock_send, self, request, stream, timeout, verify, cert, proxies)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise exceptions.InvalidURL(error, request=request) from error
        if not host:
            raise exceptions.InvalidURL(f"no host in {url!r}", request=request)
        secure = parts.scheme == "https"
        standard = 443 if secure else 80
        host = f"[{host}]" if ":" in host else host
        authority = host if port is None or port == standard else f"{host}:{port}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP]
        connect, read = _timeouts(timeout)
        try:
            body, length = _body(request)
        except ValueError as error:
            raise exceptions.InvalidHeader(f"Content-Length: {error}", request=request) from error
        tls = _tls_for(verify, cert, request) if secure else None
        method = request.method or "GET"
        try:
            answer = http_send(
                method, host, port or standard, target, authority, headers, body, length, connect, read, tls
            )
        except HttpError as error:
            raise _translate(error, request) from error
        except UnicodeEncodeError as error:
            raise exceptions.InvalidHeader(str(error), request=request) from error
        return self._response(request, answer, stream)

    def _response(self, request: requests.PreparedRequest, answer: Any, stream: bool) -> requests.Response:
        response = requests.Response()
        fields = answer.headers
        response.status_code = answer.status
        response.reason = answer.reason
        headers = response.headers = CaseInsensitiveDict()
        for name, value in fields:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if "location" in headers and not headers["location"].isascii():
            headers["location"] = _ascii_location(headers["location"])
        response.encoding = get_encoding_from_headers(headers)  # type: ignore[assignment]
        response.raw = raw = Raw(answer, fields, headers, request, None if stream else MAX_DECODED)
        response.url = request.url or ""
        response.request = request
        response.connection = self  # type: ignore[attr-defined]
        if "set-cookie" in headers:
            cookies.extract_cookies_to_jar(response.cookies, request, raw)
        return response


def _ascii_location(location: str) -> str:
    """requests takes it for UTF-8, and fails on other bytes with an error that is none of its own."""
    sent = location.encode("latin-1")
    try:
        sent.decode()
    except UnicodeDecodeError:
        return quote(sent, safe="!#$%&'()*+,/:;=?@[]~")
    return location


def _timeouts(timeout: Any) -> tuple[float | None, float | None]:
    if isinstance(timeout, Timeout):
        read = timeout.read_timeout
        return timeout.connect_timeout, read if isinstance(read, int | float) else None  # type: ignore[return-value]
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise ValueError(f"Invalid timeout {timeout}. Pass a (connect, read) timeout tuple, or a single float.")
        return timeout
    return timeout, timeout


def _body(request: requests.PreparedRequest) -> tuple[Any, int | None]:
    """The body as bytes, or as an iterable with its length if that is known."""
    body: Any = request.body
    if body is None or isinstance(body, bytes):
        return body, None
    if isinstance(body, str):
        return body.encode(), None
    if isinstance(body, bytearray | memoryview):
        return bytes(body), None
    given = request.headers.get("Content-Length")
    if hasattr(body, "read"):
        body = _pieces(body)
    return body, int(given) if given is not None else None


def _pieces(file: Any) -> Iterator[bytes]:
    # At the end of a text file comes an empty `str`.
    while piece := file.read(65536):
        yield piece


def _tls_for(verify: Any, cert: Any, request: requests.PreparedRequest) -> Tls:
    authorities = None
    if verify:
        authorities = os.fspath(verify) if isinstance(verify, str | os.PathLike) else certificates()
    certificate, key = cert if isinstance(cert, tuple) else (cert, None)
    files = [os.fspath(path) for path in (authorities, certificate, key) if path is not None]
    try:
        state = tuple((path, os.stat(path).st_mtime_ns) for path in files)
        which = (authorities, certificate, key, state)
        tls = _tls.get(which)
        if tls is None:
            tls = _tls[which] = Tls(authorities, certificate, key)
        return tls
    except OSError as error:
        raise OSError(f"Could not find or use a TLS certificate file: {error}") from error


def _translate(error: HttpError, request: requests.PreparedRequest) -> requests.RequestException:
    phase, timed_out, message = error.args
    kind: type[requests.RequestException]
    if phase == "request":
        kind = exceptions.InvalidURL if "target" in message or "host" in message else exceptions.InvalidHeader
    elif phase == "connect":
        kind = exceptions.ConnectTimeout if timed_out else exceptions.ConnectionError
    elif timed_out:
        kinds = {"tls": exceptions.ConnectTimeout, "body": _BodyTimeout}
        kind = kinds.get(phase, exceptions.ReadTimeout)
    elif phase == "tls":
        kind = exceptions.SSLError
    elif phase == "body":
        kind = exceptions.ChunkedEncodingError
    else:
        kind = exceptions.ConnectionError
    return kind(f"{request.url}: {message}", request=request)


class _BodyTimeout(exceptions.ConnectionError, exceptions.ReadTimeout):
    """The server stalled inside of a body. requests raises ``ConnectionError`` there; this is what it is, too."""


class _Original:
    """What the cookie machinery of the standard library wants of a response."""

    __slots__ = ("msg",)

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.msg = Message()
        for name, value in fields:
            if name.lower() in ("set-cookie", "set-cookie2"):
                self.msg[name] = value

    def isclosed(self) -> bool:
        return True


class Raw(io.IOBase):
    """The body of a response, with those parts of urllib3's interface that requests and its users take.

    As with requests' own, ``read()`` gives what was received, ``read(decode_content=True)`` what it decodes to.
    """

    def __init__(
        self, answer: Any, fields: Any, headers: CaseInsensitiveDict, request: requests.PreparedRequest, limit: Any
    ) -> None:
        self._answer = answer
        self._fields = fields
        self._coding = headers.get("content-encoding")
        self._limit = limit
        self._decoder: Any = None
        self._has_cookies = "set-cookie" in headers
        self._request = request
        self._buffer = b""
        self._ended = False
        self._error: Exception | None = None
        self.status = answer.status
        self.reason = answer.reason
        self.version = answer.version
        self.decode_content = False

    @property
    def headers(self) -> HTTPHeaderDict:
        return HTTPHeaderDict(self._fields)

    @property
    def version_string(self) -> str:
        return "HTTP/1.1" if self.version == 11 else "HTTP/1.0"

    @property
    def _original_response(self) -> _Original | None:
        return _Original(self._fields) if self._has_cookies else None

    def _next(self, decode: bool) -> bytes:
        """The next bytes, decoded; empty at the end only."""
        if self._error is not None:
            # Asked again after a failure, the end would pass for that of the body.
            raise self._error
        while not self._ended:
            try:
                piece = self._answer.read(65536)
            except HttpError as error:
                self._error = _translate(error, self._request)
                raise self._error from error
            self._ended = not piece
            if decode and self._coding:
                piece = self._decode(piece)
            if piece:
                return piece
        return b""

    def _decode(self, piece: bytes) -> bytes:
        try:
            if self._decoder is None:
                self._decoder = decoder(self._coding or "", self._limit)
                if self._decoder is None:
                    self._coding = None
                    return piece
            return self._decoder.decode(piece, self._ended)
        except ValueError as error:
            self._answer.close()
            self._error = exceptions.ContentDecodingError(
                f"{self._request.url}: the body is not what Content-Encoding says: {error}", request=self._request
            )
            raise self._error from error

    def read(self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False) -> bytes:
        """``amt`` bytes of the body, fewer only at its end; all of it without ``amt``."""
        decode = self.decode_content if decode_content is None else decode_content
        if amt is not None and amt < 0:
            amt = None
        parts, size = [self._buffer], len(self._buffer)
        while amt is None or size < amt:
            piece = self._next(decode)
            if not piece:
                break
            parts.append(piece)
            size += len(piece)
        whole = b"".join(parts)
        cut = size if amt is None else min(amt, size)
        self._buffer = whole[cut:]
        return whole[:cut]

    def stream(self, amt: int | None = 65536, decode_content: bool | None = None) -> Iterator[bytes]:
        """The body in pieces of at most ``amt`` bytes, as they come; as one without ``amt``."""
        if amt is None:
            if whole := self.read(None, decode_content):
                yield whole
            return
        decode = self.decode_content if decode_content is None else decode_content
        while piece := self._buffer or self._next(decode):
            self._buffer = piece[amt:]
            yield piece[:amt]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    read1 = read

    def release_conn(self) -> None:
        """Nothing to give back by hand: a connection is kept once its response was read to the end."""

    def drain_conn(self) -> None:
        """Read and drop the rest of the body."""
        while self._next(False):
            pass

    def close(self) -> None:
        """Give up the rest of the body, and its connection with it."""
        if not self.closed:
            self._answer.close()
            super().close()

    def isclosed(self) -> bool:
        return self._ended or self.closed

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self.headers.get(name, default)

    def getheaders(self) -> HTTPHeaderDict:
        return self.headers

    info = getheaders


_STOCK = {"poolmanager", "proxy_manager", "config", "_pool_connections", "_pool_maxsize", "_pool_block"}
_stock_send = HTTPAdapter.send


def install() -> None:
    """Let new sessions of ``requests`` send through balrog. A second call does nothing."""
    # What a new session mounts. Replaced there only: `requests.adapters.HTTPAdapter` stays what it is.
    sessions.HTTPAdapter = Adapter  # type: ignore[misc]


def uninstall() -> None:
    """Undo ``install()`` for sessions that are made from now on."""
    sessions.HTTPAdapter = HTTPAdapter  # type: ignore[misc]
