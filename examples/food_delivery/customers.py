"""Customers of the site: HTTP and WebSocket clients, thousands in one process, on bare asyncio.

    customer = Customer(("127.0.0.1", 8000))
    await customer.visit()          # the page: session and CSRF cookies
    await customer.listen()         # the WebSocket
    response = await customer.order({"dish": "Ramen"})
    text = await customer.message()

They are lean, so that whoever measures the site does not measure them: no library, one small parser. They speak only
what the site answers with, and raise `ClientError` at anything else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from dataclasses import dataclass
from urllib.parse import urlencode

#: Seconds that a connection may have been idle and be used again. Servers close them after some time, and a request
#: that crosses that on its way is lost.
REUSE = 4.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class ClientError(Exception):
    """The site's answer was cut short, malformed or not what was asked for."""


@dataclass
class Response:
    """An HTTP response, read whole."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def json(self):
        """The body, parsed."""
        return json.loads(self.body)

    def cookies(self) -> dict[str, str]:
        """Cookies that the response sets."""
        pairs = (value.split(";", 1)[0].partition("=") for name, value in self.headers if name == "set-cookie")
        return {name.strip(): value for name, _, value in pairs}


class Connection(asyncio.Protocol):
    """One connection: HTTP requests one at a time, or a WebSocket after `upgrade`."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.waiter: asyncio.Future[Response] | None = None
        self.messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.close_code: int | None = None
        self.transport: asyncio.Transport | None = None
        self._websocket = False
        self.lost = False

    @classmethod
    async def connect(cls, address: tuple[str, int]) -> Connection:
        """Opens a connection; raises `OSError`."""
        _, protocol = await asyncio.get_running_loop().create_connection(cls, *address)
        return protocol

    async def request(self, method: str, path: str, headers: list[str], body: bytes = b"") -> Response:
        """Sends a request and reads the response."""
        if self.lost or self.transport is None:
            raise ClientError("the connection is closed")
        lines = [f"{method} {path} HTTP/1.1", *headers]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return await self.waiter

    async def upgrade(self, path: str, headers: list[str]) -> Response:
        """Asks for a WebSocket; the response is 101 if there is one now."""
        key = base64.b64encode(os.urandom(16)).decode()
        offer = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        return await self.request("GET", path, headers + offer)

    def send(self, text: str) -> None:
        """Sends a WebSocket text message."""
        self._frame(TEXT, text.encode())

    def close(self) -> None:
        """Closes the connection, a WebSocket with code 1000."""
        if self.transport is None:
            return
        if self._websocket and not self.lost:
            self._frame(CLOSE, struct.pack("!H", 1000))
        self.transport.close()

    def abort(self) -> None:
        """Drops the connection as a lost network does."""
        if self.transport:
            self.transport.abort()

    def _frame(self, opcode: int, payload: bytes) -> None:
        assert self.transport
        head = bytes([0x80 | opcode, 0x80 | min(len(payload), 126)])
        if len(payload) >= 126:
            head += struct.pack("!H", len(payload))
        # A mask of zeroes is a valid mask, and leaves the payload as it is.
        self.transport.write(head + bytes(4) + payload)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.waiter and not self.waiter.done():
            self.waiter.set_exception(ClientError(f"connection lost before the answer: {exc or 'end of file'}"))
        self.messages.put_nowait(None)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        try:
            if not self._websocket:
                self._read_response()
            if self._websocket:
                self._read_frames()
        except ValueError as error:
            if self.waiter and not self.waiter.done():
                self.waiter.set_exception(ClientError(f"malformed answer: {error}"))
            self.abort()

    def _read_response(self) -> None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or self.waiter is None or self.waiter.done():
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        framing = dict(headers)
        start = end + 4
        if status == 101:
            body, after = b"", start
            self._websocket = True
        elif framing.get("transfer-encoding") == "chunked":
            chunked = self._chunked(start)
            if chunked is None:
                return
            body, after = chunked
        else:
            after = start + int(framing.get("content-length", "0"))
            if len(self.buffer) < after:
                return
            body = bytes(self.buffer[start:after])
        del self.buffer[:after]
        self.waiter.set_result(Response(status, headers, body))

    def _chunked(self, position: int) -> tuple[bytes, int] | None:
        body = bytearray()
        while (end := self.buffer.find(b"\r\n", position)) >= 0:
            size = int(self.buffer[position:end], 16)
            position = end + 2 + size + 2
            if len(self.buffer) < position:
                return None
            if size == 0:
                return bytes(body), position
            body += self.buffer[end + 2 : end + 2 + size]
        return None

    def _read_frames(self) -> None:
        buffer = self.buffer
        while len(buffer) >= 2:
            opcode, length, start = buffer[0] & 15, buffer[1] & 127, 2
            if length == 126:
                length, start = int.from_bytes(buffer[2:4]), 4
            elif length == 127:
                length, start = int.from_bytes(buffer[2:10]), 10
            if len(buffer) < start or len(buffer) < start + length:
                return
            payload = bytes(buffer[start : start + length])
            del buffer[: start + length]
            match opcode:
                case 1:
                    self.messages.put_nowait(payload.decode())
                case 2:
                    self.messages.put_nowait(payload)
                case 8:
                    self.close_code = int.from_bytes(payload[:2]) if payload else 1005
                    self.close()
                case 9:
                    self._frame(PONG, payload)
                case _:
                    pass


