"""Requests that read before they write: one transaction each, idempotent, tried again when they met another."""

import asyncpg
from starlette.requests import Request
from starlette.responses import Response

from services.capture.errors import Contended
from shared.db import Database
from shared.errors import Unavailable
from shared.web import Make, idempotent

ATTEMPTS = 5
_MET = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


async def decided(database: Database, request: Request, body: bytes, make: Make) -> Response:
    """What `make` answers, from a transaction of its own; the same again for the same Idempotency-Key.

    Two requests that tie the same persons in opposite order can lock each other out; PostgreSQL then ends one.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await idempotent(database, request, body, make)
        except Unavailable as exc:
            if attempt == ATTEMPTS or not met_another(exc):
                raise
    raise AssertionError("the last attempt answers or raises")


def met_another(fault: Unavailable) -> bool:
    """Whether a transaction failed for another one that was under way, so that it may be tried again at once."""
    return isinstance(fault, Contended) or isinstance(fault.__cause__, _MET)
