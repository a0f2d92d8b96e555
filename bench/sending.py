"""Messages handed to a mail server a second, against a bare loop that hands the same bytes to it.

Each message is decided, filled, written, claimed in the ledger, handed over and its outcome noted. Both run on the loop
that the product's processes run on. The server is a process of its own, and says at the end that it has every message,
none of them twice.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvloop
from aiosmtplib import SMTP, SMTPException

from bench.measures import Pair
from bench.nurturing import make_due, prepare
from bench.stack import Servers, settings_of
from deploy.embedded.ports import free_port
from services.nurture.channels.setup import email_providers, given, make_channels
from services.nurture.parts import make_parts
from services.nurture.sending.handlers import Sender
from shared.service import Runtime, build_runtime

MESSAGES = 2_000
FEW = 1_000
WRITTEN = b"Subject: Hello\r\nMessage-ID: <bare@bench.example>\r\n\r\n" + b"how do people find out? \r\n" * 120
"""As long as the messages that the product writes."""


def handed_over(servers: Servers, rounds: int, messages: int = MESSAGES) -> list[Pair]:
    """The product and the bare loop in turns."""
    port = free_port()
    with inbox(port):
        return uvloop.run(_handed_over(servers, rounds, messages, port))


@contextmanager
def inbox(port: int) -> Iterator[None]:
    """The mail server, for the length of a block."""
    child = subprocess.Popen([sys.executable, "-m", "bench.inbox", str(port)])
    try:
        asyncio.run(_counted(port))
        yield
    finally:
        child.terminate()
        child.wait()


async def _handed_over(servers: Servers, rounds: int, messages: int, port: int) -> list[Pair]:
    environment = servers.environment(servers.fresh_database(), "sending.")
    settings = settings_of(environment).model_copy(update={"smtp_url": f"smtp://127.0.0.1:{port}"})
    runtime = build_runtime("nurture", settings)
    pairs = []
    try:
        await prepare(runtime, messages, FEW)
        for number in range(1, rounds + 1):
            product = await _product(runtime, messages, number)
            pairs.append(Pair(product, await _bare(port, messages)))
            if (counted := await _counted(port)) != (number * messages, 1):
                raise RuntimeError(f"{number * messages} were sent; the server has, and one at most: {counted}")
        return pairs
    finally:
        await runtime.database.close()


async def _product(runtime: Runtime, messages: int, number: int) -> float:
    await make_due(runtime, "hello", number)
    parts = make_parts(runtime)
    providers = given(parts)
    sender = Sender(parts, make_channels(providers, email_providers(providers)))
    sender.lookout.connected_since = 0.0  # what others told is read up to now
    began = time.perf_counter()
    await sender.run()
    return messages / (time.perf_counter() - began)


async def _bare(port: int, messages: int) -> float:
    """One connection, one message after the other, already written."""
    async with SMTP(hostname="127.0.0.1", port=port) as smtp:
        began = time.perf_counter()
        for number in range(messages):
            await smtp.sendmail("hello@bench.example", [f"bare{number}@bench.example"], WRITTEN)
        return messages / (time.perf_counter() - began)


async def _counted(port: int) -> tuple[int, int]:
    """How many messages the server has, and how often the one it has most often; as soon as it serves."""
    while True:
        with suppress(OSError, SMTPException):
            async with SMTP(hostname="127.0.0.1", port=port) as smtp:
                count, most = (await smtp.noop()).message.split()
                return int(count), int(most)
        await asyncio.sleep(0.05)
