"""Patterns of a form's owner, run over what anybody on the internet types: by an engine whose time is linear."""

from functools import lru_cache

import re2  # type: ignore[import-untyped]  # ships no types

LARGEST_PROGRAM = 1 << 20  # a larger one takes a second to compile


def pattern_fault(pattern: str) -> str | None:
    """Why a pattern is none, or None."""
    try:
        _compiled(pattern)
    except re2.error as exc:
        reason = exc.args[0].decode(errors="replace") if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        return f"is no regular expression that can be run here: {reason}"
    return None


def matches(pattern: str, text: str) -> bool:
    """Whether a whole text is as the pattern says."""
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=1_000)
def _compiled(pattern: str):  # type: ignore[no-untyped-def]  # the engine ships no types
    options = re2.Options()
    options.max_mem = LARGEST_PROGRAM
    options.log_errors = False
    return re2.compile(pattern, options)
