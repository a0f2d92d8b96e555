"""What went wrong, without what it went wrong with: an error's own text often quotes what somebody typed."""

import traceback
from pathlib import Path

_ROOT = f"{Path(__file__).resolve().parents[2]}/"
_OF_CODE = (AttributeError, ImportError, NameError, NotImplementedError, OSError)
"""Errors whose text speaks of code and machines; as that of these packages does."""
_OF_MACHINES = ("aiokafka", "deploy", "shared", "throughline")
_OF_DATABASES = ("asyncpg", "psycopg")
_FRAMES = 12
_CAUSES = 4


def describe(error: BaseException) -> str:
    """An error's kind and causes, and where they were raised; its text only if that cannot be about a person."""
    told = [_one(error)]
    while (cause := error.__cause__ or error.__context__) is not None and len(told) < _CAUSES:
        error = cause
        told.append(_one(error))
    if isinstance(error, BaseExceptionGroup):
        told.extend(_one(each) for each in error.exceptions[:_CAUSES])
    return " <- ".join(told)


def _one(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = ", ".join(f"{frame.filename.removeprefix(_ROOT)}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    text = _text(error)
    return f"{type(error).__name__}{f' ({text})' if text else ''}{f' at {where}' if where else ''}"


def _text(error: BaseException) -> str:
    package = type(error).__module__.partition(".")[0]
    if package in _OF_DATABASES:
        named = (getattr(error, name, None) for name in ("sqlstate", "constraint_name", "table_name"))
        return " ".join(str(each) for each in named if each)
    is_refusal = hasattr(error, "slug")  # it is for whoever sent the fact, and may quote it
    return str(error) if isinstance(error, _OF_CODE) or (package in _OF_MACHINES and not is_refusal) else ""
