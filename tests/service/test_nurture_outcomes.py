"""Replies and conversions are counted under the message they followed, whatever turns out later."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from services.nurture.measurement import queries
from services.nurture.measurement.counts import add_up, counts_of
from services.nurture.measurement.domain import Happened, Read, Sent, followed, is_outcome, results_of
from services.nurture.measurement.outcomes import WINDOW, Rounds, count_outcomes, not_counted_yet
from shared.events import IdentityLinked, RefundRecorded, TouchWithdrawn
from shared.ids import EventId, LeadId, SequenceId, TouchId
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.nurture_world import Facts
from throughline.services import service_code

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MANY_MESSAGES = """
INSERT INTO messages (message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id,
    state, claimed_at, settled_at)
SELECT 'm' || one, 'm' || one, 'news', 1, 1, 'first', 1, 'email', 'l' || one, 'l' || one, 'sent',
    $2::timestamptz + one * interval '4 minutes', $2 FROM generate_series(1, $1::integer) AS one
"""
MANY_CONVERSIONS = """
INSERT INTO milestones (kind, fact_id, lead_id, position, event_id, occurred_at, fields)
SELECT 'conversion_recorded', 'f' || one, 'l' || one, one, 'e' || one, $2::timestamptz + one * interval '4 minutes',
    '{"type": "conversion_recorded", "currency": "EUR", "value_minor": 100}'
FROM generate_series(1, $1::integer, 10) AS one
"""
PEOPLE = [f"{name}@example.com" for name in "abcdef"]
ADD = """
INSERT INTO messages (message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id,
    state, variant, claimed_at, settled_at, claim_until)
VALUES ($1, $1, $2, 1, 1, $3, $9, 'email', $4, $4, $5, $6, $7::timestamptz, $7::timestamptz,
    CASE WHEN $8 THEN now() + interval '1 minute' END)
