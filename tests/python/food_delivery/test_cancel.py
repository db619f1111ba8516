"""The view cancelled at each of its waits."""

import os
import subprocess
import sys
from pathlib import Path

from services import HERE

SCRIPT = Path(__file__).with_name("cancel_everywhere.py")


def test_view_cancelled_at_each_wait_leaves_nothing_behind(env):
    settings = {"DJANGO_SETTINGS_MODULE": "food_delivery.settings", "PYTHONPATH": str(HERE)}
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, env=os.environ | env | settings, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "other ends []",
        "some were cancelled True",
        "tasks left 0",
        "open transactions 0",
        "after {200} True",
    ]
