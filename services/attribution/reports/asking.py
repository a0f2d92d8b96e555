"""What reports can be asked for: the parameters that they share, each checked once."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import Depends, Query, Request

from services.attribution.reports.domain import Period
from shared.clock import time_zones
from shared.errors import FieldError, Invalid
from shared.money import Currency
from shared.web import ReportDay, wants_sheet

MOST_TYPES = 50
Day = Annotated[ReportDay | None, Query()]
NameQuery = Annotated[str, Query(max_length=10_000)]
FormatQuery = Annotated[Literal["json", "csv"] | None, Query(description="`csv`, also by `Accept: text/csv`")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What all reports can be asked for."""

    period: Period
    currency: str | None
    as_csv: bool = False


def asked_plainly(
    first: Annotated[Day, Query(alias="from", description="First day")] = None,
    end: Annotated[Day, Query(alias="to", description="The day after the last")] = None,
    tz: Annotated[str, Query(description="Time zone of the days, as in `Europe/Berlin`")] = "UTC",
    currency: Annotated[Currency | None, Query(description="Needed when there are several")] = None,
) -> Asked:
    """The parameters that reports share with the lists behind their cells, which are no sheets. Raises Invalid."""
    if tz not in time_zones():
        raise Invalid("tz is not a time zone", [FieldError("query:tz", "is not the name of an IANA time zone")])
    if first is not None and end is not None and first >= end:
        raise Invalid("the period is empty", [FieldError("query:to", "must be after from; the day itself is excluded")])
    return Asked(Period(first, end, ZoneInfo(tz)), currency)


def asked(
    request: Request,
    wanted: Annotated[Asked, Depends(asked_plainly)],
    format: FormatQuery = None,
) -> Asked:
    """The parameters that all reports share. Raises Invalid."""
    return replace(wanted, as_csv=wants_sheet(request, format))


def asked_types(
    conversion_type: Annotated[
        str | None, Query(max_length=5_000, description="Only conversions of these types, separated by commas")
    ] = None,
) -> tuple[str, ...]:
    """The types of conversions that a report is about; none: all of them. Raises Invalid."""
    if conversion_type is None:
        return ()
    return listed("conversion_type", conversion_type, MOST_TYPES)


def listed(parameter: str, text: str, most: int) -> tuple[str, ...]:
    """The values of a parameter that takes several, separated by commas, each once. Raises Invalid."""
    values = tuple(dict.fromkeys(value.strip() for value in text.split(",") if value.strip()))
    if not 1 <= len(values) <= most:
        fault = FieldError(f"query:{parameter}", f"name one to {most}, separated by commas")
        raise Invalid(f"{parameter} is not valid", [fault])
    return values
