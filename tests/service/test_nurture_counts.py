"""Reports read counts that are kept as messages change: they say what counting everything anew says."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from services.nurture.measurement import queries
from services.nurture.measurement.counts import add_up, counts_of
from services.nurture.measurement.domain import Read, results_of
from shared.ids import SequenceId
from shared.settings import Settings
from shared.testing import Harness, harness
from throughline.services import service_code

BEGAN = datetime(2026, 3, 28, 21, 50, tzinfo=UTC)
COUNTED_ANEW = f"""
WITH told AS (
    SELECT * FROM messages WHERE sequence_id = $1 AND {queries.LEFT_US} AND claimed_at >= $2 AND claimed_at < $3
)
SELECT step_id, variant, 'sent' AS name, count(*) AS times FROM told GROUP BY 1, 2
UNION ALL
SELECT step_id, variant, state, count(*) FROM told WHERE state <> 'sent' GROUP BY 1, 2, 3
UNION ALL
SELECT step_id, variant, state, count(*) FROM messages
WHERE sequence_id = $1 AND settled_at >= $2 AND settled_at < $3 AND state IN ('failed', 'suppressed') GROUP BY 1, 2, 3
UNION ALL
SELECT step_id, variant, kind || CASE WHEN raw THEN '_raw' ELSE '' END,
    count(DISTINCT message_id) FILTER (WHERE raw OR by_person)
FROM told JOIN {queries.ANSWERS} USING (message_id) CROSS JOIN (VALUES (true), (false)) AS each (raw)
WHERE kind <> 'trap' GROUP BY 1, 2, 3
"""
NAMES = {"email_opened": "opened", "email_clicked": "clicked", "unsubscribed": "unsubscribed"}
STATES = ["planned", "sent", "unknown", "delivered", "bounced", "failed", "suppressed"]
ADD = """
INSERT INTO messages (message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id,
    state, variant, claimed_at, settled_at)
SELECT id, id, seq, 1, 1, step, 1, 'email', id, id, state, variant, at, coalesce(at, $1)
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
    AS given (id, seq, step, state, variant, at)
"""
CHANGE = """
UPDATE messages SET state = coalesce($2, state), variant = coalesce($3, variant), settled_at = settled_at + $4,
    claimed_at = CASE WHEN $5::timestamptz IS NULL THEN claimed_at ELSE $5 END
WHERE message_id = ANY($1)
"""
RESPOND = """
INSERT INTO responses AS known (touch_id, message_id, kind, number, at, seen_at, automated_reason)
SELECT touch, message, kind, 0, now(), now(), reason
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS given (touch, message, kind, reason)
ON CONFLICT (touch_id) DO UPDATE SET seen_at = excluded.seen_at
"""
DOUBT = "INSERT INTO withdrawals VALUES ('nurture', $1, 'staff', $1, now()) ON CONFLICT DO NOTHING"


class History:
    """Messages and responses that change at random, the same for the same seed."""

    def __init__(self, nurture: Harness, seed: int) -> None:
        self._database = nurture.runtime.database
        self._random = random.Random(seed)
        self._messages: list[str] = []
        self._touches: list[str] = []

    async def execute(self, statement: str, *arguments: Any) -> None:
        async with self._database.reading() as connection:
            await connection.execute(statement, *arguments)

    def some(self, of: list[str]) -> list[str]:
        return self._random.sample(of, min(len(of), self._random.randint(1, 6)))

    def at(self) -> datetime:
        return BEGAN + timedelta(minutes=self._random.randint(0, 4_000))

    async def goes_on(self) -> None:
        chance = self._random
        match chance.choice(["add", "change", "change", "respond", "respond", "find out", "doubt", "add up"]):
            case "add":
                ids = [f"m{len(self._messages) + n}" for n in range(chance.randint(1, 8))]
                self._messages += ids
                rows = [(id_, chance.choice("ab"), chance.choice(["one", "two"]), chance.choice(STATES)) for id_ in ids]
                more = [(chance.choice(["x", "y", None]), chance.choice([self.at(), None])) for _ in ids]
                columns = list(zip(*(row + rest for row, rest in zip(rows, more, strict=True)), strict=True))
                await self.execute(ADD, self.at(), *(list(column) for column in columns))
            case "change" if self._messages:
                await self.execute(
                    CHANGE,
                    self.some(self._messages),
                    chance.choice([None, *STATES]),
                    chance.choice([None, None, "x", "z"]),
                    timedelta(minutes=chance.choice([0, 0, 40])),
                    chance.choice([None, self.at()]),
                )
            case "respond" if self._messages:
                messages = [*self.some(self._messages), "unknown"]
                kinds = [chance.choice([*NAMES, "trap"]) for _ in messages]
                touches = [f"{m}/{kind}/{chance.randint(0, 2)}" for m, kind in zip(messages, kinds, strict=True)]
                self._touches += touches
                reasons = [chance.choice([None, None, "robot"]) for _ in messages]
                await self.execute(RESPOND, touches, messages, kinds, reasons)
            case "find out" if self._touches:
                touches = self.some(self._touches)
                await self.execute("UPDATE responses SET automated_reason = 'trap' WHERE touch_id = ANY($1)", touches)
            case "doubt" if self._touches:
                await self.execute(DOUBT, chance.choice(self._touches))
            case _:
                await add_up(self._database)


async def test_counts_that_are_kept_are_those_of_counting_anew(settings: Settings) -> None:
    async with harness(service_code("nurture"), settings) as nurture:
        history = History(nurture, 7)
        for _ in range(6):
            for _ in range(40):
                await history.goes_on()
            await _compare(nurture)
        await asyncio.gather(add_up(nurture.runtime.database), add_up(nurture.runtime.database))
        await _compare(nurture)
        async with nurture.runtime.database.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM message_changes") == 0


async def test_the_same_click_by_two_at_once_counts_once(settings: Settings) -> None:
    async with harness(service_code("nurture"), settings) as nurture:
        history = History(nurture, 1)
        await history.execute(ADD, BEGAN, ["m"], ["a"], ["one"], ["sent"], [None], [BEGAN])
        clicks = [([f"m/{n}"], ["m"], ["email_clicked"], [None if n % 2 else "robot"]) for n in range(8)]
        await asyncio.gather(*(history.execute(RESPOND, *click) for click in clicks))
        await _compare(nurture)


ONE_BY_ONE = """
SELECT said.fact_id, coalesce(
        (SELECT link.lead_id FROM identity_links AS link WHERE link.anonymous_lead_id = said.lead_id
            AND link.at <= said.occurred_at ORDER BY link.at DESC, link.lead_id DESC LIMIT 1),
        (SELECT link.lead_id FROM identity_links AS link WHERE link.anonymous_lead_id = said.lead_id
            ORDER BY link.at, link.lead_id LIMIT 1), said.lead_id) AS lead_id,
    greatest(0, (said.fields->>'value_minor')::bigint - coalesce((SELECT sum(amount_minor) FROM refunds
        WHERE refunds.conversion_id = said.fact_id AND refunds.currency = said.fields->>'currency'), 0)) AS value_minor
