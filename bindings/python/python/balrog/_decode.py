"""Content codings of a response's body, with limits against bombs and without mercy for cut ones."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from urllib3 import response as _urllib3
from urllib3.exceptions import DecodeError

#: A body may grow to this size (bytes) before its ratio counts.
FREE_SIZE = 1 << 20
#: Then it may be this many times the size of what was received.
MAX_RATIO = 1000
#: Codings one upon the other, as many as urllib3 takes.
MAX_CODINGS = 5
#: Decoders hand out no more than this at a time.
_PIECE = 1 << 16
#: What is fed at a time to one that knows no such limit.
_SLICE = 64


class Decoder:
    """Decodes the pieces of a body; ``ValueError`` if it is malformed, cut or a bomb.

    ``limit`` is the most bytes that may come out altogether; ``None`` is without limit.
    """

    def __init__(self, stages: list[Any], limit: int | None) -> None:
        self._stages = stages
        self._limit = limit
        self._taken = 0
        self._given = 0

    def decode(self, piece: bytes, last: bool) -> bytes:
        self._taken += len(piece)
        pieces: Iterable[bytes] = [piece] if piece else []
        for stage in self._stages:
            pieces = _through(stage, pieces, last)
        out = []
        for decoded in pieces:
            self._given += len(decoded)
            if self._given > FREE_SIZE and self._given > MAX_RATIO * self._taken:
                raise ValueError(f"it grows by more than {MAX_RATIO} to 1")
            if self._limit is not None and self._given > self._limit:
                raise ValueError(f"it has more than {self._limit} bytes; read it with stream=True")
            out.append(decoded)
        return b"".join(out)


def decoder(coding: str, limit: int | None = None) -> Decoder | None:
    """The decoder for a ``Content-Encoding``; ``None`` passes unknown codings on as they are, as urllib3 does."""
    stages: list[Any] = []
    names = [name.strip().lower() for name in coding.split(",")]
    for name in reversed([name for name in names if name and name != "identity"]):
        if name in ("gzip", "x-gzip"):
            stages.append(_Gzip())
        elif name == "deflate":
            stages.append(_Deflate())
        elif name == "br" and hasattr(_urllib3, "BrotliDecoder"):
            stages.append(_Borrowed(_urllib3.BrotliDecoder(), sliced=True))
        elif name == "zstd" and hasattr(_urllib3, "ZstdDecoder"):
            stages.append(_Borrowed(_urllib3.ZstdDecoder()))
        else:
            return None
    if len(stages) > MAX_CODINGS:
        raise ValueError(f"it has more than {MAX_CODINGS} codings")
    return Decoder(stages, limit) if stages else None


def _through(stage: Any, pieces: Iterable[bytes], last: bool) -> Iterator[bytes]:
    for piece in pieces:
        yield from stage.feed(piece)
    if last:
        stage.end()


class _Deflate:
    """The zlib format, or the raw one that some servers send under this name."""

    def __init__(self) -> None:
        self._z = zlib.decompressobj()
        self._head = b""
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        if not self._begun:
            piece = self._head + piece
            if len(piece) < 2:
                self._head = piece
                return
            self._begun = True
            # "(CMF*256 + FLG) is a multiple of 31", and the method is 8. (RFC 1950 section 2.2)
            if piece[0] & 15 != 8 or (piece[0] * 256 + piece[1]) % 31:
                self._z = zlib.decompressobj(-zlib.MAX_WBITS)
        while not self._z.eof:
            data = _inflate(self._z, piece)
            piece = self._z.unconsumed_tail
            if data:
                yield data
            elif not piece:
                return

    def end(self) -> None:
        if (self._begun or self._head) and not self._z.eof:
            raise ValueError("it ends too early")


class _Gzip:
    """One or more gzip members; what follows the last and is none is ignored, as everybody does."""

    def __init__(self) -> None:
        self._z: Any = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._begun = False
        self._members = 0
        self._ended = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        while not self._ended:
            if self._members and not self._begun and piece and piece[0] != 0x1F:
                self._ended = True
                return
            self._begun |= bool(piece)
            try:
                data = _inflate(self._z, piece)
            except ValueError:
                if not self._members:
                    raise
                self._ended = True
                return
            piece = self._z.unconsumed_tail
            if data:
                yield data
            if self._z.eof:
                piece = self._z.unused_data
                self._z = zlib.decompressobj(zlib.MAX_WBITS | 16)
                self._members += 1
                self._begun = False
            if not data and not piece:
                return

    def end(self) -> None:
        if self._begun and not self._ended:
            raise ValueError("it ends too early")


def _inflate(z: Any, piece: bytes) -> bytes:
    try:
        return z.decompress(piece, _PIECE)
    except zlib.error as error:
        raise ValueError(str(error)) from error


class _Borrowed:
    """A decoder of urllib3's, for the codings whose libraries it found."""

    def __init__(self, inner: Any, sliced: bool = False) -> None:
        self._inner = inner
        # Brotli 1.2 loses output when its limit is met: small slices bound what comes at a time.
        self._sliced = sliced
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._begun = True
        try:
            if self._sliced:
                for at in range(0, len(piece), _SLICE):
                    yield self._inner.decompress(piece[at : at + _SLICE])
                return
            data = self._inner.decompress(piece, max_length=_PIECE)
            while data or self._inner.has_unconsumed_tail:
                yield data
                data = self._inner.decompress(b"", max_length=_PIECE) if self._inner.has_unconsumed_tail else b""
        except _urllib3.HTTPResponse.DECODER_ERROR_CLASSES as error:
            raise ValueError(str(error)) from error
        except DecodeError as error:
            raise ValueError(str(error)) from error

    def end(self) -> None:
        if not self._begun:
            return
        finished = getattr(getattr(self._inner, "_obj", None), "is_finished", None)
        if finished is not None and not finished():
            raise ValueError("it ends too early")
        try:
            self._inner.flush()
        except DecodeError as error:
            raise ValueError(str(error)) from error
