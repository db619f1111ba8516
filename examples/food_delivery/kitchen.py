#!/usr/bin/env python3
"""The kitchen service: takes orders by HTTP and answers 201 with the minutes until delivery, after a while.

    kitchen.py --port 8001 --delay 0.5

An own small server on asyncio, since it must hold thousands of orders at once and cost next to nothing beside the
site that it serves. ``GET /stats`` tells how many orders are open, were open at the peak, and were served, and how many
connections there are; ``POST /reset`` forgets the peak and the served.

For tests: ``POST /hold?orders=N`` lets no order be done before N of them are here at once. ``POST /hang-up`` closes
every idle connection. ``POST /fault?mode=MODE`` spoils the answers to orders from then on: ``none``, ``busy`` (503),
``stall`` (no answer), ``rubbish`` (no HTTP), ``not-json``, ``die`` (closes in mid-body).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

#: Bytes of a request's head and body that we are ready to hold.
LIMIT = 64 * 1024


class Kitchen:
    """What all connections share."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.fault = "none"
        self.connections: set[Connection] = set()
        #: How many orders have to be here before the first one is done, and those that are done but for this.
        self.quorum = 0
        self.held: list[Connection] = []
        self.open = 0
        self.peak = 0
        self.served = 0

    def began(self) -> None:
        self.open += 1
        self.peak = max(self.peak, self.open)
        if self.quorum and self.open >= self.quorum:
            self.quorum = 0
            held, self.held = self.held, []
            for connection in held:
                connection.ready()

    def ended(self, served: bool) -> None:
        self.open -= 1
        self.served += served


class Connection(asyncio.Protocol):
    """One client: requests one after another, each answered before the next is read."""

    def __init__(self, kitchen: Kitchen) -> None:
        self.kitchen = kitchen
        self.buffer = b""
        self.order: dict[str, list[str]] = {}
        self.cooking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.kitchen.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.kitchen.connections.discard(self)
        if self.cooking:
            self.cooking.cancel()
            self.cooking = None
            if self in self.kitchen.held:
                self.kitchen.held.remove(self)
            self.kitchen.ended(served=False)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.cooking:
            self.next_request()

    def next_request(self) -> None:
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            if len(self.buffer) > LIMIT:
                self.transport.close()
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if length > LIMIT:
            self.transport.close()
            return
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        self.handle(method, target, rest[:length])

    def handle(self, method: str, target: str, body: bytes) -> None:
        url = urlsplit(target)
        kitchen = self.kitchen
        match method, url.path:
            case "POST", "/orders":
                self.order = parse_qs(body.decode())
                delay = 3600.0 if kitchen.fault == "stall" else kitchen.delay
                self.cooking = asyncio.get_running_loop().call_later(delay, self.ready)
                kitchen.began()
            case "GET", "/stats":
                stats: dict[str, int] = {name: getattr(kitchen, name) for name in ("open", "peak", "served")}
                self.answer(200, stats | {"connections": len(kitchen.connections)})
            case "POST", "/reset":
                kitchen.peak, kitchen.served = kitchen.open, 0
                self.answer(200, {})
            case "POST", "/fault":
                kitchen.fault = parse_qs(url.query)["mode"][0]
                self.answer(200, {"fault": kitchen.fault})
            case "POST", "/hold":
                kitchen.quorum = int(parse_qs(url.query)["orders"][0])
                self.answer(200, {"quorum": kitchen.quorum})
            case "POST", "/hang-up":
                for connection in kitchen.connections - {self}:
                    if not connection.cooking:
                        connection.transport.close()
                # Behind the closes, which the loop has only queued.
                asyncio.get_running_loop().call_soon(lambda: self.answer(200, {}))
            case _:
                self.answer(404, {"error": "no such thing here"})

    def ready(self) -> None:
        if self.kitchen.quorum:
            self.kitchen.held.append(self)
            return
        self.cooking = None
        self.kitchen.ended(served=True)
        match self.kitchen.fault:
            case "busy":
                self.answer(503, {"error": "the kitchen is busy"})
            case "rubbish":
                self.transport.write(b"\x00\x01 burnt \xff\r\n\r\n")
                self.transport.close()
            case "not-json":
                self.send(201, "text/plain", b"burnt")
            case "die":
                self.transport.write(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{")
                self.transport.close()
            case _:
                self.answer(201, {"mins": 15 + int(self.order["id"][0]) % 30})
        if self.buffer:
            self.next_request()

    def answer(self, status: int, what: Mapping[str, object]) -> None:
        self.send(status, "application/json", json.dumps(what).encode())

    def send(self, status: int, kind: str, body: bytes) -> None:
        head = f"HTTP/1.1 {status} \r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def serve(host: str, port: int, delay: float) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    loop = asyncio.get_running_loop()
    stop = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: stop.done() or stop.set_result(None))
    kitchen = Kitchen(delay)
    server = await loop.create_server(lambda: Connection(kitchen), host, port, backlog=4096)
    print(f"kitchen: http://{host}:{server.sockets[0].getsockname()[1]}/orders", flush=True)
    await stop
    server.close()


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="The kitchen service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001, help="0 takes a free one; it is printed")
    parser.add_argument("--delay", type=float, default=0.5, metavar="SECONDS", help="how long an order takes to cook")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(arguments.host, arguments.port, arguments.delay))


if __name__ == "__main__":
    main()
