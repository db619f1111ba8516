"""PEP 3333, the parts that the corpus of requests does not reach."""

import time

import pytest

from .conftest import request


def test_environ(client):
    seen = client.json("/environ?a=1&b=%20", "X-A: 1", "X-A: 2", "Cookie: a=1", "Cookie: b=2", "X_A: forged")
    values, types = seen["values"], seen["types"]
    assert values["REQUEST_METHOD"] == "GET"
    assert (values["SCRIPT_NAME"], values["PATH_INFO"], values["QUERY_STRING"]) == ("", "/environ", "a=1&b=%20")
    assert values["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert values["SERVER_NAME"] and values["SERVER_PORT"] == str(client.served.port)
    assert values["REMOTE_ADDR"] == "127.0.0.1"
    assert values["HTTP_HOST"] == "server.test"
    assert values["HTTP_X_A"] == "1,2"
    assert values["HTTP_COOKIE"] == "a=1; b=2"
    assert values["wsgi.url_scheme"] == "http"
    assert (values["wsgi.multithread"], values["wsgi.multiprocess"], values["wsgi.run_once"]) == (False, False, False)
    assert values["wsgi.input_terminated"] is True
    assert types["wsgi.version"] == "tuple"
    assert not {"CONTENT_LENGTH", "HTTP_CONTENT_LENGTH", "balrog.websocket"} & set(types)


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/write", 200, b"one two three"),
        ("/exc_info", 503, b"sorry"),
        ("/length", 200, b"exact!"),
        ("/empty", 200, b""),
        ("/file", 200, bytes(range(256)) * 1000),
    ],
)
def test_ways_to_answer(client, target, status, body):
    response = client.get(target)
    assert (response.status, response.body, response.complete) == (status, body, True)


def test_a_new_answer_replaces_the_first_one(client):
    headers = dict(client.get("/exc_info").headers)
    assert "x-second" in headers and "x-first" not in headers


@pytest.mark.parametrize("target", ["/raise", "/never", "/str", "/none", "/twice", "/hop"])
def test_an_application_that_fails_is_a_500_and_a_traceback(client, target):
    response = client.get(target)
    assert response.status == 500 and response.complete
    assert b"secret" not in response.body and b"Traceback" not in response.body
    client.served.wait_for_error(f"GET {target}")
    client.served.wait_for_error("Traceback")


