"""Content codings on their own: linear time, bounded slices, limits, nothing cut passed off as whole."""

import gzip
import os
import time
import zlib

import brotli
import pytest
from backports import zstd
from balrog import _decode
from balrog._decode import FREE_SIZE, MAX_RATIO, SLICE, decoder

TEXT = b"hello " * 40_000 + os.urandom(10_000)


def raw_deflate(data):
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    return z.compress(data) + z.flush()


CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate raw": raw_deflate,
    "br": lambda data: brotli.compress(data, quality=4),
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data), quality=4),
    "br, zstd, gzip": lambda data: gzip.compress(zstd.compress(brotli.compress(data, quality=4))),
    "identity, GZip": gzip.compress,
}


def decode(coding, coded, size=65536, limit=None):
    whole = decoder(coding.split(" raw")[0], limit)
    assert whole is not None
    for at in range(0, len(coded), size):
        yield from whole.decode(coded[at : at + size], False)
    yield from whole.decode(b"", True)


@pytest.mark.parametrize("coding", CODINGS)
def test_every_split_gives_the_same(coding):
    coded = CODINGS[coding](TEXT)
    for size in (7, 1000, len(coded)):
        slices = list(decode(coding, coded, size))
        assert b"".join(slices) == TEXT
        # Brotli gives somewhat more than it was asked for.
        assert max(map(len, slices)) <= 2 * SLICE
    short = CODINGS[coding](b"hello")
    assert b"".join(decode(coding, short, 1)) == b"hello"


@pytest.mark.parametrize("coding", CODINGS)
def test_nothing_cut_passes_for_whole(coding):
    coded = CODINGS[coding](b"hello " * 50)
    for size in range(1, len(coded)):
        with pytest.raises(ValueError):
            list(decode(coding, coded[:size]))
    # An empty body has no coding: the response to HEAD, for one.
    assert b"".join(decode(coding, b"")) == b""


@pytest.mark.parametrize("coding", [coding for coding in CODINGS if "," not in coding])
def test_what_it_is_not(coding):
    with pytest.raises(ValueError):
        list(decode(coding, b"\xff\xfenot this at all" * 10))


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_members(coding):
    compress = CODINGS[coding]
    coded = compress(TEXT) + compress(b"") + compress(b"tail")
    for size in (11, len(coded)):
        assert b"".join(decode(coding, coded, size)) == TEXT + b"tail"


@pytest.mark.parametrize("trailing", [b"\0" * 500, b"garbage", b"\x1f\x8bgarbage"])
def test_what_follows_a_gzip_member_and_is_none_is_ignored(trailing):
    coded = gzip.compress(TEXT) + trailing
    for size in (11, len(coded)):
        assert b"".join(decode("gzip", coded, size)) == TEXT


def zeros(coding, size):
    if coding == "gzip":
        z = zlib.compressobj(9, zlib.DEFLATED, 31)
    elif coding == "deflate":
        z = zlib.compressobj(9)
    elif coding == "zstd":
        z = zstd.ZstdCompressor()
    else:
        z = brotli.Compressor(quality=4)
    feed = getattr(z, "compress", None) or z.process
    end = z.finish if coding == "br" else z.flush
    return b"".join([feed(bytes(1 << 20)) for _ in range(size >> 20)] + [end()])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_costs_no_more_than_its_limits(coding):
    bomb = zeros(coding, 256 << 20)
    given, begun = 0, time.monotonic()
    with pytest.raises(ValueError, match="grows|more than"):
        for piece in decode(coding, bomb, limit=100 << 20):
            assert len(piece) <= 2 * SLICE
            given += len(piece)
    assert given <= (100 << 20)
    assert time.monotonic() - begun < 5


def test_the_ratio_is_exact():
    # 5 bytes are taken by a stored block's head, 2 + 4 by the format: what grows is made here by hand.
    class Stage:
        given = 0

        def feed(self, piece):
            yield from self.slices

    whole = decoder("gzip")
    stage = Stage()
    whole._stages = [stage]
    taken = b"x" * (FREE_SIZE // MAX_RATIO + 1)
    stage.slices = [b"y" * (MAX_RATIO * len(taken))]
    assert b"".join(whole.decode(taken, False)) == stage.slices[0]
    stage.given = 0
    whole._taken = 0
    stage.slices = [b"y" * (MAX_RATIO * len(taken) + 1)]
    with pytest.raises(ValueError, match="grows"):
        list(whole.decode(taken, False))


def test_the_limit_is_exact():
    for size, good in ((999, True), (1000, True), (1001, False)):
        coded = gzip.compress(b"x" * size)
        if good:
            assert len(b"".join(decode("gzip", coded, limit=1000))) == size
        else:
            with pytest.raises(ValueError, match="stream=True"):
                list(decode("gzip", coded, limit=1000))


def test_a_bomb_in_the_middle_counts():
    inner = zeros("gzip", 64 << 20)
    coded = brotli.compress(inner, quality=9)
    # The last coding has not given a byte yet when the one before has grown too much.
    hollow = zeros("br", 64 << 20)
    with pytest.raises(ValueError):
        list(decode("gzip, br", hollow))
    with pytest.raises(ValueError, match="grows"):
        list(decode("gzip, br", coded))


def test_too_many_codings():
    assert decoder(", ".join(["gzip"] * 5)) is not None
    with pytest.raises(ValueError, match="codings"):
        decoder(", ".join(["gzip"] * 6))
    assert decoder("cow") is None
    assert decoder("identity") is None and decoder("") is None


def test_time_is_linear():
    block = os.urandom(16) + bytes(2032)

    def cost(size):
        coded = gzip.compress(block * (size << 9), 1)
        begun = time.thread_time()
        for _ in decode("gzip", coded):
            pass
        return time.thread_time() - begun

    small, large = (min(cost(size) for _ in range(3)) for size in (8, 64))
    assert large < 8 * small * 4


@pytest.mark.parametrize("library", ["brotli", "brotlicffi"])
@pytest.mark.parametrize("limited", [True, False])
def test_every_brotli(library, limited, monkeypatch):
    module = pytest.importorskip(library)
    monkeypatch.setattr(_decode, "brotli", module)
    stage = _decode._Brotli()
    assert stage._limited
    stage._limited = limited
    coded = brotli.compress(TEXT)
    pieces = [piece for at in range(0, len(coded), 100) for piece in stage.feed(coded[at : at + 100])]
    stage.end()
    assert b"".join(pieces) == TEXT
