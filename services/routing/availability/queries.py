"""The statements about the company's holidays."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from shared.db import Connection

DAYS = "SELECT days, updated_at FROM company_days"
PUT = """
INSERT INTO company_days (digest, days, updated_at) VALUES ($1, $2, $3)
ON CONFLICT (single) DO UPDATE SET digest = excluded.digest, days = excluded.days, updated_at = excluded.updated_at
"""


async def days(connection: Connection) -> asyncpg.Record | None:
    """The company's holidays, and when they were told; None before that."""
    return await connection.fetchrow(DAYS)


async def put_days(connection: Connection, told: Sequence[dict[str, Any]], at: datetime) -> None:
    """The company's holidays from now on."""
    digest = hashlib.sha256(orjson.dumps(list(told))).hexdigest()
    await connection.execute(PUT, digest, list(told), at)
