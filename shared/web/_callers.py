"""Who asks: the address that a request comes from."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.requests import Request

Network = IPv4Network | IPv6Network
_NETWORK_BITS = {4: 24, 6: 48}


def address_of(request: Request, proxies: Sequence[Network] = ()) -> str:
    """Who asks: the peer, or whom the proxies in front name. Those are believed that are `proxies` or private."""
    peer = request.client.host if request.client else ""
    named = [part.strip() for header in request.headers.getlist("x-forwarded-for") for part in header.split(",")]
    found = peer
    for address in reversed([*named, peer]):
        if not readable_address(address):
            break
        found = address
        parsed = ip_address(address)
        if not (parsed.is_private or any(parsed in network for network in proxies)):
            break
    return found


def readable_address(address: str) -> bool:
    """Whether this is an IP address."""
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def network_of(address: str) -> str | None:
    """An address as evidence keeps it: the network without the host; None for what is no address."""
    if not readable_address(address):
        return None
    bits = _NETWORK_BITS[ip_address(address).version]
    return str(ip_network(f"{address}/{bits}", strict=False).network_address)