FROM milestones AS said WHERE said.fields->>'type' = 'conversion_recorded' ORDER BY fact_id
"""


async def test_whose_conversions_are_and_what_is_left_of_them_is_found_for_all_as_for_each(settings: Settings) -> None:
    chance = random.Random(3)
    async with harness(service_code("nurture"), settings) as nurture:
        history = History(nurture, 3)
        for n in range(60):
            said = {"type": "conversion_recorded", "currency": chance.choice(["EUR", "USD"]), "value_minor": 100}
            anonymous = f"anon{chance.randint(0, 12)}"
            insert = "INSERT INTO milestones VALUES ('conversion_recorded', $1, $2, 0, $1, $3, $4)"
            await history.execute(insert, f"c{n}", anonymous, history.at(), said)
            link = "INSERT INTO identity_links VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
            await history.execute(link, f"anon{chance.randint(0, 9)}", history.at(), f"lead{chance.randint(0, 4)}")
            refund = (
                "INSERT INTO refunds (origin, refund_id, conversion_id, position, amount_minor, currency)"
                " VALUES ('api', $1, $2, 1, $3, $4)"
            )
            about = f"c{chance.randint(0, 59)}", chance.choice([40, 70]), chance.choice(["EUR", "USD"])
            await history.execute(refund, f"r{n}", *about)
        together = (
            f"WITH {queries.converted('true')} SELECT fact_id, lead_id, value_minor FROM happened ORDER BY fact_id"
        )
        async with nurture.runtime.database.reading() as connection:
            found = [tuple(row) for row in await connection.fetch(together)]
            assert found == [tuple(row) for row in await connection.fetch(ONE_BY_ONE)]
        assert {value for *_, value in found} >= {0, 100} and {owner[:4] for _, owner, _ in found} == {"anon", "lead"}


async def _compare(nurture: Harness) -> None:
    day = timedelta(days=1)
    midnight = BEGAN.replace(hour=0, minute=0)
    spans = [(midnight, midnight + 5 * day), (midnight + day, midnight + 2 * day)]
    spans += [(BEGAN.replace(hour=18, minute=15), BEGAN.replace(hour=18, minute=15) + n * day) for n in (1, 2, 3)]
    async with nurture.runtime.database.reading() as connection:
        for sequence in (SequenceId("a"), SequenceId("b")):
            for span in spans:
                anew: Counter[tuple[str, str | None, str]] = Counter()
                for row in await connection.fetch(COUNTED_ANEW, sequence, *span):
                    kind, _, raw = (
                        row["name"].partition("_raw") if row["name"].endswith("_raw") else (row["name"], "", None)
                    )
                    name = NAMES.get(kind, kind) + ("" if raw is None else "_raw")
                    anew[row["step_id"], row["variant"], name] += row["times"]
                counts = await counts_of(connection, sequence, span)
                withdrawn = await queries.read(connection, queries.WITHDRAWN, sequence, span)
                kept = results_of(Read(counts, withdrawn, (), (), ()))
                assert +anew == +Counter(
                    {(*key, name): times for key, found in kept.items() for name, times in found.counts.items()}
                ), (sequence, span)
