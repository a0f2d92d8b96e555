"""The one base URL of the embedded stack: `/<service>/...` goes to that service's process, unchanged.

It costs every request of the stack, so it does as little as it can: heads are read and written anew (`http1`), bodies
flow through as they come, connections to the services are kept. A service that is away is a 503 with Retry-After: a
webhook source must never take a restart for a missing address. Nothing is logged about a request.

    python -m deploy.embedded.gateway --fd 5 capture=21001 scoring=21002
"""

import argparse
import asyncio
import gc
import json
import re
import signal
import socket
import sys
from collections.abc import Mapping

from deploy.embedded.client import Client
from deploy.embedded.upstream import KEEP_UPSTREAM, Service

_SERVICE = re.compile(rb"/([a-z_]+)(?=[/?]|$)")


class Gateway:
    """The services by name, and every open connection."""

    def __init__(self, services: Mapping[str, int]) -> None:
        self.services = {name.encode(): Service(name, port) for name, port in services.items()}
        self.loop = asyncio.get_running_loop()
        self.clients: set[Client] = set()
        self.closing = False
        self.drained = asyncio.Event()
        self._sweeper = self.loop.call_later(1.0, self._sweep)

    def service(self, target: bytes) -> Service | None:
        """Who answers a path."""
        found = _SERVICE.match(target)
        return self.services.get(found[1]) if found else None

    def index(self) -> bytes:
        """What is here, for whoever opens the base URL."""
        services = {
            name: {"docs": f"/{name}/docs", "openapi": f"/{name}/openapi.json"}
            for name in (service.name for service in self.services.values())
        }
        return json.dumps({"name": "Throughline", "services": services}).encode()

    def drain(self) -> None:
        """Let what is under way finish, and nothing new begin."""
        self.closing = True
        for client in list(self.clients):
            client.close_if_idle()
        self._gone()

    def forget(self, client: "Client") -> None:
        """A client's connection has ended."""
        self.clients.discard(client)
        self._gone()

    def _gone(self) -> None:
        if self.closing and not self.clients:
            self._sweeper.cancel()
            self.drained.set()

    def _sweep(self) -> None:
        """One timer for all: closes what has waited too long."""
        now = self.loop.time()
        for client in list(self.clients):
            if now > client.deadline:
                client.out_of_time()
        for service in self.services.values():
            for upstream in [one for one in service.idle if now > one.idle_since + KEEP_UPSTREAM]:
                service.idle.remove(upstream)
                upstream.transport.close()
        self._sweeper = self.loop.call_later(1.0, self._sweep)


async def serve(listener: socket.socket, services: Mapping[str, int]) -> None:
    """Serve until SIGTERM, then finish what is under way."""
    gateway = Gateway(services)
    loop = gateway.loop
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    server = await loop.create_server(lambda: Client(gateway), sock=listener, backlog=1024)
    await stopping.wait()
    server.close()
    gateway.drain()
    try:
        await asyncio.wait_for(gateway.drained.wait(), 10)
    except TimeoutError:
        for client in list(gateway.clients):
            client.transport.abort()


def main(words: list[str]) -> None:
    """Serve on a socket that the caller has opened, so that no connection is refused while this process restarts."""
    import uvloop  # noqa: PLC0415  # only the process needs it

    arguments = argparse.ArgumentParser()
    arguments.add_argument("--fd", type=int, required=True)
    arguments.add_argument("services", nargs="+", metavar="NAME=PORT")
    chosen = arguments.parse_args(words)
    services = {name: int(port) for name, _, port in (word.partition("=") for word in chosen.services)}
    gc.freeze()
    uvloop.run(serve(socket.socket(fileno=chosen.fd), services))


if __name__ == "__main__":
    main(sys.argv[1:])
