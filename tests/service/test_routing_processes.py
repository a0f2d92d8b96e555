"""Four consumers of routing in processes that are killed, frozen and replaced: each decision is taken once, fairly."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import libfaketime
import pytest

from deploy.embedded.ports import free_port
from services.routing.fairness.domain import LEAD, added, folded
from services.routing.fairness.queries import all_books, lines_before
from shared.db import Connection
from shared.events import LeadAssigned
from shared.kafka import apply_topics
from shared.settings import Settings
from shared.testing import eventually, make_settings
from tests.service.routing_support import Routing, captured, entered, routing_service

CONSUMERS = 4
LEADS = 120
PARTITIONS = 8
WEIGHTS = {"ann": 100, "bob": 100, "cid": 50, "dan": 25, "eve": 7}
WITHIN = 120.0
NEWEST = 2**63 - 1
LIBRARY = next(Path(libfaketime.__file__).parent.rglob("libfaketime.so.1"))
# Two days ahead, two days behind, ten times as fast.
CLOCKS = ("+2d", "-2d", "+0 x10")
REMIND_NOW = """
UPDATE clocks SET due_at = clock_timestamp() WHERE assignment_id = (SELECT min(assignment_id) FROM clocks)
RETURNING assignment_id
"""
TIMES = """
SELECT max(abs(extract(epoch FROM assigned_at - clock_timestamp()))) AS off,
    max(abs(extract(epoch FROM due_at - assigned_at - interval '60 minutes'))) AS wrong,
    count(*) FILTER (WHERE state = 'offered' AND ended_at IS NULL) AS offered FROM assignments
