"""What a site holds while nobody uses it: the same before and after whatever goes wrong."""

import json
import time
import urllib.request

SESSIONS = """
    SELECT count(*), count(*) FILTER (WHERE state <> 'idle')
    FROM pg_stat_activity WHERE application_name = 'site'
"""


def probe(site):
    """What the site's process says that it holds; see probed.py."""
    with urllib.request.urlopen("http://{}:{}/probe".format(*site.address), timeout=20) as answer:
        return json.load(answer)


def held(site, database, kitchen):
    """What is in use, by name; all of it is 0 in a site that nobody uses, but for its own few descriptors."""
    pool, cooking = probe(site), kitchen.stats()
    sessions, busy = map(int, database.execute(SESSIONS).split("|"))
    to_kitchen = cooking["connections"] - 1  # the question's own
    return {
        "connections out of the pool": pool["size"] - pool["idle"],
        "waiting for the pool": pool["waiting"],
        "wrappers with a connection": pool["holders"],
        "tasks": pool["tasks"],
        "sessions that the pool does not know": sessions - pool["size"],
        "transactions or statements": busy,
        "orders in the kitchen": cooking["open"],
        "other threads": site.threads() - 1,
        # What the two pools keep for the next order is theirs; everything else would be a leak.
        "descriptors": site.descriptors() - pool["size"] - to_kitchen,
    }


def unused(descriptors):
    """What `held` says of a site that nobody uses."""
    return {name: 0 for name in NAMES} | {"descriptors": descriptors}


NAMES = (
    "connections out of the pool",
    "waiting for the pool",
    "wrappers with a connection",
    "tasks",
    "sessions that the pool does not know",
    "transactions or statements",
    "orders in the kitchen",
    "other threads",
)


def settled(site, database, kitchen, descriptors=None, timeout=10.0):
    """What is held once nobody uses the site any more; it may take a moment until everything is given back."""
    until = time.monotonic() + timeout
    while True:
        now = held(site, database, kitchen)
        wanted = unused(now["descriptors"] if descriptors is None else descriptors)
        if now == wanted or time.monotonic() > until:
            return now
        time.sleep(0.1)
