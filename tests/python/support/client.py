"""Servers of a few lines for the client's tests: they do exactly what a test says, right or wrong."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable


class Peer:
    """An accepted connection, and what came over it."""

    def __init__(self, connection, number: int) -> None:
        self.socket = connection
        self.number = number
        self._buffer = b""

    def head(self) -> bytes:
        """The next request's head; empty when there is none."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                return b""
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.socket.recv(65536)
            if not data:
                break
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def chunks(self) -> list[bytes]:
        found = []
        while True:
            line = b""
            while not line.endswith(b"\r\n"):
                line += self.take(1)
            size = int(line, 16)
            data = self.take(size + 2)
            assert data.endswith(b"\r\n")
            if not size:
                return found
            found.append(data[:-2])

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, body: bytes = b"ok", *fields: str, status: str = "200 OK") -> None:
        head = "".join(f"{field}\r\n" for field in fields)
        self.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode("latin-1") + body)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Server:
    """Calls ``handler(peer)`` for each connection, on a thread of its own."""

    def __init__(self, handler: Callable[[Peer], None], context=None) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.closing = threading.Event()
        self._handler = handler
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://{'localhost' if context else '127.0.0.1'}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(10)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection, number: int) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            try:
                self._handler(Peer(connection, number))
            finally:
                connection.close()

    def close(self) -> None:
        self.closing.set()
        self._listener.close()


def keep_alive(respond: Callable[[Peer, bytes], None]) -> Callable[[Peer], None]:
    """A handler that answers every request of a connection."""

    def handler(peer: Peer) -> None:
        while head := peer.head():
            respond(peer, head)

    return handler
