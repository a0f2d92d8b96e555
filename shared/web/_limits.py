"""How often a token may ask, as the IETF's draft on RateLimit header fields has it.

Each process counts for itself, in memory: a limit protects what it serves, and costs a microsecond.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from shared.errors import QuotaExceeded
from shared.settings import Settings

WINDOW_S = 60
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_KNOWN = 10_000


@dataclass(slots=True)
class _Bucket:
    """What is left to somebody, as of a moment; it fills up evenly."""

    left: float
    at: float


class Limits:
    """A bucket for the writes of each token and one for its reads, so that readers never hold up what is captured."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._quotas = {"write": settings.rate_limit_writes, "read": settings.rate_limit_reads}
        self._policies = {
            policy: f'"{policy}";q={quota};w={WINDOW_S}'.encode() for policy, quota in self._quotas.items()
        }
        self._now = now
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def take(self, request: Request, who: str) -> None:
        """Count a request; the headers of its answer tell how many are left. Raises QuotaExceeded."""
        policy = "read" if request.method in _READS else "write"
        quota = self._quotas[policy]
        if not quota or hasattr(request.state, "extra_headers"):  # an endpoint may ask for two scopes
            return
        now = self._now()
        bucket = self._buckets.get((who, policy))
        if bucket is None:
            bucket = self._buckets[who, policy] = _Bucket(quota, now)
            if len(self._buckets) > _KNOWN:
                self._buckets.popitem(last=False)
        bucket.left = min(quota, bucket.left + (now - bucket.at) * quota / WINDOW_S)
        bucket.at = now
        allowed = bucket.left >= 1
        bucket.left -= allowed
        full_in = math.ceil((quota - bucket.left) * WINDOW_S / quota)
        left = f'"{policy}";r={int(bucket.left)};t={full_in}'.encode()
        request.state.extra_headers = ((b"ratelimit-policy", self._policies[policy]), (b"ratelimit", left))
        if not allowed:
            wait = math.ceil((1 - bucket.left) * WINDOW_S / quota)
            raise QuotaExceeded(f"over {quota} {policy} requests a minute with one token; wait, or send batches", wait)
