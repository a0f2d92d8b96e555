"""Ports of the stack's programs: chosen once, kept in the data folder, all on the loopback address."""

import json
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from deploy.embedded.files import write_whole

LOOPBACK = "127.0.0.1"
# Below the range from which systems take the port of an outgoing connection (32768 and up on Linux): a client that
# reconnects while its server is down could otherwise be given the very port that the server needs.
_CHOICE = range(20000, 32000)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(taken: Iterable[int] = ()) -> int:
    """A port on which nothing listens and which is not among `taken`."""
    refused = set(taken)
    while True:
        port = random.choice(_CHOICE)  # noqa: S311  # a place to listen, not a secret
        if port not in refused and is_free(port):
            return port


def kept_ports(file: Path, names: Iterable[str]) -> dict[str, int]:
    """The port of each name: the one of the last start, or a new one where that is taken by something else."""
    before = _before(file)
    ports: dict[str, int] = {}
    for name in names:
        port = before.get(name)
        ports[name] = port if port is not None and is_free(port) else free_port([*before.values(), *ports.values()])
    if ports != before:
        write_whole(file, {**before, **ports})
    return ports


def _before(file: Path) -> dict[str, int]:
    try:
        before: dict[str, int] = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return before


def is_listening(port: int) -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False
