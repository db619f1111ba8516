"""Coroutines for tests to await."""

import asyncio


async def echo(value, delay=0.01):
    await asyncio.sleep(delay)
    return value


async def at_once(value):
    return value


async def fails(error, delay=0.0):
    await asyncio.sleep(delay)
    raise error
