"""Codings whose libraries are optional; each is tested where it is installed."""

import pytest
from balrog._decode import decoder

TEXT = b"hello " * 100_000


@pytest.mark.parametrize(("coding", "library"), [("br", "brotli"), ("zstd", "backports.zstd")])
def test_coding(coding, library):
    compress = pytest.importorskip(library).compress
    coded = compress(TEXT)
    for size in (1, 7, len(coded)):
        whole = decoder(coding)
        found = b"".join(whole.decode(coded[at : at + size], False) for at in range(0, len(coded), size))
        assert found + whole.decode(b"", True) == TEXT
    cut = decoder(coding)
    with pytest.raises(ValueError):
        cut.decode(coded[:-3], False)
        cut.decode(b"", True)
    with pytest.raises(ValueError, match="grows|more than"):
        decoder(coding, 100 << 20).decode(compress(bytes(300 << 20)), False)
