"""Makes the facts that scoring reads, and asks it the questions that its users ask."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import asyncpg
import orjson

from shared.events import (
    AccountChanged,
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    ConsentChanged,
    DealChanged,
    Event,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    TouchRecorded,
    TouchWithdrawn,
)
from shared.ids import AccountId, AssignmentId, DealId, EventId, LeadId, RepId, TouchId
from shared.testing import FrozenClock, Harness

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
GOOD_FIT: dict[str, Any] = {"employees": 200, "country": "AT", "use_case": "support", "industry": "Software"}
KINDS = ("page_view", "page_view", "page_view", "email_clicked", "form_submitted", "demo_requested", "unsubscribed")
PEOPLE = ("a@x.example.com", "b@x.example.com", "c@x.example.com")
BROWSERS = ("browser-1", "browser-2")
PROJECTION = (
    "touches",
    "withdrawals",
    "profiles",
    "consents",
    "assignments",
    "deals",
    "scores",
    "limited_days",
    "identity_links",
)


@dataclass
class World:
    """The service under test, and what happens around it."""

    scoring: Harness
    clock: FrozenClock
    _number: "count[int]" = field(default_factory=lambda: count(1))

    async def tell(self, *events: Event) -> None:
        """Facts as one batch."""
        await self.scoring.deliver(*events)

    async def score(self, lead_id: str) -> dict[str, Any]:
        """What the API says of a lead."""
        response = await self.scoring.client.get(f"/v1/leads/{lead_id}")
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def put_rules(self, document: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Save a document; answers the stored version."""
        response = await self.scoring.client.put("/v1/rules", json=document, params=params)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def projection(self) -> dict[str, list[asyncpg.Record]]:
        """Every row that is folded from facts."""
        async with self.scoring.runtime.database.reading() as connection:
            return {
                table: await connection.fetch(f"SELECT row.*::text FROM {table} AS row ORDER BY row::text")
                for table in PROJECTION
            }

    def lead_id(self, email: str) -> LeadId:
        return self.scoring.runtime.ids.of_email(email)

    def touch(self, lead_id: str, kind: str, at: datetime = NOW, **more: Any) -> TouchRecorded:
        head = self._head(lead_id, "touch", at)
        return TouchRecorded(**{**head, "touch_id": TouchId(str(head["event_id"])), "type": kind, **more})

    def withdrawn(self, touch: TouchRecorded, reason: str = "a scanner") -> TouchWithdrawn:
        """That this touch was a machine's."""
        head = {**self._head("", "withdrawn", NOW), "origin": touch.origin, "touch_id": touch.touch_id}
        return TouchWithdrawn(**head, reason=reason)

    async def captured(self, email: str, revision: int = 1, at: datetime = NOW, **profile: Any) -> LeadCaptured:
        """A profile, its personal part sealed with the person's key, which is here already."""
        lead_id, keys = self.lead_id(email), self.scoring.runtime.keys
        names = ("first_name", "last_name", "title", "phone", "attributes")
        personal = {"email": email, **{name: profile.pop(name) for name in names if name in profile}}
        sealed = await self.sealed(lead_id, personal)
        assert keys is not None
        head = self._head(lead_id, "captured", at)
        return LeadCaptured(**head, revision=revision, captured_at=at, personal=sealed, **profile)

    async def sealed(self, lead_id: LeadId, personal: dict[str, Any]) -> str:
        """A personal block of this lead."""
        keys = self.scoring.runtime.keys
        async with self.scoring.runtime.database.transaction() as tx:
            ciphers, _ = await keys.ciphers(tx.connection, [lead_id], NOW)
        return keys.seal(lead_id, ciphers[lead_id], orjson.dumps(personal)).decode()

    def account(self, name: str, revision: int = 1, **more: Any) -> AccountChanged:
        """A company as it is told."""
        head = self._head(name, "account", NOW)
        return AccountChanged(**head, account_id=AccountId(name), revision=revision, **more)

    def consent(self, lead_id: str, state: Any = "granted", at: datetime = NOW) -> ConsentChanged:
        return ConsentChanged(**self._head(lead_id, "consent", at), channel="email", state=state)

    def linked(self, anonymous: str, lead_id: str, at: datetime = NOW) -> IdentityLinked:
        return IdentityLinked(**self._head(lead_id, "linked", at), anonymous_lead_id=LeadId(anonymous))

    def merged(self, loser: str, into: str, at: datetime = NOW) -> LeadMerged:
        return LeadMerged(**self._head(into, "merged", at), from_lead_id=LeadId(loser))

    def unmerged(self, loser: str, into: str, at: datetime = NOW) -> LeadUnmerged:
        return LeadUnmerged(**self._head(into, "unmerged", at), from_lead_id=LeadId(loser))

    def erased(self, lead_id: str) -> LeadErased:
        return LeadErased(**self._head(lead_id, "erased", NOW))

    def assigned(self, lead_id: str, name: str, revision: int = 1) -> LeadAssigned:
        return LeadAssigned(
            **self._head(lead_id, "assigned", NOW),
            assignment_id=AssignmentId(name),
            revision=revision,
            rep_id=RepId("rep"),
            queue="sales",
            strategy="round_robin",
            rules_version=1,
        )

    def accepted(self, lead_id: str, name: str) -> AssignmentAccepted:
        head = self._head(lead_id, "accepted", NOW)
        return AssignmentAccepted(**head, assignment_id=AssignmentId(name), rep_id=RepId("rep"))

    def rejected(self, lead_id: str, name: str, at: datetime = NOW) -> AssignmentRejected:
        head = self._head(lead_id, "rejected", at)
        return AssignmentRejected(**head, assignment_id=AssignmentId(name), rep_id=RepId("rep"), reason="no budget")

    def expired(self, lead_id: str, name: str) -> AssignmentExpired:
        head = self._head(lead_id, "expired", NOW)
        return AssignmentExpired(**head, assignment_id=AssignmentId(name), rep_id=RepId("rep"))

    def deal(self, lead_id: str, name: str, status: Any, revision: int) -> DealChanged:
        return DealChanged(
            **self._head(lead_id, "deal", NOW),
            deal_id=DealId(name),
            revision=revision,
            name=name,
            status=status,
            stage=status,
            probability=10,
            value_minor=100,
            currency="EUR",
            opened_at=NOW,
        )

    def _head(self, lead_id: str, kind: str, at: datetime) -> dict[str, Any]:
        number = next(self._number)
        return {
            "event_id": EventId(f"{kind}-{number}"),
            "lead_id": LeadId(lead_id),
            "occurred_at": at,
            "received_at": NOW,
            "position": number,
        }


