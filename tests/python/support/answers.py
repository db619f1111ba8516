"""What servers get wrong, and what somebody careful would want ``requests`` to make of it.

A case's ``expect`` is ``raise`` (an exception of requests), ``ok`` (this status and content), or ``either``: both are
allowed, but what is returned is this content, or without one given, anything but another response's.
"""

from __future__ import annotations

import dataclasses
import gzip
import zlib

import brotli
from backports import zstd

TEXT = b"hello " * 500


@dataclasses.dataclass(frozen=True)
class Case:
    id: str
    expect: str
    data: bytes
    content: bytes | None = None
    status: int = 200
    #: What the server does next: ``close``, ``rst``, ``hang`` or ``serve`` another request.
    end: str = "close"
    method: str = "GET"
    #: Seconds between two bytes.
    slow: float = 0.0
    timeout: float = 2.0
    body: bytes | None = None


CASES: list[Case] = []


def case(id: str, expect: str, data: bytes | str, content: bytes | str | None = None, **more) -> None:
    data = data.encode("latin-1") if isinstance(data, str) else data
    content = content.encode("latin-1") if isinstance(content, str) else content
    CASES.append(Case(id, expect, data, content, **more))


def answer(fields: str = "", body: bytes | str = b"ok", line: str = "HTTP/1.1 200 OK", length: bool = True) -> bytes:
    body = body.encode("latin-1") if isinstance(body, str) else body
    framing = f"Content-Length: {len(body)}\r\n" if length else ""
    return f"{line}\r\n{framing}{fields}\r\n".encode("latin-1") + body


def chunked(body: bytes | str, fields: str = "") -> bytes:
    return answer(f"Transfer-Encoding: chunked\r\n{fields}", body, length=False)


def fields(fields: str, body: bytes | str = b"ok") -> bytes:
    return answer(fields, body, length=False)


# The status line.
for name, line in {
    "no-reason": "HTTP/1.1 200 ",
    "no-reason-no-space": "HTTP/1.1 200",
    "reason-8bit": "HTTP/1.1 200 Ça va",
    "reason-long": "HTTP/1.1 200 " + "O" * 4000,
}.items():
    case(f"status-{name}", "ok", answer(line=line), b"ok")
case("status-999", "ok", answer(line="HTTP/1.1 999 Denied"), b"ok", status=999)
case("status-600", "either", answer(line="HTTP/1.1 600 What"), status=600)
for name, line in {
    "two-spaces": "HTTP/1.1  200 OK",
    "two-digits": "HTTP/1.1 20 OK",
    "four-digits": "HTTP/1.1 2000 OK",
    "letters": "HTTP/1.1 abc OK",
    "099": "HTTP/1.1 099 No",
    "000": "HTTP/1.1 000 No",
    "sign": "HTTP/1.1 +20 OK",
    "negative": "HTTP/1.1 -200 OK",
    "no-space": "HTTP/1.1200 OK",
    "space-before": " HTTP/1.1 200 OK",
    "bom": "\xef\xbb\xbfHTTP/1.1 200 OK",
    "version-3": "HTTP/3 200 OK",
    "version-none": "HTTP/ 200 OK",
    "version-letters": "HTTP/a.b 200 OK",
    "other-protocol": "RTSP/1.0 200 OK",
    "nul": "HTTP/1.1 200 O\0K",
    "only-version": "HTTP/1.1",
    "request": "GET / HTTP/1.1",
}.items():
    case(f"status-{name}", "raise", answer(line=line))
for name, line in {"lower": "http/1.1 200 OK", "version-12": "HTTP/1.2 200 OK", "tab": "HTTP/1.1\t200\tOK"}.items():
    case(f"status-{name}", "either", answer(line=line), b"ok")
