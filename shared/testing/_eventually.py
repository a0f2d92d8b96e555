"""Waiting for a condition, never for a length of time."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(probe: Callable[[], Awaitable[T]], within: float = 120.0) -> T: ...
@overload
async def eventually(probe: Callable[[], T], within: float = 120.0) -> T: ...
async def eventually(probe: Callable[[], Any], within: float = 120.0) -> Any:
    """What `probe` answers, as soon as that is true and no assertion in it fails; its last failure after `within` s."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        failure: BaseException
        try:
            answer = probe()
            value = await answer if inspect.isawaitable(answer) else answer
            if value or value is None:
                return value
            failure = AssertionError(f"still {value!r} after {within} s")
        except (AssertionError, LookupError) as exc:
            failure = exc
        if loop.time() > deadline:
            raise failure
        await asyncio.sleep(0.02)
