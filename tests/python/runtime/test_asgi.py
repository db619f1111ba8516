"""An ASGI application that calls synchronous Django and SQLAlchemy code, 1,000 requests at once on one thread."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "asgi"


# As long as a thousand requests take on a machine that is busy with other things.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_thousand_requests_at_once_on_one_thread(loop):
    command = [sys.executable, str(EXAMPLE / "demo.py"), *(["--uvloop"] if loop == "uvloop" else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"^(\S.*?)  +(.*)$", done.stdout, re.M))
    assert rows["loop"] == loop
    assert rows["requests answered"] == "1000 of 1000"
    assert (rows["visits saved"], rows["stock taken"], rows["threads"]) == ("500", "500", "1")
    # The loop went on meanwhile.
    assert int(rows["loop ticks"]) > 5
    assert done.stderr == ""
