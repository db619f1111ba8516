"""``import requests`` on balrog's HTTP client.

``install()`` makes every new ``requests.Session``, and so ``requests.get`` and the like, send
through balrog: connections are kept and reused across calls, and in a task other tasks run
while a request waits. ``Session().mount("https://", Adapter())`` does it for one session.

Requests through a proxy go the stock way, on another thread where a task waits for them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

import requests
from certifi import where as certificates
from requests import cookies, exceptions, sessions
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers, select_proxy

from balrog._balrog import HttpError, Tls, http_send
from balrog._threads import to_thread

__all__ = ["Adapter", "install", "uninstall"]

#: A compressed body may grow to this size (bytes) before its ratio counts, and then by this ratio.
FREE_SIZE = 1 << 20
MAX_RATIO = 1000

_HOP = {"content-length", "transfer-encoding"}
_tls: dict[tuple[Any, ...], Tls] = {}


class Adapter(HTTPAdapter):
    """A transport adapter for ``requests.Session.mount``.

    ``timeout`` is as in requests: seconds for connecting and for each read, ``None`` unlimited.
    """

    __attrs__ = ["max_retries"]

    def __init__(self) -> None:
        # Not HTTPAdapter's own, which would build urllib3 pools that are never used.
        self.max_retries = 0  # type: ignore[assignment]
        self._stock: HTTPAdapter | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()

    def close(self) -> None:
        """Connections belong to their thread, not to a session: nothing to close."""
        if self._stock is not None:
            self._stock.close()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        url = request.url or ""
        if proxies and select_proxy(url, proxies):
            if self._stock is None:
                self._stock = HTTPAdapter()
            return to_thread(self._stock.send, request, stream, timeout, verify, cert, proxies)
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
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        body, length = _body(request)
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
        return self._response(request, answer)

    def _response(self, request: requests.PreparedRequest, answer: Any) -> requests.Response:
        response = requests.Response()
        fields = answer.headers
        response.status_code = answer.status
        response.reason = answer.reason
        headers = response.headers = CaseInsensitiveDict()
        for name, value in fields:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        response.encoding = get_encoding_from_headers(headers)  # type: ignore[assignment]
        response.raw = raw = Raw(answer, fields, headers, request)
        response.url = request.url or ""
        response.request = request
        response.connection = self  # type: ignore[attr-defined]
        if "set-cookie" in headers:
            cookies.extract_cookies_to_jar(response.cookies, request, raw)
        return response


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
        file = body
        body = iter(lambda: file.read(65536), b"")
    return body, int(given) if given is not None else None


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
    message = f"{request.url}: {message}"
    if phase == "request":
        kind = exceptions.InvalidURL if "target" in message or "host" in message else exceptions.InvalidHeader
    elif phase == "connect":
        kind = exceptions.ConnectTimeout if timed_out else exceptions.ConnectionError
    elif timed_out:
        kind = exceptions.ConnectTimeout if phase == "tls" else exceptions.ReadTimeout
    elif phase == "tls":
        kind = exceptions.SSLError
    elif phase == "body":
        kind = exceptions.ChunkedEncodingError
    else:
        kind = exceptions.ConnectionError
    return kind(message, request=request)


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


class Raw:
    """The body of a response, with those parts of urllib3's interface that requests and its users take."""

    def __init__(self, answer: Any, fields: Any, headers: CaseInsensitiveDict, request: Any) -> None:
        self._answer = answer
        self._fields = fields
        self._request = request
        self._decoder: Callable[[bytes, bool], bytes] | None = _decoder(headers.get("content-encoding", ""))
        self._buffer = b""
        self._ended = False
        self.headers = headers
        self.status = answer.status
        self.reason = answer.reason
        self.version = answer.version
        self.decode_content = True
        self.closed = False

    @property
    def _original_response(self) -> _Original:
        return _Original(self._fields)

    def _next(self, decode: bool) -> bytes:
        """The next bytes, decoded; empty at the end only."""
        while not self._ended:
            try:
                piece = self._answer.read(65536)
            except HttpError as error:
                raise _translate(error, self._request) from error
            self._ended = not piece
            if decode and self._decoder is not None:
                try:
                    piece = self._decoder(piece, self._ended)
                except (zlib.error, ValueError) as error:
                    self.close()
                    raise exceptions.ContentDecodingError(
                        f"{self._request.url}: the body is not what Content-Encoding says: {error}",
                        request=self._request,
                    ) from error
            if piece:
                return piece
        return b""

    def read(self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False) -> bytes:
        """``amt`` bytes of the body, fewer only at its end; all of it without ``amt``."""
        decode = self.decode_content if decode_content is None else decode_content
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

    def stream(self, amt: int = 65536, decode_content: bool | None = None) -> Iterator[bytes]:
        """The body in pieces of at most ``amt`` bytes, as they come."""
        decode = self.decode_content if decode_content is None else decode_content
        while piece := self._buffer or self._next(decode):
            self._buffer = piece[amt:]
            yield piece[:amt]

    def __iter__(self) -> Iterator[bytes]:
        return self.stream()

    def release_conn(self) -> None:
        self.close()

    def close(self) -> None:
        """Give up the rest of the body."""
        self.closed = True
        self._answer.close()

    def isclosed(self) -> bool:
        return self._ended or self.closed

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self.headers.get(name, default)


