"""The packages that stand in for servers in people's own tests keep working, and so do proxies."""

import pytest
import requests
import requests_mock
import responses
from support.client import keep_alive


def test_responses(run, server):
    url = server(keep_alive(lambda peer, head: peer.answer(b"real"))).url

    def body():
        with responses.RequestsMock() as mock:
            mock.get("http://kitchen.example/menu", json={"mins": 5})
            mock.add_passthru(url)
            assert requests.get("http://kitchen.example/menu").json() == {"mins": 5}
            with pytest.raises(requests.ConnectionError):
                requests.get("http://other.example/")
            assert requests.get(url, timeout=5).content == b"real"
        assert requests.get(url, timeout=5).content == b"real"

    run(body)


def test_requests_mock(run, server):
    url = server(keep_alive(lambda peer, head: peer.answer(b"real"))).url

    def body():
        with requests_mock.Mocker(real_http=True) as mock:
            mock.post("http://kitchen.example/", text="mocked", status_code=201)
            response = requests.post("http://kitchen.example/", data="x")
            assert (response.status_code, response.text) == (201, "mocked")
            assert requests.get(url, timeout=5).content == b"real"

    run(body)


def test_proxy(run, server, monkeypatch):
    seen = []
    proxy = server(keep_alive(lambda peer, head: (seen.append(head.split(b"\r\n")[0]), peer.answer(b"by proxy"))))

    def body():
        given = requests.get("http://kitchen.example/menu", proxies={"http": proxy.url}, timeout=5)
        monkeypatch.setenv("http_proxy", proxy.url)
        found = requests.get("http://kitchen.example/menu", timeout=5)
        assert given.content == found.content == b"by proxy"
        assert seen == [b"GET http://kitchen.example/menu HTTP/1.1"] * 2

    run(body)
