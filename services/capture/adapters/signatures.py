"""What the ways of signing have in common: constant-time comparison, timestamps, secrets as keys."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from services.capture.adapters.errors import BadSignature
from services.capture.adapters.request import HookRequest

TOLERANCE = timedelta(minutes=5)
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_MILLISECONDS = re.compile(r"[0-9]{1,15}", re.ASCII)


def hmac_sha256(key: bytes, *signed: bytes) -> bytes:
    """The HMAC-SHA256 of the parts put together."""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in signed:
        mac.update(part)
    return mac.digest()


def keys(secrets: Sequence[str]) -> Iterator[bytes]:
    """The secrets as they stand, as keys. An empty one is no key: everybody could sign with it."""
    return (secret.encode() for secret in secrets if secret)


def require_any(expected: Iterable[bytes], given: Iterable[bytes]) -> None:
    """BadSignature unless one of the given signatures is one of the expected ones; each compared in constant time.

    After one that fits no other is looked for: to find some means to read the body.
    """
    wanted = list(expected)
    for candidate in given:
        fits = [hmac.compare_digest(signature, candidate) for signature in wanted]
        if True in fits:
            return
    raise BadSignature("the signature does not fit")


def require_now(seconds: str, now: datetime) -> None:
    """BadSignature unless the text is a Unix time within five minutes of now, on either side."""
    if not _SECONDS.fullmatch(seconds):
        raise BadSignature("the timestamp is not a number of seconds")
    if abs(now.timestamp() - int(seconds)) > TOLERANCE.total_seconds():
        raise BadSignature("the timestamp is more than five minutes off")


def require_now_ms(milliseconds: str, now: datetime) -> None:
    """The same for a Unix time in milliseconds, to the millisecond."""
    if not _MILLISECONDS.fullmatch(milliseconds):
        raise BadSignature("the timestamp is not a number of milliseconds")
    if abs(round(now.timestamp() * 1_000) - int(milliseconds)) > TOLERANCE.total_seconds() * 1_000:
        raise BadSignature("the timestamp is more than five minutes off")


def require_timed(request: HookRequest, name: str, secrets: Sequence[str], now: datetime) -> None:
    """BadSignature unless the header is `t=seconds,v1=hex`: HMAC-SHA256 of `seconds.body`, within five minutes of now.

    There may be several `v1`; other versions never count.
    """
    header = request.headers.get(name)
    if header is None:
        raise BadSignature(f"the header {name} is needed, once")
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = {value for key, _, value in parts if key == "t"}
    if len(times) != 1:
        raise BadSignature(f"{name} has one time")
    timestamp = times.pop()
    require_now(timestamp, now)
    expected = (hmac_sha256(key, timestamp.encode(), b".", request.raw_body).hex().encode() for key in keys(secrets))
    require_any(expected, (header_bytes(value) for key, _, value in parts if key == "v1"))


def require_within(seconds: str, now: datetime, age: timedelta) -> None:
    """BadSignature unless the text is a Unix time of at most this age, or at most five minutes ahead of now."""
    if not _SECONDS.fullmatch(seconds):
        raise BadSignature("the timestamp is not a number of seconds")
    if not -TOLERANCE.total_seconds() <= now.timestamp() - int(seconds) <= age.total_seconds():
        raise BadSignature(f"the timestamp is older than {age}, or ahead of now")


def header_bytes(value: str) -> bytes:
    """The bytes that a header had on the wire; servers read them as Latin-1."""
    return value.encode("latin-1", "replace")


def base64_bytes(text: str) -> bytes | None:
    """What the base64 stands for, with or without its padding; None if it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
