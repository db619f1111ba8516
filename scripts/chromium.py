#!/usr/bin/env python3
"""Headless Chromium for tests of pages, driven through chromedriver's W3C WebDriver interface.

    with Browser() as browser:
        browser.open("http://127.0.0.1:8000/")
        browser.find("button").click()

``scripts/chromium.py --install`` installs Debian's packages where they are missing. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from processes import Service, free_port

PACKAGES = ["chromium", "chromium-driver"]
FLAGS = [
    "--headless",
    "--no-sandbox",  # refuses root otherwise; it opens our own page only
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver section 12.1, "web element identifier"


class BrowserError(RuntimeError):
    """Chromium is missing, or it could not do what was asked."""


class Browser:
    """One browser with a fresh profile."""

    def __init__(self) -> None:
        driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
        if not driver or not browser:
            raise BrowserError(MISSING)
        self._profile = tempfile.TemporaryDirectory(prefix="balrog-chromium-", ignore_cleanup_errors=True)
        port = free_port()
        # Chromium writes below HOME too: keep that in the profile.
        self._driver = Service("chromedriver", [driver, f"--port={port}"], env={"HOME": self._profile.name})
        try:
            self._driver.wait_for_port(("127.0.0.1", port))
            self._base = f"http://127.0.0.1:{port}/session"
            options = {"binary": browser, "args": [*FLAGS, f"--user-data-dir={self._profile.name}/profile"]}
            wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
            self._base += "/" + self._ask("POST", "", wanted)["sessionId"]
        except BaseException:
            self._driver.stop()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self._driver.stop()
            self._profile.cleanup()

    def open(self, url: str) -> None:
        """Goes to a page and waits for its load event."""
        self._ask("POST", "/url", {"url": url})

    def find(self, selector: str) -> Element:
        """The first element of a CSS selector; raises `BrowserError` when there is none."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return Element(self, found[ELEMENT])

    def wait_for_text(self, selector: str, text: str, timeout: float = 20.0) -> str:
        """The element's text once it holds `text`."""
        until, seen = time.monotonic() + timeout, "nothing"
        while time.monotonic() < until:
            try:
                seen = self.find(selector).text()
                if text in seen:
                    return seen
            except BrowserError as error:
                seen = str(error)
            time.sleep(0.1)
        raise BrowserError(f"{selector} never showed {text!r}, but {seen!r}")

    def run(self, script: str) -> Any:
        """Result of a JavaScript function's body."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def screenshot(self) -> str:
        """The page as PNG, in base64."""
        return self._ask("GET", "/screenshot")

    def _ask(self, method: str, path: str, what: dict[str, Any] | None = None) -> Any:
        data = json.dumps(what).encode() if what is not None else None
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise BrowserError(json.load(error)["value"]["message"].split("\n")[0]) from None


@dataclass
class Element:
    """An element of the page that the browser shows."""

    browser: Browser
    identifier: str

    def click(self) -> None:
        """Clicks it as a user does."""
        self._ask("POST", "click", {})

    def fill(self, text: str) -> None:
        """Replaces what an input holds."""
        self._ask("POST", "clear", {})
        self._ask("POST", "value", {"text": text})

    def text(self) -> str:
        """The text that is shown."""
        return self._ask("GET", "text")

    def _ask(self, method: str, command: str, what: dict[str, Any] | None = None) -> Any:
        return self.browser._ask(method, f"/element/{self.identifier}/{command}", what)


MISSING = f"Chromium is needed: apt-get install {' '.join(PACKAGES)}"


def install() -> int:
    """Installs Debian's packages unless they are there; returns the exit status."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return 0
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"chromium: {MISSING}", file=sys.stderr)
        return 1
    print("chromium: installing Debian's packages", file=sys.stderr)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    # A list of packages may be missing or too old to name files that still exist.
    for attempt in (command, ["apt-get", "update", "-qq"], command):
        done = subprocess.run(attempt, env=environment, capture_output=True, text=True)
        if attempt is command and done.returncode == 0:
            return 0
    print(f"chromium: {MISSING}; apt-get said:\n{done.stdout[-1000:]}{done.stderr[-1000:]}", file=sys.stderr)
    return 1


def main() -> int:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="Chromium for the tests.")
    parser.add_argument("--install", action="store_true", required=True, help="install it where it is missing")
    parser.parse_args()
    return install()


if __name__ == "__main__":
    sys.exit(main())