class Customer:
    """One customer with a session of its own."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.host = f"{address[0]}:{address[1]}"
        self.cookies: dict[str, str] = {}
        self.http: Connection | None = None
        self.websocket: Connection | None = None
        self._used = 0.0

    def headers(self) -> list[str]:
        """Headers that every request carries."""
        headers = [f"Host: {self.host}", f"Origin: http://{self.host}"]
        if self.cookies:
            headers.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        return headers

    async def request(self, method: str, path: str, headers: tuple[str, ...] = (), body: bytes = b"") -> Response:
        """A request on the customer's kept connection."""
        now = asyncio.get_running_loop().time()
        if self.http and now - self._used > REUSE:
            self.http.close()
        if self.http is None or self.http.lost or now - self._used > REUSE:
            self.http = await Connection.connect(self.address)
        response = await self.http.request(method, path, [*self.headers(), *headers], body)
        self._used = asyncio.get_running_loop().time()
        self.cookies |= response.cookies()
        return response

    async def visit(self) -> None:
        """Opens the page, which gives the session and the CSRF token."""
        response = await self.request("GET", "/")
        if response.status != 200 or "sessionid" not in self.cookies:
            raise ClientError(f"the page answered {response.status}")

    async def listen(self) -> None:
        """Opens the WebSocket."""
        self.websocket = await Connection.connect(self.address)
        response = await self.websocket.upgrade("/ws/orders/", self.headers())
        if response.status != 101:
            raise ClientError(f"the WebSocket was answered {response.status}")
        self.cookies |= response.cookies()

    async def order(self, fields: dict[str, object], path: str = "/orders/") -> Response:
        """Places an order."""
        headers = (
            "Content-Type: application/x-www-form-urlencoded",
            f"X-CSRFToken: {self.cookies.get('csrftoken', '')}",
        )
        return await self.request("POST", path, headers, urlencode(fields).encode())

    async def message(self, timeout: float = 10.0) -> str | bytes:
        """The next message on the WebSocket."""
        assert self.websocket
        async with asyncio.timeout(timeout):
            message = await self.websocket.messages.get()
        if message is None:
            raise ClientError(f"the WebSocket was closed ({self.websocket.close_code})")
        return message

    def leave(self) -> None:
        """Closes the customer's connections."""
        for connection in (self.http, self.websocket):
            if connection:
                connection.close()
