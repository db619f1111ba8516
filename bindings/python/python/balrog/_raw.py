"""``response.raw``: the body of a response, with urllib3's interface."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

from requests import exceptions
from urllib3 import HTTPHeaderDict

from balrog._balrog import HttpError, sleep
from balrog._decode import decoder

#: How much of a body is asked for at a time (bytes).
_READ = 1 << 16
#: After so much work without a wait (bytes), other tasks have their turn.
_SHARE = 1 << 18
#: What is read of a body that nobody wants, to keep its connection.
_DRAIN = 1 << 20


class _Original:
    """What the standard library's cookies, and users of urllib3, want of its underlying response.

    False without cookies, which spares requests the search for them.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Raw) -> None:
        self._raw = raw

    def __bool__(self) -> bool:
        return any(name.lower() == "set-cookie" for name, _ in self._raw._fields)

    @property
    def msg(self) -> Message:
        message = Message()
        for name, value in self._raw._fields:
            message[name] = value
        return message

    def isclosed(self) -> bool:
        return self._raw.isclosed()

    def close(self) -> None:
        self._raw.close()


class Raw(io.IOBase):
    """The body of a response, with those parts of urllib3's interface that requests and its users take.

    As with requests' own, ``read()`` gives what was received, ``read(decode_content=True)`` what it decodes to;
    errors are those of requests. ``translate`` makes one of an ``HttpError``, ``limit`` is the most bytes that
    may be decoded. ``done`` is called when the connection is no longer needed.
    """

    def __init__(
        self,
        answer: Any,
        url: str | None,
        translate: Callable[[HttpError], Exception],
        limit: int | None,
    ) -> None:
        self._answer = answer
        self._url = url
        self._translate = translate
        self._limit = limit
        self.done: Callable[[], None] | None = None
        self._fields: list[tuple[str, str]] = answer.headers
        self._headers: HTTPHeaderDict | None = None
        #: The body decoded; ``None`` before somebody wanted that, ``False`` if it has no coding.
        self._slices: Iterator[bytes] | bool | None = None
        self._undecodable: Exception | None = None
        #: What was taken out of the body and not yet handed out, from ``_at`` on.
        self._piece = b""
        self._at = 0
        self._work = 0
        self._received = 0
        self._ended = False
        self._error: Exception | None = None
        self._body: bytes | None = None
        #: A body that fails is no loss: the head of a redirect says it all.
        self.lenient = False
        self.status: int = answer.status
        self.reason: str = answer.reason
        self.version: int = answer.version
        self.retries: Any = None
        self.decode_content = False

    @property
    def headers(self) -> HTTPHeaderDict:
        if self._headers is None:
            self._headers = HTTPHeaderDict(self._fields)
        return self._headers

    @property
    def version_string(self) -> str:
        return "HTTP/1.1" if self.version == 11 else "HTTP/1.0"

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length_remaining(self) -> int | None:
        length = self.headers.get("content-length")
        return int(length) - self._received if length and length.isdecimal() and not self.chunked else None

    @property
    def _original_response(self) -> _Original:
        # Made when asked for: kept, it would be a cycle, and a dropped response not closed at once.
        return _Original(self)

    @property
    def msg(self) -> Message:
        return self._original_response.msg

    @property
    def url(self) -> str | None:
        return self._url

    def geturl(self) -> str | None:
        return self._url

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self.headers.get(name, default)

    def getheaders(self) -> HTTPHeaderDict:
        return self.headers

    info = getheaders

    def get_redirect_location(self) -> str | None | bool:
        return self.headers.get("location") if self.status in (301, 302, 303, 307, 308) else False

    def _next(self, decode: bool) -> bytes:
        """The next bytes of the body; empty at its end only."""
        if self._work >= _SHARE:
            self._work = 0
            sleep(0)
        if decode and self._slices is None:
            self._begin_decoding()
        if not decode or not self._slices:
            data = self._wire()
            self._work += len(data)
            return data
        if self._undecodable is not None:
            raise self._undecodable
        try:
            for data in self._slices:  # type: ignore[union-attr]
                self._work += len(data) + 64
                if data:
                    return data
                if self._work >= _SHARE:
                    self._work = 0
                    sleep(0)
            return b""
        except ValueError as error:
            self._undecodable = self._not_decoded(error)
            raise self._undecodable from error
        except BaseException as error:
            # A generator that has raised only ends from now on, which is not the end of the body.
            known = isinstance(error, exceptions.RequestException)
            self._undecodable = error if known else self._broken_off()
            raise

    def _wire(self) -> bytes:
        """The next bytes as they were received."""
        if self._ended:
            return b""
        if self._error is not None:
            if self.lenient:
                return b""
            # Asked again after a failure, the end would pass for that of the body.
            raise self._error
        if self.closed:
            raise exceptions.StreamConsumedError(f"{self._url}: the response was closed before its body was read")
        try:
            data = self._answer.read(_READ)
        except HttpError as error:
            self._error = self._translate(error)
            self._finish()
            raise self._error from error
        except BaseException:
            self._error = self._broken_off()
            self._finish()
            raise
        self._received += len(data)
        if not data:
            self._ended = True
            self._finish()
        return data

    def _begin_decoding(self) -> None:
        coding = self.headers.get("content-encoding")
        try:
            found = decoder(coding, self._limit) if coding else None
        except ValueError as error:
            self._undecodable = self._not_decoded(error)
            raise self._undecodable from error
        self._slices = self._decoded(found) if found is not None else False

    def _decoded(self, decoder: Any) -> Iterator[bytes]:
        while data := self._wire():
            yield from decoder.decode(data, False)
        yield from decoder.decode(b"", True)

    def _not_decoded(self, error: ValueError) -> Exception:
        return exceptions.ContentDecodingError(f"{self._url}: the body is not what Content-Encoding says: {error}")

    def _broken_off(self) -> Exception:
        return exceptions.ChunkedEncodingError(f"{self._url}: reading the body was broken off before its end")

    def _finish(self) -> None:
        done, self.done = self.done, None
        if done is not None:
            done()

    def read(self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False) -> bytes:
        """``amt`` bytes of the body, fewer only at its end; all of it without ``amt``."""
        decode = self.decode_content if decode_content is None else decode_content
        at, piece = self._at, self._piece
        if amt is not None and 0 <= amt <= len(piece) - at:
            self._at = at + amt
            return piece[at : at + amt]
        parts = [piece[at:]]
        self._piece, self._at = b"", 0
        left = None if amt is None or amt < 0 else amt - len(parts[0])
        while left != 0:
            data = self._next(decode)
            if not data:
                break
            if left is not None:
                if len(data) > left:
                    self._piece, self._at = data, left
                    data = data[:left]
                left -= len(data)
            parts.append(data)
        whole = b"".join(parts)
        if cache_content and left is None:
            self._body = whole
        return whole

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """What is there of the body, or else comes next: ``amt`` bytes at most, none only at its end."""
        decode = self.decode_content if decode_content is None else decode_content
        if amt == 0:
            return b""
        if self._at == len(self._piece):
            self._piece, self._at = self._next(decode), 0
        end = len(self._piece) if amt is None or amt < 0 else self._at + amt
        data = self._piece[self._at : end]
        self._at += len(data)
        return data

    def peek(self, size: int = 0) -> bytes:
        """Some of what ``read()`` will give."""
        if self._at == len(self._piece):
            self._piece, self._at = self._next(self.decode_content), 0
        return self._piece[self._at : self._at + 512]

    def stream(self, amt: int | None = 65536, decode_content: bool | None = None) -> Iterator[bytes]:
        """The body in pieces of ``amt`` bytes; chunked ones as they come, ``amt`` bytes at most."""
        if amt == 0:
            return
        take = self.read1 if self.chunked else self.read
        while piece := take(amt, decode_content):
            yield piece

    read_chunked = stream

    def __iter__(self) -> Iterator[bytes]:
        """The lines of the body, decoded."""
        begun: list[bytes] = []
        for piece in self.stream(decode_content=True):
            *lines, rest = piece.split(b"\n")
            for line in lines:
                yield b"".join([*begun, line, b"\n"])
                begun = []
            if rest:
                begun.append(rest)
        if begun:
            yield b"".join(begun)

    @property
    def data(self) -> bytes:
        return self.read(cache_content=True) if self._body is None else self._body

    def json(self) -> Any:
        return json.loads(self.data)

    def tell(self) -> int:
        return self._received

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def release_conn(self) -> None:
        """Nothing to give back by hand: a connection is kept once its response was read to the end."""

    def drain_conn(self) -> None:
        """Read and drop the rest of the body, so that its connection is kept; give up on a large one."""
        until = self._received + _DRAIN
        try:
            while self._wire():
                if self._received > until:
                    return self.close()
        except exceptions.RequestException:
            pass

    def close(self) -> None:
        """Give up the rest of the body, and its connection with it."""
        if not self.closed:
            self._answer.close()
            self._finish()
            super().close()

    def isclosed(self) -> bool:
        return self._ended or self.closed
