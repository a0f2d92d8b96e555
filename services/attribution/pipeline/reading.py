"""The statements that read the sums of marks by months and days, and the marks at the ends of a period."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Any, NamedTuple

from services.attribution.channels.domain import NOT_SET
from services.attribution.debts.queries import AS_OF
from services.attribution.pipeline.counting import Total
from services.attribution.pipeline.domain import TIMED, Dimension, Kind
from services.attribution.pipeline.spans import Spans, midnight, spans
from shared.db import Connection

TOPICS = ("leads", "touches", "scores", "assignments", "deals", "conversions")
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
KEY_OF: dict[Dimension | None, str] = {
    None: "''",
    "rep": "mark.rep",
    "team": "team.name",
    "channel": "person.channel",
    "source": "person.source",
    "campaign": "person.campaign",
    "country": "person.country",
    "account": "person.account",
}
PERSONAL = ("channel", "source", "campaign", "country", "account")
TEAMS = (
    f"CROSS JOIN LATERAL unnest(CASE mark.teams WHEN '{{}}' THEN ARRAY['{NOT_SET}'] ELSE mark.teams END) AS team (name)"
)
SUMS = """
WITH found AS (
    SELECT span.place, sums.kind, sums.key, sums.step, sums.bucket, sums.currency, sums.number, sums.value_minor,
        sums.weighted_minor, sums.microseconds
    FROM unnest($1::text[], $2::integer[], $3::text[], $4::date[], $5::date[])
        AS span (kind, place, level, first, until)
    JOIN mark_sums AS sums ON sums.kind = span.kind AND sums.dimension = $6 AND sums.level = span.level
        AND sums.day >= span.first AND sums.day < span.until
    UNION ALL
    SELECT span.place, mark.kind, {key}, mark.step, mark.bucket, mark.currency, mark.number, mark.value_minor,
        mark.weighted_minor, coalesce(mark.lapse, 0)
    FROM unnest($7::text[], $8::integer[], $9::timestamptz[], $10::timestamptz[]) AS span (kind, place, first, until)
    JOIN marks AS mark ON mark.kind = span.kind AND mark.at >= span.first AND mark.at < span.until
    {joins} {where}
), summed AS (
    SELECT place, kind, key, step, currency, bucket, sum(number)::bigint AS number, sum(value_minor) AS value_minor,
        sum(weighted_minor) AS weighted_minor, sum(microseconds) AS microseconds
    FROM found GROUP BY place, kind, key, step, currency, bucket
)
SELECT place, kind, key, step, currency, sum(number)::bigint AS number, sum(value_minor) AS value_minor,
    sum(weighted_minor) AS weighted_minor, sum(microseconds) AS microseconds, array_agg(bucket) AS buckets,
    array_agg(number) AS numbers
FROM summed GROUP BY place, kind, key, step, currency
"""
IN_TIME = """
SELECT span.place, {key} AS key, count(*) AS number
FROM unnest($1::integer[], $2::timestamptz[], $3::timestamptz[]) AS span (place, first, until)
JOIN marks AS mark ON mark.kind = 'sla' AND mark.step = 'pending' AND mark.at >= span.first AND mark.at < span.until
    AND (mark.at AT TIME ZONE 'UTC') + mark.lapse * interval '1 microsecond' >= $4 AT TIME ZONE 'UTC'
{joins} {where} GROUP BY 1, 2
"""
STAGES = """
SELECT pipeline_stages FROM deal_steps WHERE pipeline_stages <> '{}' ORDER BY at DESC, deal_id, revision DESC LIMIT 1
"""

Moments = tuple[datetime | None, datetime | None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the sums: by what, and of whom only. What is only of some is counted from the marks."""

    dimension: Dimension | None = None
    only: dict[Dimension, str] = field(default_factory=dict)

    @property
    def _personal(self) -> bool:
        return self.dimension in PERSONAL or any(name in PERSONAL for name in self.only)

    def statement(self, template: str, first_place: int) -> str:
        """A statement over marks, the values of `only` being its parameters from `first_place` on."""
        joins = "JOIN circumstances AS person USING (person_id)" if self._personal else ""
        if self.dimension == "team":
            joins += f" {TEAMS}"
        conditions = [
            f"${place} = ANY(CASE mark.teams WHEN '{{}}' THEN ARRAY['{NOT_SET}'] ELSE mark.teams END)"
            if name == "team"
            else f"{KEY_OF[name]} = ${place}"
            for place, name in enumerate(self.only, first_place)
        ]
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        return template.format(key=KEY_OF[self.dimension], joins=joins, where=where)

    def spans(self, kind: Kind, moments: Moments) -> Spans:
        """What a period is read from."""
        if self.only:
            return Spans(moments=((moments[0] or EARLIEST, moments[1] or LATEST),))
        found = spans(*moments)
        if self.dimension is None or kind not in TIMED:
            return found
        days = tuple((midnight(first), midnight(until)) for first, until in found.days)
        return Spans(months=found.months, moments=(*days, *found.moments))


class Found(NamedTuple):
    """A sum of marks in one of the periods asked for; `times` are their buckets, and how many are in each."""

    place: int
    kind: Kind
    key: str
    step: str
    currency: str
    total: Total
    times: tuple[tuple[int, int], ...]


async def sums_in(
    connection: Connection, question: Question, kinds: Sequence[Kind], periods: Sequence[Moments]
) -> list[Found]:
    """The sums of some kinds of marks in several periods, told by their place in the list."""
    whole: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    for kind, (place, moments) in product(kinds, enumerate(periods)):
        found = question.spans(kind, moments)
        whole += [(kind, place, "month", *one) for one in found.months]
        whole += [(kind, place, "day", *one) for one in found.days]
        parts += [(kind, place, *one) for one in found.moments]
    statement = question.statement(SUMS, 11)
    dimension = question.dimension or "all"
    rows = await connection.fetch(
        statement, *_columns(whole, 5), dimension, *_columns(parts, 4), *question.only.values()
    )
    return [
        Found(
            row["place"],
            row["kind"],
            row["key"],
            row["step"],
            row["currency"],
            Total(row["number"], int(row["value_minor"]), int(row["weighted_minor"]), int(row["microseconds"])),
            tuple(zip(row["buckets"], row["numbers"], strict=True)),
        )
        for row in rows
    ]


async def in_time(
    connection: Connection, question: Question, periods: Sequence[Moments], now: datetime
) -> dict[tuple[int, str], int]:
    """How many offers made in each period wait for an answer that is not due yet, by key.

    These are what reps hold at the moment, however many were never answered.
    """
    spans_asked = [(place, first or EARLIEST, until or LATEST) for place, (first, until) in enumerate(periods)]
    statement = question.statement(IN_TIME, 5)
    rows = await connection.fetch(statement, *_columns(spans_asked, 3), now, *question.only.values())
    return {(row["place"], row["key"]): row["number"] for row in rows}


async def pipeline_stages(connection: Connection) -> tuple[str, ...]:
    """The stages of open deals in their order, as they were told last."""
    return tuple(await connection.fetchval(STAGES) or ())


async def as_of(connection: Connection) -> datetime | None:
    """Until when everything that was told is in the reports; None while no feed has said so."""
    at: datetime | None = await connection.fetchval(AS_OF, TOPICS)
    return at


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
