"""``import requests`` on balrog's HTTP client.

``install()`` makes every new ``requests.Session``, and so ``requests.get`` and the like, send
through balrog: connections are kept and reused across calls, and in a task other tasks run
while a request waits. ``Session().mount("https://", Adapter())`` does it for one session.

HTTP proxies are spoken to as well. Requests through a SOCKS proxy, or one that itself wants TLS,
go the stock way, on another thread where a task waits for them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests import adapters, cookies, exceptions, sessions
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers, prepend_scheme_if_needed, rewind_body, select_proxy
from urllib3 import Retry, Timeout
from urllib3.exceptions import HTTPError, LocationValueError

from balrog import _failure
from balrog._balrog import HttpError, Tls, http_send
from balrog._raw import Raw
from balrog._sync import BoundedSemaphore
from balrog._threads import to_thread

__all__ = ["Adapter", "install", "uninstall"]

#: A compressed body that is read as a whole (not with ``stream=True``) may have this many bytes.
MAX_DECODED = 100 << 20

_HOP = {"content-length", "transfer-encoding"}
_NO_RETRIES = HTTPAdapter().max_retries
_REDIRECTS = {301, 302, 303, 307, 308}

_owners = itertools.count(1)
_tls: dict[tuple[Any, ...], Tls] = {}
#: So many different settings of ``verify`` and ``cert`` are remembered.
_MOST_TLS = 64


class Adapter(HTTPAdapter):
    """A transport adapter for ``requests.Session.mount``.

    ``max_retries`` is as in requests: a number, for connecting only, or a ``urllib3.Retry``. Idle connections are
    kept for the whole thread, whichever session they were made for, so that ``pool_connections`` and
    ``pool_maxsize`` count only with ``pool_block``: then at most ``pool_maxsize`` requests to a host go on at once,
    and others wait. ``max_decoded`` (bytes, ``None`` for no limit) bounds what a compressed body may grow to
    without ``stream=True``.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "max_decoded"]

    def __init__(
        self,
        pool_connections: int = adapters.DEFAULT_POOLSIZE,
        pool_maxsize: int = adapters.DEFAULT_POOLSIZE,
        max_retries: int | Retry = adapters.DEFAULT_RETRIES,
        pool_block: bool = adapters.DEFAULT_POOLBLOCK,
        max_decoded: int | None = MAX_DECODED,
    ) -> None:
        # Not HTTPAdapter's own, which would build urllib3 pools that are hardly ever used.
        self.max_retries = _NO_RETRIES if max_retries == 0 else Retry.from_int(max_retries)
        self.config = {}
        self.proxy_manager = {}
        self.max_decoded = max_decoded
        self._pool_connections = pool_connections
        self._pool_maxsize = pool_maxsize
        self._pool_block = pool_block
        self._begin()

    def _begin(self) -> None:
        self._slots: dict[tuple[str, int], BoundedSemaphore] = {}
        self._owner = 0

    def __getattr__(self, name: str) -> Any:
        # urllib3's pools, if somebody wants them after all: for SOCKS, or mocks that pass through.
        if name == "poolmanager" and "_pool_block" in self.__dict__:
            self.init_poolmanager(self._pool_connections, self._pool_maxsize, block=self._pool_block)
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.proxy_manager = {}
        self.__dict__.update(state)
        self._begin()

    def close(self) -> None:
        """Connections belong to their thread, not to a session: only stock ones are closed."""
        if "poolmanager" in self.__dict__ or self.proxy_manager:
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
        proxy = select_proxy(url, proxies) if proxies else None
        if proxy:
            try:
                proxy = prepend_scheme_if_needed(proxy, "http")
            except LocationValueError as error:
                raise exceptions.InvalidProxyURL(f"{proxy!r}: {error}", request=request) from error
            if not proxy.lower().startswith("http://"):
                return to_thread(_stock_send, self, request, stream, timeout, verify, cert, proxies)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise exceptions.InvalidURL(error, request=request) from error
        if not host:
            raise exceptions.InvalidURL(f"no host in {url!r}", request=request)
        secure = parts.scheme == "https"
        tls = _tls_for(verify, cert, request) if secure else None
        if type(self).add_headers is not HTTPAdapter.add_headers:
            self.add_headers(request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        standard = 443 if secure else 80
        named = f"[{host}]" if ":" in host else host
        authority = named if port is None or port == standard else f"{named}:{port}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        port = port or standard
        timeouts = _timeouts(timeout)
        origin = _failure.Origin(parts.scheme, host, port, proxy)
        by = self._proxy(proxy, request) if proxy else None
        method = request.method or "GET"
        headers, owner = self._headers(request)

        def attempt() -> Raw:
            body, length = _body(request)
            answer = http_send(method, named, port, target, authority, headers, body, length, *timeouts, tls, by, owner)
            return Raw(answer, url, broken, None if stream else self.max_decoded)

        def broken(error: HttpError) -> Exception:
            return _failure.of_body(error, origin, request, timeouts)

        done = self._slot(host, port) if self._pool_block else None
        try:
            if self.max_retries is _NO_RETRIES:
                raw = _once(attempt, request, origin, target, timeouts)
            else:
                raw = self._repeatedly(attempt, request, origin, target, timeouts)
        except BaseException:
            if done is not None:
                done()
            raise
        raw.done = done
        return self.build_response(request, raw)

    def _headers(self, request: requests.PreparedRequest) -> tuple[list[tuple[Any, Any]], int]:
        """The fields to send, and whose connection it has to be."""
        headers, owner = [], 0
        for name, value in request.headers.items():
            lower = name.lower()
            if lower in _HOP:
                continue
            if lower == "authorization" and value[:4].lower() in ("ntlm", "nego", b"ntlm", b"nego"):
                # What these schemes prove holds for the connection: no other session may use it.
                owner = self._owner = self._owner or next(_owners)
            headers.append((name, value))
        return headers, owner

    def _proxy(self, proxy: str, request: requests.PreparedRequest) -> tuple[str, int, list[tuple[Any, Any]]]:
        try:
            parts = urlsplit(proxy)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise exceptions.InvalidProxyURL(f"{proxy!r}: {error}", request=request) from error
        if not host:
            raise exceptions.InvalidProxyURL(f"the proxy's URL {proxy!r} has no host", request=request)
        return f"[{host}]" if ":" in host else host, port or 80, list(self.proxy_headers(proxy).items())

    def _slot(self, host: str, port: int) -> Callable[[], None]:
        slot = self._slots.get((host, port))
        if slot is None:
            slot = self._slots.setdefault((host, port), BoundedSemaphore(max(self._pool_maxsize, 1)))
        slot.acquire()
        return slot.release

    def _repeatedly(
        self, attempt: Callable[[], Raw], request: requests.PreparedRequest, origin: Any, target: str, timeouts: Any
    ) -> Raw:
        """``attempt()`` as often as ``max_retries`` allows."""
        method, retries = request.method or "GET", self.max_retries
        while True:
            raw: Any = None
            failure: HttpError | None = None
            cause: Exception | None = None
            try:
                raw = attempt()
            except HttpError as error:
                if error.args[0] == "request":
                    raise _failure.of_request(error, request) from error
                failure, cause = error, _failure.urllib3_error(error, origin, target, timeouts)
                if error.args[0] in ("send", "head") and not _can_repeat(request):
                    raise _failure.of_head(error, cause, request) from error
            except UnicodeEncodeError as error:
                raise exceptions.InvalidHeader(str(error), request=request) from error
            else:
                raw.retries = retries
                if not retries.is_retry(method, raw.status, "retry-after" in raw.headers):
                    return raw
            try:
                retries = retries.increment(method, target, response=raw, error=cause, _pool=origin)
            except HTTPError as error:
                if failure is not None:
                    raise _failure.of_head(failure, error, request) from failure
                if not retries.raise_on_status:
                    return raw
                raw.drain_conn()
                raise exceptions.RetryError(error, request=request) from error
            if raw is not None:
                raw.drain_conn()
            to_thread(retries.sleep, raw)
            if hasattr(request.body, "read"):
                rewind_body(request)

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """A ``requests.Response`` of what came for ``req``."""
        if type(resp) is not Raw:
            return super().build_response(req, resp)
        response = requests.Response()
        response.status_code = resp.status
        response.reason = resp.reason
        headers = response.headers = CaseInsensitiveDict()
        for name, value in resp._fields:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if resp.status in _REDIRECTS and "location" in headers:
            resp.lenient = True
            headers["location"] = _location(req.url, headers["location"])
        response.encoding = get_encoding_from_headers(headers)  # type: ignore[assignment]
        response.raw = resp
        response.url = req.url
        response.request = req
        response.connection = self  # type: ignore[attr-defined]
        if "set-cookie" in headers:
            cookies.extract_cookies_to_jar(response.cookies, req, resp)
        return response


def _once(
    attempt: Callable[[], Raw], request: requests.PreparedRequest, origin: Any, target: str, timeouts: Any
) -> Raw:
    try:
        return attempt()
    except HttpError as error:
        if error.args[0] == "request":
            raise _failure.of_request(error, request) from error
        cause = _failure.urllib3_error(error, origin, target, timeouts)
        try:
            _NO_RETRIES.increment(request.method, target, error=cause, _pool=origin)
        except HTTPError as final:
            cause = final
        raise _failure.of_head(error, cause, request) from error
    except UnicodeEncodeError as error:
        raise exceptions.InvalidHeader(str(error), request=request) from error


def _can_repeat(request: requests.PreparedRequest) -> bool:
    """Whether the body can be sent again: an iterator's pieces are gone."""
    body: Any = request.body
    return body is None or isinstance(body, str | bytes | bytearray | memoryview) or hasattr(body, "seek")


def _location(base: str, location: str) -> str:
    """What requests can follow, or else fails on with an error of its own."""
    if not location.isascii():
        # It is taken for UTF-8.
        sent = location.encode("latin-1")
        try:
            sent.decode()
        except UnicodeDecodeError:
            location = quote(sent, safe="!#$%&'()*+,/:;=?@[]~")
    try:
        parts = urlsplit(urljoin(base, location))
        _ = parts.hostname, parts.port
    except ValueError:
        # Nobody can follow it: a scheme that nobody knows says so.
        return f"invalid:{quote(location)}"
    return location


def _timeouts(timeout: Any) -> tuple[float | None, float | None]:
    """For connecting, and for each read; checked as urllib3 does it."""
    if isinstance(timeout, Timeout):
        connect, read, total = timeout.connect_timeout, timeout._read, timeout.total
        connect, read = _or_none(connect), _or_none(read)
        if isinstance(total, int | float):
            connect = total if connect is None else min(connect, total)
            read = total if read is None else min(read, total)
        return connect, read
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise ValueError(
                f"Invalid timeout {timeout}. Pass a (connect, read) timeout tuple, "
                "or a single float to set both timeouts to the same value."
            )
        connect, read = timeout
    else:
        connect = read = timeout
    if _is_time(connect) and _is_time(read):
        return connect, read
    return _timeouts(Timeout(connect=connect, read=read))


def _is_time(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and value > 0)


def _or_none(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


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
    try:
        length = None if given is None else int(given)
    except ValueError as error:
        raise exceptions.InvalidHeader(f"Content-Length: {error}", request=request) from error
    return _pieces(body) if hasattr(body, "read") else body, length


def _pieces(file: Any) -> Iterator[bytes]:
    # At the end of a text file comes an empty `str`.
    while piece := file.read(65536):
        yield piece


def _tls_for(verify: Any, cert: Any, request: requests.PreparedRequest) -> Tls:
    authorities = certificate = key = None
    if verify:
        authorities = verify if verify is not True else adapters.DEFAULT_CA_BUNDLE_PATH  # pyright: ignore[reportPrivateImportUsage]
        if not authorities or not os.path.exists(authorities):
            raise OSError(f"Could not find a suitable TLS CA certificate bundle, invalid path: {authorities}")
    if cert:
        certificate, key = (cert, None) if isinstance(cert, str | os.PathLike) else cert
        if not os.path.exists(certificate):
            raise OSError(f"Could not find the TLS certificate file, invalid path: {certificate}")
        if key and not os.path.exists(key):
            raise OSError(f"Could not find the TLS key file, invalid path: {key}")
    files = [os.fspath(path) if path else None for path in (authorities, certificate, key)]
    which = tuple((path, os.stat(path).st_mtime_ns) for path in files if path), bool(authorities)
    tls = _tls.get(which)
    if tls is None:
        try:
            tls = Tls(*files)
        except OSError as error:
            raise exceptions.SSLError(f"the settings of TLS are not sound: {error}", request=request) from error
        while len(_tls) >= _MOST_TLS:
            _tls.pop(next(iter(_tls)), None)
        _tls[which] = tls
    return tls


_stock_send = HTTPAdapter.send


def install() -> None:
    """Let new sessions of ``requests`` send through balrog. A second call does nothing."""
    # What a new session mounts. Replaced there only: `requests.adapters.HTTPAdapter` stays what it is.
    sessions.HTTPAdapter = Adapter  # type: ignore[misc]


def uninstall() -> None:
    """Undo ``install()`` for sessions that are made from now on."""
    sessions.HTTPAdapter = HTTPAdapter  # type: ignore[misc]
