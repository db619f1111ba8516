"""The example's whole site as processes: kitchen and web server on a PostgreSQL that runs already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts"))

from postgres import Postgres  # noqa: E402
from processes import Service, free_port  # noqa: E402

APPLICATION = "food_delivery.wsgi"


class Kitchen(Service):
    """The kitchen service, and what it tells of itself."""

    def __init__(self, delay: float = 0.5, port: int = 0, core: int | None = None) -> None:
        self.port = port or free_port()
        command = [sys.executable, str(HERE / "kitchen.py"), "--port", str(self.port), "--delay", str(delay)]
        super().__init__("kitchen", command, core=core)
        self.url = f"http://127.0.0.1:{self.port}/orders"
        self.wait_for_port(("127.0.0.1", self.port))

    def stats(self) -> dict[str, int]:
        """Orders ``open`` now, open at the ``peak``, and ``served``; ``connections``, this question's own included."""
        return self._ask("GET", "/stats")

    def reset(self) -> None:
        """Forgets the peak and the number served."""
        self._ask("POST", "/reset")

    def hold(self, orders: int) -> None:
        """Lets no order be done before so many are in the kitchen at once."""
        self._ask("POST", f"/hold?orders={orders}")

    def hang_up(self) -> None:
        """Closes all idle connections."""
        self._ask("POST", "/hang-up")

    def fault(self, mode: str) -> None:
        """Spoils the answers from now on; see kitchen.py for the modes."""
        self._ask("POST", f"/fault?mode={mode}")

    def _ask(self, method: str, path: str):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def environment(postgres: Postgres, kitchen_url: str, **more: str) -> dict[str, str]:
    """What the project's settings read."""
    return postgres.environ() | {"KITCHEN_SERVICE": kitchen_url} | more


def manage(arguments: list[str], env: dict[str, str]) -> str:
    """Runs ``manage.py`` and returns its output; raises `RuntimeError` with it on failure."""
    command = [sys.executable, str(HERE / "manage.py"), *arguments]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def serve(env: dict[str, str], port: int = 0, core: int | None = None, application: str = APPLICATION) -> Service:
    """``balrog serve`` with one worker."""
    port = port or free_port()
    command = [sys.executable, "-m", "balrog", "serve", application, "--bind", f"127.0.0.1:{port}"]
    site = Service("balrog serve", command, env=env, cwd=HERE, core=core)
    return site.wait_for_port(("127.0.0.1", port))


def serve_blocking(env: dict[str, str], threads: int = 8) -> Service:
    """The same project under a stock blocking server, gunicorn's threads."""
    port = free_port()
    options = [
        "--worker-class",
        "gthread",
        "--threads",
        str(threads),
        "--no-control-socket",
        "--bind",
        f"127.0.0.1:{port}",
    ]
    command = [sys.executable, "-m", "gunicorn", *options, f"{APPLICATION}:application"]
    return Service("gunicorn", command, env=env, cwd=HERE).wait_for_port(("127.0.0.1", port))
