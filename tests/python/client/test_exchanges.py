"""What requests promises, kept on balrog's client."""

import contextlib
import gzip
import io
import json
import time
import zlib

import balrog
import balrog.requests
import pytest
import requests
from support.client import keep_alive


@pytest.fixture
def echo(server):
    """Answers with what was asked, as JSON."""

    def respond(peer, head):
        lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        lowered = {name.lower(): value for name, value in fields.items()}
        if lowered.get("transfer-encoding") == "chunked":
            chunks = peer.chunks()
            body = b"".join(chunks)
        else:
            chunks = None
            body = peer.take(int(lowered.get("content-length", 0)))
        found = {"line": lines[0], "fields": lowered, "body": body.decode("latin-1"), "chunks": chunks and len(chunks)}
        peer.answer(json.dumps(found).encode(), "Content-Type: application/json", f"X-Connection: {peer.number}")

    return server(keep_alive(respond))


def test_connection_is_reused_across_calls(run, echo):
    def body():
        numbers = [requests.post(echo.url, data={"a": "1"}, timeout=5).headers["x-connection"] for _ in range(5)]
        assert numbers == ["1"] * 5

    run(body)


def test_forms_files_json_and_parameters(run, echo):
    def body():
        form = requests.post(echo.url + "/p?x=1", params={"y": "ü"}, data={"a": "1 2"}, timeout=5).json()
        assert form["line"] == "POST /p?x=1&y=%C3%BC HTTP/1.1"
        assert (form["body"], form["fields"]["content-length"]) == ("a=1+2", "5")
        files = requests.post(echo.url, files={"f": ("n.txt", b"content")}, timeout=5).json()
        assert 'filename="n.txt"' in files["body"] and "content" in files["body"]
        assert requests.put(echo.url, json=[1], timeout=5).json()["body"] == "[1]"
        empty = requests.post(echo.url, timeout=5).json()
        assert empty["fields"]["content-length"] == "0"
        assert "content-length" not in requests.get(echo.url, timeout=5).json()["fields"]

    run(body)


def test_uploads_stream(run, echo):
    def body():
        pieces = requests.post(echo.url, data=iter([b"one", b"", b"two"]), timeout=5).json()
        assert (pieces["body"], pieces["chunks"]) == ("onetwo", 2)
        file = requests.post(echo.url, data=io.BytesIO(b"x" * 200_000), timeout=5).json()
        assert (len(file["body"]), file["fields"]["content-length"]) == (200_000, "200000")

    run(body)


def test_text_file_upload_ends(run, echo, tmp_path):
    (tmp_path / "text").write_text("grüße", encoding="utf-8")

    def body():
        with open(tmp_path / "text", encoding="utf-8") as file:
            assert requests.post(echo.url, data=file, timeout=5).json()["body"].encode("latin-1").decode() == "grüße"

    run(body)


def test_failing_upload_does_not_poison_the_pool(run, echo):
    def broken():
        yield b"part"
        raise KeyError("mine")

    def body():
        with pytest.raises(KeyError):
            requests.post(echo.url, data=broken(), timeout=5)
        assert requests.get(echo.url, timeout=5).json()["line"] == "GET / HTTP/1.1"

    run(body)


def test_refused_upload_shows_the_answer(run, server):
    def handler(peer):
        peer.head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch")
        peer.take(100_000)

    url = server(handler).url

    def endless():
        until = time.monotonic() + 8
        while time.monotonic() < until:
            yield b"x" * 16384

    def body():
        begun = time.monotonic()
        # A reset may overtake the answer.
        with contextlib.suppress(requests.ConnectionError):
            assert requests.post(url, data=endless(), timeout=5).status_code == 413
        assert time.monotonic() - begun < 6

    run(body)


def test_streamed_response(run, server):
    def respond(peer, head):
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for line in (b"one\n", b"two\n"):
            peer.send(b"4\r\n" + line + b"\r\n")
            time.sleep(0.2)
        peer.send(b"0\r\n\r\n")

    url = server(keep_alive(respond)).url

    def body():
        begun = time.monotonic()
        with requests.get(url, stream=True, timeout=5) as response:
            assert time.monotonic() - begun < 0.15
            lines = response.iter_lines()
            assert next(lines) == b"one" and list(lines) == [b"two"]
        raw = requests.get(url, stream=True, timeout=5).raw
        assert (raw.read(2), raw.read(3), raw.read(), raw.read()) == (b"on", b"e\nt", b"wo\n", b"")
        text = io.TextIOWrapper(io.BufferedReader(requests.get(url, stream=True, timeout=5).raw))
        assert text.readlines() == ["one\n", "two\n"]

    run(body)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw-deflate", "members", "gzip, deflate"])
