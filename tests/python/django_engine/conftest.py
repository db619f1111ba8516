"""One Django project for all tests here: the engine under test, and SQLite beside it."""

import time

import django
import pytest
from django.conf import settings

POOL_SIZE = 5


@pytest.fixture(scope="session")
def project(postgres):
    """Configured settings; the table of ``Thing`` exists."""
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "balrog.django.postgresql",
                "NAME": postgres.database,
                "USER": postgres.user,
                "HOST": postgres.host,
                "OPTIONS": {"application_name": "under-test", "balrog_pool": {"max_size": POOL_SIZE, "timeout": 2}},
            },
            "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        },
        INSTALLED_APPS=["django.contrib.sessions", "balrog.django"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        SECRET_KEY="tests",
        ALLOWED_HOSTS=["shop.example"],
        CSRF_TRUSTED_ORIGINS=["https://*.friend.example"],
        BALROG={"REQUESTS": False},
        USE_TZ=True,
    )
    django.setup()
    from django.db import connection, models

    class Thing(models.Model):
        name = models.TextField(unique=True)

        class Meta:
            app_label = "things"

    with connection.schema_editor() as editor:
        editor.create_model(Thing)
    connection.close()
    return Thing


@pytest.fixture
def thing(project, postgres):
    """The model, its table empty; afterwards the database is as quiet as before."""
    from django.db import connection

    project.objects.all().delete()
    connection.close()
    yield project
    assert_quiet(postgres)


def sessions(postgres) -> list[list[str]]:
    """State and query of the sessions that the tests have open."""
    rows = postgres.execute(
        "select state || '|' || query from pg_stat_activity where application_name = 'under-test' and state <> 'idle'"
    )
    return rows.split("\n") if isinstance(rows, str) and rows else list(rows or [])


def assert_quiet(postgres) -> None:
    """Pool full, no transaction open, no statement running, no task left."""
    import balrog
    from balrog.django.postgresql import base

    deadline = time.monotonic() + 2
    while (open_sessions := sessions(postgres)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not open_sessions
    pool = base._pools.get("default")
    if pool is not None:
        stats = pool.stats()
        assert stats.size == stats.idle and stats.waiting == 0 and stats.size <= POOL_SIZE
    assert not balrog.tasks()
    assert not base.holders()
