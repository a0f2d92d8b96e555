"""Totals by channel as the cells of a report, and what such a report cannot be asked."""

from collections.abc import Mapping

from services.attribution.channels.domain import UNATTRIBUTED
from services.attribution.domain import SHARE_UNITS
from services.attribution.errors import ModelNotAvailable
from services.attribution.paths.domain import Wanted
from services.attribution.reports.figures import Cell
from services.attribution.reports.questions import Question
from services.attribution.totals.queries import Totals
from shared.errors import FieldError


def wanted_of(question: Question, model: str) -> Wanted:
    """What totals are to be counted from. Raises ModelNotAvailable for what only single credits could answer."""
    faults = {
        "dimension": question.dimensions != ("channel",) and "it has no credits by anything but channel",
        "date_basis": question.basis != "conversion" and "it has no credits of touches, to be dated by them",
        "filter": question.condition is not None and "it has no single credits to filter; conversion_type works",
        "interval": question.interval is not None and "it weighs all of a period together; ask for one at a time",
        "convert_to": question.convert_to is not None and "it weighs all days together, and rates are by day",
    }
    if found := [
        FieldError(f"query:{name}", f"{model} gives totals: {reason}") for name, reason in faults.items() if reason
    ]:
        raise ModelNotAvailable(f"{model} gives totals by channel, and this cannot be asked of them", found)
    return Wanted(question.period, question.types, question.currency)


def cells_of(totals: Mapping[str, Totals]) -> list[Cell]:
    """What was credited, by currency and channel; also what nobody earned."""
    cells: list[Cell] = []
    for currency, found in totals.items():
        for credit in found.credits:
            cells.append(Cell(currency, None, None, (credit.channel,), credit.units, credit.value_minor))
        if found.unattributed.journeys:
            units, minor = found.unattributed.journeys * SHARE_UNITS, found.unattributed.value_minor
            cells.append(Cell(currency, None, None, (UNATTRIBUTED,), units, minor))
    return cells
