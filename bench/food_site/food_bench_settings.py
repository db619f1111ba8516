"""The example's settings; with ``BENCH_STOCK`` set, those of a team without balrog."""

import os

from food_delivery.settings import *  # noqa: F403
from food_delivery.settings import BALROG, DATABASES, INSTALLED_APPS

ROOT_URLCONF = "food_bench_urls"
if os.environ.get("BENCH_STOCK"):
    INSTALLED_APPS.remove("balrog.django")
    DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
    BALROG["REQUESTS"] = False
else:
    # 2,000 orders that share one core wait longer for their turn than a site would let them.
    DATABASES["default"]["OPTIONS"] = {"balrog_pool": {"max_size": 20, "timeout": 30}}
