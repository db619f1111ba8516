"""What an adapter takes: retries, a bound on what goes on at once, limits, and what it keeps when it is pickled."""

import io
import pickle
import time

import balrog
import balrog.requests
import pytest
import requests
from support.client import keep_alive
from urllib3 import Retry


def session_with(**options):
    session = requests.Session()
    session.mount("http://", balrog.requests.Adapter(**options))
    return session


def flaky(server, bad, body=b"fine", failing=2):
    """Fails so many times by ``bad(peer)``, then answers with what it was sent."""
    seen = []

    def handler(peer):
        while head := peer.head():
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            seen.append(peer.take(int(length or 0)))
            if len(seen) <= failing:
                if bad(peer):
                    return
            else:
                peer.answer(body)

    return server(handler).url, seen


def busy(peer):
    peer.answer(b"busy", status="503 Busy")


def closing(peer):
    return True


def test_status(run, server):
    def body():
        url, seen = flaky(server, busy)
        retry = Retry(total=3, status_forcelist=[503], backoff_factor=0.01)
        response = session_with(max_retries=retry).get(url, timeout=5)
        assert (response.status_code, response.content, len(seen)) == (200, b"fine", 3)
        assert [entry.status for entry in response.raw.retries.history] == [503, 503]
        url, seen = flaky(server, busy, failing=9)
        with pytest.raises(requests.exceptions.RetryError):
            session_with(max_retries=retry).get(url, timeout=5)
        assert len(seen) == 4
        url, seen = flaky(server, busy, failing=9)
        lenient = Retry(total=1, status_forcelist=[503], raise_on_status=False)
        response = session_with(max_retries=lenient).get(url, timeout=5)
        assert (response.status_code, response.content, len(seen)) == (503, b"busy", 2)

    run(body)


def test_retry_after(run, server):
    def wait(peer):
        peer.answer(b"busy", "Retry-After: 1", status="429 Slow")

    def body():
        url, seen = flaky(server, wait, failing=1)
        begun = time.monotonic()
        assert session_with(max_retries=3).get(url, timeout=5).status_code == 200
        assert len(seen) == 2 and 0.9 < time.monotonic() - begun < 4

    run(body)


def test_waiting_to_try_again_lets_others_run(server):
    url, _ = flaky(server, lambda peer: peer.answer(b"", "Retry-After: 1", status="429 Slow"), failing=1)

    def body():
        turns = 0
        task = balrog.spawn(session_with(max_retries=3).get, url, timeout=5)
        while not task.done():
            balrog.sleep(0.01)
            turns += 1
        assert task.result().status_code == 200 and turns > 20

    balrog.run(body)


def test_broken_connection(run, server):
    def body():
        url, seen = flaky(server, closing)
        with pytest.raises(requests.exceptions.ConnectionError):
            session_with(max_retries=5).post(url, data="x", timeout=5)
        assert len(seen) == 1
        url, seen = flaky(server, closing)
        assert session_with(max_retries=Retry(5)).get(url, timeout=5).content == b"fine"
        assert len(seen) == 3
        url, seen = flaky(server, closing)
        retry = Retry(5, allowed_methods=["POST"])
        assert session_with(max_retries=retry).post(url, data=io.BytesIO(b"file"), timeout=5).content == b"fine"
        assert seen == [b"file"] * 3
        url, seen = flaky(server, closing)
        with pytest.raises(requests.exceptions.ConnectionError):
            # What an iterator gave is gone.
            session_with(max_retries=retry).post(url, data=iter([b"piece"]), timeout=5)
        assert len(seen) == 1

    run(body)


def test_nobody_there(run):
    def body():
        begun = time.monotonic()
        with pytest.raises(requests.exceptions.ConnectionError, match="127.0.0.1.*is the server running"):
            session_with(max_retries=Retry(3, backoff_factor=0.1)).get("http://127.0.0.1:1/", timeout=5)
        assert time.monotonic() - begun > 0.5

    run(body)


def test_block(server):
    going, most = [], []

    def respond(peer, head):
        going.append(peer)
        most.append(len(going))
        time.sleep(0.05)
        going.remove(peer)
        peer.answer(b"x" * 100_000)

    url = server(keep_alive(respond)).url

    def body():
        session = session_with(pool_block=True, pool_maxsize=3)
        tasks = [balrog.spawn(session.get, url, timeout=5) for _ in range(12)]
        assert all(len(task.result().content) == 100_000 for task in tasks)
        assert max(most) == 3
        # What is read, closed, dropped or failed gives its place back.
        for _ in range(4):
            session.get(url, stream=True, timeout=5).raw.read()
            session.get(url, stream=True, timeout=5).close()
            session.get(url, stream=True, timeout=5)
            with pytest.raises(requests.exceptions.ReadTimeout):
                session.get(url, timeout=(1, 0.001))
        kept = [session.get(url, stream=True, timeout=5) for _ in range(3)]
        with pytest.raises(TimeoutError), balrog.timeout(0.2):
            session.get(url, timeout=5)
        kept[0].close()
        assert session.get(url, timeout=5).status_code == 200

    balrog.run(body)


def test_pickle(run, server):
    url = server(keep_alive(lambda peer, head: peer.answer())).url

    def body():
        session = requests.Session()
        session.mount("http://", balrog.requests.Adapter(max_retries=3, pool_block=True, max_decoded=7))
        session.cookies["a"] = "1"
        assert session.get(url, timeout=5).content == b"ok"
        copy = pickle.loads(pickle.dumps(session))
        adapter = copy.get_adapter(url)
        assert isinstance(adapter, balrog.requests.Adapter)
        assert (adapter.max_retries.total, adapter._pool_block, adapter.max_decoded) == (3, True, 7)
        assert copy.get(url, timeout=5).request.headers["Cookie"] == "a=1"
        response = pickle.loads(pickle.dumps(copy.get(url, timeout=5)))
        assert (response.content, response.status_code) == (b"ok", 200)

    run(body)


def test_connection_authentication_stays_with_its_session(run, server):
    url = server(keep_alive(lambda peer, head: peer.answer(str(peer.number).encode()))).url

    def body():
        ask = {"Authorization": "NTLM TlRMTVNTUAAB"}
        one, two = requests.Session(), requests.Session()
        first = [one.get(url, headers=ask, timeout=5).content for _ in range(3)]
        assert len(set(first)) == 1
        others = {requests.get(url, timeout=5).content, two.get(url, headers=ask, timeout=5).content}
        assert len(others) == 2 and first[0] not in others

    run(body)


@pytest.mark.parametrize("timeout", ["soon", (1, 2, 3), 0, -1, (None, "x"), True])
def test_timeouts_that_are_none(run, server, timeout):
    url = server(keep_alive(lambda peer, head: peer.answer())).url

    def body():
        with pytest.raises(ValueError):
            requests.get(url, timeout=timeout)
        assert requests.get(url, timeout=(None, 5)).content == b"ok"

    run(body)
