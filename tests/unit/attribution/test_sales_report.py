"""What the pipeline tells in another currency: exact until the end, and rounded once."""

from datetime import date
from decimal import Decimal

from services.attribution.pipeline.counting import Total
from services.attribution.pipeline.domain import Kind
from services.attribution.pipeline.reading import Found
from services.attribution.pipeline.sales_report import pipeline_lines
from services.attribution.pipeline.tables import Place
from services.attribution.pipeline.worth import converted
from services.attribution.rates.domain import Exchange, Rate

DAY = date(2026, 11, 1)
STAGES = ("first", "middle", "late")


def found(kind: Kind, step: str, minor: int) -> Found:
    return Found(0, kind, "", step, "USD", Total(1, minor), ())


def test_open_deals_and_what_recurs_are_rounded_once() -> None:
    """Half a cent in each of three stages is one and a half, and twelve times half a cent are six."""
    worth = converted(Exchange("EUR", [Rate(DAY, "USD", "EUR", Decimal("0.5"))]), [DAY])
    before = [found("recurring", "new", 1), found("recurring", "expansion", 1), found("recurring", "expansion", 1)]
    here = [*(found("open", stage, 1) for stage in STAGES), found("recurring", "new", 1)]
    figures = pipeline_lines(before, here, [Place(0, "")], 1, STAGES, worth)[Place(0, "")]
    assert (figures.open.number, figures.open.value_minor) == (3, 2)
    assert [(one.stage, one.value_minor) for one in figures.open_by_stage] == [(stage, 0) for stage in STAGES]
    recurring = figures.recurring
    assert (recurring.arr_before_minor, recurring.new_minor, recurring.arr_minor) == (18, 6, 24)


def test_what_is_weighted_is_rounded_once() -> None:
    """2.99 at a half is 1.495, which is one: not 1.50, which would be two."""
    worth = converted(Exchange("EUR", [Rate(DAY, "USD", "EUR", Decimal("0.5"))]), [DAY])
    here = [Found(0, "open", "", "first", "USD", Total(1, 10, 299), ())]
    figures = pipeline_lines([], here, [Place(0, "")], 1, STAGES, worth)[Place(0, "")]
    assert (figures.open.weighted_minor, figures.open_by_stage[0].weighted_minor) == (1, 1)
