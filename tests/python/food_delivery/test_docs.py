"""What the documents show is what runs."""

import re

from services import HERE

ROOT = HERE.parent.parent


def blocks(path, language="python"):
    """The document's blocks of code."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.S)


def test_readme_shows_the_view_that_the_other_tests_run():
    (view,) = blocks("README.md")
    assert view in (HERE / "delivery" / "views.py").read_text()


def test_readme_names_only_commands_that_exist():
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    named = re.findall(r"^(?:BALROG_\S+ )?make ([a-z-]+)", "\n".join(blocks("README.md", "sh")), re.M)
    assert named and set(named) <= set(targets)


def test_django_how_to_is_the_examples_own_settings():
    settings = (HERE / "food_delivery" / "settings.py").read_text()
    how_to = blocks("docs/django.md")
    for line in how_to[0].splitlines():
        assert line.split(" = ")[-1].split(" += ")[-1] in settings
    for block in how_to:
        compile(block, "docs/django.md", "exec")
