"""A closed-loop HTTP load in processes of its own: requests made beforehand, answers only counted."""

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import cast

import httptools
import uvloop


@dataclass(frozen=True, slots=True)
class Load:
    """What a load process did."""

    answers: dict[int, int]
    seconds: float
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the requests go."""

    host: str
    port: int
    path: str
    token: str

    def request(self, body: bytes) -> bytes:
        """The bytes of one POST."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class _Client(asyncio.Protocol):
    """One connection that sends its next request when the last was answered."""

    def __init__(self, requests: Sequence[bytes], stop_at: float, per_second: float | None) -> None:
        self._requests = requests
        self._stop_at = stop_at
        self._pause = None if per_second is None else 1 / per_second
        self._next = 0
        self._began = 0.0
        self._due = time.perf_counter()
        self.answers: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Called by the parser at the end of an answer."""
        self.answers[self._parser.get_status_code()] += 1
        self.latencies.append((time.perf_counter() - self._began) * 1000)
        self._parser = httptools.HttpResponseParser(self)
        if self._pause is None:
            self._send()
            return
        self._due += self._pause
        asyncio.get_running_loop().call_later(max(self._due - time.perf_counter(), 0), self._send)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        now = time.perf_counter()
        if now >= self._stop_at or self._next >= len(self._requests):
            self._transport.close()
            return
        self._began = now if self._pause is None else min(self._due, now)
        self._transport.write(self._requests[self._next])
        self._next += 1


async def _drive(  # one argument each for what a load is
    targets: Sequence[Target], bodies: Sequence[bytes], connections: int, seconds: float, per_second: float | None
) -> Load:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    share = None if per_second is None else per_second / connections
    requests = [
        [targets[index % len(targets)].request(body) for body in bodies[index::connections]]
        for index in range(connections)
    ]
    began = time.perf_counter()
    clients = []
    for index in range(connections):
        target = targets[index % len(targets)]
        mine = requests[index]
        _, client = await loop.create_connection(
            lambda mine=mine: _Client(mine, began + seconds, share),  # type: ignore[misc]
            target.host,
            target.port,
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    answers: Counter[int] = Counter()
    for client in clients:
        answers.update(client.answers)
    latencies = sorted(latency for client in clients for latency in client.latencies)
    return Load(dict(answers), time.perf_counter() - began, tuple(latencies))


def _child(pipe: Pipe, *arguments: object) -> None:
    pipe.send(uvloop.run(_drive(*arguments)))  # type: ignore[arg-type]


def drive(  # noqa: PLR0913  # one argument each for what a load is
    target: Target | Sequence[Target],
    bodies: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    processes: int = 1,
    per_second: float | None = None,
) -> list[Load]:
    """Send the bodies, each once, for at most so many seconds; without a rate as fast as they are taken.

    Of several targets the connections take turns.
    """
    targets = [target] if isinstance(target, Target) else list(target)
    context = multiprocessing.get_context("spawn")
    running = []
    for index in range(processes):
        receive, send = context.Pipe(duplex=False)
        share = None if per_second is None else per_second / processes
        arguments = (send, targets, bodies[index::processes], connections // processes, seconds, share)
        process = context.Process(target=_child, args=arguments)
        process.start()
        running.append((process, receive))
    loads = [receive.recv() for _, receive in running]
    for process, _ in running:
        process.join()
    return loads