case("lf-only", "either", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok")
case("html-only", "raise", "<html><body>hello</body></html>")
case("ssh", "raise", "SSH-2.0-OpenSSH_9.2\r\n")
case("smtp", "raise", "220 mail.example ESMTP\r\n")
case("tls-alert", "raise", b"\x15\x03\x01\x00\x02\x02\x46")
case("blank-lines", "raise", "\r\n" * 2000)
case("zeros", "raise", bytes(100_000))
for cut in ("H", "HTTP/1.1", "HTTP/1.1 2", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r", "HTTP/1.1 200 OK\r\n"):
    for end in ("close", "rst", "hang"):
        case(f"cut-line-{len(cut)}-{end}", "raise", cut, end=end, timeout=0.5)

# Fields.
case("field-empty-value", "ok", answer("X-A:\r\n"), b"ok")
case("field-tabs", "ok", answer("X-A:\t a\tb \t\r\n"), b"ok")
case("field-8bit", "ok", answer("X-A: caf\xe9 \xff\r\n"), b"ok")
case("field-30k", "ok", answer(f"X-A: {'a' * 30_000}\r\n"), b"ok")
case("field-cookies", "ok", answer("".join(f"Set-Cookie: c{i}={'v' * 200}\r\n" for i in range(60))), b"ok")
case("field-charset", "ok", answer('Content-Type: text/html; charset="\r\n'), b"ok")
case("field-charset-unknown", "ok", answer("Content-Type: text/html; charset=cow\r\n"), b"ok")
case("field-link", "ok", answer("Link: <;>;;=,\r\n"), b"ok")
case("field-cookie-mad", "ok", answer("Set-Cookie: =; ;Expires=x; Max-Age=99999999999999999999; Path\r\n"), b"ok")
case("field-cookie-8bit", "ok", answer("Set-Cookie: \xe9=\xff; Domain=\xe9.example\r\n"), b"ok")
for name, field in {
    "no-name": ": a",
    "space-in-name": "X A: a",
    "space-before-colon": "X-A : a",
    "space-before-length": "Content-Length : 7",
    "no-colon": "garbage",
    "nul-in-name": "X\0A: a",
    "8bit-name": "X-\xe9: a",
    "paren": "X(A): a",
    "nul": "X-A: a\0b",
    "bare-cr": "X-A: a\rb",
    "bare-cr-evil": "X-A: a\rContent-Length: 50",
    "bare-lf": "X-A: a\nX-B: b",
    "fold": "X-A: a\r\n\tb",
    "fold-length": "X-A: a\r\n Content-Length: 50",
    "control": "X-A: a\x01\x7fb",
}.items():
    case(f"field-{name}", "either", answer(f"{field}\r\n"), b"ok")
case("field-first-folded", "either", "HTTP/1.1 200 OK\r\n X-A: a\r\nContent-Length: 2\r\n\r\nok", b"ok")
case("fields-1000", "raise", answer("".join(f"X-{i}: 1\r\n" for i in range(1000))))
case("head-1mb", "raise", answer("".join(f"X-{i}: {'a' * 20_000}\r\n" for i in range(50))))
case("field-1mb", "raise", answer(f"X-A: {'a' * 1_000_000}\r\n"))
for end in ("close", "rst", "hang"):
    case(f"cut-head-{end}", "raise", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b", end=end, timeout=0.5)
    case(f"cut-head-end-{end}", "raise", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r", end=end, timeout=0.5)

# The limits, exactly: 100 fields, 65,000 bytes of head, 16 informational responses.
case("fields-100", "ok", answer("".join(f"X-{i}: 1\r\n" for i in range(99))), b"ok")
case("fields-101", "raise", answer("".join(f"X-{i}: 1\r\n" for i in range(100))))
HEAD_SIZE = len(answer("X-A: \r\n")) - len("ok")
case("head-65000", "ok", answer(f"X-A: {'a' * (65_000 - HEAD_SIZE)}\r\n"), b"ok")
case("head-65001", "raise", answer(f"X-A: {'a' * (65_001 - HEAD_SIZE)}\r\n"))
case("1xx-16", "ok", b"HTTP/1.1 102 Processing\r\n\r\n" * 16 + answer(), b"ok")
case("1xx-17", "raise", b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + answer())

# Content-Length.
for name, value in {
    "plus": "+2",
    "minus": "-2",
    "hex": "0x2",
    "point": "2.0",
    "two": "2 2",
    "empty": "",
    "under": "1_0",
    "letters": "two",
    "exponent": "2e0",
    "u64": "18446744073709551616",
    "differ-3": "2, 2, 3",
    "comma": "2,",
    "only-comma": ",",
    "semicolon": "2;x",
    "nul": "2\0",
    "arabic": "\xb2",
}.items():
    case(f"length-{name}", "raise", fields(f"Content-Length: {value}\r\n"))
case("length-differ", "raise", fields("Content-Length: 2\r\nContent-Length: 3\r\n", "ok!"))
case("length-differ-sign", "raise", fields("Content-Length: 2\r\nContent-Length: +2\r\n"))
case("length-same", "either", fields("Content-Length: 2\r\nContent-Length: 2\r\n"), b"ok")
case("length-list-same", "either", fields("Content-Length: 2, 2\r\n"), b"ok")
case("length-zeros", "either", fields("Content-Length: 0000000002\r\n"), b"ok")
case("length-i64", "raise", fields("Content-Length: 9223372036854775807\r\n"))
for end in ("close", "rst", "hang"):
    case(f"length-short-{end}", "raise", fields("Content-Length: 9\r\n", "four"), end=end, timeout=0.5)
    case(f"length-none-{end}", "raise", fields("Content-Length: 9\r\n", ""), end=end, timeout=0.5)
    case(f"length-one-short-{end}", "raise", fields("Content-Length: 3000\r\n", TEXT[:-1]), end=end, timeout=0.5)
case("length-0-body", "ok", fields("Content-Length: 0\r\n", "evil"), b"", end="serve")
case(
    "length-extra",
    "ok",
    fields("Content-Length: 2\r\n", "okHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    b"ok",
    end="serve",
)
case("length-extra-rst", "either", fields("Content-Length: 2\r\n", "ok and more"), b"ok", end="rst")
case("no-length", "ok", fields("", "to the end"), b"to the end")
case("no-length-empty", "ok", fields("", ""), b"")
case("no-length-keep-alive", "ok", fields("Connection: keep-alive\r\n", "to the end"), b"to the end")
case("no-length-rst", "raise", fields("", "to the"), end="rst")
case("no-length-hang", "raise", fields("", "to the"), end="hang", timeout=0.5)

# Transfer-Encoding.
GOOD = "5\r\nhello\r\n0\r\n\r\n"
case("te-case", "ok", fields("Transfer-Encoding: CHUNKED\r\n", GOOD), b"hello", end="serve")
case("te-space", "ok", fields("Transfer-Encoding:  chunked \t\r\n", GOOD), b"hello", end="serve")
for name, value in {
    "and-length": "chunked\r\nContent-Length: 5",
    "and-length-first": "chunked\r\nContent-Length: 200",
    "gzip-chunked": "gzip, chunked",
    "chunked-gzip": "chunked, gzip",
    "identity": "identity",
    "identity-chunked": "identity, chunked",
    "unknown": "cow",
    "xchunked": "xchunked",
    "quoted": '"chunked"',
    "parameter": "chunked;q=1",
    "empty": "",
    "vtab": "\x0bchunked",
    "nul": "chunked\0",
    "two-fields": "chunked\r\nTransfer-Encoding: identity",
}.items():
    case(f"te-{name}", "either", fields(f"Transfer-Encoding: {value}\r\n", GOOD), b"hello")
case("te-10", "either", answer("Transfer-Encoding: chunked\r\n", GOOD, "HTTP/1.0 200 OK", False), b"hello")
case(
    "te-and-length-smuggle",
    "either",
    fields(
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ),
    b"hello",
    end="serve",
)

# Chunks.
for name, body in {
    "plus": "+5\r\nhello\r\n0\r\n\r\n",
    "minus": "-5\r\nhello\r\n0\r\n\r\n",
    "0x": "0x5\r\nhello\r\n0\r\n\r\n",
    "under": "0_5\r\nhello\r\n0\r\n\r\n",
    "empty-size": "\r\nhello\r\n0\r\n\r\n",
    "letters": "five\r\nhello\r\n0\r\n\r\n",
    "overflow": "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "overflow-wraps": "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "i64": "7FFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "too-long": "5\r\nhello!\r\n0\r\n\r\n",
    "too-short": "5\r\nhell\r\n0\r\n\r\n",
    "no-crlf": "5\r\nhello0\r\n\r\n",
    "nul": "5\0\r\nhello\r\n0\r\n\r\n",
    "negative-zero": "5\r\nhello\r\n-0\r\n\r\n",
    "html": "<html>not chunked at all</html>",
    "size-endless": "0" * 100_000 + "5\r\nhello\r\n0\r\n\r\n",
    "extension-endless": f"5;{'a' * 1_000_000}\r\nhello\r\n0\r\n\r\n",
}.items():
    case(f"chunk-{name}", "raise", chunked(body))
for name, body in {
    "space-after": "5 \r\nhello\r\n0\r\n\r\n",
    "space-before": " 5\r\nhello\r\n0\r\n\r\n",
    "lf": "5\nhello\n0\n\n",
    "lf-after-data": "5\r\nhello\n0\r\n\r\n",
    "zeros": "0000000005\r\nhello\r\n0\r\n\r\n",
    "zeros-many": "00000000000000000000005\r\nhello\r\n0\r\n\r\n",
    "extension-space": "5 ; a = b\r\nhello\r\n0\r\n\r\n",
    "extension-empty": "5;\r\nhello\r\n0\r\n\r\n",
    "extension-open-quote": '5;a="\r\nhello\r\n0\r\n\r\n',
    "trailer-bad": "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    "trailer-fold": "5\r\nhello\r\n0\r\nX-A: a\r\n b\r\n\r\n",
    "no-last-crlf": "5\r\nhello\r\n0\r\n",
}.items():
    case(f"chunk-{name}", "either", chunked(body), b"hello")
case("chunk-upper-hex", "ok", chunked("A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789", end="serve")
case("chunk-lower-hex", "ok", chunked("a\r\n0123456789\r\n0\r\n\r\n"), b"0123456789", end="serve")
case("chunk-many", "ok", chunked("1\r\nx\r\n" * 5000 + "0\r\n\r\n"), b"x" * 5000, end="serve")
case("chunk-quoted-extension", "ok", chunked('5;a="b;c"\r\nhello\r\n0\r\n\r\n'), b"hello", end="serve")
case("chunk-last-zeros", "ok", chunked("5\r\nhello\r\n000\r\n\r\n"), b"hello", end="serve")
case("chunk-trailers", "ok", chunked("5\r\nhello\r\n0\r\nX-A: b\r\nETag: x\r\n\r\n"), b"hello", end="serve")
# "a recipient MUST NOT merge" such a field; to refuse it is safe as well.
case("chunk-trailer-length", "either", chunked("5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n"), b"hello", end="serve")
case("chunk-none", "ok", chunked("0\r\n\r\n"), b"", end="serve")
case("chunk-extra", "ok", chunked(GOOD + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), b"hello", end="serve")
for cut in (0, 1, 2, 3, 5, 8, 9, 10, 11):
    for end in ("close", "rst", "hang"):
        case(f"chunk-cut-{cut}-{end}", "raise", chunked(GOOD[:cut]), end=end, timeout=0.5)

# Informational responses.
case(
    "1xx-some",
    "ok",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 199 X\r\n\r\n" + answer(),
    b"ok",
)
case("1xx-length", "ok", b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" + answer(), b"ok")
case("1xx-chunked", "either", b"HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n" + answer(), b"ok")
case("1xx-flood", "raise", b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000)
case("1xx-body", "raise", b"HTTP/1.1 100 Continue\r\n\r\nbody" + answer())
for end in ("close", "rst", "hang"):
    case(f"1xx-{end}", "raise", "HTTP/1.1 100 Continue\r\n\r\n", end=end, timeout=0.5)
case(
    "101-post",
    "either",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nevil",
    method="POST",
    status=101,
)

# Responses without a body, whatever they say.
EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
for status in ("204 No Content", "304 Not Modified"):
    number = int(status[:3])
    line = f"HTTP/1.1 {status}"
    case(f"{number}", "ok", answer(line=line, body="", length=False), b"", status=number, end="serve")
    case(f"{number}-length", "ok", answer("Content-Length: 5\r\n", "", line, False), b"", status=number, end="serve")
    case(
        f"{number}-length-hang", "ok", answer("Content-Length: 5\r\n", "", line, False), b"", status=number, end="hang"
    )
    case(f"{number}-body", "ok", answer(body="hello", line=line), b"", status=number, end="serve")
    case(
        f"{number}-chunked",
        "ok",
        answer("Transfer-Encoding: chunked\r\n", GOOD, line, False),
        b"",
        status=number,
        end="serve",
    )
    case(f"{number}-evil", "ok", answer("", EVIL, line, False), b"", status=number, end="serve")
    case(f"{number}-gzip", "ok", answer("Content-Encoding: gzip\r\n", "", line, False), b"", status=number, end="serve")
case("205", "ok", answer(line="HTTP/1.1 205 Reset Content", body=""), b"", status=205, end="serve")
for name, head in {
    "length": "Content-Length: 1000\r\n",
    "chunked": "Transfer-Encoding: chunked\r\n",
    "gzip": "Content-Encoding: gzip\r\nContent-Length: 50\r\n",
    "nothing": "",
}.items():
    case(f"head-{name}", "ok", fields(head, ""), b"", method="HEAD", end="serve")
    case(f"head-{name}-body", "ok", fields(head, "evil"), b"", method="HEAD", end="serve")
case("head-lies", "either", fields("Content-Length: 5\r\nContent-Length: 6\r\n", ""), b"", method="HEAD", end="serve")
case("head-response", "ok", fields("Content-Length: 2\r\n", EVIL), b"", method="HEAD", end="serve")

# Codings.
CODED = {
    "gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "br": brotli.compress(TEXT),
    "zstd": zstd.compress(TEXT),
}
RAW = zlib.compressobj(9, zlib.DEFLATED, -15)
CODED_RAW = RAW.compress(TEXT) + RAW.flush()
for coding, coded in CODED.items():
    head = f"Content-Encoding: {coding}\r\n"
    case(f"{coding}", "ok", answer(head, coded), TEXT, end="serve")
    case(f"{coding}-close", "ok", fields(head, coded), TEXT)
    case(f"{coding}-empty", "ok", answer(head, b""), b"", end="serve")
    case(f"{coding}-plain", "raise", answer(head, TEXT))
    for cut in (1, len(coded) // 2, len(coded) - 1):
        case(f"{coding}-cut-{cut}", "raise", answer(head, coded[:cut]))
        case(f"{coding}-cut-{cut}-close", "raise", fields(head, coded[:cut]))
        case(f"{coding}-short-{cut}", "raise", fields(f"{head}Content-Length: {len(coded)}\r\n", coded[:cut]))
corrupt = bytearray(CODED["gzip"])
corrupt[-6] ^= 0xFF
case("gzip-crc", "raise", answer("Content-Encoding: gzip\r\n", bytes(corrupt)))
corrupt = bytearray(CODED["gzip"])
corrupt[-2] ^= 0xFF
case("gzip-size", "raise", answer("Content-Encoding: gzip\r\n", bytes(corrupt)))
corrupt = bytearray(CODED["gzip"])
corrupt[20] ^= 0xFF
case("gzip-corrupt", "raise", answer("Content-Encoding: gzip\r\n", bytes(corrupt)))
case("gzip-zeros-behind", "ok", answer("Content-Encoding: gzip\r\n", CODED["gzip"] + bytes(64)), TEXT, end="serve")
case(
    "gzip-garbage-behind", "either", answer("Content-Encoding: gzip\r\n", CODED["gzip"] + b"garbage"), TEXT, end="serve"
)
case("gzip-members", "ok", answer("Content-Encoding: gzip\r\n", CODED["gzip"] * 2), TEXT * 2, end="serve")
case("gzip-x", "ok", answer("Content-Encoding: x-gzip\r\n", CODED["gzip"]), TEXT, end="serve")
case("gzip-case", "ok", answer("Content-Encoding: GZIP\r\n", CODED["gzip"]), TEXT, end="serve")
case("gzip-header-cut", "raise", answer("Content-Encoding: gzip\r\n", CODED["gzip"][:5]))
case("deflate-raw", "ok", answer("Content-Encoding: deflate\r\n", CODED_RAW), TEXT, end="serve")
case("deflate-raw-cut", "raise", answer("Content-Encoding: deflate\r\n", CODED_RAW[:-2]))
case("identity", "ok", answer("Content-Encoding: identity\r\n", TEXT), TEXT, end="serve")
case("coding-empty", "ok", answer("Content-Encoding:\r\n", TEXT), TEXT, end="serve")
case(
    "coding-two",
    "ok",
    answer("Content-Encoding: deflate, gzip\r\n", gzip.compress(CODED["deflate"])),
    TEXT,
    end="serve",
)
case(
    "coding-two-fields",
    "ok",
    answer("Content-Encoding: deflate\r\nContent-Encoding: gzip\r\n", gzip.compress(CODED["deflate"])),
    TEXT,
    end="serve",
)
case("coding-many", "raise", answer(f"Content-Encoding: {', '.join(['gzip'] * 50)}\r\n", CODED["gzip"]))
case("coding-inner-cut", "raise", answer("Content-Encoding: deflate, gzip\r\n", gzip.compress(CODED["deflate"][:-3])))
bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
BOMB = b"".join([bomb.compress(bytes(1 << 20)) for _ in range(200)] + [bomb.flush()])
case("bomb", "raise", answer("Content-Encoding: gzip\r\n", BOMB), timeout=20)
case("bomb-in-bomb", "raise", answer("Content-Encoding: gzip, gzip\r\n", gzip.compress(BOMB)), timeout=20)
case("bomb-br", "raise", answer("Content-Encoding: br\r\n", brotli.compress(bytes(200 << 20), quality=1)), timeout=20)
case("head-bomb", "ok", answer("Content-Encoding: gzip\r\n", BOMB), b"", method="HEAD")

# Redirects. A client that follows gets "second" of the same server.
for name, location in {
    "relative": "/second",
    "no-slash": "second",
    "dots": "../../second",
    "query": "?second",
    "fragment": "/second#there",
    "8bit": "/caf\xc3\xa9",
    "space": "/a b",
}.items():
    case(
        f"redirect-{name}", "ok", answer(f"Location: {location}\r\n", line="HTTP/1.1 302 Found"), b"second", end="serve"
    )
for name, location in {
    "ftp": "ftp://127.0.0.1/",
    "file": "file:///etc/passwd",
    "javascript": "javascript:alert(1)",
    "data": "data:text/plain,evil",
    "unknown-scheme": "cow://127.0.0.1/",
    "only-port": "http://:80/",
    "port-large": "http://127.0.0.1:99999/",
    "port-letters": "http://127.0.0.1:http/",
    "port-negative": "http://127.0.0.1:-1/",
    "bracket": "http://[::1/",
    "bracket-garbage": "http://[cow]/",
    "closed-port": "http://127.0.0.1:1/",
    "no-such-host": "http://no-such-host.invalid/",
    "numeric-host": "http://127.1:1/",
    "hex-host": "http://0x7f.1:1/",
    "https-closed": "https://127.0.0.1:1/",
    "label-long": f"http://{'a' * 64}.example/",
    "host-space": "http://127.0.0.1 .evil/",
    "host-star": "http://*/",
    "star-dots": "http://.../",
}.items():
    case(f"redirect-{name}", "raise", answer(f"Location: {location}\r\n", line="HTTP/1.1 302 Found"), timeout=5)
for name, location in {
    "8bit-latin": "/caf\xe9",
    "control": "/a\x01b",
    "backslash": "http:\\\\127.0.0.1:1\\",
    "no-host": "http://",
    "one-slash": "http:/second",
    "three-slashes": "http:///second",
    "host-slashes": "//127.0.0.1:1/",
    "percent": "/%zz%",
    "long": "/" + "a" * 20_000,
    "quotes": '"/second"',
    "tab": "/sec\tond",
    "comma": "/second, /third",
}.items():
    case(
        f"redirect-{name}",
        "either",
        answer(f"Location: {location}\r\n", line="HTTP/1.1 302 Found"),
        b"second",
        end="serve",
    )
case(
    "redirect-twice",
    "either",
    answer("Location: /second\r\nLocation: /third\r\n", line="HTTP/1.1 302 Found"),
    b"second",
    end="serve",
)
case(
    "redirect-304", "ok", answer("Location: /second\r\n", "", "HTTP/1.1 304 Not Modified"), b"", status=304, end="serve"
)
case("redirect-300", "ok", answer("Location: /second\r\n", line="HTTP/1.1 300 Choose"), b"ok", status=300, end="serve")
case(
    "redirect-cut-body",
    "either",
    answer("Content-Length: 50\r\nLocation: /second\r\n", "cut", "HTTP/1.1 302 Found", False),
    b"second",
)
case(
    "redirect-bad-gzip",
    "either",
    answer("Content-Encoding: gzip\r\nLocation: /second\r\n", "not gzip", "HTTP/1.1 302 Found"),
    b"second",
    end="serve",
)
case(
    "redirect-bad-chunk",
    "either",
    answer("Transfer-Encoding: chunked\r\nLocation: /second\r\n", "zz\r\n", "HTTP/1.1 302 Found", False),
    b"second",
)
case(
    "redirect-hang",
    "raise",
    answer("Content-Length: 50\r\nLocation: /second\r\n", "cut", "HTTP/1.1 302 Found", False),
    end="hang",
    timeout=0.5,
)
for status in (301, 302, 303, 307, 308):
    case(
        f"redirect-post-{status}",
        "ok",
        answer("Location: /second\r\n", line=f"HTTP/1.1 {status} X"),
        b"second",
        method="POST",
        body=b"data",
        end="serve",
    )

# One byte after the other: the time-out is for each of them.
case("slow-length", "ok", answer(), b"ok", slow=0.01, timeout=0.5)
case("slow-chunked", "ok", chunked(GOOD), b"hello", slow=0.01, timeout=0.5)
case("slow-gzip", "ok", answer("Content-Encoding: gzip\r\n", CODED["gzip"]), TEXT, slow=0.01, timeout=0.5)
case("slower-than-timeout", "raise", answer(), slow=0.6, timeout=0.3)
for end in ("close", "rst", "hang"):
    case(f"nothing-{end}", "raise", "", end=end, timeout=0.5)
    case(f"nothing-post-{end}", "raise", "", end=end, method="POST", body=b"x" * 100_000, timeout=0.5)
