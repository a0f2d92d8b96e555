"""Due steps of sequences that send nothing: claimed, decided, moved on, a second, while many others wait their time.

Each step is decided in full: the person is put together out of the profile that is sealed, the consents and the stage,
the branch is evaluated, the run put before its next step. One worker's loop does it, in this process.
"""

import time
from collections.abc import Awaitable, Callable

import uvloop

from bench.measures import Pair
from bench.nurturing import make_due, prepare
from bench.stack import Servers, settings_of
from services.nurture.parts import make_parts
from services.nurture.sending import turns
from services.nurture.sending.handlers import Sender
from shared.service import Runtime, build_runtime

WAITING = 1_000_000
FEW = 1_000
DUE = 10_000
LEFT = "SELECT count(*) FROM enrolments WHERE sequence_id = 'due' AND step_id = 'choose'"
UNCLAIMED = f"{LEFT} AND due_at <= now()"


def taken(servers: Servers, rounds: int, waiting: int = WAITING, due: int = DUE) -> list[Pair]:
    """Steps carried out a second with many waiting, and with few, in turns."""
    return uvloop.run(_compared(servers, rounds, waiting, due, _carried_out))


def claimed(servers: Servers, rounds: int, waiting: int = WAITING, due: int = DUE) -> list[Pair]:
    """The same of claims alone, by one who does nothing else."""
    return uvloop.run(_compared(servers, rounds, waiting, due, _claimed))


async def _compared(
    servers: Servers, rounds: int, waiting: int, due: int, act: Callable[[Runtime], Awaitable[None]]
) -> list[Pair]:
    runtimes = [
        build_runtime("nurture", settings_of(servers.environment(servers.fresh_database(), f"steps{number}.")))
        for number in (waiting, FEW)
    ]
    try:
        for runtime, number in zip(runtimes, (waiting, FEW), strict=True):
            await prepare(runtime, due, number)
        pairs = []
        for number in range(rounds):
            many, few = [await _rate(runtime, due, number, act) for runtime in runtimes]
            pairs.append(Pair(many, few))
        return pairs
    finally:
        for runtime in runtimes:
            await runtime.database.close()


async def _rate(runtime: Runtime, due: int, number: int, act: Callable[[Runtime], Awaitable[None]]) -> float:
    await make_due(runtime, "choose", number + 1)
    began = time.perf_counter()
    await act(runtime)
    return due / (time.perf_counter() - began)


async def _carried_out(runtime: Runtime) -> None:
    await Sender(make_parts(runtime), {}).run()
    async with runtime.database.reading() as connection:
        if left := await connection.fetchval(LEFT):
            raise RuntimeError(f"{left} of those that were due have not been carried out")


async def _claimed(runtime: Runtime) -> None:
    settings = make_parts(runtime).settings
    async with runtime.database.reading() as connection:
        while await turns.claim_due(connection, "bench", settings.claim_for, settings.claim_batch):
            pass
        if left := await connection.fetchval(UNCLAIMED):
            raise RuntimeError(f"{left} of those that were due have not been claimed")
