"""The same bytes through h11, httptools and websockets: read alike, or a table says who is right, and why.

The machines are asked through ``crates/balrog-proto/examples/events.rs``.
"""

import json
import random
import re
import subprocess
from pathlib import Path

import h11
import httptools
import pytest
from websockets.frames import Close, Opcode
from websockets.protocol import OPEN, Protocol, Side

ROOT = Path(__file__).parent.parent.parent.parent
CORPORA = ROOT / "tests" / "corpora"
HOST = "Host: conf.test\r\n"
#: Put into sound messages, at any place.
TOKENS = [
    *(bytes([byte]) for byte in b"\r\n \t\0\x0b\x0c\x1c\x7f\x80\xff:;,=\"'+-/?#@[]{}0159aAxX"),
    *(b"\r\n", b"\r\n ", b" :", b"0x", b"chunked", b"identity", b", ", b";a=b", b"5\r\n", b"0\r\n\r\n", b"\n\n"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n", b"Expect: 100-continue\r\n"),
    *(b"Connection: close\r\n", b"HTTP/1.0", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
]


def expand(text: str) -> bytes:
    text = text.replace("{{H}}", HOST).replace("{{SMUG}}", f"GET /smuggled HTTP/1.1\r\n{HOST}\r\n")
    while found := re.search(r"\{\{rep:((?:(?!\{\{).)*?):(\d+)\}\}", text, re.DOTALL):
        text = text[: found.start()] + found[1] * int(found[2]) + text[found.end() :]
    return text.encode("latin-1")


def load(*names: str) -> list[dict]:
    return [case for name in names for case in json.loads((CORPORA / f"{name}.json").read_text())]


def mutants(sound: list[bytes], times: int) -> list[bytes]:
    """Sound messages with a small change or two, the same in every run."""
    numbers = random.Random(9112)
    found = []
    for _ in range(times):
        data = numbers.choice(sound)
        for _ in range(numbers.randint(1, 2)):
            at = numbers.randrange(len(data) + 1)
            match numbers.randrange(3):
                case 0:
                    data = data[:at] + numbers.choice(TOKENS) + data[at:]
                case 1:
                    data = data[:at] + numbers.choice(TOKENS) + data[at + 1 :]
                case 2:
                    data = data[:at] + data[at + numbers.randint(1, 4) :]
        found.append(data)
    return found


@pytest.fixture(scope="module")
def machine():
    """Asks a machine what it makes of many inputs."""
    subprocess.run(
        ["cargo", "build", "--quiet", "--locked", "--package", "balrog-proto", "--example", "events"],
        cwd=ROOT,
        check=True,
    )

    def ask(role: str, inputs: list[bytes], **more: object) -> list[dict]:
        lines = [json.dumps({"role": role, "bytes": data.decode("latin-1"), **more}) for data in inputs]
        told = subprocess.run(
            ["cargo", "run", "--quiet", "--locked", "--package", "balrog-proto", "--example", "events"],
            input="\n".join(lines).encode(),
            capture_output=True,
            cwd=ROOT,
            check=True,
        )
        return [json.loads(line) for line in told.stdout.splitlines()]

    return ask


#: A message: what its first line says, its fields, its body.
Message = tuple[tuple, list[tuple[bytes, bytes]], bytes]


def messages(told: dict) -> list[Message]:
    """The complete messages that a machine has told of."""
    found = []
    for event in told["events"]:
        match event:
            case ["request", method, target, _, fields]:
                line, body = (method.encode(), target.encode()), b""
            case ["response", status, _, _, fields]:
                line, body = (status,), b""
            case ["body", data]:
                body += data.encode("latin-1")
            case ["end"]:
                found.append((line, [(n.lower().encode(), v.encode("latin-1")) for n, v in fields], body))
    return found


def by_h11(data: bytes, role: type, eof: bool = False) -> tuple[list[Message], str | None]:
    connection = h11.Connection(role, max_incomplete_event_size=100_000)
    if role is h11.CLIENT:
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
    found, line, fields, body = [], (), [], b""
    try:
        connection.receive_data(data)
        if eof:
            connection.receive_data(b"")
        while True:
            match connection.next_event():
                case h11.Request() as request:
                    line, fields, body = (request.method, request.target), list(request.headers), b""
                case h11.Response() as response:
                    line, fields, body = (response.status_code,), list(response.headers), b""
                case h11.Data() as piece:
                    body += bytes(piece.data)
                case h11.EndOfMessage():
                    found.append((line, fields, body))
                    if role is h11.CLIENT:
                        return found, None
                    connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                    connection.send(h11.EndOfMessage())
                case h11.PAUSED if connection.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    connection.start_next_cycle()
                case h11.InformationalResponse():
                    pass
                case _:
                    return found, None
    except h11.RemoteProtocolError as error:
        return found, str(error)


class Callbacks:
    """What httptools tells."""

    def __init__(self):
        self.found: list[Message] = []
        self.parser = None
        self.url = b""
        self.head = None

    def on_message_begin(self):
        self.url, self.fields, self.head, self.body = b"", [], None, b""

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        self.fields.append((name, value))

    def on_headers_complete(self):
        # What comes behind the head are trailers.
        self.head = list(self.fields)

    def on_body(self, data):
        self.body += data

    def on_message_complete(self):
        if isinstance(self.parser, httptools.HttpRequestParser):
            line = (self.parser.get_method(), self.url)
        else:
            line = (self.parser.get_status_code(),)
        if not 100 <= (line[0] if len(line) == 1 else 200) < 200:
            self.found.append((line, self.head, self.body))
        self.head = None

    def ended(self):
        """There is no way to tell httptools that the stream has ended."""
        framed = self.head is None or {n.lower() for n, _ in self.head} & {b"content-length", b"transfer-encoding"}
        if isinstance(self.parser, httptools.HttpResponseParser) and not framed and not self.found:
            self.on_message_complete()


def by_httptools(data: bytes, parser: type) -> tuple[list[Message], str | None]:
    told = Callbacks()
    told.parser = parser(told)
    try:
        told.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        # Whose body it does not read.
        return told.found[:-1], "upgrade"
    except httptools.HttpParserError as error:
        return told.found, str(error)
    told.ended()
    return told.found, None


#: Peers of a server and of a client.
PEERS = {
    "h11": (lambda data: by_h11(data, h11.SERVER), lambda data: by_h11(data, h11.CLIENT, eof=True)),
    "httptools": (
        lambda data: by_httptools(data, httptools.HttpRequestParser),
        lambda data: by_httptools(data, httptools.HttpResponseParser),
    ),
}

#: What we refuse and one of the others takes, by the beginning of our reason: why we are right.
WE_REFUSE = {
    "Content-Length is not a number": "RFC 9112 section 6.3: a list of equal numbers MAY be refused; a value that is"
    " none makes the framing unrecoverable, whatever follows",
    "two Content-Length fields": "RFC 9112 section 6.3: equal ones MAY be refused",
    "Transfer-Encoding in an HTTP/1.0 message": "RFC 9112 section 6.1: the framing is faulty",
    "both Transfer-Encoding and Content-Length": "RFC 9112 section 6.1: a server MAY reject it; it is an attack",
    "two Transfer-Encoding fields": "RFC 9112 section 6.1: chunked must not be applied twice",
    "the transfer coding is not chunked": "RFC 9112 section 6.1: no other coding is spoken here; an empty element has"
    " been read in two ways",
    "a chunk size": "RFC 9112 section 7.1: 1*HEXDIG CRLF; more than 16 digits are for an overflow somewhere",
    "a chunk extension is malformed": "RFC 9112 section 7.1.1: tokens and quoted strings",
    "a field that a trailer section must not have": "RFC 9110 section 6.5.1",
    "a field name is not a token": "RFC 9112 section 5.1; refused when its line ends, h11 waits for the head's end",
    "a header line has a control character": "RFC 9110 section 5.5; refused when it comes",
    "a header line has no colon": "RFC 9112 section 5; refused when the line ends",
    "a header line is folded": "RFC 9112 section 5.2: a server MUST reject or replace it",
    "a line does not end in CRLF": "RFC 9112 section 2.2: a bare LF MAY be taken, a bare CR MUST NOT",
    "more than one empty line": "RFC 9112 section 2.2: at least one SHOULD be ignored; a flood of them is none",
    "an expectation that is not 100-continue": "RFC 9110 section 10.1.1: 417",
    "no tunnels here": "RFC 9110 section 9.3.6: who has none answers 501",
    "only versions 1.0 and 1.1": "RFC 9110 section 15.6.6: 505",
    "the HTTP version is malformed": "RFC 9112 section 2.3",
    "the Host field is malformed": "RFC 9112 section 3.2: 400",
    "the Host field is missing": "RFC 9112 section 3.2: 400",
    "two Host fields": "RFC 9112 section 3.2: 400",
    "two Content-Type fields": "RFC 9110 section 5.3: no list, so only one of them would be believed",
    "the host of the request target is malformed": "RFC 9112 section 3.2.2",
    "the method is not a token": "RFC 9112 section 3; refused by its first bytes",
    "the request line is not method, target and version": "RFC 9112 section 3",
    "the request target has a character that no URI has": "RFC 9112 section 3.2",
    "the request target is neither a path nor an http URI": "RFC 9112 section 3.2",
    "the target * is for OPTIONS": "RFC 9112 section 3.2.4",
    "over the limit": "a limit of ours",
    "the reason phrase has a control character": "RFC 9112 section 4",
    "the status code is not three digits": "RFC 9112 section 4",
    "this is no HTTP/1 response": "RFC 9112 section 4",
    "the connection was closed": "httptools cannot be told that the stream has ended",
}

#: What another refuses and we take, by the beginning of its reason: why we are right.
THEY_REFUSE = {
    ("h11", "Got data when expecting EOF"): "what comes behind the last message is never read",
    ("h11", "bad Content-Length"): "1*DIGIT may begin with zeros; and 1xx responses have no content to frame",
    ("h11", "illegal request line"): "the line is not complete",
    ("h11", "no request line received"): "RFC 9112 section 2.2: an empty line before a request SHOULD be ignored",
    ("h11", "no response line received"): "as of a request: nothing is read in two ways by it",
    ("h11", "illegal header line"): "RFC 9110 section 5.5: other control characters MAY be kept, servers send them",
    ("httptools", "Data after `Connection: close`"): "what comes behind the last message is never read",
    ("httptools", "Expected space after method"): "RFC 9110 section 9.1: any token is a method",
    ("httptools", "Invalid method encountered"): "RFC 9110 section 9.1: any token is a method",
    ("httptools", "Invalid character in Content-Length"): "the line is not complete; or it is of a 1xx response",
    ("httptools", "Empty Content-Length"): "1xx responses have no content to frame",
    ("httptools", "Invalid header token"): "the line is not complete",
    ("httptools", "Invalid header value char"): "RFC 9110 section 5.5: servers send them",
    ("httptools", "Request has invalid `Transfer-Encoding`"): "RFC 9112 section 5: OWS is no part of the value",
    ("httptools", "Expected HTTP/, RTSP/ or ICE/"): "what comes behind the response is of no request",
    ("httptools", "upgrade"): "whether to switch is for the answer to say; until then it is a request as any other",
}


def comparable(all_of: list[Message]) -> list[Message]:
    """h11 gives names and codings in lower case; httptools leaves whitespace at a value's end."""
    found = []
    for line, fields, body in all_of:
        plain = [(bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in fields]
        found.append(
            (
                line,
                [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in plain],
                body,
            )
        )
    return found


def compare(peer: str, read, inputs: list[bytes], told: list[dict], used: set, only_first: bool) -> list[str]:
    """What is not explained."""
    wrong = []
    for data, ours in zip(inputs, told, strict=True):
        theirs, their_error = read(data)
        mine, theirs = comparable(messages(ours)), comparable(theirs)
        if only_first:
            theirs = theirs[:1]
            if theirs and their_error != "upgrade":
                # The next message is of no request.
                their_error = None
        both = min(len(mine), len(theirs))
        if mine[:both] != theirs[:both]:
            wrong.append(f"{peer} {data!r}: {mine} here, {theirs} there")
        elif ours["error"] and not their_error:
            known = next((key for key in WE_REFUSE if ours["error"].startswith(key)), None)
            used.add(known)
            if known is None:
                wrong.append(f"{peer} {data!r}: refused here, {ours['error']}")
        elif their_error and not ours["error"]:
            known = next((key for key in THEY_REFUSE if key[0] == peer and their_error.startswith(key[1])), None)
            used.add(known)
            if known is None:
                wrong.append(f"{peer} {data!r}: refused there, {their_error}")
        elif not ours["error"] and mine != theirs:
            wrong.append(f"{peer} {data!r}: {mine} here, {theirs} there")
    return wrong


def test_heads_and_bodies_are_read_as_others_read_them(machine):
    requests = [expand(case["send"]) for case in load("http-server", "http-server-neighbours") if case.get("send")]
    responses = [
        case["data"].encode("latin-1")
        for case in load("http-client-bad-answers", "http-client-neighbours")
        if case["data"] != "endless" and case["method"] == "GET"
    ]
    wrong, used = [], set()
    for role, side, corpus in ("server", 0, requests), ("client", 1, responses):
        inputs = [data for data in corpus if len(data) < 50_000]
        eof = {"eof": role == "client"}
        taken = [data for data, told in zip(inputs, machine(role, inputs, **eof), strict=True) if told["error"] is None]
        inputs += mutants([data for data in taken if len(data) < 2_000], 4_000)
        told = machine(role, inputs, **eof)
        for peer, read in PEERS.items():
            wrong += compare(peer, read[side], inputs, told, used, role == "client")
    assert not wrong, "\n".join(wrong[:20])
    assert used == set(WE_REFUSE) | set(THEY_REFUSE), "an explanation of nothing"


def frame(numbers: random.Random, first: int, payload: bytes, masked: bool) -> bytes:
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes([first, bit | len(payload)])
    elif len(payload) < 1 << 16:
        head = bytes([first, bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + len(payload).to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = numbers.randbytes(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def conversation(numbers: random.Random, masked: bool) -> bytes:
    """Some messages, whole and in fragments, with control frames between."""
    data = b""
    for _ in range(numbers.randint(1, 4)):
        binary = numbers.random() < 0.4
        size = numbers.choice([0, 1, 3, 125, 126, 127, 300])
        payload = numbers.randbytes(size) if binary else ("a\u20ac\U0001f600" * size)[:size].encode()
        cuts = sorted(numbers.choices(range(len(payload) + 1), k=numbers.choice([0, 0, 1, 3])))
        pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for at, piece in enumerate(pieces):
            fin = 0x80 if at == len(pieces) - 1 else 0
            data += frame(numbers, fin | (0 if at else 2 if binary else 1), piece, masked)
            if numbers.random() < 0.3:
                data += frame(numbers, numbers.choice([0x89, 0x8A]), numbers.randbytes(numbers.choice([0, 5])), masked)
    if numbers.random() < 0.5:
        code = numbers.choice([1000, 1001, 1007, 1012, 3000, 4999, 999, 1005, 1016])
        data += frame(numbers, 0x88, code.to_bytes(2, "big") + "bye\u20ac".encode(), masked)
        data += frame(numbers, 0x81, b"late", masked)
    return data


def by_websockets(data: bytes, side: Side) -> tuple[list, str | None]:
    protocol = Protocol(side, state=OPEN)
    protocol.receive_data(data)
    found, kind, parts = [], "", []
    names = {Opcode.PING: "ping", Opcode.PONG: "pong"}
    for event in protocol.events_received():
        if event.opcode in names:
            found.append([names[event.opcode], event.data.decode("latin-1")])
        elif event.opcode is Opcode.CLOSE:
            close = Close.parse(event.data)
            found.append(["close", int(close.code), close.reason])
        else:
            if event.opcode is not Opcode.CONT:
                kind = "text" if event.opcode is Opcode.TEXT else "binary"
            parts.append(bytes(event.data))
            if event.fin:
                # Its front ends decode the text.
                try:
                    found.append([kind, b"".join(parts).decode("utf-8" if kind == "text" else "latin-1")])
                except UnicodeDecodeError as error:
                    return found, str(error)
                parts = []
    return found, str(protocol.parser_exc) if protocol.parser_exc else None


#: What we refuse and websockets takes, by the beginning of our reason: why we are right.
FRAMES_WE_REFUSE = {
    "a text message is not UTF-8": "RFC 6455 section 8.1: refused inside of its frame; websockets waits for the end",
    "a reserved bit is set": "RFC 6455 section 5.2: refused by the first byte; websockets waits for the frame's end",
    "the opcode is reserved": "RFC 6455 section 5.2: the same",
    "a control frame is fragmented or too long": "RFC 6455 section 5.5: the same",
    "a message inside another": "RFC 6455 section 5.4: the same",
    "a continuation of nothing": "RFC 6455 section 5.4: the same",
    "a frame's length is not in its shortest form": "RFC 6455 section 5.2: the minimal number of bytes MUST be used",
}
#: What websockets refuses and we take.
FRAMES_THEY_REFUSE = {
    "incomplete fragmented message": "RFC 6455 section 5.4: a control frame may come between the fragments; a Close"
    " gives the message up",
}


@pytest.mark.parametrize("role", ["ws-server", "ws-client"])
def test_frames_are_read_as_websockets_reads_them(machine, role):
    numbers = random.Random(6455)
    masked = role == "ws-server"
    inputs = [conversation(numbers, masked) for _ in range(500)]
    inputs += mutants(inputs, 4_000)
    if masked:
        cases = load("ws-handshake", "ws-handshake-neighbours")
        inputs += [bytes.fromhex(case["after_the_handshake"]) for case in cases]
    wrong, used = [], set()
    for data, ours in zip(inputs, machine(role, inputs), strict=True):
        theirs, their_error = by_websockets(data, Side.SERVER if masked else Side.CLIENT)
        mine = ours["events"]
        both = min(len(mine), len(theirs))
        known: str | None = ""
        if mine[:both] != theirs[:both] or (mine != theirs and not ours["error"] and not their_error):
            known = None
        elif ours["error"] and not their_error:
            known = next((key for key in FRAMES_WE_REFUSE if ours["error"].startswith(key)), None)
        elif their_error and not ours["error"]:
            known = next((key for key in FRAMES_THEY_REFUSE if their_error.startswith(key)), None)
        used.add(known)
        if known is None:
            wrong.append(f"{data.hex()}: {mine} {ours['error']} here, {theirs} {their_error} there")
    assert not wrong, "\n".join(wrong[:20])
    # Only a server is given frames of lengths that are not the shortest.
    unused = (set(FRAMES_WE_REFUSE) | set(FRAMES_THEY_REFUSE)) - used
    assert unused <= {"incomplete fragmented message", "a frame's length is not in its shortest form"}, unused
