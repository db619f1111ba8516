"""``manage.py`` commands: outside of any task, so everything simply blocks."""

from services import manage


def test_migrations_are_complete(env):
    assert "No changes detected" in manage(["makemigrations", "--check", "--dry-run"], env)


def test_migrate_is_done_once(env):
    assert "No migrations to apply" in manage(["migrate"], env)


def test_system_check(env):
    assert "no issues" in manage(["check", "--database", "default"], env)


def test_shell_runs_a_query_and_a_request(env, kitchen):
    code = (
        "import requests; from delivery.models import Order; "
        "from django.conf import settings; "
        "print('orders', Order.objects.filter(pk=0).count()); "
        "print('kitchen', requests.get(settings.KITCHEN_SERVICE.replace('orders', 'stats')).status_code)"
    )
    output = manage(["shell", "--verbosity", "0", "-c", code], env)
    assert "orders 0" in output and "kitchen 200" in output


def test_the_projects_own_tests(env):
    manage(["test", "--verbosity", "1", "--noinput"], env)
