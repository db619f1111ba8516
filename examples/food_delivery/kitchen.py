#!/usr/bin/env python3
"""The kitchen service: takes an order, cooks for a while, says when the food comes.

    python kitchen.py --port 8001 --delay 0.5

Only the standard library; one process serves thousands of orders at once. ``GET /stats`` tells
how many are cooking, and the most there ever were. For tests a path makes it misbehave:
``/refuse`` answers 503, ``/rubbish`` no JSON, ``/die`` closes in mid-body, ``/stall`` never answers.
"""

import argparse
import asyncio
import contextlib
import json


class Kitchen:
    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.cooking = 0
        self.peak = 0
        self.cooked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        path = head[0].split(" ")[1]
        length = next((int(line[15:]) for line in head if line.lower().startswith("content-length:")), 0)
        await reader.readexactly(length)
        if path == "/stats":
            return self.reply(writer, 200, {"cooking": self.cooking, "peak": self.peak, "cooked": self.cooked})
        if path == "/stall":
            await asyncio.sleep(3600)
        self.cooking += 1
        self.peak = max(self.peak, self.cooking)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.cooking -= 1
        self.cooked += 1
        if path == "/refuse":
            return self.reply(writer, 503, {"error": "closed"})
        if path == "/rubbish":
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\n{oh dear")
            return True
        if path == "/die":
            writer.write(b'HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"mins":')
            await writer.drain()
            return False
        return self.reply(writer, 201, {"mins": 30})

    def reply(self, writer: asyncio.StreamWriter, status: int, answer: object) -> bool:
        body = json.dumps(answer).encode()
        reason = {200: "OK", 201: "Created", 503: "Service Unavailable"}[status]
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return True


async def main() -> None:
    parser = argparse.ArgumentParser(description="The kitchen service of the food delivery.")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that an order takes")
    arguments = parser.parse_args()
    kitchen = Kitchen(arguments.delay)
    server = await asyncio.start_server(kitchen.serve, "127.0.0.1", arguments.port, backlog=4096)
    print(f"kitchen: http://127.0.0.1:{server.sockets[0].getsockname()[1]}/orders", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
