"""Run pytest with the given arguments as $SUITE_MODE says, and write each test's outcome to $SUITE_RESULT.

``stock`` leaves requests alone. ``plain`` and ``green`` replace every HTTP adapter by balrog's, those
that tests make for themselves included; ``green`` runs it all inside one task, beside another task
that never rests: what blocks the thread instead of waiting would stop that one.
"""

import json
import os
import sys

import pytest


class Outcomes:
    def __init__(self) -> None:
        self.of: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        kind = {"passed": "pass", "failed": "fail", "skipped": "skip"}[report.outcome]
        if kind == "skip" and hasattr(report, "wasxfail"):
            kind = "fail"
        before = self.of.get(report.nodeid)
        if before is None or kind != "pass":
            self.of[report.nodeid] = kind


def main() -> int:
    outcomes = Outcomes()
    status = pytest.main(sys.argv[1:], plugins=[outcomes])
    with open(os.environ["SUITE_RESULT"], "w") as file:
        json.dump(outcomes.of, file)
    return int(status)


def install() -> None:
    import balrog.requests
    import requests.adapters

    balrog.requests.install()
    requests.adapters.HTTPAdapter = balrog.requests.Adapter


def green() -> int:
    import balrog

    turns = 0

    def tick() -> None:
        nonlocal turns
        while True:
            balrog.sleep(0.01)
            turns += 1

    ticker = balrog.spawn(tick)
    try:
        return main()
    finally:
        ticker.cancel()
        print(f"green: another task had {turns} turns meanwhile", file=sys.stderr)


if __name__ == "__main__":
    # From the folder of the sources, whose package `tests` it is, while `requests` is the installed one.
    sys.path.insert(0, os.getcwd())
    mode = os.environ["SUITE_MODE"]
    if mode != "stock":
        install()
    if mode == "green":
        import balrog

        sys.exit(balrog.run(green))
    sys.exit(main())
