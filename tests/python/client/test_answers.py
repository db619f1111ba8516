"""``support/answers.py``: each answer means what it should, in time, and never reaches the next request."""

import time

import pytest
import requests
from support import answers


@pytest.mark.parametrize("case", answers.CASES, ids=lambda case: case.id)
def test_answer(case, run, server):
    asked = []

    def send(peer):
        if not case.slow:
            return peer.send(case.data)
        for byte in case.data:
            peer.send(bytes([byte]))
            time.sleep(case.slow)
        return None

    def handler(peer):
        while head := peer.head():
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            peer.take(int(length or 0))
            asked.append(head)
            if len(asked) > 1:
                peer.answer(b"second")
                continue
            send(peer)
            match case.end:
                case "close":
                    return
                case "rst":
                    peer.reset()
                    return
                case "hang":
                    peer.socket.recv(1)
                    return

    url = server(handler).url + "/x"

    def body():
        begun = time.monotonic()
        try:
            response = requests.request(case.method, url, data=case.body, timeout=case.timeout)
            found = response.status_code, response.content
        except requests.exceptions.RequestException:
            assert case.expect in ("raise", "either")
        else:
            assert case.expect in ("ok", "either"), found
            if case.content is not None:
                assert found == (case.status, case.content)
            else:
                assert b"evil" not in found[1]
        took = time.monotonic() - begun - case.slow * len(case.data)
        assert took < case.timeout + 1
        # Whatever came: another request gets its own response.
        asked.append(b"")
        response = requests.get(url, timeout=5)
        assert (response.status_code, response.content) == (200, b"second")

    run(body)
