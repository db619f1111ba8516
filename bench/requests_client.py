"""One library's POSTs for ``requests_post.py``: reads how many to do, writes what one cost (us of processor time)."""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Callable
from typing import Any

FORM = {"dish": "soup", "quantity": "2", "customer": "anna", "address": "Main Street 5"}


def check(status: int, content: bytes) -> None:
    if (status, content) != (201, b'{"mins": 25}'):
        raise RuntimeError(f"{status}: {content!r}")


def plain(post: Callable[..., Any], url: str) -> Callable[[int], None]:
    def calls(number: int) -> None:
        for _ in range(number):
            response = post(url, data=FORM)
            check(response.status_code, response.content)

    return calls


def asynchronous(url: str) -> Callable[[int], None]:
    import asyncio

    import aiohttp  # type: ignore[import-not-found]

    loop = asyncio.new_event_loop()

    async def begin() -> Any:
        return aiohttp.ClientSession()

    session = loop.run_until_complete(begin())
    atexit.register(lambda: loop.run_until_complete(session.close()))

    async def calls(number: int) -> None:
        for _ in range(number):
            async with session.post(url, data=FORM) as response:
                check(response.status, await response.read())

    return lambda number: loop.run_until_complete(calls(number))


def of(name: str, url: str) -> Callable[[int], None]:
    """What does so many calls with the library of this name."""
    if name.startswith(("balrog", "requests")):
        import requests

        if name.startswith("balrog"):
            import balrog.requests

            balrog.requests.install()
            if name == "balrog-task":
                calls = plain(requests.post, url)
                return lambda number: balrog.run(calls, number)
        return plain(requests.Session().post if name.endswith("-session") else requests.post, url)
    if name == "httpx":
        import httpx  # type: ignore[import-not-found]

        return plain(httpx.Client().post, url)
    return asynchronous(url)


def main() -> None:
    calls = of(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        number = int(line)
        begun = time.process_time_ns()
        calls(number)
        print((time.process_time_ns() - begun) / 1000 / number, flush=True)


if __name__ == "__main__":
    main()
