"""A closed-loop HTTP generator on asyncio: so many connections, each with one request after the other."""

from __future__ import annotations

import argparse
import asyncio
import json
import time

TOKEN = "b" * 32
BODY = b"dish=Lembas&address=Moria&quantity=1"


class Client(asyncio.Protocol):
    """One connection: sends the request again whenever its answer is complete."""

    def __init__(self, request: bytes, results: Results) -> None:
        self.request, self.results = request, results
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            if not rest.endswith(b"0\r\n\r\n"):
                return
        else:
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(rest) < length:
                return
        self.buffer = b""
        self.results.add(head[9:12] == b"200", time.perf_counter() - self.sent)
        if b"connection: close" in lower:
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.results.over:
            self.results.add(False, time.perf_counter() - self.sent) if self.buffer or error else None
            asyncio.ensure_future(self.results.connect())


class Results:
    """What was answered between the warm-up and the end."""

    def __init__(self, port: int, path: str) -> None:
        self.port, self.path = port, path
        self.latencies: list[float] = []
        self.errors = 0
        self.counting = self.over = False

    def add(self, good: bool, seconds: float) -> None:
        if self.counting and good:
            self.latencies.append(seconds)
        elif self.counting:
            self.errors += 1

    async def connect(self) -> None:
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(BODY)}\r\nCookie: csrftoken={TOKEN}\r\nX-CSRFToken: {TOKEN}\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Client(head.encode() + BODY, self), "127.0.0.1", self.port)
        except OSError:
            self.errors += self.counting
            await asyncio.sleep(0.1)
            if not self.over:
                asyncio.ensure_future(self.connect())


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--warm-up", type=float, default=2)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    results = Results(arguments.port, arguments.path)
    for _ in range(arguments.connections):
        await results.connect()
    await asyncio.sleep(arguments.warm_up)
    results.counting = True
    start = time.perf_counter()
    await asyncio.sleep(arguments.seconds)
    results.counting, results.over = False, True
    taken = time.perf_counter() - start
    latencies = sorted(results.latencies) or [float("nan")]
    figures = {
        "rate": len(results.latencies) / taken,
        "p50": latencies[len(latencies) // 2] * 1000,
        "p99": latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)] * 1000,
        "errors": results.errors,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
