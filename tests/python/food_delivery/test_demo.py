"""`make demo`, smaller: what it prints, what it leaves behind, and the site it keeps up in a terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from services import HERE

COMMAND = [sys.executable, str(HERE / "demo.py"), "--orders", "50", "--delay", "0.2"]


def processes(tmp_path):
    """Command lines of everything that runs with this test's mark in its environment."""
    mark = f"BALROG_TEST_MARK={tmp_path}\0".encode()
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and mark in (directory / "environ").read_bytes() + b"\0":
                found.append((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture
def env(tmp_path):
    """Marks what the demo starts, and has it make its files here."""
    return os.environ | {"BALROG_TEST_MARK": str(tmp_path)}


def gone(tmp_path, timeout=10.0):
    """Whether nothing that was started is left, after a while."""
    until = time.monotonic() + timeout
    while time.monotonic() < until and processes(tmp_path):
        time.sleep(0.1)
    return processes(tmp_path) == []


def test_without_a_terminal_it_prints_the_table_and_stops_everything(env, tmp_path):
    done = subprocess.run(COMMAND, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^  (\S.*?)  +(.*)$", done.stdout, re.M))
    assert rows["messages delivered"] == "50 of 50"
    assert rows["errors"] == "0"
    assert rows["server's threads"] == "1"
    assert int(rows["database connections"].split()[0]) <= 20
    assert "one after another: 10 s" in rows["wall time"]
    assert gone(tmp_path)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_in_a_terminal_it_keeps_the_site_up_until_it_is_ended(env, tmp_path, ending):
    master, slave = pty.openpty()
    process = subprocess.Popen(COMMAND, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        seen, until = "", time.monotonic() + 90
        while not (address := re.search(r"The site is up: (http://\S+/)", seen)):
            ready, _, _ = select.select([master], [], [], max(0.0, until - time.monotonic()))
            assert ready, seen
            seen += os.read(master, 65536).decode()
        with urllib.request.urlopen(address[1], timeout=10) as page:
            assert page.status == 200
        process.send_signal(ending)
        process.wait(20)
        assert gone(tmp_path)
    finally:
        process.kill()
        process.wait()
        os.close(master)
