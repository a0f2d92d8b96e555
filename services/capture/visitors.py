"""Requests that anybody on the internet may make: from which address they come, and how many of them are taken."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.requests import Request

from shared.errors import QuotaExceeded

Network = IPv4Network | IPv6Network
REMEMBERED = 50_000
_NETWORK_BITS = {4: 24, 6: 48}
_SITE_BITS = 64  # what one customer of an IPv6 provider has


def address_of(request: Request, proxies: Sequence[Network] = ()) -> str:
    """Who asks: the peer, or whom the proxies in front name. Those are believed that are `proxies` or private."""
    peer = request.client.host if request.client else ""
    named = [part.strip() for header in request.headers.getlist("x-forwarded-for") for part in header.split(",")]
    found = peer
    for address in reversed([*named, peer]):
        if not _readable(address):
            break
        found = address
        parsed = ip_address(address)
        if not (parsed.is_private or any(parsed in network for network in proxies)):
            break
    return found


def truncated(address: str) -> str | None:
    """An address as evidence keeps it: the network without the host."""
    if not _readable(address):
        return None
    parsed = ip_address(address)
    return str(ip_network(f"{address}/{_NETWORK_BITS[parsed.version]}", strict=False).network_address)


def _readable(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def _counted(address: str) -> str:
    """An IPv6 customer has more addresses than we could count: all of their network are one."""
    if not _readable(address) or ip_address(address).version == 4:
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
