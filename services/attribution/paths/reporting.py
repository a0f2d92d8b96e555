"""Reports about sequences of channels, out of their sums: pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from services.attribution.channels.domain import UNATTRIBUTED
from services.attribution.paths.domain import NO_LAG, Amount, Counted

NOTHING = Amount(0, 0)
SEPARATOR = " > "


class Total(NamedTuple):
    """All conversions, and those of them that no touch led to."""

    all: Amount
    unattributed: Amount

    def share(self, journeys: int) -> float:
        """Which part of all conversions these are."""
        return round(journeys / self.all.journeys, 6) if self.all.journeys else 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The conversions in which a channel was the first, the last, or on any touch but the last."""

    key: str
    assisted: Amount
    last: Amount
    first: Amount

    @property
    def ratio(self) -> float | None:
        """Conversions assisted for each one closed; None where it closed none."""
        return round(self.assisted.journeys / self.last.journeys, 6) if self.last.journeys else None


def total_of(lengths: Iterable[Counted]) -> Total:
    """What the sums by length come to, in one currency."""
    lengths = list(lengths)
    unattributed = [one for one in lengths if one.key_id == 0]
    return Total(_added(lengths), _added(unattributed))


def parts_of(sums: Iterable[Counted]) -> list[Parts]:
    """For each channel its part in conversions; whoever assisted most is first."""
    assisted: dict[str, Amount] = {}
    last: dict[str, Amount] = {}
    first: dict[str, Amount] = {}
    for one in sums:
        if one.currency:
            match one.subject, one.keys:
                case "assist", [channel]:
                    assisted[channel] = Amount(one.journeys, one.value_minor)
                case "last", [channel]:
                    last[channel] = Amount(one.journeys, one.value_minor)
                case "step", [channel]:  # the step that nothing came before
                    first[channel] = Amount(one.journeys, one.value_minor)
    rows = [
        Parts(key, assisted.get(key, NOTHING), last.get(key, NOTHING), first.get(key, NOTHING))
        for key in {*assisted, *last, *first}
    ]
    return sorted(rows, key=lambda row: (-row.assisted.journeys, -row.last.journeys, row.key))


def participation_of(sums: Iterable[Counted], total: Total) -> list[tuple[str, Amount]]:
    """For each channel the conversions with it on their path, each of them whole; the most first."""
    taken_part = [(one.keys[0], Amount(one.journeys, one.value_minor)) for one in sums]
    nobody = [(UNATTRIBUTED, total.unattributed)] if total.unattributed.journeys else []
    return sorted([*taken_part, *nobody], key=lambda row: (-row[1].journeys, -row[1].value_minor, row[0]))


def by_number(sums: Iterable[Counted]) -> list[tuple[int | None, Amount]]:
    """Conversions by touches or by days, in order; those without a touch took no days, and come last."""
    rows = {one.key_id: Amount(one.journeys, one.value_minor) for one in sums}
    numbers = sorted(rows, key=lambda number: (number == NO_LAG, number))
    return [(None if number == NO_LAG else number, rows[number]) for number in numbers]


def mean_of(rows: Iterable[tuple[int | None, Amount]]) -> float | None:
    """The mean number of a conversion, of those that have one."""
    numbered = [(number, amount.journeys) for number, amount in rows if number is not None]
    journeys = sum(times for _, times in numbered)
    return round(sum(number * times for number, times in numbered) / journeys, 6) if journeys else None


def path_key(channels: Iterable[str]) -> str:
    """A sequence in one text."""
    return SEPARATOR.join(channels) or UNATTRIBUTED


def _added(sums: Iterable[Counted]) -> Amount:
    sums = list(sums)
    return Amount(sum(one.journeys for one in sums), sum(one.value_minor for one in sums))