"""


class Fleet:
    """Processes of one service, by name."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, role: str, failpoints: str = "", clock: str = "") -> None:
        """A process, perhaps one that dies at a failpoint, or whose clock is off (libfaketime's words)."""
        made = self._settings
        environment = {
            **os.environ,
            "THROUGHLINE_DATABASE_URL": made.database_url.get_secret_value(),
            "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": made.kafka_bootstrap_servers,
            "THROUGHLINE_TOPIC_PREFIX": made.topic_prefix,
            "THROUGHLINE_TOPIC_PARTITIONS": str(PARTITIONS),
            "THROUGHLINE_SECRET": made.secret.get_secret_value(),
            "THROUGHLINE_PORT": str(free_port()),
            "THROUGHLINE_MANAGEMENT_PORT": str(free_port()),
            "THROUGHLINE_LEASE_SECONDS": "2",
            "THROUGHLINE_DATABASE_POOL_SIZE": "3",
            "THROUGHLINE_FAILPOINTS": failpoints,
        }
        if clock:
            environment |= {"LD_PRELOAD": str(LIBRARY), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        with (self._folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "throughline", "run", "routing", role]
            self._processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """End a process without a word."""
        self._processes[name].kill()
        self._processes[name].wait()

    def send(self, name: str, number: signal.Signals) -> None:
        """Freeze a process, or let it go on."""
        self._processes[name].send_signal(number)

    def has_died(self, name: str) -> bool:
        """Whether a process ended by itself."""
        return self._processes[name].poll() is not None

    def stop(self) -> None:
        """End all."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@contextmanager
def fleet(settings: Settings, folder: Path) -> Iterator[Fleet]:
    """Processes for the length of a block."""
    made = Fleet(settings, folder)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def made(database_url: str, kafka_server: str) -> Settings:
    """A database and topics with more partitions than consumers."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    settings = make_settings(database_url, kafka_server, prefix=prefix, topic_partitions=PARTITIONS)
    asyncio.run(apply_topics(settings))
    return settings


async def tell(routing: Routing, names: list[str]) -> None:
    """Publish what scoring and capture would tell, through this service's own log."""
    async with routing.service.runtime.database.transaction() as tx:
        tx.emit(*(captured(name, country="AT") for name in names), *(entered(name) for name in names))


async def given_out(routing: Routing, leads: int) -> None:
    """Wait until so many leads have a rep."""

    async def all_have_one() -> None:
        async with routing.service.runtime.database.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM assignments") == leads

    await eventually(all_have_one, within=WITHIN)


async def books_are_right(connection: Connection, leads: int) -> None:
    """After every single entry everybody is less than a lead from what they are entitled to, and all adds up.

    By the books, and by counting the leads themselves.
    """
    lines = (await lines_before(connection, "everybody", NEWEST, None, 10_000))[::-1]
    turns = [line for line in lines if line.entry.kind == "turn"]
    balances: Counter[str] = Counter()
    for line in lines:
        for rep_id, units in added(line.entry).items():
            balances[rep_id] += units
            assert abs(balances[rep_id]) < LEAD, line
        assert sum(balances.values()) == 0
    weights = dict(turns[0].entry.weights)
    received: Counter[str] = Counter()
    for given, line in enumerate(turns, start=1):
        assert dict(line.entry.weights) == weights
        received[line.entry.rep_id] += 1
        for rep_id, weight in weights.items():
            assert abs(Fraction(given * weight, sum(weights.values())) - received[rep_id]) < 1, line
    assert len(turns) == leads
    assert {line.entry.kind for line in lines} == {"joined", "turn"}
    assert folded({}, (line.entry for line in lines)) == (await all_books(connection))["everybody"]
    rows = await connection.fetch("SELECT assignment_id, rep_id FROM assignments")
    assert {(row["assignment_id"], row["rep_id"]) for row in rows} == {
        (line.entry.assignment_id, line.entry.rep_id) for line in turns
    }


async def test_no_decision_is_unfair_or_taken_twice_while_consumers_die_freeze_and_come(
    made: Settings, tmp_path: Path
) -> None:
    names = [f"lead-{number}" for number in range(LEADS)]
    random.Random(7).shuffle(names)
    async with routing_service(made) as routing:
        await routing.put_rules(catch_all={"queue": "everybody", "strategy": "round_robin"})
        for name, weight in WEIGHTS.items():
            await routing.hire(name, weight=weight)
        with fleet(made, tmp_path) as processes:
            processes.start("worker-0", "worker")
            for number in range(CONSUMERS):
                processes.start(f"consumer-{number}", "consumer")
            watching = asyncio.create_task(nobody_is_seen_a_lead_off(routing))
            await asyncio.gather(*(tell(routing, names[start:20:4]) for start in range(4)))
            await given_out(routing, 20)

            # One is frozen, one killed, one will die between its commit and Kafka's, the relay is frozen as well.
            processes.send("consumer-0", signal.SIGSTOP)
            processes.kill("consumer-1")
            processes.start("consumer-1", "consumer", "after_tx_before_kafka_commit:3")
            processes.send("worker-0", signal.SIGSTOP)
            processes.start("worker-1", "worker")
            await asyncio.gather(*(tell(routing, names[start:80:10]) for start in range(20, 30)))
            await given_out(routing, 80)

            # They wake up among those who took over, while others come and go.
            processes.send("worker-0", signal.SIGCONT)
            processes.send("consumer-0", signal.SIGCONT)
            telling = asyncio.create_task(tell(routing, names[80:100]))
            processes.kill("consumer-2")
            await asyncio.gather(telling, *(tell(routing, [name]) for name in names[100:]))
            processes.kill("consumer-3")
            await given_out(routing, LEADS)
            await eventually(lambda: processes.has_died("consumer-1"), within=WITHIN)
        assert not watching.done(), watching.result()
        watching.cancel()
        async with routing.service.runtime.database.reading() as connection:
            await books_are_right(connection, LEADS)
        await told_once_and_replayable(routing)


async def nobody_is_seen_a_lead_off(routing: Routing) -> None:
    """Ask again and again how the queue stands, as anybody would; ends when somebody is a lead from entitlement."""
    while True:
        answer = (await routing.client.get("/v1/queues/everybody/fairness")).json()
        assert all(abs(member["balance"]) < 1 for member in answer["members"]), answer


async def test_f22_clocks_that_are_off_move_nobodys_lead(made: Settings, tmp_path: Path) -> None:
    names = [f"lead-{number}" for number in range(30)]
    async with routing_service(made) as routing:
        catch_all = {"queue": "everybody", "strategy": "round_robin", "sla": {"accept_minutes": 60}}
        await routing.put_rules(catch_all=catch_all)
        for name, weight in WEIGHTS.items():
            await routing.hire(name, weight=weight)
        with fleet(made, tmp_path) as processes:
            for number, clock in enumerate(CLOCKS):
                processes.start(f"worker-{number}", "worker", clock=clock)
                processes.start(f"consumer-{number}", "consumer", clock=clock)
            await asyncio.gather(*(tell(routing, names[start::5]) for start in range(5)))
            await given_out(routing, len(names))
            async with routing.service.runtime.database.reading() as connection:
                await connection.fetchval(REMIND_NOW)

            async def somebody_was_reminded() -> None:  # so that all that is due has been looked at
                async with routing.service.runtime.database.reading() as connection:
                    assert await connection.fetchval("SELECT count(*) FROM notices WHERE kind = 'accept_remind'")

            await eventually(somebody_was_reminded, within=WITHIN)
        async with routing.service.runtime.database.reading() as connection:
            times = dict((await connection.fetch(TIMES))[0])
            assert times["off"] < 86_400, times
            assert (times["wrong"], times["offered"]) == (0, len(names)), times
            await books_are_right(connection, len(names))


async def told_once_and_replayable(routing: Routing) -> None:
    """Each decision was published once, and is taken alike from what it saw."""
    told = await routing.service.told(LeadAssigned)
    assert len({fact.lead_id for fact in told}) == len(told) == LEADS
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())
    for fact in told[::12]:
        again: dict[str, Any] = (await routing.client.post(f"/v1/assignments/{fact.assignment_id}:replay")).json()
        assert (again["same"], again["rep_id"]) == (True, fact.rep_id), again
