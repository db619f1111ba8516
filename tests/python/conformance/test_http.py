"""The corpus of HTTP requests, each against ``balrog serve``."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.serving import serving
from support.wire import Response, Wire

HERE = Path(__file__).parent
CORPORA = HERE.parent.parent / "corpora"
#: The given corpus, and what stands beside each of its cases.
CASES = [
    case
    for name in ("http-server", "http-server-neighbours")
    for case in json.loads((CORPORA / f"{name}.json").read_text())
]
#: They wait for a time-out, so all of them wait at once.
TIMED_OUT = [case for case in CASES if case["expect"] == "close"]
HOST = "Host: conf.test\r\n"
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: conf.test\r\n\r\n"
PROBE = b"GET /probe HTTP/1.1\r\nHost: conf.test\r\n\r\n"


def expand(text: str) -> bytes:
    text = text.replace("{{H}}", HOST).replace("{{SMUG}}", SMUGGLED)
    while found := re.search(r"\{\{rep:((?:(?!\{\{).)*?):(\d+)\}\}", text, re.DOTALL):
        text = text[: found.start()] + found[1] * int(found[2]) + text[found.end() :]
    return text.encode("latin-1")


@pytest.fixture(scope="module")
def server():
    with serving(HERE, "application") as served:
        yield served


def perform(wire: Wire, case: dict) -> tuple[list[Response], bool]:
    """Sends what the case sends; the responses read on the way, and whether more can be sent."""
    early, open_for_more = [], True
    for step, *arguments in case.get("steps") or [["send", case["send"]]]:
        match step:
            case "send":
                wire.send(expand(arguments[0]))
            case "drip":
                for byte in expand(arguments[0]):
                    wire.send(bytes([byte]))
                    if wire.more(time.monotonic() + arguments[1]) or wire.ended:
                        break
            case "pause":
                time.sleep(arguments[0])
            case "read":
                response = wire.response()
                assert response is not None
                early.append(response)
            case "interim":
                assert wire.interim() == arguments[0]
            case "shut":
                wire.shut()
                open_for_more = False
            case "rst":
                wire.reset()
                open_for_more = False
            case unknown:
                raise AssertionError(f"unknown step {unknown}")
    return early, open_for_more


def pieces(case: dict) -> list[list[bytes]]:
    data = expand(case["send"])
    if case["split"] == "bytes":
        return [[data[at : at + 1] for at in range(len(data))]]
    return [[data[:at], data[at:]] for at in range(1, len(data))]


def matches(seen: dict, wanted: dict) -> bool:
    for key, value in wanted.items():
        if key == "h":
            good = all(
                seen["h"].get(name) in (want if isinstance(want, list) else [want]) for name, want in value.items()
            )
        elif key == "absent":
            good = not any(name in seen["h"] for name in value)
        elif key == "body_len":
            good = len(seen["body"]) == value
        else:
            good = seen[key] in (value if isinstance(value, list) else [value])
        if not good:
            return False
    return True


def accepted(wire: Wire, case: dict, responses: list[Response], more: bool) -> None:
    wanted = case.get("see", [])
    heads = case.get("head", [])
    while len(responses) < max(len(wanted), case.get("n", 1)):
        response = wire.response(head=len(responses) in heads)
        assert response is not None, f"response {len(responses)} is missing ({wire.ended})"
        responses.append(response)
    for response in responses:
        assert response.status == 200
        assert response.complete
    for index, (response, want) in enumerate(zip(responses, wanted, strict=False)):
        if index not in heads:
            assert matches(json.loads(response.body), want), (response.body, want)
    if responses[0].status == 200 and "interim" in case and case["interim"] == 0:
        assert not responses[0].interim
    if case.get("end") == "close":
        assert wire.wait_end(3)
        assert not wire.buffer
    elif more and not responses[-1].closes:
        wire.send(PROBE)
        probe = wire.response()
        assert probe is not None, "the connection is gone"
        assert json.loads(probe.body)["path"] == "/probe"
    elif case.get("end") == "open":
        assert more and not responses[-1].closes, "the connection should have stayed open"


def refused(wire: Wire, case: dict, response: Response | None) -> None:
    if response is None:
        assert case.get("soft_hang") or wire.wait_end(12), "neither an answer nor an end"
        return
    assert 400 <= response.status < 500 or response.status in case.get("status", []), response
    if "want" in case:
        assert response.status == case["want"]
    # Whatever cannot be read for sure ends the connection.
    assert response.closes or not case.get("close")
    if response.closes:
        assert wire.wait_end(4)
        assert not wire.buffer, "something behind a refused request was answered"


def check(server, case: dict, split: list[bytes] | None = None) -> None:
    with Wire(server.host, server.port) as wire:
        if split is None:
            responses, more = perform(wire, case)
        else:
            responses, more = [], True
            for piece in split:
                wire.send(piece)
                time.sleep(0.001)
        match case["expect"]:
            case "accept":
                accepted(wire, case, responses, more)
            case "either":
                response = wire.response(within=1 if case.get("soft_hang") else None)
                if response is not None and response.status < 300:
                    accepted(wire, case, [response], more)
                else:
                    refused(wire, case, response)
            case "reject":
                refused(wire, case, wire.response(within=12 if not case.get("soft_hang") else 1))
            case "abort":
                response = wire.response()
                assert response is None or response.status >= 300
                assert wire.wait_end(5)
            case "status":
                statuses(wire, case)
            case "incomplete":
                response = wire.response()
                assert response is None or not response.complete
                assert wire.wait_end(3)
            case "noinject":
                response = wire.response()
                assert response is not None
                assert response.get("injected") is None
                assert response.status == 500
            case "close":
                assert wire.wait_end(case["within"])
            case "alive":
                pass
            case other:
                raise AssertionError(f"unknown expectation {other}")
    if case["expect"] == "alive" or "log" in case:
        alive(server, case.get("log"))


def statuses(wire: Wire, case: dict) -> None:
    heads = case.get("head", [])
    for index, status in enumerate(case["status"]):
        response = wire.response(head=index in heads, within=case.get("within"))
        assert response is not None
        assert response.status == status
        assert response.complete
        if index in case.get("noframing", []):
            assert response.get("content-length") is None
            assert response.get("transfer-encoding") is None
        for name, value in case.get("has", []):
            assert (name, value) in response.headers
        if "text" in case:
            assert response.body.decode() == case["text"]
        if "framed" in case:
            assert response.framing in case["framed"].split("|")
        if "first_byte_before" in case:
            assert response.first_byte < case["first_byte_before"]
    if case.get("end") == "close":
        assert wire.wait_end(3)


def alive(server, event: str | None) -> None:
    until = time.monotonic() + 5
    while True:
        with Wire(server.host, server.port) as wire:
            wire.send(b"GET /log HTTP/1.1\r\nHost: conf.test\r\n\r\n")
            response = wire.response()
            assert response is not None and response.status == 200
            if event is None or event in json.loads(response.body):
                return
        assert time.monotonic() < until, f"the application never saw {event!r}"
        time.sleep(0.1)


def crowd(server, case: dict) -> None:
    """Peers that take no part must keep nobody out."""
    wires = [Wire(server.host, server.port) for _ in range(case["crowd"])]
    try:
        for wire in wires:
            wire.send(expand(case["send"]))
        begun = time.monotonic()
        for _ in range(10):
            check(server, {"send": "GET /a HTTP/1.1\r\n{{H}}\r\n", "expect": "accept", "see": [{"path": "/a"}]})
        assert time.monotonic() - begun < 5
    finally:
        for wire in wires:
            wire.reset()


def test_peers_that_stall_are_closed_in_time(server):
    with ThreadPoolExecutor(len(TIMED_OUT)) as pool:
        outcomes = {case["id"]: pool.submit(check, server, case) for case in TIMED_OUT}
    failed = {name: error for name, outcome in outcomes.items() if (error := outcome.exception())}
    assert not failed


QUICK = [case for case in CASES if case not in TIMED_OUT]


@pytest.mark.parametrize("case", QUICK, ids=[case["id"] for case in QUICK])
def test_case(server, case):
    if case["expect"] == "served":
        return crowd(server, case)
    if "split" in case:
        for split in pieces(case):
            check(server, case, split)
        return None
    for _ in range(case.get("repeat", 1)):
        check(server, case)
    return None
