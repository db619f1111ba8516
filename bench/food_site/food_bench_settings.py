"""The example's settings; with ``BENCH_STOCK`` set, those of a team without balrog.

Everybody has at most 20 database connections and waits up to 30 s for one: balrog's defaults, and the same said to
Django's own pool for the others. Without a pool they would connect for every order, which is slower for each of them.
"""

import os

from food_delivery.settings import *  # noqa: F403
from food_delivery.settings import BALROG, DATABASES, INSTALLED_APPS

ROOT_URLCONF = "food_bench_urls"
if os.environ.get("BENCH_STOCK"):
    INSTALLED_APPS.remove("balrog.django")
    DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 4, "max_size": 20, "timeout": 30}}
    BALROG["REQUESTS"] = False
