"""The consumer role: the service's routes, and beside them the feed of persons' keys."""

import asyncio

from shared.db import Connection
from shared.errors import Unavailable
from shared.events import TOPICS
from shared.kafka import Consumer, Guard, KeysProcessor, Processor, Superseded, topics_of
from shared.service._runtime import Runtime, ServiceCode
from shared.telemetry import log

RETRY_S = 0.5
VERSION = "SELECT version FROM projections"


def reads_keys(service: str) -> bool:
    """Whether a service opens personal data."""
    return any(topic.name == "keys" and service in topic.readers for topic in TOPICS)


def positions_name(service: str, version: int) -> str:
    """The name under which a projection's positions are stored."""
    return f"{service}.v{version}"


async def projection_version(connection: Connection) -> int:
    """The version of the projection that serves."""
    return int(await connection.fetchval(VERSION))


def make_processor(code: ServiceCode, runtime: Runtime, version: int, *, folds_only: bool = False) -> Processor:
    """The processor of a service's routes; for a rebuild only those that fold."""
    routes = [route for route in code.routes(runtime) if not (folds_only and route.decides)]
    return Processor(
        runtime.database,
        positions_name(code.name, version),
        routes,
        version=version,
        topic_order=[topic.name for topic in TOPICS],
        guard=Guard(runtime.settings.parked_share_limit, runtime.settings.parked_run_limit),
        serving=not folds_only,
    )


def make_consumer(
    code: ServiceCode, runtime: Runtime, version: int, *, group: str | None = None, folds_only: bool = False
) -> Consumer:
    """The consumer of a service's routes at a version of its projection."""
    routes = [route for route in code.routes(runtime) if not (folds_only and route.decides)]
    return Consumer(
        runtime.settings,
        runtime.database,
        runtime.clock,
        group=group or code.name,
        topics=topics_of(routes),
        positions=positions_name(code.name, version),
        processor=make_processor(code, runtime, version, folds_only=folds_only),
        keys_arrived=runtime.keys.arrived,
        gather=code.gather,
    )


def make_keys_consumer(code: ServiceCode, runtime: Runtime) -> Consumer:
    """The consumer of persons' keys."""
    positions = f"{code.name}-keys"
    return Consumer(
        runtime.settings,
        runtime.database,
        runtime.clock,
        group=positions,
        topics=["keys"],
        positions=positions,
        processor=KeysProcessor(runtime.database, runtime.keys, positions),
    )


class Consuming:
    """Runs a service's consumers; starts over when another version of the projection was swapped in."""

    def __init__(self, code: ServiceCode, runtime: Runtime) -> None:
        self._code = code
        self._runtime = runtime
        self._stopping = False
        self.consumer: Consumer | None = None
        self.keys_consumer = make_keys_consumer(code, runtime) if reads_keys(code.name) else None

    async def run(self) -> None:
        """Consume until `stop`."""
        while not self._stopping:
            try:
                async with self._runtime.database.reading() as connection:
                    version = await projection_version(connection)
            except Unavailable:
                await asyncio.sleep(RETRY_S)
                continue
            self.consumer = make_consumer(self._code, self._runtime, version)
            try:
                await self.consumer.run()
            except Superseded as exc:
                log.warning("consumer_superseded", service=self._code.name, reason=str(exc))

    async def stop(self) -> None:
        """Finish what is under way and leave the groups."""
        self._stopping = True
        for consumer in (self.consumer, self.keys_consumer):
            if consumer is not None:
                await consumer.stop()

    async def fault(self) -> str | None:
        """Why this role is not ready, if it is not."""
        if self.consumer is None or not self.consumer.assigned:
            return "no partitions assigned yet"
        stopped = self.consumer.stopped_partitions
        return f"stopped partitions: {', '.join(stopped)}" if stopped else None
