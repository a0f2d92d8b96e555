"""What a report of credits can be asked: by what, of which conversions and touches, in which currency."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Annotated, Literal

from fastapi import Depends, Query, Request

from services.attribution.domain import DIMENSIONS as TOUCH_FIELDS
from services.attribution.reports.asking import Asked, FormatQuery, asked_plainly, asked_types, listed
from services.attribution.reports.domain import Cut, Interval, Period, bucket_of, nth_bucket
from services.attribution.reports.filters import Condition, fields_of, parse_filter
from shared.errors import FieldError, Invalid
from shared.money import Currency
from shared.rules import INTEGER, TEXT, Vocabulary
from shared.web import wants_sheet

Basis = Literal["conversion", "touch"]
PERSON_FIELDS = ("country", "account", "rep")
SUMMED_FIELDS = frozenset({"conversion_type", "currency"})
"""What all sums are kept by, beside their dimensions."""

DIMENSIONS = (*TOUCH_FIELDS, *PERSON_FIELDS)
MOST_DIMENSIONS = 2
LONGEST_IN_PIECES = timedelta(days=3_700)
"""Of more days, weeks or months than these are in another time zone the credits are read at once."""
VOCABULARY = Vocabulary({**dict.fromkeys([*DIMENSIONS, "conversion_type", "currency"], TEXT), "value_minor": INTEGER})


@dataclass(frozen=True, slots=True)
class Question:
    """Which credits a report adds up, and by what.

    A filter chooses credits: by the touch that earned, by the conversion, and by the person and the rep it counts
    under. `value_minor` is the value of the whole conversion. With `convert_to` amounts of all currencies are converted
    by the rates of the day of the conversion, `through` another one where a pair has none.
    """

    dimensions: tuple[str, ...]
    period: Period
    basis: Basis = "conversion"
    interval: Interval | None = None
    types: tuple[str, ...] = ()
    filter: str | None = None
    condition: Condition | None = None
    currency: str | None = None
    convert_to: str | None = None
    through: str | None = None
    as_csv: bool = False
    among: tuple[tuple[str, ...], ...] | None = None
    """Only these keys, if not all."""

    @property
    def fields(self) -> frozenset[str]:
        """What decides where an amount counts, and whether."""
        return frozenset(self.dimensions) | fields_of(self.condition)

    @property
    def whole_conversions(self) -> bool:
        """Whether it asks for nothing that belongs to a touch, so that every model has the same answer."""
        return self.basis == "conversion" and not self.fields & frozenset(TOUCH_FIELDS)

    @property
    def from_sums(self) -> bool:
        """Whether the sums can answer it, but for parts of days; else the credits themselves are read."""
        if not self._in_days_of_utc and (self.basis == "touch" or not self._in_pieces):
            return False
        if self.convert_to is not None and self.basis == "touch":
            return False  # these sums know the day of the touch, not that of the conversion
        kept = PERSON_FIELDS if self.whole_conversions else TOUCH_FIELDS
        return self.fields <= frozenset(kept) | SUMMED_FIELDS

    @property
    def _in_days_of_utc(self) -> bool:
        return self.period.is_utc if self.interval is None else self.period.in_utc

    @property
    def _in_pieces(self) -> bool:
        """Whether the pieces that are told apart are known and few."""
        first, end = self.period.first, self.period.end
        closed = first is not None and end is not None and end - first <= LONGEST_IN_PIECES
        return self.interval is None or closed

    @property
    def to_be_closed(self) -> bool:
        """Whether the sums could answer it if it were known when what it is about begins and ends."""
        period = self.period
        is_open = period.first is None or period.end is None
        return self.interval is not None and self.basis == "conversion" and is_open and not period.in_utc

    @property
    def pieces(self) -> list[tuple[date | None, Cut]]:
        """How sums answer it: all at once, or piece by piece where days, weeks and months are not those of UTC."""
        period, interval = self.period, self.interval
        if interval is None or period.first is None or period.end is None or period.in_utc:
            return [(None, period.rounded)]
        found: list[tuple[date | None, Cut]] = []
        bucket = bucket_of(period.first, interval)
        while bucket < period.end:
            found.append((bucket, period.part(bucket, interval).rounded))
            bucket = nth_bucket(bucket, 1, interval)
        return found

    @property
    def has_costs(self) -> bool:
        """Whether what it is about has costs of its own: these are known by channel and campaign."""
        return self.fields <= {"channel", "campaign", "currency"}

    def about(self, keys: Iterable[tuple[str, ...]]) -> "Question":
        """The same about some keys alone."""
        return replace(self, among=tuple(sorted(keys)))

    def over(self, period: Period) -> "Question":
        """The same about another period."""
        return replace(self, period=period)


def asked_dimensions(
    dimension: Annotated[
        str, Query(max_length=100, description=f"What to group by, one or two of {', '.join(DIMENSIONS)}")
    ] = "channel",
) -> tuple[str, ...]:
    """What to group by. Raises Invalid."""
    names = listed("dimension", dimension, MOST_DIMENSIONS)
    if unknown := [name for name in names if name not in DIMENSIONS]:
        fault = FieldError("query:dimension", f"there is no {unknown[0][:50]}; there are {', '.join(DIMENSIONS)}")
        raise Invalid("dimension is not valid", [fault])
    return names


def not_both(currency: str | None, convert_to: str | None) -> None:
    """Raises Invalid when a report is to be in one currency, and to convert all."""
    if currency is not None and convert_to is not None:
        fault = FieldError("query:currency", "send currency for the amounts in it, or convert_to for all of them")
        raise Invalid("currency and convert_to exclude each other", [fault])


def asked_credits(  # noqa: PLR0913  # the parameters of a report
    wanted: Annotated[Asked, Depends(asked_plainly)],
    dimensions: Annotated[tuple[str, ...], Depends(asked_dimensions)],
    types: Annotated[tuple[str, ...], Depends(asked_types)],
    date_basis: Annotated[Basis, Query(description="Whose day counts, the conversion's or the touch's")] = "conversion",
    filter: Annotated[str | None, Query(description='As in `channel == "Email" && value_minor >= 1000`')] = None,
    convert_to: Annotated[
        Currency | None, Query(description="Convert by the posted rates, instead of one `currency`")
    ] = None,
    convert_through: Annotated[Currency | None, Query(description="To cross by, where a pair has no rates")] = None,
) -> Question:
    """Which credits a report is about, or the list behind one of its cells. Raises Invalid and InvalidFilter."""
    not_both(wanted.currency, convert_to)
    return Question(
        dimensions=dimensions,
        period=wanted.period,
        basis=date_basis,
        types=types,
        filter=filter,
        condition=parse_filter(filter, VOCABULARY) if filter is not None else None,
        currency=wanted.currency,
        convert_to=convert_to,
        through=convert_through,
    )


def asked_question(
    request: Request,
    credits: Annotated[Question, Depends(asked_credits)],
    interval: Annotated[Interval | None, Query(description="A row for each of these; weeks begin on Mondays")] = None,
    format: FormatQuery = None,
) -> Question:
    """What a report of credits is asked. Raises Invalid and InvalidFilter."""
    return replace(credits, interval=interval, as_csv=wants_sheet(request, format))
