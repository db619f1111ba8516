"""Proxies: forwarding, tunnels, the environment, and what goes wrong with them."""

import contextlib
import socket
import ssl
import threading
import time

import balrog
import pytest
import requests
import trustme
from support.client import keep_alive

NONE = {"http": None, "https": None}


@pytest.fixture
def secure(server, tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    verify = str(tmp_path / "authority.pem")
    authority.cert_pem.write_to_path(verify)
    found = server(
        keep_alive(lambda peer, head: peer.answer(str(peer.number).encode(), "X-Head: " + head.hex())), context=context
    )
    found.verify = verify
    return found


def pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def tunnel(server):
    """A proxy for CONNECT; ``heads`` are what it was asked."""

    def handler(peer):
        head = peer.head()
        found.heads.append(head)
        host, _, port = head.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as target:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=pump, args=(peer.socket, target), daemon=True).start()
            pump(target, peer.socket)

    found = server(handler)
    return found


def test_tunnel(run, secure, tunnel):
    def body():
        proxies = {"https": tunnel.url.replace("//", "//user:pass@")}
        session = requests.Session()
        answers = [session.get(secure.url, proxies=proxies, verify=secure.verify, timeout=5) for _ in range(3)]
        assert [answer.content for answer in answers] == [b"1"] * 3
        assert len(tunnel.heads) == 1
        head = tunnel.heads[0]
        assert head.startswith(f"CONNECT localhost:{secure.port} HTTP/1.1\r\n".encode())
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in head
        # The server behind it is told nothing of that.
        assert b"proxy-auth" not in bytes.fromhex(answers[0].headers["X-Head"]).lower()
        # Nor does a direct request go through the tunnel, or one to another proxy.
        assert session.get(secure.url, verify=secure.verify, timeout=5).content == b"2"
        with pytest.raises(requests.exceptions.ProxyError):
            session.get(secure.url, proxies={"https": "http://127.0.0.1:1"}, verify=secure.verify, timeout=5)
        # The certificate is the server's own, whoever carries the bytes.
        with pytest.raises(requests.exceptions.SSLError):
            session.get(secure.url, proxies=proxies, timeout=5)

    run(body)


def test_environment(run, server, monkeypatch):
    proxy = server(keep_alive(lambda peer, head: peer.answer(b"by proxy: " + head.split(b"\r\n")[0])))
    direct = server(keep_alive(lambda peer, head: peer.answer(b"direct")))

    def body():
        monkeypatch.setenv("http_proxy", proxy.url)
        asked = requests.get("http://kitchen.example/menu?a=1", timeout=5)
        assert asked.content == b"by proxy: GET http://kitchen.example/menu?a=1 HTTP/1.1"
        monkeypatch.setenv("no_proxy", "127.0.0.1,kitchen.example")
        assert requests.get(direct.url, timeout=5).content == b"direct"
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get("http://kitchen.example/", timeout=5)
        monkeypatch.delenv("no_proxy")
        session = requests.Session()
        session.trust_env = False
        assert session.get(direct.url, timeout=5).content == b"direct"
        monkeypatch.delenv("http_proxy")
        monkeypatch.setenv("all_proxy", proxy.url.removeprefix("http://"))
        assert requests.get(direct.url, timeout=5).content.startswith(b"by proxy")

    run(body)


def test_redirect_drops_the_proxy_password_for_others(run, server):
    seen = []

    def respond(peer, head):
        seen.append(head)
        if b"/first" in head.split()[1]:
            peer.answer(b"", "Location: http://other.example/second", status="302 Found")
        else:
            peer.answer(b"end")

    proxy = server(keep_alive(respond)).url.replace("//", "//user:pass@")

    def body():
        options = {"proxies": {"http": proxy}, "auth": ("me", "secret"), "timeout": 5}
        assert requests.get("http://one.example/first", **options).content == b"end"
        first, second = seen
        assert b"\r\nAuthorization: Basic" in first and b"Proxy-Authorization" in first
        assert b"\r\nAuthorization: Basic" not in second and b"Proxy-Authorization" in second

    run(body)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"SSH-2.0-x\r\n",
        b"",
    ],
)
def test_no_tunnel(run, server, secure, answer):
    url = server(lambda peer: peer.head() and peer.send(answer)).url

    def body():
        with pytest.raises(requests.exceptions.ProxyError):
            requests.get(secure.url, proxies={"https": url}, verify=secure.verify, timeout=5)
        assert requests.get(secure.url, verify=secure.verify, timeout=5).status_code == 200

    run(body)


def test_silent_proxy(run, server):
    url = server(lambda peer: peer.head() and peer.socket.recv(1)).url

    def body():
        begun = time.monotonic()
        with pytest.raises((requests.exceptions.ProxyError, requests.exceptions.Timeout)):
            requests.get("https://kitchen.example/", proxies={"https": url}, timeout=(0.3, 5))
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.get("http://kitchen.example/", proxies={"http": url}, timeout=(5, 0.3))
        assert time.monotonic() - begun < 3

    run(body)


@pytest.mark.parametrize("proxy", ["http://", "http:///x", "http://[::1", "http://a:99999", "http://:80"])
def test_malformed_proxy(run, proxy):
    def body():
        with pytest.raises(requests.exceptions.RequestException) as raised:
            requests.get("http://127.0.0.1:1/", proxies={"http": proxy}, timeout=5)
        assert isinstance(raised.value, requests.exceptions.InvalidProxyURL | requests.exceptions.InvalidURL)

    run(body)


def test_many_tunnels_at_once(secure, tunnel):
    def body():
        session = requests.Session()
        options = {"proxies": {"https": tunnel.url}, "verify": secure.verify, "timeout": 10}
        tasks = [balrog.spawn(session.get, secure.url, **options) for _ in range(20)]
        assert {task.result().status_code for task in tasks} == {200}

    balrog.run(body)
