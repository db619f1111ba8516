#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets: the conformance cases as bytes, and well-formed traffic.

Safe to run again: a seed is named after its case, and what a fuzzer has found is left alone.
"""

import base64
import hashlib
import hmac
import json
import random
import re
import struct
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPORA = HERE.parent / "tests" / "corpora"
HOST = "Host: conf.test\r\n"
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: conf.test\r\n\r\n"
# Enough to pass every limit of a line, little enough for a fuzzer.
LONGEST = 9_000
MASK = b"\x12\x34\x56\x78"


def expand(text: str) -> bytes:
    text = text.replace("{{H}}", HOST).replace("{{SMUG}}", SMUGGLED)
    while found := re.search(r"\{\{rep:((?:(?!\{\{).)*?):(\d+)\}\}", text, re.DOTALL):
        times = min(int(found[2]), LONGEST // len(found[1]) + 1)
        text = text[: found.start()] + found[1] * times + text[found.end() :]
    return text.encode("latin-1")


def frame(first: int, payload: bytes, masked: bool = True) -> bytes:
    length = len(payload)
    flag = 0x80 if masked else 0
    if length < 126:
        head = bytes([first, flag | length])
    elif length < 1 << 16:
        head = bytes([first, flag | 126]) + struct.pack(">H", length)
    else:
        head = bytes([first, flag | 127]) + struct.pack(">Q", length)
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


def write(corpus: str, name: str, data: bytes) -> None:
    directory = HERE / "corpus" / corpus
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


def http() -> None:
    for case in json.loads((CORPORA / "http-server.json").read_text()):
        if "send" in case:
            data = expand(case["send"])
        else:
            data = b"".join(expand(step[1]) for step in case.get("steps", []) if step[0] in ("send", "drip"))
        if data:
            write("h1_server", case["id"], data)
    for case in json.loads((CORPORA / "http-client-bad-answers.json").read_text()):
        if case["data"]:
            write("h1_client", case["id"], case["data"].encode("latin-1")[: 2 * LONGEST])
    for number, case in enumerate(json.loads((CORPORA / "llhttp.json").read_text())["cases"]):
        corpus = "h1_server" if case["id"].startswith("request") else "h1_client"
        write(corpus, f"llhttp-{number}", case["input"].encode("latin-1"))
    # Each length of target stands for another application; see `ServerSide` of the tests.
    for number, target in enumerate(["/", "/a", "/aa", "/aaa"]):
        get = f"GET {target} HTTP/1.1\r\nHost: a\r\n"
        post = get.replace("GET", "POST")
        chunks = 'Transfer-Encoding: chunked\r\n\r\n3;a="b"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n'
        traffic = [
            f"{get}\r\n{get}\r\n",
            f"{post}Content-Length: 3\r\n\r\nabc{get}Connection: close\r\n\r\n{get}\r\n",
            f"{post}{chunks}{get}\r\n",
            f"{post}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab\r\n{get}\r\n",
            get.replace("GET", "HEAD").replace("1.1", "1.0") + "Connection: keep-alive\r\n\r\n",
        ]
        for kind, text in enumerate(traffic):
            write("h1_server", f"traffic-{number}-{kind}", text.encode())
    write("h1_server", "upgrade", f"GET / HTTP/1.1\r\n{HOST}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
    answers = {
        "length": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n2\r\nyz\r\n0\r\nT: u\r\n\r\n",
        "until-close": "HTTP/1.0 200 \r\nConnection: close\r\n\r\nall of it",
        "early-hints": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "not-modified": 'HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: "x"\r\n\r\n',
    }
    for name, text in answers.items():
        write("h1_client", name, text.encode())


def websocket() -> None:
    text = "κόσμε, \U0001f980".encode()
    streams = {
        "text": [(0x81, text)],
        "binary": [(0x82, bytes(range(256)))],
        "medium": [(0x82, b"x" * 300), (0x81, b"y" * 126)],
        "fragments": [(0x01, text[:3]), (0x00, text[3:9]), (0x89, b"ping"), (0x80, text[9:])],
        "empty-fragments": [(0x02, b""), (0x00, b""), (0x80, b"")],
        "control": [(0x89, b""), (0x8A, b"unasked"), (0x89, b"p" * 125)],
        "close": [(0x81, b"bye"), (0x88, b"\x03\xe8done")],
        "close-empty": [(0x88, b"")],
        "close-behind": [(0x88, b"\x03\xe9"), (0x81, b"late")],
        "close-bad-code": [(0x88, b"\x03\xed")],
        "close-half-code": [(0x88, b"\x03")],
        "close-bad-reason": [(0x88, b"\x03\xe8\xff")],
        "bad-utf8": [(0x81, b"a\xc3("), (0x81, b"late")],
        "cut-utf8": [(0x81, b"a\xf0\x9f")],
        "surrogate": [(0x01, b"\xed"), (0x80, b"\xa0\x80")],
        "nested": [(0x01, b"a"), (0x82, b"b")],
        "continuation-first": [(0x80, b"a")],
        "reserved-bit": [(0xC1, b"a"), (0xA1, b"b"), (0x91, b"c")],
        "reserved-opcode": [(0x83, b"")],
        "long-control": [(0x89, b"p" * 126)],
        "fragmented-control": [(0x09, b"p")],
    }
    for name, frames in streams.items():
        for corpus, masked in (("ws_server", True), ("ws_client", False)):
            write(corpus, name, b"".join(frame(first, payload, masked) for first, payload in frames))
    lengths = {
        "not-shortest-16": b"\xfe\x00\x05",
        "not-shortest-64": b"\xff" + struct.pack(">Q", 5),
        "top-bit": b"\xff" + struct.pack(">Q", 1 << 63),
        "huge": b"\xff" + struct.pack(">Q", 1 << 40),
    }
    for name, length in lengths.items():
        write("ws_server", name, b"\x82" + length + MASK + b"12345")
        write("ws_client", name, b"\x82" + bytes([length[0] & 0x7F]) + length[1:] + b"12345")
    write("ws_server", "unmasked", frame(0x81, b"a", masked=False))
    write("ws_client", "masked", frame(0x81, b"a"))
    for case in json.loads((CORPORA / "ws-handshake.json").read_text()):
        if case["after_the_handshake"]:
            write("ws_server", f"case-{case['id']}", bytes.fromhex(case["after_the_handshake"]))
        write("h1_server", f"ws-{case['id']}", expand(case["head"])[: 2 * LONGEST])


def compressed(messages: list[bytes], bits: int, takeover: bool) -> list[bytes]:
    found = []
    deflate = zlib.compressobj(6, zlib.DEFLATED, -bits)
    for message in messages:
        data = deflate.compress(message) + deflate.flush(zlib.Z_SYNC_FLUSH)
        found.append(data.removesuffix(b"\0\0\xff\xff"))
        if not takeover:
            deflate = zlib.compressobj(6, zlib.DEFLATED, -bits)
    return found


def deflate() -> None:
    """The first byte is the peer's choice of role and parameters; see `PeerSide` of the tests."""
    text = "κόσμε, κόσμε, 🦀 ".encode() * 9
    for choice in (0, 1, 2, 3, 0b0000_1100, 0b0011_0100, 0b1101_1001, 0b1010_1010, 0xFF):
        masked = choice & 1 == 0
        takeover = choice & (0b1000 if masked else 0b0100) == 0
        sizes = (15, 12, 9, 8) if masked else (8, 9, 12, 15)
        bits = max(sizes[choice >> 6 & 3] if masked else sizes[choice >> 4 & 3], 9)
        one, two, three = compressed([text, text, bytes(5_000)], bits, takeover)
        streams = {
            "text": [(0xC1, one), (0xC1, two)],
            "zeros": [(0xC1, one), (0xC1, two), (0xC2, three)],
            "fragments": [(0x41, one[:5]), (0x89, b"p"), (0x00, one[5:9]), (0x80, one[9:]), (0xC2, two)],
            "plain": [(0x81, b"plain"), (0xC1, one)],
            "empty": [(0xC1, b"\0"), (0xC1, b"\2\0"), (0xC2, b"")],
            "bad": [(0xC1, b"\xff\xff\xff\xff")],
            "not-text": [(0xC1, compressed([b"\xc3("], bits, True)[0])],
            "marked-continuation": [(0x41, one[:5]), (0xC0, one[5:])],
            "marked-control": [(0xC9, b"p")],
            "final-block": [(0xC2, zlib.compress(b"final", 9, -bits)), (0xC2, one)],
        }
        for name, frames in streams.items():
            data = b"".join(frame(first, payload, masked) for first, payload in frames)
            write("ws_deflate", f"{name}-{choice:02x}", bytes([choice]) + data)


