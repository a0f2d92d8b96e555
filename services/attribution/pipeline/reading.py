"""The statements that read the sums of marks by months and days, and the marks at the ends of a period."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from services.attribution.channels.domain import NOT_SET
from services.attribution.pipeline.counting import Total
from services.attribution.pipeline.domain import Dimension, Kind
from services.attribution.pipeline.spans import Spans, spans
from services.attribution.reports.queries import AS_OF
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
}
PERSONAL = ("channel", "source", "campaign", "country")
TEAMS = (
    f"CROSS JOIN LATERAL unnest(CASE mark.teams WHEN '{{}}' THEN ARRAY['{NOT_SET}'] ELSE mark.teams END) AS team (name)"
)
COLUMNS = "kind, step, bucket, currency, number, value_minor, weighted_minor"
SUMS = """
SELECT place, kind, key, step, bucket, currency, sum(number) AS number, sum(value_minor) AS value_minor,
    sum(weighted_minor) AS weighted_minor, sum(seconds) AS seconds
FROM (
    SELECT span.place, sums.kind, sums.key, sums.step, sums.bucket, sums.currency, sums.number, sums.value_minor,
        sums.weighted_minor, sums.seconds
    FROM unnest($1::text[]) AS wanted (kind)
    CROSS JOIN unnest($2::integer[], $3::text[], $4::date[], $5::date[]) AS span (place, level, first, until)
    JOIN mark_sums AS sums ON sums.kind = wanted.kind AND sums.dimension = $6 AND sums.level = span.level
        AND sums.day >= span.first AND sums.day < span.until
    UNION ALL
    SELECT span.place, mark.kind, {key}, mark.step, mark.bucket, mark.currency, mark.number, mark.value_minor,
        mark.weighted_minor, coalesce(mark.lapse, 0)
    FROM unnest($1::text[]) AS wanted (kind)
    CROSS JOIN unnest($7::integer[], $8::timestamptz[], $9::timestamptz[]) AS span (place, first, until)
    JOIN marks AS mark ON mark.kind = wanted.kind AND mark.at >= span.first AND mark.at < span.until
    {joins} {where}
) AS found
GROUP BY place, kind, key, step, bucket, currency
"""
OVERDUE = """
SELECT span.place, {key} AS key, count(*) AS number
FROM unnest($1::integer[], $2::timestamptz[], $3::timestamptz[]) AS span (place, first, until)
JOIN marks AS mark ON mark.kind = 'sla' AND mark.step = 'pending' AND mark.at >= span.first AND mark.at < span.until
    AND mark.at + make_interval(secs => mark.lapse) < $4
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

    def spans(self, moments: Moments) -> Spans:
        """What a period is read from."""
        if self.only:
            return Spans(moments=((moments[0] or EARLIEST, moments[1] or LATEST),))
        return spans(*moments)


class Found(NamedTuple):
    """A sum of marks in one of the periods asked for."""

    place: int
    kind: Kind
    key: str
    step: str
    bucket: int
    currency: str
    total: Total


async def sums_in(
    connection: Connection, question: Question, kinds: Sequence[Kind], periods: Sequence[Moments]
) -> list[Found]:
    """The sums of some kinds of marks in several periods, told by their place in the list."""
    whole: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    for place, moments in enumerate(periods):
        found = question.spans(moments)
        whole += [
            (place, level, *one) for level, some in (("month", found.months), ("day", found.days)) for one in some
        ]
        parts += [(place, *one) for one in found.moments]
    statement = question.statement(SUMS, 10)
    rows = await connection.fetch(
        statement,
        list(kinds),
        *_columns(whole, 4),
        question.dimension or "all",
        *_columns(parts, 3),
        *question.only.values(),
    )
    return [
        Found(
            row["place"],
            row["kind"],
            row["key"],
            row["step"],
            row["bucket"],
            row["currency"],
            Total(int(row["number"]), int(row["value_minor"]), int(row["weighted_minor"]), int(row["seconds"])),
        )
        for row in rows
    ]


async def overdue_in(
    connection: Connection, question: Question, periods: Sequence[Moments], now: datetime
) -> dict[tuple[int, str], int]:
    """How many offers made in each period wait for an answer that is due by now, by key."""
    spans_asked = [(place, first or EARLIEST, until or LATEST) for place, (first, until) in enumerate(periods)]
    statement = question.statement(OVERDUE, 5)
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
