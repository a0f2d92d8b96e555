"""Clients that are slow or never end, at the gateway and straight at a service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from deploy.embedded.client import Client
from deploy.embedded.gateway import Gateway
from deploy.embedded.ports import LOOPBACK
from shared.settings import Settings
from shared.testing import eventually
from tests.service.api_process import serving

PART = 16 * 1024
PARTS = 64
HEAD = b"POST /capture/v1/things HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that reads and says nothing."""
    while await reader.read(PART):
        pass
    writer.close()


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[Gateway, int]]:
    """A gateway in this process before a silent service."""
    loop = asyncio.get_running_loop()
    service = await asyncio.start_server(silent, LOOPBACK, 0)
    made = Gateway({"capture": service.sockets[0].getsockname()[1]})
    server = await loop.create_server(lambda: Client(made), LOOPBACK, 0)
    try:
        yield made, server.sockets[0].getsockname()[1]
    finally:
        made.drain()
        server.close()
        service.close()
        for client in list(made.clients):
            client.transport.abort()
        await made.drained.wait()


@pytest.mark.parametrize(
    ("sent", "state", "status"),
    [
        (HEAD, "head", b"408"),
        (HEAD + b"Content-Length: 9\r\n\r\nabc", "body", b"408"),
        (CHUNKED + b"3\r\nabc\r\n", "body", b"408"),
        (HEAD + b"Content-Length: 3\r\n\r\nabc", "answer", b"503"),
    ],
)
async def test_whoever_keeps_others_waiting_is_the_one_who_is_named(sent: bytes, state: str, status: bytes) -> None:
    async with gateway() as (made, port):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(sent)

        def heard_of() -> list[Client]:
            return [each for each in made.clients if each.state == state and (each.buffer or state != "head")]

        for client in await eventually(heard_of):
            client.out_of_time()
        assert (await reader.read()).split(b" ")[1] == status
        writer.close()


async def test_what_has_no_end_is_refused_by_a_service_too(settings: Settings) -> None:
    async with serving("capture", settings) as port:
        for begin, more in (
            (HEAD + b"X: ", b"x" * PART),
            (HEAD, b"X: x\r\n" * (PART // 6)),
            (CHUNKED + b"0\r\n", b"X: x\r\n" * (PART // 6)),
            (CHUNKED + b"1;", b"x" * PART),
        ):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(begin)
            for _ in range(PARTS):
                writer.write(more)
            with suppress(ConnectionError):  # what it had not read is thrown away, and its last words perhaps too
                async with asyncio.timeout(60):
                    assert (await reader.read()).endswith(b"too large."), begin
            writer.close()
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        for _ in range(2):
            writer.write(b"GET /capture/nothing HTTP/1.1\r\nHost: a\r\n" + b"X: x\r\n" * (PART // 6) + b"\r\n")
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1] == b"404"
            await reader.readuntil(b"}")
        writer.close()