async def with_named_score(world: World, **more: Any) -> dict[str, Any]:
    """The active document with a score `product` beside the main one: visits, halved in ten days, at most 8 a day."""
    document: dict[str, Any] = (await world.scoring.client.get("/v1/rules")).json()["document"]
    rules = [
        {"id": "page-view", "when": "event.type == 'page_view'", "points": 4, "group": "visits", "per_day": 8},
        {"id": "demo", "when": "event.type == 'demo_requested'", "points": 30, "once": True},
        {"id": "left", "when": "event.type == 'unsubscribed'", "points": -5, "half_life_days": 5},
    ]
    product = {"id": "product", "title": "Product", "half_life_days": 10, "limit": 60, "groups": {"visits": 20}}
    document["scores"] = [{**product, "rules": rules, **more}]
    return document


async def random_history(world: World, dice: random.Random, size: int) -> list[Event]:
    """People and browsers that do things, are corrected, linked, merged and unmerged."""
    ids = [*(world.lead_id(email) for email in PEOPLE), *BROWSERS]
    facts: list[Event] = []

    def when() -> Any:
        return NOW - DAY * dice.randrange(0, 4) - timedelta(minutes=dice.randrange(0, 300))

    for _ in range(size):
        lead_id = dice.choice(ids)
        touch = world.touch(lead_id, dice.choice(KINDS), when(), page=dice.choice(["/", "/pricing", "/careers"]))
        facts.append(touch)
        if dice.random() < 0.15:
            facts.append(world.touch(dice.choice(ids), dice.choice(KINDS), when(), touch_id=touch.touch_id))
        if dice.random() < 0.1:
            facts.append(world.withdrawn(touch))
        elif dice.random() < 0.1:
            again = {name: getattr(touch, name) for name in ("page", "touch_id")}
            facts.append(world.touch(touch.lead_id, touch.type, touch.occurred_at, automated=True, **again))
    for email in PEOPLE:
        for revision in (1, 2):
            account = dice.choice([None, "acme", "mill"])
            profile = {"company": f"{email}{revision}", "employees": revision * 300, "account_id": account}
            facts.append(await world.captured(email, revision, when(), **profile))
        facts += [world.consent(world.lead_id(email), state, when()) for state in ("granted", "denied")]
        facts.append(world.assigned(world.lead_id(email), f"assignment-{email}"))
        facts.append(world.deal(world.lead_id(email), f"deal-{email}", dice.choice(["open", "lost"]), 1))
    facts += [world.account("acme", revision, parent_id=dice.choice([None, "mill"])) for revision in (1, 2)]
    facts.append(world.account("mill", merged_into=dice.choice([None, "holding"]), country="AT"))
    facts.append(world.accepted(world.lead_id(PEOPLE[0]), f"assignment-{PEOPLE[0]}"))
    for browser in BROWSERS:
        facts += [world.linked(browser, world.lead_id(dice.choice(PEOPLE)), when()) for _ in range(2)]
    a, b, c = (world.lead_id(email) for email in PEOPLE)
    facts += [world.merged(b, a, NOW - 3 * DAY), world.merged(c, a, NOW - 2 * DAY), world.unmerged(c, a, NOW - DAY)]
    return facts
