"""The statements of the reports of credits, put together from fixed parts; what was asked travels as arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import NamedTuple

import asyncpg

from services.attribution.channels.domain import NOT_SET
from services.attribution.domain import DIMENSIONS as TOUCH_FIELDS
from services.attribution.domain import SHARE_UNITS
from services.attribution.errors import InvalidFilter
from services.attribution.reports.conditions import Arguments, condition_sql
from services.attribution.reports.domain import Cut, Interval, Period
from services.attribution.reports.figures import Cell, Cost, Days
from services.attribution.reports.filters import POINTER
from services.attribution.reports.questions import PERSON_FIELDS, SUMMED_FIELDS, Question
from shared.db import Connection
from shared.errors import FieldError

# Pieces of another time zone are many spans. The planner would compare every sum with each of them; OFFSET has it look
# up one after the other.
SPANS = "unnest({levels}, {firsts}, {ends}, {buckets}) AS span (level, first, until, bucket)"
OF_SPAN = "level = span.level AND day >= span.first AND day < span.until OFFSET 0) AS sums"
CREDITED_SUMS = f"""
FROM unnest({{runs}}) AS wanted (run) CROSS JOIN {SPANS} CROSS JOIN LATERAL (
    SELECT * FROM {{table}} WHERE run = wanted.run AND basis = {{basis}} AND {OF_SPAN}
"""
COMBO = "JOIN combos AS combo USING (combo_id)"
OWNER_SUMS = f"""
FROM {SPANS} CROSS JOIN LATERAL (SELECT * FROM owner_sums WHERE dimension = '{{dimension}}' AND {OF_SPAN}
"""
CONVERSION_SUMS = f"FROM {SPANS} CROSS JOIN LATERAL (SELECT * FROM conversion_sums WHERE {OF_SPAN}"
# The first element of a path's arrays, what nobody earned, has the time of the conversion. Unnesting them beside FROM
# would cost twice as much: a function is set up for each conversion there.
CREDITS = """
FROM (
    SELECT path.*, {span}, credits.run, unnest(path.combos) AS combo_id, {times} AS at,
        unnest(credits.units) AS units, unnest(credits.value_minor) AS earned_minor
    FROM {paths} JOIN credits ON credits.conversion_id = path.conversion_id AND credits.run = ANY({runs})
) AS path JOIN combos AS combo USING (combo_id)
"""
OWNERS = ("country", "rep")
"""What of a conversion's owners there are sums by alone."""

TOLD = """
SELECT run, currency, {keys}, {array}[bucket], {array}[day], {array}[units::text], {array}[minor::text]
FROM ({statement}) AS told (run, currency, bucket, day, {keys}, units, minor)
"""
EACH = TOLD.replace("{array}", "ARRAY")
# Days, weeks and months are a thousand times as many as keys: each key is one row of arrays, for a tenth of the time.
PACKED = TOLD.replace("{array}[", "array_agg(").replace("]", ")") + "GROUP BY run, currency, {keys}"
DAYS = """
SELECT currency, {keys}, array_agg(bucket), array_agg(day), array_agg(minor::bigint)
FROM ({statement}) AS daily (run, currency, bucket, day, {keys}, {amounts}) GROUP BY currency, {keys}
"""
EARNED = "(part.units <> 0 OR part.value_minor <> 0)"
CONVERSIONS = "FROM {paths}"
PATHS = "paths AS path"
# The planner takes a range that it does not know for a ninth of everything; OFFSET has it look up one after the other.
PATHS_IN = """
unnest({since}, {until}, {buckets}, {signs}) AS span (since, until, bucket, sign) CROSS JOIN LATERAL (
    SELECT * FROM paths WHERE occurred_at >= span.since AND occurred_at < span.until OFFSET 0
) AS path
"""

# The credits of one conversion that a cell holds; without any, `units` is null.
CREDITED = """
FROM paths AS path JOIN credits ON credits.conversion_id = path.conversion_id AND credits.run = {run}
CROSS JOIN LATERAL (
    SELECT sum(part.units) AS units, sum(part.value_minor)::bigint AS value_minor
    FROM unnest(path.combos, path.times, credits.units, credits.value_minor)
        AS part (combo_id, at, units, value_minor)
    JOIN combos AS combo USING (combo_id) WHERE {where}
) AS earned
"""
BEHIND = """
SELECT path.conversion_id, path.person_id AS lead_id, path.conversion_type AS type, path.occurred_at, path.currency,
    path.value_minor, earned.units, {credited} AS credited_minor, path.country, path.account, path.rep
{source} WHERE {where} ORDER BY path.occurred_at DESC, path.conversion_id LIMIT {limit}
"""

CONVERSION_COLUMNS = {
    **{name: f"path.{name}" for name in PERSON_FIELDS},
    **{name: f"path.{name}" for name in ("conversion_type", "currency", "value_minor")},
}
TOUCH_COLUMNS: dict[str, str] = {name: f"combo.{name}" for name in TOUCH_FIELDS}
CREDIT_COLUMNS = CONVERSION_COLUMNS | TOUCH_COLUMNS
SUM_COLUMNS = {name: f"sums.{name}" for name in ("conversion_type", "currency")}
FROM_WHERE = ("channel", "source", "medium", "campaign")
TOUCH_SUMS: tuple[tuple[dict[str, str], str], ...] = (
    ({"channel": "sums.channel"}, "channel_sums"),
    ({name: f"sums.{name}" for name in FROM_WHERE}, "campaign_sums"),
    (TOUCH_COLUMNS, "credit_sums"),
)
"""What the sums of credits are kept by, and their table, the smallest first."""

COST_COLUMNS = {
    "channel": "cost.channel",
    "campaign": f"CASE cost.campaign WHEN '' THEN '{NOT_SET}' ELSE cost.campaign END",
    "currency": "cost.currency",
}
# What days of UTC have too much is taken away again; what comes to nothing was never there.
PARTED = """
SELECT run, currency, bucket, day, {keys}, sum(units) AS units, sum(minor) AS minor
FROM ({sums} UNION ALL {parts}) AS parted (run, currency, bucket, day, {keys}, units, minor)
GROUP BY run, currency, bucket, day, {keys} HAVING sum(units) <> 0 OR sum(minor) <> 0
"""
BOUNDS = "SELECT min(occurred_at) AS first, max(occurred_at) AS last FROM paths"
BUCKETS: dict[Interval, str] = {
    "day": "{day}",
    "week": "date_trunc('week', {day}::timestamp)::date",
    "month": "date_trunc('month', {day}::timestamp)::date",
}


async def cells(connection: Connection, runs: Sequence[int], question: Question) -> dict[int, list[Cell]]:
    """What a question comes to under each run."""
    arguments = Arguments()
    by_days = question.interval is not None or question.convert_to is not None
    told_as = PACKED if by_days else EACH
    statement = told_as.format(keys=_key_names(question), statement=_of_all(question, runs, arguments))
    found: dict[int, list[Cell]] = {run: [] for run in runs}
    for run, currency, *key, buckets, days, units, minor in await _fetch(connection, statement, arguments):
        keys = tuple(key)
        parts = zip(buckets, days, map(int, units), map(int, minor), strict=True)
        told = [Cell(currency, bucket, day, keys, part, value) for bucket, day, part, value in parts]
        for one in runs if run is None else [run]:
            found[one] += told
    return found


async def costs(connection: Connection, question: Question) -> list[Cost]:
    """What was spent on what a question is about; that is known by channel and campaign only."""
    if not question.has_costs:
        return []
    arguments = Arguments()
    return [
        Cost(currency, bucket, day, tuple(keys), int(minor))
        for _, currency, bucket, day, *keys, minor in await _fetch(
            connection, _of_costs(question, arguments), arguments
        )
    ]


async def closed(connection: Connection, question: Question) -> Question:
    """The same question, with the first and the last day of all conversions where its own are open and needed."""
    period = question.period
    if not question.to_be_closed:
        return question
    bounds = await connection.fetchrow(BOUNDS)
    if bounds is None or bounds["first"] is None:
        return question
    opens, last_day = (bounds[name].astimezone(period.zone).date() for name in ("first", "last"))
    return question.over(Period(period.first or opens, period.end or last_day + timedelta(days=1), period.zone))


async def credited_days(connection: Connection, run: int, question: Question) -> list[Days]:
    """What a question comes to under a run day by day, whatever its interval."""
    arguments, daily = Arguments(), await closed(connection, replace(question, interval="day"))
    statement = _of_all(daily, [run], arguments, added=False)
    return await _days(connection, daily, statement, ["units", "minor"], arguments)


async def spent_days(connection: Connection, question: Question) -> list[Days]:
    """What was spent on what a question is about day by day, whatever its interval."""
    arguments, daily = Arguments(), replace(question, interval="day")
    return await _days(connection, daily, _of_costs(daily, arguments, added=False), ["minor"], arguments)


async def _days(
    connection: Connection, question: Question, statement: str, amounts: Sequence[str], arguments: Arguments
) -> list[Days]:
    """The days of each key in one row."""
    daily = DAYS.format(keys=_key_names(question), amounts=", ".join(amounts), statement=statement)
    return [
        Days(currency, tuple(key), buckets, days, minor)
        for currency, *key, buckets, days, minor in await _fetch(connection, daily, arguments)
    ]


async def _fetch(connection: Connection, statement: str, arguments: Arguments) -> list[asyncpg.Record]:
    """The rows of a statement. Raises InvalidFilter for a pattern that only the server can see is too much."""
    try:
        return await connection.fetch(statement, *arguments.values)
    except asyncpg.InvalidRegularExpressionError as exc:
        raise InvalidFilter("the filter cannot be answered", [FieldError(POINTER, str(exc))]) from exc


class Edge(NamedTuple):
    """A part of a day that belongs to a piece of a period (`sign` 1), or that its whole days have too much (-1)."""

    since: datetime
    until: datetime
    bucket: date | None
    sign: int


class Counted(NamedTuple):
    """What a statement counts by: the day whose rate converts an amount, the day that the period goes by, the sums."""

    day: str
    local_day: str
    amounts: tuple[str, ...]
    run: str = "NULL::integer"


def _of_costs(question: Question, arguments: Arguments, *, added: bool = True) -> str:
    """The statement that adds up costs, or tells each that there is."""
    where = [*_between(question, "cost.day", "date", arguments), *_chosen(question, COST_COLUMNS, arguments)]
    counted = Counted(day="cost.day", local_day="cost.day", amounts=("cost.amount_minor",))
    return _grouped(question, COST_COLUMNS, counted, "FROM costs AS cost", where, added=added)


def _of_all(question: Question, runs: Sequence[int], arguments: Arguments, *, added: bool = True) -> str:
    """The statement that answers: of the sums and the credits of parts of days, or of all credits.

    Unless it is to be `added` up, a day may come in several rows.
    """
    if not question.from_sums:
        return _of_credits(question, runs, arguments)
    pieces = question.pieces
    statement = _of_sums(question, pieces, runs, arguments, added=added)
    edges = [
        Edge(*part, bucket, sign)
        for bucket, cut in pieces
        for sign, parts in ((1, cut.parts), (-1, cut.over))
        for part in parts
    ]
    if not edges:
        return statement
    parts = _of_credits(question, runs, arguments, edges)
    return PARTED.format(keys=_key_names(question), sums=statement, parts=parts)


def _key_names(question: Question) -> str:
    return ", ".join(f"key{place}" for place in range(len(question.dimensions)))


def _of_sums(
    question: Question,
    pieces: Sequence[tuple[date | None, Cut]],
    runs: Sequence[int],
    arguments: Arguments,
    *,
    added: bool,
) -> str:
    """The statement that adds up sums: whole months where single days do not matter."""
    by_days = question.convert_to is not None or question.interval in {"day", "week"}
    spans = [(bucket, span) for bucket, cut in pieces for span in cut.spans(by_days=by_days)]
    asked = {
        "levels": arguments.bind([span.level for _, span in spans], "text[]"),
        "firsts": arguments.bind([span.first for _, span in spans], "date[]"),
        "ends": arguments.bind([span.end for _, span in spans], "date[]"),
        "buckets": arguments.bind([bucket for bucket, _ in spans], "date[]"),
    }
    touched = question.fields - SUMMED_FIELDS
    if question.whole_conversions:
        owner = next((name for name in OWNERS if touched <= {name}), None)
        columns = SUM_COLUMNS | ({owner: "sums.key"} if owner else {name: f"sums.{name}" for name in PERSON_FIELDS})
        source = OWNER_SUMS if owner else CONVERSION_SUMS
        source = source.format(**asked, dimension=owner)
        amounts, run = (f"sums.conversions * {SHARE_UNITS}::numeric", "sums.value_minor"), "NULL::integer"
    else:
        kept, table = next((fields, table) for fields, table in TOUCH_SUMS if touched <= frozenset(fields))
        columns = SUM_COLUMNS | kept
        wanted = arguments.bind(list(runs), "integer[]")
        basis = arguments.bind("t" if question.basis == "touch" else "c", "text")
        source = CREDITED_SUMS.format(**asked, runs=wanted, basis=basis, table=table)
        source += COMBO if kept is TOUCH_COLUMNS else ""
        amounts, run = ("sums.units", "sums.value_minor"), "sums.run"
    counted = Counted(day="sums.day", local_day="coalesce(span.bucket, sums.day)", amounts=amounts, run=run)
    return _grouped(question, columns, counted, source, _chosen(question, columns, arguments), added=added)


def _of_credits(
    question: Question, runs: Sequence[int], arguments: Arguments, edges: Sequence[Edge] | None = None
) -> str:
    """The statement that adds up the credits themselves, or the conversions where no touch matters.

    Of the whole period, or of the conversions in some parts of days.
    """
    at = "path.at" if question.basis == "touch" else "path.occurred_at"
    if edges is None:
        zone = arguments.bind(question.period.zone.key, "text") if question.interval else "'UTC'"
        paths, span, sign, local_day = PATHS, "1 AS sign", "1", f"({at} AT TIME ZONE {zone})::date"
    else:
        kinds = {"since": "timestamptz[]", "until": "timestamptz[]", "buckets": "date[]", "signs": "integer[]"}
        columns = [list(column) for column in zip(*edges, strict=True)]
        bound = [arguments.bind(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)]
        paths, span = PATHS_IN.format(**dict(zip(kinds, bound, strict=True))), "span.sign, span.bucket"
        sign, local_day = "sign", "bucket"
    if question.whole_conversions:
        columns_of, run = CONVERSION_COLUMNS, "NULL::integer"
        source = CONVERSIONS.format(paths=paths)
        amounts, where = (f"{sign} * {SHARE_UNITS}::numeric", f"{sign} * path.value_minor"), []
    else:
        columns_of, run = CREDIT_COLUMNS, "path.run"
        times = "unnest(path.times)" if question.basis == "touch" else "path.occurred_at"  # each array takes its time
        source = CREDITS.format(paths=paths, span=span, times=times, runs=arguments.bind(list(runs), "integer[]"))
        amounts = (f"{sign} * path.units", f"{sign} * path.earned_minor")
        where = ["(path.units <> 0 OR path.earned_minor <> 0)"]
        where += _near(question, arguments) if edges is None else []
    where += _between(question, at, "timestamptz", arguments) if edges is None else []
    where += _chosen(question, columns_of, arguments)
    counted = Counted(day="path.day", local_day=local_day, amounts=amounts, run=run)
    return _grouped(question, columns_of, counted, source, where)


def _grouped(  # noqa: PLR0913  # the parts of a statement
    question: Question,
    columns: Mapping[str, str],
    counted: Counted,
    source: str,
    where: Sequence[str],
    *,
    added: bool = True,
) -> str:
    bucket = BUCKETS[question.interval].format(day=counted.local_day) if question.interval else "NULL::date"
    day = counted.day if question.convert_to is not None else "NULL::date"
    keys = [columns[name] for name in question.dimensions]
    places = ", ".join(str(place + 1) for place in range(4 + len(keys)))
    amounts = [f"sum({amount})" for amount in counted.amounts] if added else counted.amounts
    selected = ", ".join([counted.run, columns["currency"], bucket, day, *keys, *amounts])
    grouping = f" GROUP BY {places}" if added else ""
    return f"SELECT {selected} {source} WHERE {' AND '.join(['true', *where])}{grouping}"


def _between(question: Question, at: str, kind: str, arguments: Arguments) -> list[str]:
    """The conditions that hold the period."""
    period = question.period
    first, end = (period.first, period.end) if kind == "date" else period.moments
    return [
        *([f"{at} >= {arguments.bind(first, kind)}"] if first is not None else []),
        *([f"{at} < {arguments.bind(end, kind)}"] if end is not None else []),
    ]


def _near(question: Question, arguments: Arguments) -> list[str]:
    """Conditions that spare most conversions the look at their touches: these never come after it."""
    period = question.period
    if question.basis == "touch":
        period = Period(period.first, None, period.zone)
    return _between(question.over(period), "path.occurred_at", "timestamptz", arguments)


def _chosen(question: Question, columns: Mapping[str, str], arguments: Arguments) -> list[str]:
    """The conditions that choose by type, currency, filter and key."""
    found: list[str] = []
    if question.types and "conversion_type" in columns:
        found.append(f"{columns['conversion_type']} = ANY({arguments.bind(list(question.types), 'text[]')})")
    if question.currency is not None:
        found.append(f"{columns['currency']} = {arguments.bind(question.currency, 'text')}")
    if question.condition is not None:
        found.append(f"({condition_sql(question.condition, columns, arguments)})")
    if question.among is not None:
        names = ", ".join(columns[name] for name in question.dimensions)
        keys = [[key[place] for key in question.among] for place in range(len(question.dimensions))]
        bound = ", ".join(arguments.bind(column, "text[]") for column in keys)
        found.append(f"({names}) IN (SELECT * FROM unnest({bound}))")
    return found


async def conversions_behind(  # noqa: PLR0913  # what a cell is, and a place in its list
    connection: Connection,
    run: int,
    question: Question,
    keys: Sequence[str],
    *,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[asyncpg.Record]:
    """The conversions with credits that a question is about, under these keys, the newest first."""
    arguments = Arguments()
    columns = CONVERSION_COLUMNS if question.whole_conversions else CREDIT_COLUMNS
    at = "part.at" if question.basis == "touch" else "path.occurred_at"
    conditions = [*_between(question, at, "timestamptz", arguments), *_chosen(question, columns, arguments)]
    for name, key in zip(question.dimensions, keys, strict=False):
        conditions.append(f"{columns[name]} = {arguments.bind(key, 'text')}")
    source, credited = f"FROM {PATHS} CROSS JOIN (VALUES ({SHARE_UNITS})) AS earned (units)", "path.value_minor"
    if not question.whole_conversions:
        of_run = arguments.bind(run, "integer")
        source, credited = CREDITED.format(run=of_run, where=" AND ".join([EARNED, *conditions])), "earned.value_minor"
        conditions = ["earned.units IS NOT NULL", *_near(question, arguments)]
    if after is not None:
        moment, conversion_id = arguments.bind(after[0], "timestamptz"), arguments.bind(after[1], "text")
        conditions.append(f"path.occurred_at <= {moment}")
        conditions.append(f"(path.occurred_at < {moment} OR path.conversion_id > {conversion_id})")
    where = " AND ".join(["true", *conditions])
    most = arguments.bind(limit, "integer")
    statement = BEHIND.format(credited=credited, source=source, where=where, limit=most)
    return await _fetch(connection, statement, arguments)
