"""What the conformance cases talk to: an echo, and a few ways to answer."""

import json
import time

import balrog

events = []


def application(environ, start_response):
    path = environ["PATH_INFO"]
    answer = ANSWERS.get(path)
    if answer:
        return answer(environ, start_response)
    if path.startswith("/status/"):
        start_response(f"{path[8:]} Whatever", [("Content-Length", "0")])
        return []
    if "balrog.websocket" in environ and path == "/":
        return websocket(environ, start_response)
    return echo(environ, start_response)


def echo(environ, start_response):
    body = environ["wsgi.input"]
    if environ["QUERY_STRING"] == "read=small":
        data = b""
        while piece := body.read(3):
            data += piece
        assert body.read(1) == b""
    else:
        data = body.read()
    special = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
    headers = {key[5:].lower().replace("_", "-"): value for key, value in environ.items() if key.startswith("HTTP_")}
    headers.update({name: environ[key] for key, name in special.items() if key in environ})
    seen = {
        "method": environ["REQUEST_METHOD"],
        "path": path_of(environ),
        "query": environ["QUERY_STRING"],
        "h": headers,
        "body": data.decode("latin-1"),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]


def path_of(environ):
    return environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")


def websocket(environ, start_response):
    def handler(ws):
        for message in ws:
            ws.send(message)

    environ["balrog.websocket"].accept(handler)
    start_response("101 Switching Protocols", [])
    return []


def early413(environ, start_response):
    start_response("413 Content Too Large", [("Content-Type", "text/plain")])
    return [b"too large"]


def nocl(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([b"one", b"two", b"three"])


def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    for number in range(3):
        if number:
            balrog.sleep(0.5)
        yield b"piece%d\n" % number


def injectname(environ, start_response):
    start_response("200 OK", [("X-A: 1\r\nInjected", "yes")])
    return [b"x"]


def injectvalue(environ, start_response):
    start_response("200 OK", [("X-A", "1\r\nInjected: yes")])
    return [b"x"]


def injectstatus(environ, start_response):
    start_response("200 OK\r\nInjected: yes", [])
    return [b"x"]


def raisemid(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    raise RuntimeError("on purpose, in mid-response")


def raisemidcl(environ, start_response):
    start_response("200 OK", [("Content-Length", "100")])
    yield b"begun"
    raise RuntimeError("on purpose, in mid-response")


def multi(environ, start_response):
    start_response("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [b"x"]


def latin(environ, start_response):
    start_response("200 OK", [("X-Latin", "caf\u00e9")])
    return [b"x"]


class Closing:
    def __init__(self, pieces, pause):
        self.pieces, self.pause = iter(pieces), pause

    def __iter__(self):
        return self

    def __next__(self):
        balrog.sleep(self.pause)
        return next(self.pieces)

    def close(self):
        events.append("closed")


def closed(environ, start_response):
    start_response("200 OK", [])
    return Closing([b"one", b"two"], 0)


def closedlong(environ, start_response):
    start_response("200 OK", [])
    return Closing([b"x" * 1000] * 100, 0.05)


def big(environ, start_response):
    start_response("200 OK", [])
    return [b"x" * int(environ["QUERY_STRING"].removeprefix("n="))]


def log(environ, start_response):
    seen, events[:] = list(events), []
    start_response("200 OK", [])
    return [json.dumps(seen).encode()]


def slow(environ, start_response):
    balrog.sleep(1)
    start_response("200 OK", [])
    return [b"at last"]


def blocking(environ, start_response):
    time.sleep(0.2)
    start_response("200 OK", [])
    return [b"blocked"]


ANSWERS = {
    f"/{answer.__name__}": answer
    for answer in (
        early413, nocl, stream, injectname, injectvalue, injectstatus, raisemid, raisemidcl, multi, latin,
        closed, closedlong, big, log, slow, blocking,
    )
}  # fmt: skip
