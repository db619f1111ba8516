"""The view cancelled at each of its waits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from services import HERE, Kitchen

SCRIPT = Path(__file__).with_name("cancel_everywhere.py")


@pytest.fixture
def quick_kitchen():
    """Quick, since it cooks for each wait; slow enough to be waited for."""
    with Kitchen(delay=0.05) as service:
        yield service


def test_view_cancelled_at_each_wait_leaves_nothing_behind(env, quick_kitchen):
    settings = {
        "DJANGO_SETTINGS_MODULE": "food_delivery.settings",
        "PYTHONPATH": str(HERE),
        "PGAPPNAME": "site",
        "KITCHEN_SERVICE": quick_kitchen.url,
    }
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, env=os.environ | env | settings, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["together"] == [200] * 40
    # The row, the kitchen's answer and the session's row are waited for each; so are a new connection and the pool.
    for pools, fewest in {"fresh": 4, "used": 3, "taken": 4}.items():
        waits, saved = found[pools]["waits"], found[pools]["saved"]
        assert waits >= fewest
        # Before the row is written there is none; from then on there is, whenever the cancellation came.
        assert len(saved) == waits + 1 and saved == sorted(saved) and (saved[0], saved[-1]) == (0, 1)
