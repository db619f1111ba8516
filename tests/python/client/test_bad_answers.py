"""The corpus of bad answers: only errors of requests come out, in bounded time and memory."""

import json
import time
from pathlib import Path

import pytest
import requests

CORPORA = Path(__file__).parent.parent.parent / "corpora"
#: The given corpus, and what stands beside each of its cases.
CASES = [
    case
    for name in ("http-client-bad-answers", "http-client-neighbours")
    for case in json.loads((CORPORA / f"{name}.json").read_text())
]
ENDLESS = {
    "status-line-endless": (b"HTTP/1.1 200 ", b"O" * 65536),
    "headers-endless": (b"HTTP/1.1 200 OK\r\n", b"X-Filler: filler\r\n" * 4096),
    "chunk-size-endless": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 65536),
    "chunk-trailers-endless": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"X-Filler: filler\r\n" * 4096,
    ),
}
#: What a client may take in before it gives up on something without end.
BOUND = 16 << 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case, run, server):
    sent = []

    def handler(peer):
        while peer.head():
            if peer.number > 1 or len(sent) > 0:
                peer.answer(b"second")
                continue
            sent.append(0)
            if case["data"] == "endless":
                first, more = ENDLESS[case["id"]]
                peer.send(first)
                while sent[0] < BOUND:
                    peer.send(more)
                    sent[0] += len(more)
                return
            peer.send(case["data"].encode("latin-1"))
            match case["end"]:
                case "close":
                    return
                case "rst":
                    peer.reset()
                    return
                case "hang":
                    time.sleep(case["timeout"] + 2)
                    return

    url = server(handler).url + "/x"

    def body():
        def ask():
            response = requests.request(
                case["method"], url, timeout=case["timeout"], allow_redirects=case["redirects"], stream=case["stream"]
            )
            return response.status_code, response.content

        begun = time.monotonic()
        try:
            status, content = ask()
        except requests.exceptions.RequestException:
            assert case["expect"] in ("raise", "either")
        else:
            assert case["expect"] in ("ok", "either"), (status, content)
            if case["expect"] == "ok":
                assert (status, content) == (case["status"], case["content"].encode("latin-1"))
        assert time.monotonic() - begun < case["timeout"] + 1
        if case["again"]:
            response = requests.get(url, timeout=3)
            assert (response.status_code, response.content) == (200, b"second")

    run(body)
    if case["data"] == "endless":
        assert sent[0] < BOUND
