"""The standard ``socket`` module whose waits are balrog's.

In a task other tasks run while a socket waits; elsewhere the thread blocks. Names, arguments,
errors and timeouts are the standard module's. Use it in its place, or have libraries that open
sockets of their own use it by ``balrog.install("socket")``. What ``ssl.SSLContext.wrap_socket``
makes of such a socket waits the same way; what it makes of others is what it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as _std
import ssl as _ssl
import time
import types
from collections.abc import Callable, Iterator
from socket import *  # noqa: F403  # pyright: ignore[reportAssignmentType, reportWildcardImportFromLibrary]
from typing import Any

from balrog._balrog import Task, current_task, sleep, wait_fd
from balrog._threads import to_thread

_READ, _WRITE = 1, 2
#: What TLS has to wait for; it may have to read in order to write.
_WANTED: dict[type[BaseException], int] = {_ssl.SSLWantReadError: _READ, _ssl.SSLWantWriteError: _WRITE}


class socket(_std.socket):
    """A socket. Its descriptor never blocks; what would block waits, for its timeout at most."""

    __slots__ = ("_seconds", "_waiting")

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        super().__init__(family, type, proto, fileno)
        self._seconds: float | None = _std.getdefaulttimeout()
        #: Who waits to read and who to write, to be told when the socket is closed.
        self._waiting: dict[int, Task] = {}
        super().settimeout(0.0)

    # Timeouts.

    def settimeout(self, value: float | None) -> None:
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._seconds = None if value is None else float(value)

    def gettimeout(self) -> float | None:
        return self._seconds

    def setblocking(self, flag: bool) -> None:
        self._seconds = None if flag else 0.0

    def getblocking(self) -> bool:
        return self._seconds != 0.0

    @property
    def timeout(self) -> float | None:  # type: ignore[override]
        return self._seconds

    # Waiting.

    def _deadline(self) -> float | None:
        return None if self._seconds is None else time.monotonic() + self._seconds

    def _wait(self, events: int, deadline: float | None) -> None:
        """Wait until the socket is ready, or raise ``TimeoutError``."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        task = current_task()
        if task is None:
            ready = wait_fd(self.fileno(), events, left)
        else:
            self._waiting[events] = task
            try:
                ready = wait_fd(self.fileno(), events, left)
            finally:
                if self._waiting.get(events) is task:
                    del self._waiting[events]
        if not ready:
            raise TimeoutError("timed out")

    def _retry(self, events: int, call: Callable[..., Any], *args: Any) -> Any:
        """``call(*args)``, again whenever the socket is ready, until it need not block."""
        deadline = None
        while True:
            try:
                return call(*args)
            except (BlockingIOError, *_WANTED) as error:
                if self._seconds == 0.0:
                    raise
                wanted = _WANTED.get(type(error), events)
            except InterruptedError:
                continue
            if deadline is None:
                deadline = self._deadline()
            self._wait(wanted, deadline)

    def _real_close(self, *args: Any) -> None:
        waiting, self._waiting = list(self._waiting.values()), {}
        super()._real_close(*args)  # type: ignore[misc]
        here = current_task()
        for task in waiting:
            if task is not here:
                task._throw(OSError(errno.EBADF, "the socket was closed by another task"))

    def detach(self) -> int:
        # Whoever gets the descriptor expects what it was set to.
        with contextlib.suppress(OSError):
            os.set_blocking(self.fileno(), self._seconds != 0.0)
        return super().detach()

    def dup(self) -> socket:
        made = self.__class__(self.family, self.type, self.proto, fileno=_std.dup(self.fileno()))
        made.settimeout(self._seconds)
        return made

    # Connections.

    def accept(self) -> tuple[socket, Any]:
        descriptor, address = self._retry(_READ, self._accept)  # type: ignore[attr-defined]
        return socket(self.family, self.type, self.proto, fileno=descriptor), address

    def connect(self, address: Any) -> None:
        failed = self._connect(self._resolve(address))
        if failed:
            raise OSError(failed, os.strerror(failed))

    def connect_ex(self, address: Any) -> int:
        try:
            return self._connect(self._resolve(address))
        except TimeoutError:
            return errno.EAGAIN
        except OSError as error:
            if isinstance(error, _std.gaierror) or error.errno is None:
                raise
            return error.errno

    def _connect(self, address: Any) -> int:
        deadline = self._deadline()
        failed = super().connect_ex(address)
        while failed == errno.EAGAIN and self.family == _std.AF_UNIX and self._seconds != 0.0:
            # The listener's queue is full, and nothing tells when it has room again.
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError("timed out")
            sleep(0.01)
            failed = super().connect_ex(address)
        if self._seconds == 0.0 or failed not in (errno.EINPROGRESS, errno.EINTR):
            return failed
        with self._closed_when_cut():
            self._wait(_WRITE, deadline)
        return self.getsockopt(_std.SOL_SOCKET, _std.SO_ERROR)

    @contextlib.contextmanager
    def _closed_when_cut(self) -> Iterator[None]:
        """Half a connection is of no use, and who makes one closes it on errors only, not when cancelled."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self.close()
            raise

    def _resolve(self, address: Any) -> Any:
        """The address with its host's number: looking up a name blocks."""
        if self.family not in (_std.AF_INET, _std.AF_INET6) or not isinstance(address, tuple) or self._seconds == 0.0:
            return address
        host = address[0]
        try:
            _std.inet_pton(self.family, host)
        except (OSError, TypeError, ValueError):
            if not isinstance(host, str) or host in ("", "<broadcast>"):
                return address
            found = getaddrinfo(host, address[1], self.family, self.type, self.proto)
            return found[0][4][:2] + tuple(address[2:])
        return address

    # Bytes.

    def recv(self, *args: Any) -> bytes:
        return self._retry(_READ, super().recv, *args)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        receive = super().recv_into
        return self._retry(_READ, lambda: receive(*args, **kwargs))

    def recvfrom(self, *args: Any) -> tuple[bytes, Any]:
        return self._retry(_READ, super().recvfrom, *args)

    def recvfrom_into(self, *args: Any, **kwargs: Any) -> tuple[int, Any]:
        receive = super().recvfrom_into
        return self._retry(_READ, lambda: receive(*args, **kwargs))

    def recvmsg(self, *args: Any) -> Any:
        return self._retry(_READ, super().recvmsg, *args)

    def recvmsg_into(self, *args: Any) -> Any:
        return self._retry(_READ, super().recvmsg_into, *args)

    def send(self, *args: Any) -> int:
        return self._retry(_WRITE, super().send, *args)

    def sendto(self, *args: Any) -> int:
        return self._retry(_WRITE, super().sendto, *args)

    def sendmsg(self, *args: Any) -> int:
        return self._retry(_WRITE, super().sendmsg, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        send = super().send
        deadline = self._deadline()
        with memoryview(data) as view, view.cast("B") as left:
            sent = 0
            while sent < len(left):
                try:
                    sent += send(left[sent:], flags)
                except BlockingIOError:
                    if self._seconds == 0.0:
                        raise
                    self._wait(_WRITE, deadline)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        return self._sendfile_use_send(file, offset, count)  # type: ignore[attr-defined]


class _TlsSocket(_ssl.SSLSocket, socket):  # pyright: ignore[reportIncompatibleMethodOverride]
    """What ``SSLContext.wrap_socket`` makes of our sockets: OpenSSL never blocks, we wait for what it wants."""

    @classmethod
    def _create(cls, sock: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(sock, socket):
            return _tls_of_others._create(sock, *args, **kwargs)  # type: ignore[attr-defined]
        return super()._create(sock, *args, **kwargs)  # type: ignore[misc]

    def settimeout(self, value: float | None) -> None:
        super().settimeout(value)
        # `_create` calls this after it detached the socket, whose descriptor blocks since then.
        super(socket, self).settimeout(0.0)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        return self._retry(_READ, super().read, len, buffer)

    def write(self, data: Any) -> int:
        return self._retry(_WRITE, super().write, data)

    def send(self, data: Any, flags: int = 0) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._retry(_WRITE, super().send, data, flags)

    def do_handshake(self, block: bool = False) -> None:
        seconds = self._seconds
        if block and seconds == 0.0:
            self._seconds = None
        try:
            with self._closed_when_cut():
                self._retry(_READ, super().do_handshake)
        finally:
            self._seconds = seconds

    def unwrap(self) -> _std.socket:
        return self._retry(_READ, super().unwrap)


#: A context asks its class for the socket; this one still gives other sockets what they got before.
_tls_of_others: Any = _ssl.SSLContext.sslsocket_class
_ssl.SSLContext.sslsocket_class = _TlsSocket

SocketType = socket


def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:
    """``socket.getaddrinfo``, in a thread when called by a task."""
    return to_thread(_std_getaddrinfo, host, port, family, type, proto, flags)


def gethostbyname(hostname: str) -> str:
    """``socket.gethostbyname``, in a thread when called by a task."""
    return to_thread(_std_gethostbyname, hostname)


def gethostbyname_ex(hostname: str) -> tuple[str, list[str], list[str]]:
    """``socket.gethostbyname_ex``, in a thread when called by a task."""
    return to_thread(_std_gethostbyname_ex, hostname)


def gethostbyaddr(ip_address: str) -> tuple[str, list[str], list[str]]:
    """``socket.gethostbyaddr``, in a thread when called by a task."""
    return to_thread(_std_gethostbyaddr, ip_address)


def getnameinfo(sockaddr: Any, flags: int) -> tuple[str, str]:
    """``socket.getnameinfo``, in a thread when called by a task."""
    return to_thread(_std_getnameinfo, sockaddr, flags)


# As they were at import: ``install`` puts ours in their place.
_std_getaddrinfo = _std.getaddrinfo
_std_gethostbyname = _std.gethostbyname
_std_gethostbyname_ex = _std.gethostbyname_ex
_std_gethostbyaddr = _std.gethostbyaddr
_std_getnameinfo = _std.getnameinfo

#: What ``install`` replaces in the standard module; the rest of that is written in terms of it.
REPLACED = (
    "SocketType",
    "getaddrinfo",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "socket",
)


def _on_ours(name: str) -> Any:
    """A function of the standard module, on our sockets."""
    function: Any = getattr(_std, name)
    scope = {**vars(_std), **{ours: globals()[ours] for ours in REPLACED}}
    made = types.FunctionType(function.__code__, scope, name, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__doc__ = function.__doc__
    return made


create_connection = _on_ours("create_connection")
create_server = _on_ours("create_server")
fromfd = _on_ours("fromfd")
getfqdn = _on_ours("getfqdn")


def socketpair(family: Any = None, type: Any = _std.SOCK_STREAM, proto: int = 0) -> tuple[socket, socket]:
    """``socket.socketpair``."""
    pair = _std.socketpair(family if family is not None else _std.AF_UNIX, type, proto)
    ours = [socket(one.family, one.type, one.proto, fileno=one.detach()) for one in pair]
    return ours[0], ours[1]


__all__ = [*(name for name in _std.__all__ if name in globals()), "SocketType"]