def scram() -> bytes:
    """The server's part of an exchange whose client nonce is of the byte 7, as the tests' is."""
    nonce = base64.b64encode(bytes([7] * 18)).decode()
    salt, iterations = b"salt", 2
    first = f"r={nonce}server,s={base64.b64encode(salt).decode()},i={iterations}"
    bare = f"n=,r={nonce}"
    final = f"c=biws,r={nonce}server"
    salted = hashlib.pbkdf2_hmac("sha256", b"sesame", salt, iterations)
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    signature = hmac.digest(server_key, f"{bare},{first},{final}".encode(), "sha256")
    return (
        authentication(10, b"SCRAM-SHA-256\0\0")
        + authentication(11, first.encode())
        + authentication(12, b"v=" + base64.b64encode(signature))
    )


def message(tag: bytes, body: bytes = b"") -> bytes:
    return tag + struct.pack(">I", len(body) + 4) + body


def authentication(kind: int, rest: bytes = b"") -> bytes:
    return message(b"R", struct.pack(">I", kind) + rest)


def postgres() -> None:
    """The first byte is what the session's owner does; see `Session` of the tests."""
    welcome = (
        authentication(0)
        + message(b"S", b"server_version\x0015.6\0")
        + message(b"K", b"\0\0\0\1abcd")
        + message(b"Z", b"I")
    )
    columns = message(
        b"T", b"\0\2a\0\0\0\0\0\0\0\0\0\0\x17\0\4\xff\xff\xff\xff\0\0b\0" + bytes(8) + b"\0\x19\xff\xff" + bytes(6)
    )
    row = message(b"D", b"\0\2\0\0\0\0011\xff\xff\xff\xff")
    long_row = message(b"D", b"\0\2\0\0\0\x46" + b"x" * 70 + b"\0\0\0\0")
    done, ready = message(b"C", b"SELECT 1\0"), message(b"Z", b"I")
    error = message(b"E", b"SERROR\0VERROR\0C42601\0Mbad\0\0")
    notice = message(b"N", b"SNOTICE\0VNOTICE\0C00000\0Mhm\0\0")
    notification = message(b"A", b"\0\0\0\1news\0text\0")
    copy = b"\0\0\1\0\0"
    select = columns + row + long_row + done
    extended = message(b"1") + message(b"t", b"\0\1\0\0\0\x19") + columns
    streams = {
        "query": (0, (select + ready) * 4),
        "query-any-time": (0, notice + columns + notification + row + notice + done + ready),
        "query-error": (0, columns + error + message(b"Z", b"E") + message(b"I") + ready),
        "query-empty": (0, message(b"I") + ready),
        "fatal": (0, message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0")),
        "unasked-row": (0, row),
        "short-row": (0, columns + message(b"D", b"\0\1\0\0\0\0011") + done + ready),
        "negative-length": (0, columns + message(b"D", b"\0\2\xff\xff\xff\xfe\xff\xff\xff\xff")),
        "unknown-message": (0, message(b"y")),
        "huge-length": (0, b"D\x7f\xff\xff\xff"),
        "small-length": (0, b"C\0\0\0\3"),
        "batch": (1, message(b"1") + message(b"2") + columns + row + done + ready),
        "batch-error": (1, error + ready),
        "pipeline": (
            2,
            (extended + ready + message(b"2") + columns + row + message(b"s") + message(b"3") * 2 + ready) * 2,
        ),
        "pipeline-error": (2, error + ready + error + ready),
        "copy": (
            3,
            message(b"G", copy) + done + message(b"H", copy) + message(b"d", b"1\n") * 2 + message(b"c") + done + ready,
        ),
        "copy-both": (3, message(b"W", copy) + message(b"d", b"x") + error + ready),
        "two-queries": (4, select + ready + select + ready),
        "recover": (5, select + ready),
        "large": (0 | 32, columns + row + long_row + done + ready),
        "large-copy": (3 | 32, message(b"H", copy) + message(b"d", b"y" * 90) + message(b"c") + done + ready),
    }
    for name, (choice, data) in streams.items():
        write("pg_frontend", name, bytes([choice]) + welcome + data)
    logins = {
        "scram": scram() + welcome,
        "scram-bad-signature": scram()[:-4] + b"AAA=" + welcome,
        "scram-many-iterations": authentication(10, b"SCRAM-SHA-256\0\0")
        + authentication(11, f"r={base64.b64encode(bytes([7] * 18)).decode()}x,s=c2FsdA==,i=2147483647".encode()),
        "scram-plus-only": authentication(10, b"SCRAM-SHA-256-PLUS\0\0"),
        "md5": authentication(5, b"salt") + welcome,
        "cleartext": authentication(3) + welcome,
        "cleartext-allowed": authentication(3) + welcome,
        "gss": authentication(7),
        "negotiate": message(b"v", b"\0\3\0\0\0\0\0\0") + welcome,
        "long-key": authentication(0) + message(b"K", b"\0\0\0\1" + b"k" * 32) + ready,
        "error": message(b"E", b"SFATAL\0VFATAL\0C28P01\0Mno\0\0"),
        "old-error": b"Esorry\0",
    }
    for name, data in logins.items():
        choice = {"cleartext-allowed": 8, "negotiate": 16, "long-key": 16}.get(name, 0)
        write("pg_frontend", f"login-{name}", bytes([choice]) + data)


def choices() -> None:
    """Where the bytes are choices, any do."""
    for corpus in ("h1_pair", "h1_ops", "ws_pair", "pg_pair"):
        source = random.Random(corpus)
        for number in range(16):
            write(corpus, f"seed-{number}", source.randbytes(16 + 12 * number))


if __name__ == "__main__":
    http()
    websocket()
    deflate()
    postgres()
    choices()
