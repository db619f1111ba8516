"""Content codings of a response's body: bounded slices, limits against bombs, no mercy for cut ones."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

try:
    try:
        import brotlicffi as brotli  # type: ignore[import-not-found]
    except ImportError:
        import brotli  # type: ignore[import-not-found]
except ImportError:
    brotli = None

try:
    if sys.version_info >= (3, 14):
        from compression import zstd  # type: ignore[import-not-found]
    else:
        from backports import zstd  # type: ignore[import-not-found]
except ImportError:
    zstd = None

#: A body may grow to this size (bytes) before its ratio counts.
FREE_SIZE = 1 << 20
#: Then it may be this many times the size of what was received, after each coding.
MAX_RATIO = 1000
#: Codings one upon the other, as many as urllib3 takes.
MAX_CODINGS = 5
#: Decoders hand out no more than about this at a time.
SLICE = 1 << 16


class Decoder:
    """Decodes the pieces of a body; ``ValueError`` if it is malformed, cut or a bomb.

    ``limit`` is the most bytes that may come out altogether; ``None`` is without limit.
    """

    def __init__(self, stages: list[Any], limit: int | None) -> None:
        self._stages = stages
        self._limit = limit
        self._taken = 0

    def decode(self, piece: bytes, last: bool) -> Iterator[bytes]:
        """What ``piece`` decodes to, in slices that are made as they are asked for.

        All are to be taken before the next piece. Empty ones stand for work without a result yet.
        """
        self._taken += len(piece)
        pieces: Iterable[bytes] = [piece] if piece else []
        for stage in self._stages:
            pieces = self._through(stage, pieces, last)
        return self._limited(pieces)

    def _through(self, stage: Any, pieces: Iterable[bytes], last: bool) -> Iterator[bytes]:
        for piece in pieces:
            if not piece:
                yield piece
                continue
            for data in stage.feed(piece):
                stage.given += len(data)
                if stage.given > FREE_SIZE and stage.given > MAX_RATIO * self._taken:
                    raise ValueError(f"it grows by more than {MAX_RATIO} to 1")
                yield data
            yield b""
        if last:
            stage.end()

    def _limited(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        if self._limit is None:
            return iter(pieces)
        return self._counted(pieces, self._limit)

    def _counted(self, pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
        for data in pieces:
            if self._stages[-1].given > limit:
                raise ValueError(f"it has more than {limit} bytes; read it with stream=True")
            yield data


def decoder(coding: str, limit: int | None = None) -> Decoder | None:
    """The decoder for a ``Content-Encoding``; ``None`` passes unknown codings on as they are, as urllib3 does."""
    stages: list[Any] = []
    names = [name.strip().lower() for name in coding.split(",")]
    for name in reversed([name for name in names if name and name != "identity"]):
        if name in ("gzip", "x-gzip"):
            stages.append(_Gzip())
        elif name == "deflate":
            stages.append(_Deflate())
        elif name == "br" and brotli is not None:
            stages.append(_Brotli())
        elif name == "zstd" and zstd is not None:
            stages.append(_Zstd())
        else:
            return None
    if len(stages) > MAX_CODINGS:
        raise ValueError(f"it has more than {MAX_CODINGS} codings")
    return Decoder(stages, limit) if stages else None


class _Stage:
    """One coding. ``feed`` gives what a piece decodes to, ``end`` complains if more would have to come."""

    def __init__(self) -> None:
        self.given = 0


class _Deflate(_Stage):
    """The zlib format, or the raw one that some servers send under this name."""

    def __init__(self) -> None:
        super().__init__()
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


class _Gzip(_Stage):
    """One or more gzip members; what follows the last and is none is ignored, as everybody does."""

    def __init__(self) -> None:
        super().__init__()
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
        return z.decompress(piece, SLICE)
    except zlib.error as error:
        raise ValueError(str(error)) from error


class _Brotli(_Stage):
    def __init__(self) -> None:
        super().__init__()
        self._z: Any = brotli.Decompressor()  # type: ignore[union-attr]
        self._limited = hasattr(self._z, "can_accept_more_data")
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._begun = True
        return self._slices(piece) if self._limited else self._unlimited(piece)

    def _unlimited(self, piece: bytes) -> Iterator[bytes]:
        """Before 1.2 it knows no limit: little at a time bounds what comes."""
        for at in range(0, len(piece), 64):
            yield self._process(piece[at : at + 64])

    def _process(self, piece: bytes, **options: int) -> bytes:
        try:
            return self._z.process(piece, **options)
        except brotli.error as error:  # type: ignore[union-attr]
            raise ValueError(str(error) or "it is no Brotli") from error

    def _slices(self, piece: bytes) -> Iterator[bytes]:
        while not self._z.is_finished():
            data = self._process(piece, output_buffer_limit=SLICE)
            piece = b""
            if data:
                yield data
            # It says that it takes more also with output to be asked for: only nothing at all means that.
            elif self._z.can_accept_more_data():
                return

    def end(self) -> None:
        if self._begun and not self._z.is_finished():
            raise ValueError("it ends too early")


class _Zstd(_Stage):
    """One or more frames."""

    def __init__(self) -> None:
        super().__init__()
        self._z: Any = zstd.ZstdDecompressor()  # type: ignore[union-attr]
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        while True:
            if self._z.eof:
                piece = self._z.unused_data + piece
                if not piece:
                    return
                self._z = zstd.ZstdDecompressor()  # type: ignore[union-attr]
            self._begun = True
            try:
                data = self._z.decompress(piece, SLICE)
            except zstd.ZstdError as error:  # type: ignore[union-attr]
                raise ValueError(str(error)) from error
            piece = b""
            if data:
                yield data
            elif self._z.needs_input:
                return

    def end(self) -> None:
        if self._begun and not self._z.eof:
            raise ValueError("it ends too early")