def _decoder(coding: str) -> Callable[[bytes, bool], bytes] | None:
    """Decodes the pieces of a body; ``ValueError`` if it is cut or a bomb."""
    coding = coding.strip().lower()
    if coding in ("gzip", "x-gzip"):
        make = lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)  # noqa: E731
    elif coding == "deflate":
        make = lambda: zlib.decompressobj(zlib.MAX_WBITS)  # noqa: E731
    else:
        # Unknown codings are passed on as they are, as urllib3 does.
        return None
    state = {"in": 0, "out": 0, "z": make(), "any": False}

    def decode(piece: bytes, last: bool) -> bytes:
        out = []
        while piece:
            z = state["z"]
            if not state["any"] and coding == "deflate":
                # Some servers send the raw format under this name.
                try:
                    data = z.decompress(piece, FREE_SIZE)
                except zlib.error:
                    z = state["z"] = zlib.decompressobj(-zlib.MAX_WBITS)
                    data = z.decompress(piece, FREE_SIZE)
            else:
                data = z.decompress(piece, FREE_SIZE)
            state["any"] = True
            state["in"] += len(piece) - len(z.unconsumed_tail) - len(z.unused_data)
            state["out"] += len(data)
            if state["out"] > FREE_SIZE and state["out"] > MAX_RATIO * max(state["in"], 1):
                raise ValueError(f"it grows by more than {MAX_RATIO} to 1")
            out.append(data)
            piece = z.unconsumed_tail
            if z.eof:
                # A gzip body may have several members.
                piece = z.unused_data if coding != "deflate" else b""
                state["z"], state["done"] = make(), True
                if not piece.strip(b"\0"):
                    break
        if last and state["any"] and not state["z"].eof and not (state.get("done") and not out):
            rest = state["z"].flush()
            if not state.get("done"):
                raise ValueError("it ends too early")
            out.append(rest)
        return b"".join(out)

    return decode


_adapter = Adapter()
_original_init = sessions.Session.__init__


def _init(self: sessions.Session) -> None:
    _original_init(self)
    self.adapters["https://"] = _adapter
    self.adapters["http://"] = _adapter


def install() -> None:
    """Let new sessions of ``requests`` send through balrog. A second call does nothing."""
    sessions.Session.__init__ = _init  # type: ignore[method-assign]


def uninstall() -> None:
    """Undo ``install()`` for sessions that are made from now on."""
    sessions.Session.__init__ = _original_init  # type: ignore[method-assign]
