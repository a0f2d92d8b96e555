"""Reports of sequences over HTTP: what their messages came to."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from services.nurture.errors import NoSuchSequence
from services.nurture.measurement import queries
from services.nurture.measurement.counts import counts_of
from services.nurture.measurement.domain import Key, Read, Results, by_step, is_outcome, results_of, total_of
from services.nurture.measurement.outcomes import WINDOW, not_counted_yet
from services.nurture.parts import Parts
from services.nurture.sequences.catalogue import store_of
from services.nurture.sequences.document import WINDOW_DAYS
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.ids import SequenceId
from shared.web import Endpoints, ReportDay, document, requires, sheet, wants_sheet

COUNTS = (
    "sent",
    "delivered",
    "bounced",
    "unknown",
    "failed",
    "suppressed",
    "opened",
    "opened_raw",
    "clicked",
    "clicked_raw",
    "replied",
    "unsubscribed",
    "conversions",
)
Day = Annotated[ReportDay | None, Query()]


class RevenueOut(BaseModel):
    """What was brought within the window after messages, less what was given back, in minor units."""

    currency: str
    value_minor: int


class AttributedOut(BaseModel):
    """What attribution credits to opens and clicks by one of its models, in minor units."""

    model: str
    currency: str
    value_minor: int


class ResultsOut(BaseModel):
    """Counts of messages. `_raw` counts those of machines as well; rates are of what was sent, null without it."""

    sent: int
    delivered: int
    bounced: int
    unknown: int
    failed: int
    suppressed: int
    opened: int
    opened_raw: int
    clicked: int
    clicked_raw: int
    replied: int
    unsubscribed: int
    conversions: int
    open_rate: float | None
    click_rate: float | None
    conversion_rate: float | None
    revenue: list[RevenueOut]
    attributed_revenue: list[AttributedOut]


class RowOut(ResultsOut):
    """The messages of a step, or of one variant of it."""

    step_id: str
    variant: str | None


class ReportOut(BaseModel):
    """What the messages came to that a sequence sent in a period."""

    sequence_id: str
    first: datetime
    end: datetime
    window_days: int
    total: ResultsOut
    rows: list[RowOut]


def reports_router(parts: Parts) -> APIRouter:
    """Reports of sequences."""
    router = Endpoints(tags=["reports"], dependencies=[Depends(requires("nurture:read"))])
    runtime = parts.runtime

    @router.get("/v1/sequences/{sequence_id}/report", response_model=ReportOut)
    async def report(  # noqa: PLR0913  # the parameters of a report
        request: Request,
        sequence_id: str,
        first: Annotated[Day, Query(alias="from", description="First day; default: 30 days before the end")] = None,
        end: Annotated[Day, Query(alias="to", description="The day after the last; default: tomorrow")] = None,
        tz: Annotated[str, Query(description="Time zone of the days, as in `Europe/Berlin`")] = "UTC",
        by: Annotated[Literal["step", "variant"], Query(description="What has a row")] = "variant",
        window_days: Annotated[int, Query(ge=1, le=365, description="For replies and conversions")] = WINDOW_DAYS,
        format: Annotated[Literal["json", "csv"] | None, Query(description="`csv`, also by `Accept`")] = None,
    ) -> Response:
        """What the messages sent in a period came to, by step and variant.

        A reply and a conversion belong to the last message of the sequence before it, if that was within the window;
        so the rows sum to the total. Messages that never left count on the day on which that was decided.
        """
        async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            span = _span(first, end, tz, await parts.present(connection))
            read = await _read(connection, SequenceId(sequence_id), span, timedelta(days=window_days))
            found = results_of(read)
            if not found and await store_of(SequenceId(sequence_id)).active_version(connection, sequence_id) is None:
                raise NoSuchSequence(f"there is no sequence {sequence_id}")
        rows = by_step(found) if by == "step" else found
        ordered = sorted(rows.items(), key=lambda item: (item[0][0], item[0][1] or ""))
        if wants_sheet(request, format):
            return _sheet(ordered)
        return document(
            ReportOut(
                sequence_id=sequence_id,
                first=span[0],
                end=span[1],
                window_days=window_days,
                total=ResultsOut.model_validate(_figures(total_of(found.values()))),
                rows=[
                    RowOut.model_validate({"step_id": step_id, "variant": variant, **_figures(results)})
                    for (step_id, variant), results in ordered
                ],
            )
        )

    return router


async def _read(
    connection: Connection, sequence_id: SequenceId, span: tuple[datetime, datetime], window: timedelta
) -> Read:
    counts, counted = await counts_of(connection, sequence_id, span), window == WINDOW
    more = await not_counted_yet(connection, sequence_id, span) if counted else []
    await queries.plan_for_this(connection)
    return Read(
        counts=[*(row for row in counts if counted or not is_outcome(row["name"])), *more],
        withdrawn=await queries.read(connection, queries.WITHDRAWN, sequence_id, span),
        replies=() if counted else await queries.read(connection, queries.REPLIES, sequence_id, span, window),
        conversions=() if counted else await queries.read(connection, queries.CONVERSIONS, sequence_id, span, window),
        credited=await queries.read(connection, queries.CREDITED, sequence_id, span),
    )


def _span(first: date | None, end: date | None, tz: str, now: datetime) -> tuple[datetime, datetime]:
    """The period in UTC. Raises Invalid."""
    if tz not in available_timezones():
        raise Invalid("tz is not a time zone", [FieldError("query:tz", "is not the name of an IANA time zone")])
    zone = ZoneInfo(tz)
    end = end or now.astimezone(zone).date() + timedelta(days=1)
    first = first or end - timedelta(days=WINDOW_DAYS)
    if first >= end:
        raise Invalid("the period is empty", [FieldError("query:to", "must be after from; the day itself is excluded")])
    begins, ends = (datetime.combine(day, time(), zone).astimezone(UTC) for day in (first, end))
    return begins, ends


def _figures(results: Results) -> dict[str, object]:
    counts = results.counts
    return {
        **{name: counts[name] for name in COUNTS},
        "open_rate": _share(counts["opened"], counts["sent"]),
        "click_rate": _share(counts["clicked"], counts["sent"]),
        "conversion_rate": _share(counts["conversions"], counts["sent"]),
        "revenue": [
            {"currency": currency, "value_minor": value} for currency, value in sorted(results.revenue.items())
        ],
        "attributed_revenue": [
            {"model": model, "currency": currency, "value_minor": value}
            for (model, currency), value in sorted(results.attributed.items())
        ],
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _sheet(rows: Sequence[tuple[Key, Results]]) -> Response:
    currencies = sorted({currency for _, results in rows for currency in results.revenue})
    models = sorted({pair for _, results in rows for pair in results.attributed})
    columns = ["step_id", "variant", *COUNTS]
    columns += [f"revenue_{currency}_minor" for currency in currencies]
    columns += [f"attributed_{model}_{currency}_minor" for model, currency in models]
    lines = [
        [
            step_id,
            variant,
            *(results.counts[name] for name in COUNTS),
            *(results.revenue[currency] for currency in currencies),
            *(results.attributed[pair] for pair in models),
        ]
        for (step_id, variant), results in rows
    ]
    return sheet(columns, lines)
