"""`Idempotency-Key`: the answer is stored in the transaction of its effect, so that either both exist or neither.

Two requests at once with one key: the second waits for the first's transaction, then gets its answer. Kept 24 hours.
A key belongs to the subject of the token, not to the token, which may have been renewed between two tries.

An answer may show a person, so it is kept encrypted with a key that follows from the caller's own, of which only a
keyed hash is kept: it opens for whoever sends the request again, and for nobody who has the database.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Awaitable, Callable, Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.requests import Request
from starlette.responses import Response

from shared.db import Connection, Database, Tx
from shared.errors import FieldError, IdempotencyKeyReused, Invalid
from shared.ids import LeadId
from shared.secrets import Secrets
from shared.web._tokens import Principal

BEGIN = """
INSERT INTO idempotency_keys (scope, key, fingerprint) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING key
"""
FIRST = "SELECT fingerprint, status, content_type, body FROM idempotency_keys WHERE scope = $1 AND key = $2"
FINISH = "UPDATE idempotency_keys SET status = $3, content_type = $4, body = $5 WHERE scope = $1 AND key = $2"
# An answer begins with a line of the ids that it is about.
FORGET = """
DELETE FROM idempotency_keys WHERE EXISTS (
    SELECT 1 FROM unnest($1::text[]) AS lead_id WHERE position(convert_to(lead_id, 'UTF8') IN body) > 0
)
"""
LONGEST_KEY = 255
_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Make = Callable[[Tx], Awaitable[Response]]


class Answers:
    """Seals answers that are kept."""

    def __init__(self, secrets: Secrets) -> None:
        self._secret = secrets.derive("answers")

    def place(self, scope: str, key: str) -> "Place":
        """Where the answer to a request is kept."""
        return Place(self._hashed("name", scope, key).hex(), self._hashed("seal", scope, key))

    def _hashed(self, purpose: str, scope: str, key: str) -> bytes:
        return hmac.digest(self._secret, f"{purpose}\n{scope}\n{key}".encode(), "sha256")


class Place:
    """Where one answer is kept: under a name that tells nothing of the caller's key, sealed by what follows from it."""

    def __init__(self, name: str, secret: bytes) -> None:
        self.name = name
        self._secret = secret

    def fingerprint(self, body: bytes) -> bytes:
        """By what another body is told from this one."""
        return hmac.digest(self._secret, body, "sha256")

    def seal(self, path: str, content: bytes) -> bytes:
        """An answer as it is kept, after a line with the ids that it is about."""
        nonce = os.urandom(12)
        about = b" ".join(sorted({*_ID.findall(content), *_ID.findall(path.encode())}))
        return about + b"\n" + nonce + AESGCM(self._secret).encrypt(nonce, content, None)

    def open(self, kept: bytes) -> bytes:
        """The answer again."""
        block = kept.partition(b"\n")[2]
        return AESGCM(self._secret).decrypt(block[:12], block[12:], None)


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
    answers: Answers = request.app.state.answers
    place = answers.place(scope, key)
    fingerprint = place.fingerprint(body)
    async with database.transaction() as tx:
        if await tx.connection.fetchval(BEGIN, scope, place.name, fingerprint) is not None:
            response = await make(tx)
            kept = place.seal(request.url.path, bytes(response.body))
            await tx.connection.execute(FINISH, scope, place.name, response.status_code, response.media_type, kept)
            return response
        row = await tx.connection.fetchrow(FIRST, scope, place.name)
    if row is None or row["fingerprint"] != fingerprint:
        raise IdempotencyKeyReused("send the same body, or another Idempotency-Key")
    replayed = {"Idempotency-Replayed": "true"}
    return Response(place.open(row["body"]), row["status"], replayed, row["content_type"])


async def forget_answers(connection: Connection, lead_ids: Sequence[LeadId]) -> int:
    """Drop the stored answers that are about erased people; says how many there were."""
    return int((await connection.execute(FORGET, lead_ids)).rpartition(" ")[2])


def _caller(request: Request) -> str:
    principal: Principal | None = getattr(request.state, "principal", None)
    return hashlib.sha256((principal.subject if principal else "").encode()).hexdigest()[:16]
