"""Run Django's ``runtests.py`` with the given arguments and write each test's outcome to $SUITE_RESULT.

With SUITE_GREEN=1 all of it runs inside one balrog task, beside another task that never rests: what
blocks the thread instead of waiting would stop that one.
"""

import json
import os
import runpy
import sys
import unittest

outcomes: dict[str, str] = {}
RANK = {"pass": 0, "skip": 1, "fail": 2}


def note(test: unittest.TestCase, outcome: str) -> None:
    name = test.id().split(" (")[0]
    if RANK[outcome] >= RANK.get(outcomes.get(name, "pass"), 0):
        outcomes[name] = outcome


def recorded(method: str, outcome: str) -> None:
    original = getattr(unittest.TextTestResult, method)

    def wrapper(self, test, *args):
        if outcome != "fail" or args[-1] is not None:  # addSubTest() is also told of successes
            case = getattr(test, "test_case", test) if method != "addSubTest" else test
            note(case, outcome)
        return original(self, test, *args)

    setattr(unittest.TextTestResult, method, wrapper)


recorded("addSuccess", "pass")
recorded("addExpectedFailure", "pass")
recorded("addSkip", "skip")
for failing in ("addError", "addFailure", "addSubTest"):
    recorded(failing, "fail")
recorded("addUnexpectedSuccess", "fail")


def main() -> None:
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        with open(os.environ["SUITE_RESULT"], "w") as file:
            json.dump(outcomes, file)


if __name__ == "__main__":
    runtests = os.environ["SUITE_RUNTESTS"]
    sys.path.insert(0, os.path.dirname(runtests))
    os.chdir(os.path.dirname(runtests))
    sys.argv = [runtests, *sys.argv[1:]]
    if os.environ.get("SUITE_GREEN") == "1":
        import balrog

        turns = 0

        def tick() -> None:
            global turns
            while True:
                balrog.sleep(0.01)
                turns += 1

        def green() -> None:
            task = balrog.current_task()
            assert task is not None
            ticker = balrog.spawn(tick)
            try:
                main()
            finally:
                ticker.cancel()
                print(f"green: another task had {turns} turns meanwhile", file=sys.stderr)

        balrog.run(green)
    else:
        main()
