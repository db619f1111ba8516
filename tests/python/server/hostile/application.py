"""Applications for the tests of the server: one a path."""

import io
import itertools
import json
import os
import sys
from pathlib import Path

import balrog
from balrog.websocket import ConnectionClosed, QueueFull

events = []


def application(environ, start_response):
    return globals()["on_" + environ["PATH_INFO"].strip("/").replace("/", "_")](environ, start_response)


def make():
    return application


def broken_factory():
    raise RuntimeError("no luck")


def text(start_response, body, status="200 OK"):
    start_response(status, [("Content-Type", "text/plain")])
    return [body if isinstance(body, bytes) else json.dumps(body).encode()]


def on_hello(environ, start_response):
    return text(start_response, b"hello")


def on_environ(environ, start_response):
    plain = {key: value for key, value in environ.items() if isinstance(value, str | int | bool)}
    types = {key: type(value).__name__ for key, value in environ.items()}
    return text(start_response, {"values": plain, "types": types})


def on_events(environ, start_response):
    seen, events[:] = list(events), []
    return text(start_response, seen)


def on_resources(environ, start_response):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = len(os.listdir("/proc/self/fd"))
    return text(
        start_response, {"rss": pages * os.sysconf("SC_PAGE_SIZE"), "fds": descriptors, "tasks": len(balrog.tasks())}
    )


def on_sleep(environ, start_response):
    balrog.sleep(float(environ["QUERY_STRING"]))
    events.append("slept")
    return text(start_response, b"slept")


def on_forever(environ, start_response):
    try:
        balrog.sleep(3600)
    except balrog.Cancelled:
        sys.stderr.write("cancelled on purpose\n")
        raise
    return text(start_response, b"never")


def on_read(environ, start_response):
    try:
        data = environ["wsgi.input"].read()
    except OSError as error:
        events.append(f"read failed: {type(error).__name__}")
        raise
    events.append(f"read {len(data)}")
    return text(start_response, {"length": len(data)})


def on_caught(environ, start_response):
    """An application that takes a broken body lightly."""
    try:
        environ["wsgi.input"].read()
    except OSError:
        events.append("caught")
    return text(start_response, b"all is well")


def on_lines(environ, start_response):
    body = environ["wsgi.input"]
    first, limited = body.readline(), body.readline(3)
    some = body.readlines(1)
    rest = list(body)
    return text(start_response, [line.decode() for line in [first, limited, *some, *rest]])


def on_unread(environ, start_response):
    return text(start_response, b"not read")


def on_write(environ, start_response):
    write = start_response("200 OK", [])
    write(b"one ")
    write(b"two ")
    return [b"three"]


def on_exc_info(environ, start_response):
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("changed its mind")
    except ValueError:
        start_response("503 Service Unavailable", [("X-Second", "1")], sys.exc_info())
    return [b"sorry"]


def on_exc_info_late(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "100")])
    write(b"begun")
    try:
        raise ValueError("too late")
    except ValueError:
        start_response("500 Oops", [], sys.exc_info())
    return []


def on_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"x"]


def on_raise(environ, start_response):
    raise RuntimeError("a secret for the log alone")


def on_never(environ, start_response):
    return [b"no start_response"]


def on_str(environ, start_response):
    start_response("200 OK", [])
    return ["text"]


def on_none(environ, start_response):
    start_response("200 OK", [])


def on_hop(environ, start_response):
    start_response("200 OK", [("Transfer-Encoding", "chunked")])
    return [b"5\r\nhello\r\n0\r\n\r\n"]


def on_header(environ, start_response):
    name, _, value = environ["QUERY_STRING"].partition("=")
    unquoted = [bytes.fromhex(part).decode("latin-1") for part in (name, value)]
    start_response("200 OK", [(unquoted[0], unquoted[1])])
    return [b"x"]


def on_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"short"]


def on_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello, and much more"]


def on_length(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return iter([b"exa", b"", b"ct!"])


def on_empty(environ, start_response):
    start_response("200 OK", [])
    return iter([])


def on_file(environ, start_response):
    file = io.BytesIO()
    file.write(bytes(range(256)) * 1000)
    file.seek(0)
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](file, 8192)


class Body:
    def __init__(self, pieces, name):
        self.pieces, self.name = pieces, name

    def __iter__(self):
        return iter(self.pieces)

    def close(self):
        events.append(f"closed {self.name}")


def on_close(environ, start_response):
    start_response("200 OK", [])
    return Body([b"a", b"b"], "plain")


def on_close_raising(environ, start_response):
    def pieces():
        yield b"a"
        raise RuntimeError("on purpose")

    start_response("200 OK", [])
    return Body(pieces(), "raising")


def on_drip(environ, start_response):
    def pieces():
        while True:
            balrog.sleep(0.02)
            yield b"x" * 1000

    start_response("200 OK", [])
    return Body(pieces(), "drip")


def on_big(environ, start_response):
    start_response("200 OK", [])
    return [b"x" * int(environ["QUERY_STRING"])]


def on_input(environ, start_response):
    """What ``wsgi.input`` gives to one expression of the query."""
    return text(start_response, repr(eval(environ["QUERY_STRING"], {"body": environ["wsgi.input"]})).encode())


def on_statuses(environ, start_response):
    start_response(bytes.fromhex(environ["QUERY_STRING"]).decode("latin-1"), [])
    return [b""]


