"""A table of territories: what of a lead says which territory it is in, as rows of data and not as rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Territories:
    """Territories by what their rows ask for: for each set of fields, the most fields first, by the values of these.

    The row that asks for most and fits decides. Upper and lower case are the same.
    """

    by_fields: tuple[tuple[Key, Mapping[Key, str]], ...] = ()

    def of(self, lead: Mapping[str, Any]) -> str | None:
        """The territory of a lead; None when no row fits."""
        for fields, territories in self.by_fields:
            if all(lead.get(field) is not None for field in fields):
                found = territories.get(tuple(_compared(lead[field]) for field in fields))
                if found is not None:
                    return found
        return None


NO_TERRITORIES = Territories()


def territories_of(rows: Sequence[tuple[Mapping[str, str], str]]) -> tuple[Territories, list[tuple[int, int]]]:
    """The table of rows (what a lead must have, its territory), and those rows that ask for the same as an earlier one.

    Of two sets of as many fields that both fit a lead the one of the earlier row decides.
    """
    tables: dict[Key, dict[Key, tuple[int, str]]] = {}
    doubles: list[tuple[int, int]] = []
    for index, (wanted, territory) in enumerate(rows):
        fields = tuple(sorted(wanted))
        known = tables.setdefault(fields, {})
        values = tuple(_compared(wanted[field]) for field in fields)
        if values in known:
            doubles.append((index, known[values][0]))
        else:
            known[values] = (index, territory)
    ordered = sorted(tables.items(), key=lambda one: -len(one[0]))  # stable: of as many fields the earlier row's first
    return Territories(
        tuple((fields, {values: name for values, (_, name) in known.items()}) for fields, known in ordered)
    ), doubles


def _compared(value: Any) -> str:
    return str(value).strip().casefold()
