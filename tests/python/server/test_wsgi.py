"""PEP 3333, and what a request gets of its own."""

import concurrent.futures
import email.utils
import time

import pytest
import requests
from support.wire import Wire

HEAD = "{} HTTP/1.1\r\nHost: a.example\r\n"


def ask(server, path: str, **arguments) -> requests.Response:
    return requests.request(arguments.pop("method", "GET"), f"{server.url}/{path}", timeout=10, **arguments)


def raw(server, data: str, within: float = 5):
    with Wire(server.host, server.port) as wire:
        wire.send(data.encode("latin-1"))
        return wire.response(within=within)


def test_environ(server):
    headers = {"X-Many": "a", "Content-Type": "text/x", "X_Forged": "1", "Accept-Language": "de"}
    got = ask(server, "environ?a=%20b&c", headers=headers).json()
    assert got["REQUEST_METHOD"] == "GET"
    assert got["SCRIPT_NAME"] == ""
    assert got["QUERY_STRING"] == "a=%20b&c"
    assert got["SERVER_NAME"] == "127.0.0.1"
    assert got["SERVER_PORT"] == str(server.port)
    assert got["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert got["REMOTE_ADDR"] == "127.0.0.1"
    assert got["CONTENT_TYPE"] == "text/x"
    assert got["HTTP_ACCEPT_LANGUAGE"] == "de"
    assert got["wsgi.url_scheme"] == "http"
    assert got["wsgi.multithread"] is False
    assert "HTTP_X_FORGED" not in got
    assert "HTTP_CONTENT_TYPE" not in got


def test_repeated_headers_are_joined(server):
    lines = "X-A: 1\r\nx-a: 2\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n"
    response = raw(server, HEAD.format("GET /environ") + lines)
    assert b'"HTTP_X_A": "1,2"' in response.body
    assert b'"HTTP_COOKIE": "a=1; b=2"' in response.body


def test_a_path_is_decoded_once_and_as_latin_1(server):
    with Wire(server.host, server.port) as wire:
        wire.send((HEAD.format("GET /%65nviron?%65") + "\r\n").encode())
        got = wire.response()
    assert got.status == 200
    assert b'"QUERY_STRING": "%65"' in got.body
    assert b'"REQUEST_URI": "/%65nviron?%65"' in got.body


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body(server, size, chunked):
    data = b"x" * size
    pieces = (data[at : at + 50_000] for at in range(0, size, 50_000))
    got = ask(server, "body", method="POST", data=pieces if chunked else data).json()
    assert got == [size, str(size)]


def test_lines(server):
    got = ask(server, "lines", method="POST", data=b"one\ntwolong\nthree\nfour\n\nlast").json()
    assert got == ["one\n", "two", "long\n", "three\n", "four\n", "\n", "last", ""]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("write", 200, "one two three"),
        ("exc_info", 503, "replaced"),
        ("empty", 200, ""),
        ("twice", 500, "Internal Server Error\n"),
        ("none", 500, "Internal Server Error\n"),
        ("text", 500, "Internal Server Error\n"),
        ("hop", 500, "Internal Server Error\n"),
        ("exit", 500, "Internal Server Error\n"),
        ("unknown_to_all", 500, "Internal Server Error\n"),
    ],
)
def test_answers(server, path, status, body):
    response = ask(server, path)
    assert (response.status_code, response.text) == (status, body)
    assert "X-First" not in response.headers
    assert ask(server, "body").status_code == 200


@pytest.mark.parametrize("path", ["long", "short"])
def test_a_body_that_is_not_its_content_length_is_never_complete(server, path):
    with Wire(server.host, server.port) as wire:
        wire.send((HEAD.format(f"GET /{path}") + "\r\n").encode())
        response = wire.response()
        assert wire.wait_end(3)
    assert response is None or not response.complete or response.body == b"123"
    assert not wire.buffer


def test_what_belongs_to_an_earlier_request_is_of_no_use(server):
    ask(server, "seen")
    with requests.Session() as session:
        assert session.post(f"{server.url}/keep", data=b"unread", timeout=5).text == "kept"
        assert session.get(f"{server.url}/abuse", timeout=5).json() == "abused"
    assert ask(server, "seen").json() == [
        "the request is over",
        "the request is over, and its body was not read in time",
    ]


def test_the_date_is_right(server):
    date = email.utils.parsedate_to_datetime(ask(server, "body").headers["Date"])
    assert abs(date.timestamp() - time.time()) < 3


def test_file_wrapper(server):
    assert ask(server, "file").content == b"0123456789" * 100_000


def test_the_validator_of_wsgiref_has_no_complaints(server):
    response = ask(server, "valid", method="POST", data=b"0123456789")
    assert response.text == "0123456789", server.errors
    assert ask(server, "valid").text == ""


def test_each_request_has_its_own_context_and_locals(server):
    ask(server, "seen")
    with requests.Session() as session:
        for _ in range(3):
            assert session.get(f"{server.url}/isolated", timeout=5).json() == [0, 0]
    assert ask(server, "seen").json() == [["ended", True]] * 3


def test_requests_wait_at_the_same_time(server):
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ask(server, "sleep?0.5").json(), range(50)))
    assert answers == ["slept"] * 50
    assert time.monotonic() - begun < 5
    assert ask(server, "seen").json() == ["begun"] * 50


def test_a_body_cut_short_is_an_error(server):
    ask(server, "seen")
    with Wire(server.host, server.port) as wire:
        wire.send((HEAD.format("POST /broken_body") + "Content-Length: 100\r\n\r\nhalf").encode())
        time.sleep(0.2)
        wire.shut()
        wire.wait_end(5)
        assert b" 200 " not in wire.buffer
    assert ask(server, "seen").json() == ["ConnectionAbortedError"]


def test_a_body_badly_chunked_never_reaches_the_application(server):
    ask(server, "seen")
    data = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZ\r\n"
    response = raw(server, HEAD.format("POST /broken_body") + data)
    assert response.status == 400
    assert response.closes
    assert ask(server, "seen").json() == []


def test_an_unread_body_does_not_become_the_next_request(server):
    inner = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"
    with Wire(server.host, server.port) as wire:
        wire.send((HEAD.format("POST /none") + f"Content-Length: {len(inner)}\r\n\r\n{inner}").encode())
        assert wire.response().status == 500
        wire.send((HEAD.format("GET /body") + "\r\n").encode())
        assert wire.response().body == b"[0, null]"


def test_half_a_head_is_timed_out(server):
    response = raw(server, "GET / HTTP/1.1\r\nHost: a", within=15)
    assert response.status == 408
    assert 9 < response.first_byte < 14


def test_a_client_that_goes_away_is_no_error_of_the_application(server):
    with Wire(server.host, server.port) as wire:
        wire.send((HEAD.format("GET /file") + "\r\n").encode())
        wire.reset()
    with Wire(server.host, server.port) as wire:
        wire.send((HEAD.format("POST /broken_body") + "Content-Length: 100\r\n\r\nhalf").encode())
        wire.reset()
    time.sleep(0.3)
    assert ask(server, "body").status_code == 200
    assert "/file" not in server.errors
    assert "ConnectionReset" not in server.errors