def on_shapes(environ, start_response):
    """Responses that PEP 3333 does not allow, or only just."""
    shapes = {
        "bytes-status": lambda: start_response(b"200 OK", []),
        "bytes-name": lambda: start_response("200 OK", [(b"X-A", "1")]),
        "int-value": lambda: start_response("200 OK", [("X-A", 1)]),
        "list-header": lambda: start_response("200 OK", [["X-A", "1"]]),
        "triple": lambda: start_response("200 OK", [("X-A", "1", "2")]),
        "unicode": lambda: start_response("200 OK", [("X-A", "\u20ac")]),
        "length-text": lambda: start_response("200 OK", [("Content-Length", "five")]),
        "length-twice": lambda: start_response("200 OK", [("Content-Length", "1"), ("Content-Length", "2")]),
        "length-minus": lambda: start_response("200 OK", [("Content-Length", "-1")]),
        "bytearray": lambda: (start_response("200 OK", []), [bytearray(b"x")])[1],
        "memoryview": lambda: (start_response("200 OK", []), [memoryview(b"x")])[1],
        "int": lambda: (start_response("200 OK", []), [1])[1],
        "one-str": lambda: (start_response("200 OK", []), "x")[1],
        "number": lambda: (start_response("200 OK", []), 5)[1],
    }
    return shapes[environ["QUERY_STRING"]]() or [b"x"]


def on_late_start(environ, start_response):
    """The head may be given as late as at the first piece."""

    def pieces():
        start_response("200 OK", [("X-Late", "yes")])
        yield b""
        yield b"late"

    return pieces()


def on_no_body(environ, start_response):
    start_response("204 No Content", [("Content-Length", "5")])
    return [b"hello"]


def on_close_fails(environ, start_response):
    class Failing(Body):
        def close(self):
            events.append("close failed")
            raise RuntimeError("in close, on purpose")

    start_response("200 OK", [("Content-Length", "2")])
    return Failing([b"o", b"k"], "")


def on_query(environ, start_response):
    return text(start_response, environ["QUERY_STRING"].encode())


def on_pieces(environ, start_response):
    """More than the buffers of any network."""
    start_response("200 OK", [])
    return (PIECE for _ in range(1000))


PIECE = b"x" * 65_536


def on_endless(environ, start_response):
    start_response("200 OK", [])
    return itertools.repeat(PIECE)


def on_discard(environ, start_response):
    while environ["wsgi.input"].read(65_536):
        pass
    return text(start_response, b"discarded")


def on_task(environ, start_response):
    task = balrog.current_task()
    local.count = getattr(local, "count", 0) + 1
    registered = balrog.at_task_end(lambda: events.append("task end"))
    return text(start_response, {"task": task is not None, "count": local.count, "registered": registered})


local = balrog.local()


def upgrade(environ, start_response, handler, **options):
    environ["balrog.websocket"].accept(handler, **options)
    start_response("101 Switching Protocols", [("Set-Cookie", "a=1"), ("X-Extra", "yes")])
    return Body([], "websocket")


def on_ws_echo(environ, start_response):
    def handler(ws):
        for message in ws:
            ws.send(message)
        events.append(f"ended {ws.close_code} {ws.close_reason}")

    return upgrade(environ, start_response, handler)


def on_ws_end(environ, start_response):
    def handler(ws):
        try:
            while True:
                ws.recv()
        except ConnectionClosed as error:
            events.append(f"closed {error.code}")
            try:
                ws.send("too late")
            except ConnectionClosed:
                events.append("send refused")

    return upgrade(environ, start_response, handler)


def on_ws_close(environ, start_response):
    return upgrade(environ, start_response, lambda ws: ws.close(4001, "bye"))


def on_ws_raise(environ, start_response):
    def handler(ws):
        raise RuntimeError("the handler fails on purpose")

    return upgrade(environ, start_response, handler)


def on_ws_timeout(environ, start_response):
    def handler(ws):
        try:
            ws.recv(timeout=0.1)
        except TimeoutError:
            ws.send("timeout")
        ws.send(ws.recv())

    return upgrade(environ, start_response, handler)


def on_ws_flood(environ, start_response):
    def handler(ws):
        try:
            for _ in range(100_000):
                ws.send("x" * 10_000)
        except QueueFull:
            events.append("queue full")
            balrog.sleep(0.05)
            assert ws.closed

    return upgrade(environ, start_response, handler)


def on_ws_slow(environ, start_response):
    """Takes its messages late."""

    def handler(ws):
        balrog.sleep(1)
        count = 0
        for message in ws:
            count += len(message)
            if message == "end":
                ws.send(str(count))

    return upgrade(environ, start_response, handler)


def on_ws_tasks(environ, start_response):
    """Others send while the handler waits, a thread among them."""

    def handler(ws):
        tasks = [balrog.spawn(ws.send, f"task {n}") for n in range(3)]
        for task in tasks:
            task.result()
        balrog.to_thread(ws.send, "thread")
        ws.recv()

    return upgrade(environ, start_response, handler)


def on_ws_protocol(environ, start_response):
    return upgrade(environ, start_response, lambda ws: ws.send(ws.subprotocol), subprotocol="second")


def on_ws_refuse(environ, start_response):
    assert "balrog.websocket" in environ
    return text(start_response, b"not you", "403 Forbidden")
