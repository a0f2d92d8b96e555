"""Facts as scoring and capture would tell them to routing, and a routing service to tell them to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx

from shared.events import IdentityLinked, LeadCaptured, LeadErased, LeadMerged, LeadUnmerged, StageChanged
from shared.ids import EventId, LeadId, derived_id
from shared.settings import Settings
from shared.testing import FrozenClock, Harness, harness
from throughline.services import service_code

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)  # a Wednesday
ORDER = {"subscriber": 1, "lead": 2, "mql": 3, "sal": 4, "sql": 5, "opportunity": 6, "customer": 7, "recycled": 8}
_numbers = count(1)


def lead_id(name: str) -> LeadId:
    """An id as capture makes them."""
    return LeadId(derived_id("test-lead", name))


def captured(name: str, revision: int = 1, at: datetime = NOON, **fields: Any) -> LeadCaptured:
    """A profile."""
    return LeadCaptured(
        event_id=EventId(derived_id("captured", name, str(revision))),
        lead_id=lead_id(name),
        occurred_at=at,
        received_at=at,
        revision=revision,
        captured_at=at,
        **fields,
    )


def entered(  # noqa: PLR0913  # what a stage change says
    name: str,
    stage: str = "mql",
    previous: str | None = "lead",
    *,
    at: datetime = NOON,
    revision: int | None = None,
    profile: int | None = 1,
    total: float = 90.0,
) -> StageChanged:
    """A lead that entered a stage."""
    number = next(_numbers)
    return StageChanged(
        event_id=EventId(derived_id("stage", name, stage, str(number))),
        lead_id=lead_id(name),
        occurred_at=at,
        received_at=at,
        revision=revision if revision is not None else number,
        stage=stage,  # type: ignore[arg-type]  # a stage by name
        previous=previous,  # type: ignore[arg-type]
        reason="a test says so",
        engagement=total - 40,
        fit=40,
        total=total,
        grade="C",
        rules_version=1,
        profile_revision=profile,
    )


def merged(name: str, into: str, at: datetime = NOON) -> LeadMerged:
    """Two leads that are one person."""
    return LeadMerged(
        event_id=EventId(derived_id("merged", name, into)),
        lead_id=lead_id(into),
        from_lead_id=lead_id(name),
        occurred_at=at,
        received_at=at,
    )


def unmerged(name: str, into: str, at: datetime = NOON + timedelta(minutes=1)) -> LeadUnmerged:
    """A merge undone."""
    return LeadUnmerged(
        event_id=EventId(derived_id("unmerged", name, into)),
        lead_id=lead_id(into),
        from_lead_id=lead_id(name),
        occurred_at=at,
        received_at=at,
    )


def linked(anonymous: str, name: str, at: datetime = NOON) -> IdentityLinked:
    """A browser that belongs to a person."""
    return IdentityLinked(
        event_id=EventId(derived_id("linked", anonymous, name)),
        lead_id=lead_id(name),
        anonymous_lead_id=lead_id(anonymous),
        occurred_at=at,
        received_at=at,
    )


def erased(name: str, at: datetime = NOON) -> LeadErased:
    """A person who is forgotten."""
    return LeadErased(
        event_id=EventId(derived_id("erased", name)), lead_id=lead_id(name), occurred_at=at, received_at=at
    )


class Routing:
    """A routing service in this process, at a time that stands still."""

    def __init__(self, service: Harness, clock: FrozenClock) -> None:
        self.service = service
        self.clock = clock
        self.client = service.client

    async def hire(self, name: str, **fields: Any) -> str:
        """A new rep's id."""
        body = {"name": name.title(), "email": f"{name}@sales.example.com", "time_zone": "UTC", **fields}
        answer = await self.client.post("/v1/reps", json=body)
        assert answer.status_code == 201, answer.text
        self.clock.move(timedelta(milliseconds=1))  # reps stand in the order they were made
        return str(answer.json()["rep_id"])

    async def put_rules(self, *lines: dict[str, Any], **document: Any) -> int:
        """The version of rules that count from now on."""
        body = {
            "rules": list(lines),
            "queues": [{"id": "everybody", "who": "true"}],
            "catch_all": {"queue": "everybody", "strategy": "round_robin", "sla": {"accept_minutes": 60}},
            **document,
        }
        answer = await self.client.put("/v1/rules", json=body)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["version"])

    async def qualify(self, *names: str, **fields: Any) -> None:
        """Leads with a profile that become marketing-qualified."""
        await self.service.deliver(*(captured(name, **fields) for name in names), *(entered(name) for name in names))

    async def assignment(self, name: str) -> dict[str, Any]:
        """A lead's assignment."""
        answer = await self.client.get(f"/v1/leads/{lead_id(name)}/assignment")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def owner(self, name: str) -> str | None:
        """The rep who has a lead now."""
        answer = await self.client.get(f"/v1/leads/{lead_id(name)}/assignment")
        return answer.json()["rep_id"] if answer.status_code == 200 and answer.json()["current"] else None

    async def answer(self, name: str, what: str, **body: Any) -> httpx.Response:
        """Accept, reject or reassign."""
        return await self.client.post(f"/v1/leads/{lead_id(name)}/assignment:{what}", json=body)

    async def holds(self) -> list[dict[str, Any]]:
        """The leads that wait."""
        return list((await self.client.get("/v1/holds")).json()["items"])

    async def pass_time(self, by: timedelta) -> None:
        """Let time pass, and do what is due then."""
        self.clock.move(by)
        await self.service.run_timers()

    async def counted_loads(self) -> dict[str, tuple[int, int]]:
        """Each rep's open leads, as kept and as counted."""
        async with self.service.runtime.database.reading() as connection:
            rows = await connection.fetch(
                "SELECT rep_id, open_leads, (SELECT count(*) FROM assignments AS a"
                " WHERE a.rep_id = reps.rep_id AND ended_at IS NULL) AS counted FROM reps"
            )
        return {row["rep_id"]: (row["open_leads"], row["counted"]) for row in rows}


@asynccontextmanager
async def routing_service(settings: Settings, *, kafka: bool = False) -> AsyncIterator[Routing]:
    """Routing for the length of a block. With Kafka, time goes on."""
    clock = FrozenClock(NOON)
    async with harness(service_code("routing"), settings, clock=None if kafka else clock, kafka=kafka) as service:
        if not kafka:
            await read_back(service, clock.now() + timedelta(days=365))
        yield Routing(service, clock)


@asynccontextmanager
async def selling(settings: Settings) -> AsyncIterator[Routing]:
    """Routing with a rep, and a lead to sell to."""
    async with routing_service(settings) as service:
        await service.hire("ann")
        await service.qualify("one", country="DE")
        yield service


async def read_back(service: Harness, until: datetime) -> None:
    """As if routing had read what it published until then."""
    async with service.runtime.database.reading() as connection:
        await connection.executemany(
            "INSERT INTO feed_watermarks (topic, partition, source, at) VALUES ($1, $2, 'routing', $3)"
            " ON CONFLICT (topic, partition, source) DO UPDATE SET at = excluded.at",
            [
                (topic, partition, until)
                for topic in ("assignments", "deals")
                for partition in range(service.settings.topic_partitions)
            ],
        )
