"""What the server's tests talk to."""

import contextvars
import io
import json
import os
import threading
from wsgiref.validate import validator

import balrog
from balrog.websocket import ConnectionClosed, QueueFull

seen = []
kept = []
variable = contextvars.ContextVar("variable", default=0)
local = balrog.local()
sockets = {}


def application(environ, start_response):
    return globals()["do_" + environ["PATH_INFO"].strip("/")](environ, start_response)


def answer(start_response, value, *headers):
    start_response("200 OK", [("Content-Type", "application/json"), *headers])
    return [json.dumps(value).encode()]


def do_seen(environ, start_response):
    result, seen[:] = list(seen), []
    return answer(start_response, result)


def do_environ(environ, start_response):
    return answer(start_response, {key: value for key, value in environ.items() if isinstance(value, str | bool)})


def do_body(environ, start_response):
    data = environ["wsgi.input"]
    return answer(start_response, [len(data.read()), environ.get("CONTENT_LENGTH")])


def do_lines(environ, start_response):
    data = environ["wsgi.input"]
    lines = [data.readline(), data.readline(3), *data.readlines(1), *data, data.read()]
    return answer(start_response, [line.decode() for line in lines])


def do_broken_body(environ, start_response):
    try:
        data = environ["wsgi.input"].read()
    except OSError as error:
        seen.append(type(error).__name__)
        raise
    seen.append(len(data))
    return answer(start_response, "complete")


def do_sleep(environ, start_response):
    seen.append("begun")
    balrog.sleep(float(environ["QUERY_STRING"]))
    return answer(start_response, "slept")


def do_isolated(environ, start_response):
    before = variable.get(), getattr(local, "value", 0)
    variable.set(1)
    local.value = 1
    task = balrog.current_task()
    balrog.at_task_end(lambda: seen.append(["ended", balrog.current_task() is task]))
    return answer(start_response, before)


def do_write(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"one ")
    write(b"two ")
    return [b"three"]


def do_keep(environ, start_response):
    """Keeps what belongs to this request, for do_abuse."""
    kept[:] = [start_response("200 OK", []), environ["wsgi.input"]]
    return [b"kept"]


def do_abuse(environ, start_response):
    """Uses what belongs to an earlier request of the same connection."""
    write, body = kept
    for use in (lambda: write(b"HTTP/1.1 200 OK\r\n\r\n"), body.read):
        try:
            use()
        except ValueError as error:
            seen.append(str(error))
    return answer(start_response, "abused")


def do_exc_info(environ, start_response):
    import sys

    start_response("200 OK", [("X-First", "yes")])
    try:
        raise ValueError("too late to be well")
    except ValueError:
        start_response("503 Service Unavailable", [("X-Second", "yes")], sys.exc_info())
    return [b"replaced"]


def do_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


def do_none(environ, start_response):
    return [b"no head"]


def do_text(environ, start_response):
    start_response("200 OK", [])
    return ["not bytes"]


def do_hop(environ, start_response):
    start_response("200 OK", [("Transfer-Encoding", "chunked")])
    return [b"x"]


def do_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"123", b"456"]


def do_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "30")])
    return [b"123"]


def do_exit(environ, start_response):
    raise SystemExit(3)


def do_file(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789" * 100_000), 8192)


def do_empty(environ, start_response):
    start_response("200 OK", [])
    return iter([])


@validator
def do_valid(environ, start_response):
    # Sizes are arguments of every call, which the validator insists on.
    data = b"".join(iter(lambda: environ["wsgi.input"].read(4), b""))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]


def open_socket(environ, start_response, handler, **options):
    environ["balrog.websocket"].accept(handler, **options)
    start_response("101 Switching Protocols", [("Set-Cookie", "opened=1")])
    return []


def do_ws_echo(environ, start_response):
    def handler(ws):
        for message in ws:
            ws.send(message)
        seen.append(["closed", ws.close_code, ws.close_reason])

    return open_socket(environ, start_response, handler)


def do_ws_protocol(environ, start_response):
    offer = environ["balrog.websocket"]
    chosen = "b" if "b" in offer.subprotocols else None
    return open_socket(environ, start_response, lambda ws: ws.send(str(ws.subprotocol)), subprotocol=chosen)


def do_ws_refuse(environ, start_response):
    start_response("403 Forbidden", [])
    return [b"not for you"]


def do_ws_boom(environ, start_response):
    def handler(ws):
        raise RuntimeError("on purpose")

    return open_socket(environ, start_response, handler)


def do_ws_name(environ, start_response):
    """Stays open under a name, so that others can send to it."""
    name = environ["QUERY_STRING"]

    def handler(ws):
        sockets[name] = ws
        ws.send("ready")
        try:
            for _ in ws:
                pass
        except ConnectionClosed as error:
            seen.append(["lost", error.code])
        else:
            seen.append(["left", ws.close_code])
        del sockets[name]

    return open_socket(environ, start_response, handler)


def do_ws_to(environ, start_response):
    name, _, text = environ["QUERY_STRING"].partition("=")
    sockets[name].send(text)
    return answer(start_response, "sent")


def do_ws_to_from_thread(environ, start_response):
    name, _, text = environ["QUERY_STRING"].partition("=")
    thread = threading.Thread(target=sockets[name].send, args=(text,))
    thread.start()
    balrog.to_thread(thread.join)
    return answer(start_response, "sent")


def do_ws_flood(environ, start_response):
    ws = sockets[environ["QUERY_STRING"]]
    sent = 0
    try:
        while sent < 1000:
            ws.send(b"x" * 100_000)
            sent += 1
    except QueueFull:
        return answer(start_response, ["full", sent])
    return answer(start_response, ["never full", sent])


def do_ws_late(environ, start_response):
    """Receives nothing for a while, then everything."""

    def handler(ws):
        assert ws.recv() == "begin"
        balrog.sleep(0.5)
        count = size = 0
        for message in ws:
            if message == "end":
                break
            assert message.startswith(f"{count} ")
            count, size = count + 1, size + len(message)
        ws.send(json.dumps([count, size]))

    return open_socket(environ, start_response, handler)


def do_ws_timeout(environ, start_response):
    def handler(ws):
        try:
            ws.recv(timeout=0.05)
        except TimeoutError:
            ws.send("timeout")
        ws.send(ws.recv(timeout=5))

    return open_socket(environ, start_response, handler)


def do_ws_work(environ, start_response):
    """Waits in every way that a WebSocket has, and does not mind what a shared lock is held for."""

    def handler(ws):
        sockets["work"] = balrog.current_task()
        while (message := ws.recv(timeout=30)) != "end":
            balrog.sleep(0.001)
            ws.send(message)
            ws.ping()

    return open_socket(environ, start_response, handler)


def do_ws_cancel(environ, start_response):
    """Cancels the task of do_ws_work in its wait of this number; says whether it came to that."""
    while (task := sockets.pop("work", None)) is None:
        balrog.sleep(0.001)
    while task.waits < int(environ["QUERY_STRING"]) and not task.done():
        balrog.sleep(0)
    reached = task.cancel()
    task.join()
    return answer(start_response, reached)


def do_held(environ, start_response):
    """What the server holds, in numbers."""
    counters = balrog.counters()
    descriptors = len(os.listdir("/proc/self/fd"))
    return answer(start_response, [len(balrog.tasks()), counters["live"], counters["parked"], descriptors])
