#!/usr/bin/env python3
"""Django's own tests on ``balrog.django.postgresql``, compared with the stock engine's run.

The labels of ``labels.txt`` run three times: on the stock engine, on balrog's as from a script (its
waits block), and on balrog's wholly inside a green task. Nothing may fail or be skipped that the
stock engine passes. Labels given as arguments replace those of the file.
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
sys.path.insert(0, str(ROOT / "scripts"))

from postgres import Postgres  # noqa: E402

RUNS = {
    "stock": {"SUITE_ENGINE": "django.db.backends.postgresql"},
    "plain": {"SUITE_ENGINE": "balrog.django.postgresql"},
    "green": {"SUITE_ENGINE": "balrog.django.postgresql", "SUITE_GREEN": "1"},
}


def django_sources() -> Path:
    """The unpacked source distribution of the installed Django; downloaded once."""
    import django

    name = f"django-{django.get_version()}"
    folder = ROOT / ".run" / name
    if not (folder / "tests" / "runtests.py").exists():
        store = ROOT / ".run"
        store.mkdir(exist_ok=True)
        wanted = [f"Django=={django.get_version()}", "--no-deps", "--no-binary", ":all:", "--dest", str(store)]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], check=True)
        archive = next(one for one in store.glob("*.tar.gz") if one.name.lower() == f"{name}.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(store, filter="data")
        unpacked = next(one for one in store.iterdir() if one.is_dir() and one.name.lower() == name)
        if unpacked != folder:
            unpacked.rename(folder)
    return folder


def labels() -> list[str]:
    lines = (HERE / "labels.txt").read_text().splitlines()
    return [label for line in lines if not line.startswith("#") for label in line.split()]


def start(run: str, server: Postgres, tests: Path, chosen: list[str]) -> subprocess.Popen[bytes]:
    result, log = ROOT / ".run" / f"suite-{run}.json", ROOT / ".run" / f"suite-{run}.log"
    result.unlink(missing_ok=True)
    env = os.environ | server.environ() | RUNS[run]
    env |= {
        "SUITE_RESULT": str(result),
        "SUITE_RUNTESTS": str(tests / "runtests.py"),
        "PYTHONPATH": os.pathsep.join([str(HERE), env.get("PYTHONPATH", "")]),
    }
    # The outcomes are collected in the process, so the runs go beside each other, not each in parallel.
    command = [sys.executable, str(HERE / "suite_main.py"), "--settings=suite_settings", "--parallel=1", "--noinput"]
    with log.open("wb") as file:
        return subprocess.Popen([*command, *chosen], env=env, stdout=file, stderr=subprocess.STDOUT)


def count(outcomes: dict[str, str]) -> str:
    values = list(outcomes.values())
    return ", ".join(f"{values.count(kind)} {kind}" for kind in ("pass", "fail", "skip"))


def main() -> int:
    chosen = sys.argv[1:] or labels()
    tests = django_sources() / "tests"
    bad = 0
    began = time.monotonic()
    # A server each: the runs make databases of the same names.
    with Postgres() as one, Postgres() as two, Postgres() as three:
        children = {run: start(run, server, tests, chosen) for run, server in zip(RUNS, (one, two, three), strict=True)}
        for child in children.values():
            child.wait()
    outcomes: dict[str, dict[str, str]] = {}
    for run in RUNS:
        result = ROOT / ".run" / f"suite-{run}.json"
        outcomes[run] = json.loads(result.read_text()) if result.exists() else {}
        print(f"{run:6} {len(outcomes[run])} tests: {count(outcomes[run])}")
    if not outcomes["stock"]:
        print("the stock engine's run gave no outcome; see .run/suite-stock.log")
        return 1
    for run in ("plain", "green"):
        for test, outcome in outcomes["stock"].items():
            here = outcomes[run].get(test, "missing")
            if outcome == "pass" and here != "pass":
                bad += 1
                print(f"{run}: {test}: {here}")
    print(f"{time.monotonic() - began:.0f} s; logs in .run/suite-*.log")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
