"""What a service is given, and what it gives: routers, routes, timers."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from fastapi import APIRouter

from shared.clock import Clock, present
from shared.db import CONSUMER_LOG, Bell, Connection, Database, agreed_now
from shared.events import TOPICS
from shared.identity import LeadIds
from shared.kafka import Route
from shared.outbox import EventLog
from shared.personal import PersonKeys
from shared.secrets import Secrets
from shared.settings import Settings

Role = Literal["api", "consumer", "worker"]
FEED = "SELECT source, min(at) AS at, count(*) AS partitions FROM feed_watermarks WHERE topic = $1 GROUP BY source"
PARKED = """
SELECT DISTINCT key FROM parked_events JOIN projections ON consumer = $2 || '.v' || version WHERE key = ANY($1)
"""


class Feeds:
    """How far this service has read what others tell."""

    def __init__(self, service: str, clock: Clock, partitions: int) -> None:
        self._service = service
        self._clock = clock
        self._partitions = partitions

    async def fresh(self, connection: Connection, topic: str, within: timedelta) -> bool:
        """Whether everything that the topic's writers told until `within` ago has been carried out here."""
        writers = next(entry.writers for entry in TOPICS if entry.name == topic)
        since = await agreed_now(connection, self._clock) - within
        fresh = {
            row["source"]
            for row in await connection.fetch(FEED, topic)
            if row["partitions"] >= self._partitions and row["at"] >= since
        }
        return writers <= fresh

    async def parked(self, connection: Connection, lead_ids: Iterable[str]) -> set[str]:
        """Those leads that have a parked fact, so that something about them is not known here."""
        return {row["key"] for row in await connection.fetch(PARKED, sorted(set(lead_ids)), self._service)}


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything a service's role may use. Built by the entry point, passed inwards."""

    service: str
    settings: Settings
    secrets: Secrets
    database: Database
    clock: Clock
    keys: PersonKeys
    ids: LeadIds
    log: EventLog
    feeds: Feeds


@dataclass(frozen=True, slots=True)
class Timer:
    """A duty that comes round: `run` may answer a shorter wait than `every` until its next time."""

    name: str
    run: Callable[[], Awaitable[timedelta | None]]
    every: timedelta


@dataclass(frozen=True, slots=True)
class ServiceCode:
    """A service's three entry points; what they return depends on the runtime alone.

    `settle` does at once what timers still owe to the tables of a projection, so that two projections that have folded
    the same facts can be compared. `gather` is how long facts may wait for others of their batch while they flow: none
    where a person waits for what comes of them.
    """

    name: str
    routers: Callable[[Runtime], tuple[APIRouter, ...]]
    routes: Callable[[Runtime], tuple[Route, ...]]
    timers: Callable[[Runtime], tuple[Timer, ...]]
    settle: Callable[[Runtime], Awaitable[None]] | None = None
    gather: timedelta = timedelta(0)


def build_runtime(  # noqa: PLR0913  # what tells one role from another
    service: str,
    settings: Settings,
    *,
    log: int = CONSUMER_LOG,
    clock: Clock | None = None,
    projection: str = "projection",
    muted: bool = False,
    bell: Bell | None = None,
) -> Runtime:
    """The parts of one role of a service; nothing is connected yet. Roles of one process share a bell."""
    clock = clock or present
    secrets = Secrets(settings.secret.get_secret_value())
    database = Database(
        settings.database_url.get_secret_value(),
        service,
        log=log,
        pool_size=settings.database_pool_size,
        projection=projection,
        idle_timeout_s=settings.idle_in_transaction_timeout.total_seconds(),
        muted=muted,
        bell=bell,
    )
    keys = PersonKeys(secrets, clock, settings.topic_partitions)
    return Runtime(
        service=service,
        settings=settings,
        secrets=secrets,
        database=database,
        clock=clock,
        keys=keys,
        ids=LeadIds(secrets),
        log=EventLog(database, keys, queue_rows=settings.capture_queue_rows),
        feeds=Feeds(service, clock, settings.topic_partitions),
    )
