#!/usr/bin/env python3
"""requests' own tests through ``balrog.requests.install()``, compared with a run of stock requests.

They run three times: stock, through balrog as from a script (its waits block), and through balrog
wholly inside a green task. Nothing may fail that passes in stock, but what ``EXPECTED`` lists with
its reason. Arguments go to pytest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent

RUNS = {"stock": "stock", "plain": "balrog", "green": "balrog in a task"}

_POOLS = "it counts urllib3's pools, of which balrog has none; test_tls.py tests what it means"
_PREFIX = "tests/test_requests.py::TestPreparingURLs::test_different_connection_pool_for_tls_settings_verify"
#: Tests that fail through balrog, and why they should.
EXPECTED = {
    f"{_PREFIX}_True": _POOLS,
    f"{_PREFIX}_bundle_expired_cert": _POOLS,
    f"{_PREFIX}_bundle_unexpired_cert": _POOLS,
    "tests/test_lowlevel.py::test_chunked_encoding_error": "it ends inside of the head, which http.client takes for "
    "the head's end; there is no response before the empty line, and so it is a ConnectionError",
}


def sources() -> Path:
    """The unpacked source distribution of the installed requests; downloaded once."""
    import requests

    name = f"requests-{requests.__version__}"
    store = ROOT / ".run"
    folder = store / name
    if not (folder / "tests").exists():
        store.mkdir(exist_ok=True)
        wanted = [f"requests=={requests.__version__}", "--no-deps", "--no-binary", ":all:", "--dest", str(store)]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], check=True)
        with tarfile.open(store / f"{name}.tar.gz") as tar:
            tar.extractall(store, filter="data")
    return folder


def start(run: str, folder: Path, chosen: list[str]) -> subprocess.Popen[bytes]:
    result, log = ROOT / ".run" / f"requests-{run}.json", ROOT / ".run" / f"requests-{run}.log"
    result.unlink(missing_ok=True)
    env = os.environ | {"SUITE_RESULT": str(result), "SUITE_MODE": run}
    command = [sys.executable, str(HERE / "requests_suite_main.py"), "-q", "-p", "no:cacheprovider", *chosen]
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT)


def count(outcomes: dict[str, str]) -> str:
    values = list(outcomes.values())
    return ", ".join(f"{values.count(kind)} {kind}" for kind in ("pass", "fail", "skip"))


def main() -> int:
    folder = sources()
    began = time.monotonic()
    children = {run: start(run, folder, sys.argv[1:]) for run in RUNS}
    for child in children.values():
        child.wait()
    outcomes: dict[str, dict[str, str]] = {}
    for run, title in RUNS.items():
        result = ROOT / ".run" / f"requests-{run}.json"
        outcomes[run] = json.loads(result.read_text()) if result.exists() else {}
        print(f"{title:17} {len(outcomes[run])} tests: {count(outcomes[run])}")
    if not outcomes["stock"]:
        print("the stock run gave no outcome; see .run/requests-stock.log")
        return 1
    bad = 0
    for run in ("plain", "green"):
        for test, outcome in outcomes["stock"].items():
            here = outcomes[run].get(test, "missing")
            reason = EXPECTED.get(test)
            if outcome == "pass" and here != "pass":
                bad += reason is None
                print(f"{run}: {test}: {here}{f' ({reason})' if reason else ''}")
            elif outcome == here == "pass" and reason:
                bad += 1
                print(f"{run}: {test} passes, but is listed to fail: {reason}")
    print(f"{time.monotonic() - began:.0f} s; logs in .run/requests-*.log")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
