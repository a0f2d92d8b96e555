"""Requests that anybody on the internet may make: what is kept of their address, and how many of them are taken."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from shared.errors import QuotaExceeded
from shared.web import readable_address

REMEMBERED = 50_000
_SITE_BITS = 64  # what one customer of an IPv6 provider has


def _counted(address: str) -> str:
    """An IPv6 customer has more addresses than we could count: all of their network are one."""
    if not readable_address(address) or ip_address(address).version == 4:
        return address
    return str(ip_network(f"{address}/{_SITE_BITS}", strict=False))


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Allowance:
    """So many requests at once for each name and address, and so many a second after that; in this process alone."""

    def __init__(self, *, at_once: int, a_second: float) -> None:
        self._at_once = at_once
        self._a_second = a_second
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def wait_for(self, name: str, address: str, now: float) -> float:
        """Take one request; 0 when it may pass, else the seconds until the next one may."""
        key = name, _counted(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._at_once, now)
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.left = min(self._at_once, bucket.left + max(now - bucket.at, 0.0) * self._a_second)
        bucket.at = now
        if bucket.left < 1:
            return (1 - bucket.left) / self._a_second
        bucket.left -= 1
        return 0.0

    def spend(self, name: str, address: str, now: float) -> None:
        """Take one request. Raises QuotaExceeded with the time to wait."""
        if wait := self.wait_for(name, address, now):
            raise QuotaExceeded("too many requests from this address; try again later", int(wait) + 1)
