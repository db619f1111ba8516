#!/usr/bin/env python3
"""Counts the instructions of balrog-proto's hot paths and compares them with the counts that are kept.

    scripts/bench_proto_gate.py             # fails if a path needs 2 % more than its count
    scripts/bench_proto_gate.py --update    # keeps the counts of this machine

A path is our side of a row of ``make bench-proto``. It runs under valgrind twice, with few and with many rounds, so
that what one round costs is known without what the program does around it. Counts hold for one compiler, one C library
and one model of processor, whose copying loops the library chooses; where there are none for this one, that is said and
nothing fails. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench" / "proto"
COUNTS = BENCH / "instructions.json"
PROGRAM = BENCH / "target" / "release" / "balrog-bench-proto"
FEW, MANY = 20, 120
#: What a path may grow by.
SLACK = 0.02


def output(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def collected(name: str, rounds: int) -> int:
    """All instructions of a run with so many rounds."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", PROGRAM, "--count", name, str(rounds)]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind did not say what it counted:\n{done.stderr}")
    return int(found[1])


def here() -> str:
    """What the counts depend on beside our code."""
    try:
        cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        cpu = None
    compiler = output("rustc", "--version").strip()
    return ", ".join([compiler, " ".join(platform.libc_ver()), cpu[1] if cpu else platform.machine()])


def measure() -> dict[str, int]:
    return {
        name: round((collected(name, MANY) - collected(name, FEW)) / (MANY - FEW))
        for name in output(PROGRAM, "--list").split()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help="keep the counts that are found")
    update = parser.parse_args().update
    if shutil.which("valgrind") is None:
        print("bench-proto-gate: not run, there is no valgrind here")
        return 0
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", BENCH / "Cargo.toml"], check=True
    )
    place = here()
    kept = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    if not update and place not in kept:
        print(f"bench-proto-gate: no counts are kept for {place}; `make bench-proto-gate ARGS=--update` keeps them")
        return 0
    now, before = measure(), kept.get(place, {})
    grown = []
    for name, count in now.items():
        change = count / before[name] - 1 if name in before else 0.0
        if change > SLACK:
            grown.append(name)
        print(f"{name:<28} {count:>12,} instructions  {change:+.1%}" + ("" if name in before else "  (new)"))
    if update:
        COUNTS.write_text(json.dumps({**kept, place: now}, indent=2, sort_keys=True) + "\n")
        return 0
    if grown:
        print(f"bench-proto-gate: more than {SLACK:.0%} over what is kept: {', '.join(grown)}", file=sys.stderr)
    return int(bool(grown))


if __name__ == "__main__":
    raise SystemExit(main())
