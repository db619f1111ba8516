"""HTTP/1.1 by hand: sends any bytes, and reads responses without forgiving anything."""

import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field


@dataclass
class Response:
    version: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    #: "length", "chunked", "close" or "none"
    framing: str = "none"
    complete: bool = False
    #: seconds from the request to the first byte
    first_byte: float = 0.0
    interim: list[int] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        return next((value for other, value in self.headers if other == name), None)

    @property
    def closes(self) -> bool:
        return "close" in (self.get("connection") or "").lower() or self.framing == "close"


class Wire:
    """A connection; ``ended`` is ``None``, ``"fin"`` or ``"rst"``."""

    def __init__(self, host: str, port: int, timeout: float = 5.0) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout
        self.buffer = b""
        self.ended: str | None = None
        self.begun = time.monotonic()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_args: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        # A server that refuses may close before it has read everything.
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.socket.sendall(data)

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def more(self, until: float) -> bool:
        """Reads once; ``False`` at the end, or when the time is over."""
        if self.ended:
            return False
        left = until - time.monotonic()
        if left <= 0:
            return False
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            self.ended = "rst"
            return False
        if not data:
            self.ended = "fin"
            return False
        self.buffer += data
        return True

    def wait_end(self, within: float) -> bool:
        """Whether the server closes within so many seconds; what it sends is kept."""
        until = time.monotonic() + within
        while self.more(until):
            pass
        return self.ended is not None

    def response(self, head: bool = False, within: float | None = None) -> Response | None:
        """The next final response; ``None`` if not even its head comes."""
        until = time.monotonic() + (self.timeout if within is None else within)
        interim: list[int] = []
        while True:
            response = self._head(until)
            if response is None:
                return None
            if response.status == 101 or response.status >= 200:
                break
            interim.append(response.status)
        response.interim = interim
        self._body(response, head, until)
        return response

    def interim(self) -> int | None:
        """The status of the next head, which has no body."""
        response = self._head(time.monotonic() + self.timeout)
        return response.status if response else None

    def _head(self, until: float) -> Response | None:
        while not self.buffer:
            if not self.more(until):
                return None
        first = time.monotonic() - self.begun
        while b"\r\n\r\n" not in self.buffer:
            if not self.more(until):
                return None
        raw, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        line, *fields = raw.decode("latin-1").split("\r\n")
        version, status, _reason = line.split(" ", 2)
        headers = []
        for text in fields:
            name, value = text.split(":", 1)
            assert name == name.strip(), f"a malformed field: {text!r}"
            headers.append((name.lower(), value.strip()))
        return Response(version, int(status), headers, first_byte=first)

    def _body(self, response: Response, head: bool, until: float) -> None:
        coding, length = response.get("transfer-encoding"), response.get("content-length")
        assert not (coding and length), "two framings"
        if head or response.status in (101, 204, 304):
            response.complete = True
        elif coding:
            assert coding == "chunked"
            response.framing = "chunked"
            self._chunked(response, until)
        elif length is not None:
            response.framing = "length"
            while len(self.buffer) < int(length) and self.more(until):
                pass
            response.body, self.buffer = self.buffer[: int(length)], self.buffer[int(length) :]
            response.complete = len(response.body) == int(length)
        else:
            response.framing = "close"
            while self.more(until):
                pass
            response.body, self.buffer = self.buffer, b""
            response.complete = self.ended == "fin"

    def _chunked(self, response: Response, until: float) -> None:
        while True:
            while b"\r\n" not in self.buffer:
                if not self.more(until):
                    return
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            size = int(line, 16)
            while len(self.buffer) < size + 2:
                if not self.more(until):
                    response.body += self.buffer[:size]
                    return
            assert self.buffer[size : size + 2] == b"\r\n"
            response.body += self.buffer[:size]
            self.buffer = self.buffer[size + 2 :]
            if size == 0:
                response.complete = True
                return