def test_codings(coding, run, server):
    text = b"hello " * 1000
    raw = zlib.compressobj(wbits=-15)
    coded = {
        "gzip": lambda: gzip.compress(text),
        "deflate": lambda: zlib.compress(text),
        "raw-deflate": lambda: raw.compress(text) + raw.flush(),
        "members": lambda: gzip.compress(text[:600]) + gzip.compress(text[600:]) + b"\0\0",
        "gzip, deflate": lambda: zlib.compress(gzip.compress(text)),
    }[coding]()
    name = {"raw-deflate": "deflate", "members": "gzip"}.get(coding, coding)

    def respond(peer, head):
        peer.send(f"HTTP/1.1 200 OK\r\nContent-Encoding: {name}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for byte in coded:
            peer.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        peer.send(b"0\r\n\r\n")

    url = server(keep_alive(respond)).url

    def body():
        assert requests.get(url, timeout=5).content == text
        assert requests.get(url, stream=True, timeout=5).raw.read() == coded

    run(body)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_cut_coding_is_an_error_and_stays_one(name, run, server):
    coded = (gzip.compress if name == "gzip" else zlib.compress)(b"hello " * 1000)[:-3]
    url = server(keep_alive(lambda peer, head: peer.answer(coded, f"Content-Encoding: {name}"))).url

    def body():
        response = requests.get(url, stream=True, timeout=5)
        for _ in range(2):
            with pytest.raises(requests.exceptions.ContentDecodingError):
                response.raw.read(decode_content=True)

    run(body)


def test_bomb(run, server):
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([z.compress(bytes(1 << 20)) for _ in range(150)] + [z.flush()])
    url = server(keep_alive(lambda peer, head: peer.answer(bomb, "Content-Encoding: gzip"))).url

    def body():
        with pytest.raises(requests.exceptions.ContentDecodingError):
            requests.get(url, timeout=20)

    run(body)


def test_cut_body_is_an_error_and_stays_one(run, server):
    url = server(lambda peer: peer.head() and peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour")).url

    def body():
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.get(url, timeout=5)
        response = requests.get(url, stream=True, timeout=5)
        for _ in range(2):
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                response.raw.read()

    run(body)


def test_redirects_cookies_and_history(run, server):
    def respond(peer, head):
        path = head.split()[1].decode()
        if path == "/in":
            peer.answer(b"", "Location: /home", "Set-Cookie: s=1; Path=/", "Set-Cookie: t=2", status="302 Found")
        elif path == "/loop":
            peer.answer(b"", "Location: /loop", status="302 Found")
        else:
            peer.answer(head.split(b"Cookie: ")[-1].split(b"\r\n")[0])

    url = server(keep_alive(respond)).url

    def body():
        session = requests.Session()
        response = session.post(url + "/in", data="x", timeout=5)
        assert response.content == b"s=1; t=2"
        assert [past.status_code for past in response.history] == [302]
        assert session.cookies.get_dict() == {"s": "1", "t": "2"}
        assert response.elapsed.total_seconds() > 0
        assert requests.get(url + "/in", allow_redirects=False, timeout=5).status_code == 302
        with pytest.raises(requests.TooManyRedirects):
            requests.get(url + "/loop", timeout=5)

    run(body)


def test_authorization(run, server):
    def respond(peer, head):
        if b"Authorization: Digest" in head and b'uri="/d"' in head:
            peer.answer(b"digest")
        elif b"Authorization: Basic dTpw" in head:
            peer.answer(b"basic")
        else:
            challenge = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'
            peer.answer(b"no", challenge, status="401 Unauthorized")

    url = server(keep_alive(respond)).url

    def body():
        assert requests.get(url, auth=("u", "p"), timeout=5).content == b"basic"
        digest = requests.get(url + "/d", auth=requests.auth.HTTPDigestAuth("u", "p"), timeout=5)
        assert digest.content == b"digest"

    run(body)


def test_hooks_and_raw(run, server):
    url = server(keep_alive(lambda peer, head: peer.answer(b"ok", "X-A: 1", "X-A: 2"))).url

    def body():
        seen = []
        hooks = {"response": lambda response, **_: seen.append(response.status_code)}
        response = requests.get(url, hooks=hooks, timeout=5)
        assert seen == [200]
        assert response.headers["X-A"] == "1, 2" and response.raw.headers.getlist("x-a") == ["1", "2"]
        assert (response.raw.version, response.raw.status, response.reason) == (11, 200, "OK")

    run(body)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://", requests.exceptions.InvalidURL),
        ("http://a:99999/", requests.exceptions.InvalidURL),
        ("http://127.0.0.1:1/", requests.exceptions.ConnectionError),
        ("http://no-such-host.invalid/", requests.exceptions.ConnectionError),
        ("gopher://a/", requests.exceptions.InvalidSchema),
    ],
)
def test_urls_that_lead_nowhere(url, kind, run):
    def body():
        with pytest.raises(kind):
            requests.get(url, timeout=5)

    run(body)


def test_header_injection(run, echo):
    def body():
        with pytest.raises(requests.exceptions.InvalidHeader):
            requests.get(echo.url, headers={"X-A": "1\r\nX-B: 2"}, timeout=5)
        prepared = requests.Request("GET", echo.url).prepare()
        prepared.headers["X-A"] = "1\r\nX-B: 2"
        with pytest.raises(requests.exceptions.InvalidHeader):
            requests.Session().send(prepared, timeout=5)

    run(body)


def test_install_is_reversible():
    before = requests.Session().get_adapter("http://a")
    assert isinstance(before, balrog.requests.Adapter)
    balrog.requests.install()
    balrog.requests.uninstall()
    after = requests.Session()
    assert type(after.get_adapter("https://a")) is requests.adapters.HTTPAdapter
    after.mount("http://", balrog.requests.Adapter())
    assert isinstance(after.get_adapter("http://a"), balrog.requests.Adapter)


def test_tasks_wait_at_the_same_time(server):
    url = server(keep_alive(lambda peer, head: (time.sleep(0.3), peer.answer()))).url

    def body():
        begun = time.monotonic()
        tasks = [balrog.spawn(requests.get, url, timeout=5) for _ in range(30)]
        assert all(task.result().content == b"ok" for task in tasks)
        assert time.monotonic() - begun < 2

    balrog.run(body)
