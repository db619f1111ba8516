#!/usr/bin/env python3
"""The processor time of one POST: ``requests`` on balrog and on urllib3, httpx, aiohttp.

    make bench-requests ARGS="--rounds 9"

Each library has a process of its own on one core; a server of a few lines on the other answers at once. The libraries
take turns, round by round, so that what the machine does besides hits all of them. What counts is the processor time
of the client's process a call: that is what a view pays. The least of the rounds is the figure, beside it the median.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import threading
from pathlib import Path

from support import CLIENT_CORE, RIVALS, ROOT, SERVER_CORE, have, median, need_two_cores, table

CLIENT = Path(__file__).with_name("requests_client.py")
OURS = ROOT / ".venv" / "bin" / "python"
RESPONSE = (
    b"HTTP/1.1 201 Created\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: kitchen\r\n"
    b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n"
    b'{"mins": 25}'
)
#: Name in the table, interpreter, module that it needs.
LIBRARIES = [
    ("balrog", "requests on balrog, requests.post", OURS, None),
    ("balrog-session", "requests on balrog, Session.post", OURS, None),
    ("balrog-task", "requests on balrog, in a task", OURS, None),
    ("requests", "requests on urllib3, requests.post", OURS, None),
    ("requests-session", "requests on urllib3, Session.post", OURS, None),
    ("httpx", "httpx, Client.post", RIVALS / "python", "httpx"),
    ("aiohttp", "aiohttp, ClientSession.post", RIVALS / "python", "aiohttp"),
]


def serve(listener: socket.socket) -> None:
    """Answers every request of every connection."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = b""
    while data := connection.recv(65536):
        buffer += data
        head, end, body = buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if end and len(body) >= length:
            connection.sendall(RESPONSE)
            buffer = body[length:]


class Client:
    """A library in its process; ``ask(n)`` is the microseconds of processor time of one of ``n`` calls."""

    def __init__(self, name: str, python: Path, url: str) -> None:
        command = ["taskset", "-c", str(CLIENT_CORE), str(python), str(CLIENT), name, url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, calls: int) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(calls, file=self.process.stdin, flush=True)
        answered = self.process.stdout.readline()
        if not answered:
            raise RuntimeError(f"{self.process.args} ended")
        return float(answered)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


def main() -> int:
    parser = argparse.ArgumentParser(description="Processor time of one POST, by library.")
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--calls", type=int, default=1000, help="calls a round; default: 1,000")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="names of the libraries; default: all that are there")
    arguments = parser.parse_args()
    need_two_cores()
    server = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    clients, missing = {}, []
    try:
        for name, title, python, module in LIBRARIES:
            if arguments.only and name not in arguments.only:
                continue
            if module and not have(python, module):
                missing.append(module)
                continue
            clients[title] = Client(name, python, url)
        for client in clients.values():
            client.ask(200)
        costs: dict[str, list[float]] = {title: [] for title in clients}
        for _ in range(arguments.rounds):
            for title, client in clients.items():
                costs[title].append(client.ask(arguments.calls))
    finally:
        for client in clients.values():
            client.stop()
        server.kill()
    least = {title: min(found) for title, found in costs.items()}
    base = next(iter(least.values()))
    rows = [
        [title, f"{least[title]:.0f}", f"{median(costs[title]):.0f}", f"{least[title] / base:.2f}"] for title in clients
    ]
    print(table(["CPU of one POST, us", "least", "median", "ratio"], rows))
    if missing:
        print(f"not there: {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        listening = socket.create_server(("127.0.0.1", 0))
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/orders", flush=True)
        serve(listening)
    sys.exit(main())
