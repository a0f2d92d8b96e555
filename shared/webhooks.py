"""How a webhook is signed and sent, what an answer means, and when it is tried again.

Signatures and secrets are those of Standard Webhooks
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson

from shared.outbound import AddressRefused, NoAnswer, Outbound

DeliveryState = Literal["waiting", "delivered", "failed", "dropped"]
PREFIX = "whsec_"
KEY_BYTES = range(24, 65)
PAUSES = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(minutes=45),
    timedelta(hours=2),
    timedelta(hours=4),
    timedelta(hours=7),
    timedelta(hours=9, minutes=50),
)
"""Between ten tries, which take a day; each is stretched or shortened by up to a tenth."""
TRIES = len(PAUSES) + 1
TIMEOUT_S = 15.0
JITTER = 0.1
TIMED_OUT, GONE, TOO_EARLY, TOO_MANY, UNAVAILABLE = 408, 410, 425, 429, 503


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a try means: `said` in words, `pause` until the next, `gone` that the endpoint wants nothing any more.

    `rest` says that the endpoint is not sick but asks for patience, and how long it is to be left alone altogether. A
    try that `counts` is one of those after which a delivery is given up.
    """

    state: DeliveryState
    said: str
    status: int | None = None
    pause: timedelta = timedelta()
    gone: bool = False
    rest: timedelta | None = None
    counts: bool = True

    @property
    def is_success(self) -> bool:
        """Whether the endpoint took it."""
        return self.state == "delivered"


def envelope(kind: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """A body as Standard Webhooks recommends it."""
    return orjson.dumps({"type": kind, "timestamp": at, "data": data}, option=orjson.OPT_UTC_Z)


def key_of(secret: str) -> bytes:
    """The bytes that a secret stands for. Raises ValueError for a text that is none."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is not {PREFIX} and base64") from None
    if not secret.startswith(PREFIX) or len(key) not in KEY_BYTES:
        raise ValueError(f"is not {PREFIX} and base64 of {KEY_BYTES.start} to {KEY_BYTES.stop - 1} bytes")
    return key


def secret_of(key: bytes) -> str:
    """How the bytes of a secret are written."""
    return PREFIX + base64.b64encode(key).decode()


def signed_headers(delivery_id: str, body: bytes, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """The headers of a try: a signature by each live secret, so that one can be replaced without losing anything."""
    stamp = str(int(at.timestamp()))
    content = f"{delivery_id}.{stamp}.".encode() + body
    digests = [hmac.digest(key_of(secret), content, "sha256") for secret in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": delivery_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def verdict_on_answer(status: int, retry_after_s: int | None, attempt: int, delivery_id: str) -> Verdict:
    """What an answer to the `attempt`-th try (from 1) means.

    2xx is success, 410 ends the endpoint, other 4xx but 408, 425 and 429 are final; anything else is tried again, after
    what `Retry-After` asks for where it says so, and redirects are not followed.
    """
    said = f"answered {status}"
    if 200 <= status < 300:
        return Verdict("delivered", said, status)
    if status == GONE:
        return Verdict("failed", f"{said}: wants no more", status, gone=True)
    if 400 <= status < 500 and status not in (TIMED_OUT, TOO_EARLY, TOO_MANY):
        return Verdict("failed", said, status)
    patience = status == TOO_MANY or (status == UNAVAILABLE and retry_after_s is not None)
    rest = timedelta(seconds=retry_after_s or 0) if patience else None
    return verdict_to_try_again(said, status, attempt, delivery_id, rest)


def verdict_on_silence(why: str, attempt: int, delivery_id: str) -> Verdict:
    """What it means that no answer came: it may have been taken, which its id would show when it comes again."""
    return verdict_to_try_again(why, None, attempt, delivery_id)


def verdict_to_try_again(
    said: str, status: int | None, attempt: int, delivery_id: str, rest: timedelta | None = None
) -> Verdict:
    """Another try, after the usual pause or the one that was asked for; the last of them has failed.

    One that is asked to come later has not failed: it is tried again until nobody waits for it any more.
    """
    if attempt >= TRIES and not rest:
        return Verdict("failed", f"{said}; given up after {TRIES} tries", status, rest=rest)
    # It is not the delivery that is sick: it does not wait longer the more often it meets a limit.
    pause = max(pause_after(1 if rest else attempt, delivery_id), rest or timedelta())
    return Verdict("waiting", said, status, pause, rest=rest, counts=not rest)


def pause_after(attempt: int, delivery_id: str) -> timedelta:
    """How long to wait after the `attempt`-th try; its jitter follows from the delivery, not from chance."""
    draw = int.from_bytes(hashlib.sha256(f"{delivery_id}/{attempt}".encode()).digest()[:4]) / 2**32
    return PAUSES[attempt - 1] * (1 - JITTER + 2 * JITTER * draw)


async def post(  # noqa: PLR0913  # what a try is made of
    outbound: Outbound, url: str, headers: Mapping[str, str], body: bytes, attempt: int, delivery_id: str
) -> Verdict:
    """Try to deliver, for the `attempt`-th time (from 1). The status of the answer says whether it was taken."""
    try:
        answer = await outbound.call("POST", url, headers=headers, content=body, timeout_s=TIMEOUT_S, status_alone=True)
    except AddressRefused as exc:
        return Verdict("failed", exc.detail)
    except NoAnswer as exc:
        return verdict_on_silence(exc.detail, attempt, delivery_id)
    return verdict_on_answer(answer.status, answer.retry_after_s, attempt, delivery_id)