@pytest.mark.parametrize("target", ["/exc_info_late", "/short", "/close_raising"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_broken_response_never_looks_complete(client, target, version):
    with client.wire() as wire:
        wire.send(request(target, version=version))
        response = wire.response()
        assert response is None or not response.complete
        assert wire.wait_end(3)


def test_no_more_than_the_announced_length_is_sent(client):
    with client.wire() as wire:
        wire.send(request("/long"))
        response = wire.response()
        # Either way: nothing behind it can be taken for another response.
        assert response is None or response.body in (b"hello", b"") or response.status == 500
        wire.wait_end(1)
        assert not wire.buffer


@pytest.mark.parametrize("character", range(0x20))
def test_control_characters_never_leave_in_a_header(client, character):
    value = f"a{chr(character)}b".encode().hex()
    response = client.get(f"/header?{b'X-A'.hex()}={value}")
    if response.status == 200:
        assert character not in (0, 10, 13)
    assert [name for name, _ in response.headers].count("x-a") <= 1


@pytest.mark.parametrize("name", ["", " ", "X A", "X:A", "X-\u00e9", "X\t"])
def test_names_of_headers_are_tokens(client, name):
    assert client.get(f"/header?{name.encode('latin-1').hex()}={b'1'.hex()}").status == 500


def test_head_has_the_length_and_no_body(client):
    with client.wire() as wire:
        wire.send(request("/hello", method="HEAD") + request("/hello"))
        head, get = wire.response(head=True), wire.response()
        assert head.get("content-length") == get.get("content-length") == "5"
        assert get.body == b"hello"


def test_every_response_has_a_date(client):
    assert (
        client.get("/hello")
        .get(
            "date",
        )
        .endswith(" GMT")
    )


def test_close_is_called_once(client):
    client.events()
    client.get("/close")
    client.get("/close_raising")
    assert client.events() == ["closed plain", "closed raising"]


def test_a_chunked_body_is_like_any_other(client):
    with client.wire() as wire:
        wire.send(request("/lines", "Transfer-Encoding: chunked", method="POST"))
        for piece in (b"4\r\na\nbc\r\n", b"3\r\ndef\r\n", b"0\r\n\r\n"):
            wire.send(piece)
            time.sleep(0.02)
        assert wire.response().body == b'["a\\n", "bcd", "ef"]'


def test_requests_are_tasks_of_their_own(client):
    client.events()
    with client.wire() as wire:
        for _ in range(3):
            wire.send(request("/task"))
            assert wire.response().body == b'{"task": true, "count": 1, "registered": true}'
    assert client.events() == ["task end"] * 3


def test_pipelined_requests_are_answered_in_order(client):
    with client.wire() as wire:
        wire.send(request("/sleep?0.2") + request("/hello") + request("/raise") + request("/hello"))
        answers = [wire.response() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 500, 200]
    assert [answer.body for answer in answers[:2]] == [b"slept", b"hello"]


def test_100_continue_comes_when_the_body_is_read(client):
    with client.wire() as wire:
        wire.send(request("/read", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert wire.interim() == 100
        wire.send(b"hello")
        assert wire.response().body == b'{"length": 5}'


def test_100_continue_does_not_come_if_it_is_not(client):
    with client.wire() as wire:
        wire.send(request("/unread", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        response = wire.response()
        assert (response.status, response.interim, response.closes) == (200, [], True)
        assert wire.wait_end(3)


def test_a_body_that_is_not_read_is_passed_over(client):
    with client.wire() as wire:
        wire.send(request("/unread", method="POST", body=b"GET /smuggled HTTP/1.1\r\n\r\n" * 10) + request("/hello"))
        assert wire.response().body == b"not read"
        assert wire.response().body == b"hello"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("body.read()", b"one\ntwo\nend"),
        ("body.read(-1)", b"one\ntwo\nend"),
        ("body.read(None)", b"one\ntwo\nend"),
        ("body.read(0)", b""),
        ("(body.read(4),body.read(100),body.read(1),body.read())", (b"one\n", b"two\nend", b"", b"")),
        ("(body.readline(),body.readline(2),body.readline())", (b"one\n", b"tw", b"o\n")),
        ("(body.readline(0),body.readline(-1),body.readline(None))", (b"", b"one\n", b"two\n")),
        ("body.readlines()", [b"one\n", b"two\n", b"end"]),
        ("body.readlines(1)", [b"one\n"]),
        ("body.readlines(5)", [b"one\n", b"two\n"]),
        ("body.readlines(0)", [b"one\n", b"two\n", b"end"]),
        ("list(body)", [b"one\n", b"two\n", b"end"]),
        ("(list(body),list(body),body.readline(),body.readlines())", ([b"one\n", b"two\n", b"end"], [], b"", [])),
        ("(next(body),body.read(1),next(body))", (b"one\n", b"t", b"wo\n")),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_input_is_a_file(client, expression, value, chunked):
    data = b"one\ntwo\nend"
    with client.wire() as wire:
        if chunked:
            wire.send(request(f"/input?{expression}", "Transfer-Encoding: chunked", method="POST"))
            wire.send(b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n")
        else:
            wire.send(request(f"/input?{expression}", method="POST", body=data))
        assert wire.response().body == repr(value).encode()


def test_there_is_an_input_without_a_body(client):
    assert client.get("/input?(body.read(),body.readline(),list(body))").body == b"(b'', b'', [])"


@pytest.mark.parametrize(
    "status",
    ["", "200\r\nX: 1", "OK", "20 OK", "2000 OK", "200OK", " 200 OK", "abc OK", "100 Continue", "101 No", "199 No",
     "099 x", "200 OK\n", "200 \0"],
)  # fmt: skip
def test_a_status_that_is_none_is_a_500(client, status):
    response = client.get(f"/statuses?{status.encode('latin-1').hex()}")
    assert (response.status, response.complete) == (500, True)


@pytest.mark.parametrize(("status", "code"), [("200 OK", 200), ("404", 404), ("299 What Ever", 299), ("503 ", 503)])
def test_a_status_that_is_one(client, status, code):
    assert client.get(f"/statuses?{status.encode().hex()}").status == code


@pytest.mark.parametrize(
    "shape",
    ["bytes-status", "bytes-name", "int-value", "list-header", "triple", "unicode", "length-text", "length-twice",
     "length-minus", "bytearray", "memoryview", "int", "one-str", "number"],
)  # fmt: skip
def test_what_the_pep_does_not_allow_is_a_500(client, shape):
    response = client.get(f"/shapes?{shape}")
    assert (response.status, response.complete) == (500, True)
    assert client.get("/hello").body == b"hello"


def test_the_head_may_come_with_the_first_piece(client):
    response = client.get("/late_start")
    assert (response.body, response.get("x-late")) == (b"late", "yes")


def test_a_status_without_a_body_has_none_whatever_the_application_gives(client):
    with client.wire() as wire:
        wire.send(request("/no_body") + request("/hello"))
        response = wire.response()
        assert (response.status, response.get("content-length"), response.get("transfer-encoding")) == (204, None, None)
        assert wire.response().body == b"hello"


def test_a_close_that_fails_is_logged_and_the_response_stands(client):
    client.events()
    response = client.get("/close_fails")
    assert response.body == b"ok"
    assert client.events() == ["close failed"]
    client.served.wait_for_error("in close, on purpose")


@pytest.mark.parametrize("size", [32 * 1024 - 1, 32 * 1024, 256 * 1024, 256 * 1024 + 1, 10_000_000])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_large_piece_arrives_whole(client, size, version):
    with client.wire(20) as wire:
        wire.send(request(f"/big?{size}", version=version))
        response = wire.response()
        assert response.complete and response.body == b"x" * size
