"""`Idempotency-Key`: the answer is stored in the transaction of its effect, so that either both exist or neither.

Two requests at once with one key: the second waits for the first's transaction, then gets its answer. Kept 24 hours.
A key belongs to the subject of the token, not to the token, which may have been renewed between two tries.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from shared.db import Connection, Database, Tx
from shared.errors import FieldError, IdempotencyKeyReused, Invalid
from shared.ids import LeadId
from shared.web._tokens import Principal

BEGIN = """
INSERT INTO idempotency_keys (scope, key, fingerprint) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING key
"""
FIRST = "SELECT fingerprint, status, content_type, body FROM idempotency_keys WHERE scope = $1 AND key = $2"
FINISH = "UPDATE idempotency_keys SET status = $3, content_type = $4, body = $5 WHERE scope = $1 AND key = $2"
FORGET = """
DELETE FROM idempotency_keys WHERE EXISTS (
    SELECT 1 FROM unnest($1::text[]) AS lead_id WHERE position(convert_to(lead_id, 'UTF8') IN body) > 0
)
"""
LONGEST_KEY = 255

Make = Callable[[Tx], Awaitable[Response]]


async def idempotent(database: Database, request: Request, body: bytes, make: Make) -> Response:
    """Run `make` in a transaction and answer what it answers; with the same key and body again, that same answer.

    Raises IdempotencyKeyReused for the same key with another body, Invalid for a key that is none. An error of `make`
    stores nothing.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        async with database.transaction() as tx:
            return await make(tx)
    key = key.strip().strip('"')
    if not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        fault = FieldError("header:Idempotency-Key", f"is not 1 to {LONGEST_KEY} printable ASCII characters")
        raise Invalid("the Idempotency-Key is not valid", [fault])
    caller = _caller(request)
    scope = f"{caller} {request.method} {request.url.path}"
    fingerprint = hashlib.sha256(body).digest()
    async with database.transaction() as tx:
        if await tx.connection.fetchval(BEGIN, scope, key, fingerprint) is not None:
            response = await make(tx)
            content = bytes(response.body)
            await tx.connection.execute(FINISH, scope, key, response.status_code, response.media_type, content)
            return response
        row = await tx.connection.fetchrow(FIRST, scope, key)
    if row is None or row["fingerprint"] != fingerprint:
        raise IdempotencyKeyReused("send the same body, or another Idempotency-Key")
    replayed = {"Idempotency-Replayed": "true"}
    return Response(row["body"], row["status"], replayed, row["content_type"])


async def forget_answers(connection: Connection, lead_ids: Sequence[LeadId]) -> int:
    """Drop the stored answers that are about erased people; says how many there were."""
    return int((await connection.execute(FORGET, lead_ids)).rpartition(" ")[2])


def _caller(request: Request) -> str:
    principal: Principal | None = getattr(request.state, "principal", None)
    return hashlib.sha256((principal.subject if principal else "").encode()).hexdigest()[:16]