"""
SETTLE = "UPDATE messages SET state = $2, claim_until = NULL, variant = coalesce($3, variant) WHERE message_id = $1"
DOINGS = ["send", "send", "settle", "convert", "convert", "reply", "correct", "refund", "doubt", "merge", "link"]
DOINGS += ["count"]
Key = tuple[str, str | None, str]


class History:
    """Messages, and what people do, at random: the same for the same seed."""

    def __init__(self, nurture: Harness, seed: int) -> None:
        self._nurture = nurture
        self._facts = Facts(nurture.runtime)
        self._random = random.Random(seed)
        self._number = count()
        self._messages: list[str] = []
        self._told: dict[str, list[Any]] = {"conversion": [], "reply": []}
        self._ids = [self._facts.lead_id(email) for email in PEOPLE]
        self._anonymous = [LeadId(f"anonymous-{n}") for n in range(3)]

    def at(self) -> datetime:
        return BEGAN + timedelta(minutes=self._random.randint(0, 70_000))

    async def goes_on(self) -> None:
        chance, number = self._random, next(self._number)
        who, at = chance.choice([*self._ids, *self._anonymous]), self.at()
        head: dict[str, Any] = {"event_id": EventId(f"e{number}"), "occurred_at": at, "received_at": at}
        match chance.choice(DOINGS):
            case "send":
                state, under_way = chance.choice(["sent", "delivered", "planned", "failed", "unknown"]), False
                if state == "planned":
                    under_way = chance.random() < 0.7
                self._messages.append(f"m{number}")
                place = chance.choice("ab"), chance.choice(["one", "two"])
                row = chance.choice(self._ids), state, chance.choice(["x", None]), at, under_way, number
                await self.execute(ADD, f"m{number}", *place, *row)
            case "settle" if self._messages:
                state = chance.choice(["sent", "bounced", "failed", "unknown", "planned"])
                await self.execute(SETTLE, chance.choice(self._messages), state, chance.choice([None, None, "y"]))
            case "convert":
                told = self._facts.conversion(chance.choice(PEOPLE), at=at)
                told = told.model_copy(update={"lead_id": who, "currency": chance.choice(["EUR", "USD"])})
                self._told["conversion"].append(told)
                await self._nurture.deliver(told)
            case "reply":
                answer = self._facts.touch(who, "email_replied", at=at, automated=chance.random() < 0.1)
                self._told["reply"].append(answer)
                await self._nurture.deliver(answer)
            case "correct" if self._told["conversion"]:
                told = chance.choice(self._told["conversion"])
                again = {"event_id": EventId(f"e{number}"), "position": 10_000 + number, "lead_id": who}
                await self._nurture.deliver(told.model_copy(update=again | {"occurred_at": at, "value_minor": 70}))
            case "refund" if self._told["conversion"]:
                told = chance.choice(self._told["conversion"])
                refund = {
                    "conversion_id": told.conversion_id,
                    "external_id": told.external_id,
                    "refund_id": str(number),
                }
                amount = {"amount_minor": chance.choice([30, 100]), "currency": told.currency, "position": number}
                await self._nurture.deliver(RefundRecorded(**head, **refund, **amount))
            case "doubt" if self._told["reply"]:
                told = chance.choice(self._told["reply"])
                touch = {"origin": told.origin, "touch_id": TouchId(told.touch_id), "reason": "staff"}
                await self._nurture.deliver(TouchWithdrawn(**head, **touch))
            case "merge":
                one, other = chance.sample(PEOPLE, 2)
                moved = self._facts.merged if chance.random() < 0.6 else self._facts.unmerged
                await self._nurture.deliver(moved(one, other))
            case "link":
                anonymous = chance.choice(self._anonymous)
                link: dict[str, Any] = {"lead_id": chance.choice(self._ids), "anonymous_lead_id": anonymous}
                await self._nurture.deliver(IdentityLinked(**head, **link))
            case _:
                await count_outcomes(self._nurture.runtime.database)
                await add_up(self._nurture.runtime.database)

    async def execute(self, statement: str, *arguments: Any) -> None:
        async with self._nurture.runtime.database.reading() as connection:
            await connection.execute(statement, *arguments)


async def test_what_is_counted_is_what_looking_for_each_finds(settings: Settings) -> None:
    async with harness(service_code("nurture"), settings) as nurture:
        history = History(nurture, 5)
        found = 0
        for _ in range(5):
            for _ in range(30):
                await history.goes_on()
            found += await _compare(nurture)
        assert found > 20
        await history.execute("UPDATE messages SET state = 'sent', claim_until = NULL WHERE claim_until IS NOT NULL")
        database = nurture.runtime.database
        await count_outcomes(database)
        await add_up(database)
        await _compare(nurture)
        async with database.reading() as connection:
            assert await queries.waiting(connection) == []


async def test_what_nobody_told_of_is_found_by_going_through_everybody(settings: Settings) -> None:
    """As it was folded by an earlier version."""
    now = datetime.now(UTC)
    span = (now - timedelta(days=1), now + timedelta(days=1))
    async with harness(service_code("nurture"), settings) as nurture:
        database, facts = nurture.runtime.database, Facts(nurture.runtime)
        row = "a", "one", facts.lead_id(PEOPLE[0]), "sent", None, now, False, 1
        async with database.reading() as connection:
            await connection.execute(ADD, "m", *row)
        await nurture.deliver(facts.conversion(PEOPLE[0]))
        async with database.reading() as connection:
            await connection.execute("TRUNCATE outcome_turns")
            assert await not_counted_yet(connection, SequenceId("a"), span) == []
        rounds = Rounds(database)
        await rounds.run()
        await count_outcomes(database)
        await rounds.run()
        await add_up(database)
        async with database.reading() as connection:
            counts = {row["name"]: row["times"] for row in await counts_of(connection, SequenceId("a"), span)}
            assert counts == {"sent": 1, "conversions": 1, "revenue EUR": 100}
            assert await not_counted_yet(connection, SequenceId("a"), span) == []


async def _compare(nurture: Harness) -> int:
    """Answers how much there was to compare."""
    day, found = timedelta(days=1), 0
    spans = [(BEGAN, BEGAN + 60 * day), (BEGAN + 10 * day + day / 4, BEGAN + 21 * day + day / 4)]
    async with nurture.runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
        for sequence in (SequenceId("a"), SequenceId("b")):
            for span in spans:
                looked: Counter[Key] = Counter()
                for name, statement in (("replied", queries.REPLIES), ("conversions", queries.CONVERSIONS)):
                    for row in await queries.read(connection, statement, sequence, span, WINDOW):
                        looked[row["step_id"], row["variant"], name] += row["times"]
                        if row["currency"]:
                            looked[row["step_id"], row["variant"], row["currency"]] += row["value_minor"]
                counts = [row for row in await counts_of(connection, sequence, span) if is_outcome(row["name"])]
                waiting = await not_counted_yet(connection, sequence, span)
                kept = results_of(Read([*counts, *waiting], (), (), (), ()))
                shown = Counter(
                    {
                        (*key, name): number
                        for key, results in kept.items()
                        for name, number in [*results.counts.items(), *results.revenue.items()]
                    }
                )
                assert +shown == +looked, (sequence, span)
                found += len(+looked)
    return found


def test_a_fact_belongs_to_the_last_message_before_it_within_the_window() -> None:
    someone = LeadId("someone")
    sent = [Sent("a", step, "", BEGAN + timedelta(days=n)) for n, step in enumerate(["one", "two", "three"])]

    def step_of(at: datetime) -> list[str]:
        fact = Happened("replied", "f", someone, someone, at, "", 0)
        return [outcome.step_id for outcome in followed([fact], {someone: sent}, WINDOW)]

    assert step_of(BEGAN - timedelta.resolution) == []
    assert step_of(BEGAN) == ["one"]
    assert step_of(BEGAN + timedelta(days=1)) == ["two"]
    assert step_of(BEGAN + timedelta(days=2) + WINDOW - timedelta.resolution) == ["three"]
    assert step_of(BEGAN + timedelta(days=2) + WINDOW) == []


async def test_the_planner_does_not_take_conversions_for_few(settings: Settings) -> None:
    """A report with a window of its own lays messages beside them: for few it would compare each with each."""
    many, span = 10_000, (BEGAN, BEGAN + 30 * DAY)
    async with harness(service_code("nurture"), settings) as nurture:
        async with nurture.runtime.database.transaction() as tx:
            await tx.connection.execute(MANY_MESSAGES, many, BEGAN)
            await tx.connection.execute(MANY_CONVERSIONS, many, BEGAN)
        async with nurture.runtime.database.reading() as connection:
            for table in ("messages", "milestones"):
                await connection.execute(f"ANALYZE {table}")
            explain = f"EXPLAIN (FORMAT JSON) {queries.CONVERSIONS}"
            (found,) = await queries.read(connection, explain, SequenceId("news"), span, 14 * DAY)
        (plan,) = found["QUERY PLAN"]
        (said,) = [node for node in nodes_of(plan["Plan"]) if node.get("Subplan Name") == "CTE said"]
        assert many / 20 < said["Plan Rows"] <= many / 10


def nodes_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(below for each in node.get("Plans", ()) for below in nodes_of(each))]
