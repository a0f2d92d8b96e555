"""The networks from which mail scanners open messages."""

from bisect import bisect_right
from collections.abc import Iterable
from importlib import resources
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
OWN = "your settings"


class Scanners:
    """Known networks with their providers. Those that ship are in `scanners.txt`; an installation adds its own."""

    def __init__(self, own: Iterable[Network] = ()) -> None:
        known = [*_shipped(), *((network, OWN) for network in own)]
        # By their starts; of networks one within the other the widest is found, which is as good.
        self._networks: dict[int, list[tuple[int, int, str]]] = {4: [], 6: []}
        for network, provider in known:
            first, last = int(network.network_address), int(network.broadcast_address)
            self._networks[network.version].append((first, last, provider))
        for version, networks in self._networks.items():
            self._networks[version] = _apart(sorted(networks, key=lambda one: (one[0], -one[1])))

    def provider_of(self, address: str) -> str | None:
        """Who scans from this address; None for everybody else, and for what is no address."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return None
        if parsed.version == 6 and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        networks, number = self._networks[parsed.version], int(parsed)
        place = bisect_right(networks, number, key=lambda one: one[0]) - 1
        return networks[place][2] if place >= 0 and number <= networks[place][1] else None


def _apart(networks: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Those that lie in no other one: networks either lie apart or one within the other."""
    found: list[tuple[int, int, str]] = []
    for one in networks:
        if not found or one[0] > found[-1][1]:
            found.append(one)
    return found


def _shipped() -> list[tuple[Network, str]]:
    text = resources.files(__package__).joinpath("scanners.txt").read_text()
    found: list[tuple[Network, str]] = []
    provider = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("["):
            provider = line.strip("[]")
        elif not line.startswith("#"):
            found.append((ip_network(line), provider))
    return found
