"""The corpus of WebSocket handshakes, and of frames that come right behind them."""

import json
import time
from pathlib import Path

import pytest
from support.serving import serving
from support.wire import Wire

HERE = Path(__file__).parent
#: The given corpus, and what stands beside each of its cases.
CASES = [
    case
    for name in ("ws-handshake", "ws-handshake-neighbours")
    for case in json.loads((HERE.parent.parent / "corpora" / f"{name}.json").read_text())
]
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.fixture(scope="module")
def server():
    with serving(HERE, "application") as served:
        yield served


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case(server, case):
    with Wire(server.host, server.port) as wire:
        frames = bytes.fromhex(case["after_the_handshake"])
        wire.send(case["head"].encode("latin-1") + frames)
        response = wire.response()
        opened = response is not None and response.status == 101
        match case["expect"]:
            case "open":
                assert opened
                assert response.get("sec-websocket-accept") == ACCEPT
                # Nothing that the server does not speak is agreed on, nor what was not offered.
                extensions = response.get("sec-websocket-extensions")
                offered = "permessage-deflate" in case["head"]
                assert extensions is None or (offered and extensions.startswith("permessage-deflate;"))
                if frames:
                    assert read(wire, b"Hello" if b"\x75\x24\x14" in frames else b"")
            case "refuse":
                assert not opened
            case "fail":
                assert opened
                assert wire.wait_end(3)
                # At most the answer to a close; never a message.
                assert not wire.buffer or wire.buffer[0] == 0x88, wire.buffer
            case "open-or-refuse":
                assert opened or (response is not None and response.status == 400)
            case other:
                raise AssertionError(f"unknown expectation {other}")


def read(wire: Wire, wanted: bytes) -> bool:
    until = time.monotonic() + 5
    while wanted not in wire.buffer:
        if not wire.more(until):
            return False
    return True
