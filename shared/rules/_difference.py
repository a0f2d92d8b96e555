"""What is different between two versions of a rule document, in the terms of those who edit it.

Rules are known by their `id` (stages by their name and so on), wherever they stand: so one that was moved is not one
removed and another added. The same as a JSON Patch (RFC 6902) for machines.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jsonpatch
import orjson

from shared.errors import FieldError

KNOWN_BY = ("id", "stage", "rep_id", "name", "key")
SHOWN = 80


class _Absent:
    """Nothing stands there; not the same as null."""


ABSENT = _Absent()


class Change(NamedTuple):
    """A value that differs; what is absent on one side is left out there."""

    pointer: str
    before: Any
    after: Any

    def as_json(self) -> dict[str, Any]:
        """As it is answered."""
        sides = {"before": self.before, "after": self.after}
        return {"pointer": self.pointer, **{side: value for side, value in sides.items() if value is not ABSENT}}

    @property
    def told(self) -> str:
        """In a few words."""
        if self.after is ABSENT:
            return f"was removed; it was {_shown(self.before)}"
        if self.before is ABSENT:
            return f"was added: {_shown(self.after)}"
        return f"is {_shown(self.after)}, was {_shown(self.before)}"


class Rule(NamedTuple):
    """A rule that only one side has."""

    rule_id: str
    pointer: str
    rule: Mapping[str, Any]


class ChangedRule(NamedTuple):
    """A rule that both have and that differs: `changes` point into it, `pointer` says where it stands after."""

    rule_id: str
    pointer: str
    changes: tuple[Change, ...]


class MovedRule(NamedTuple):
    """A rule that stands at another place among the others; places count from 0."""

    rule_id: str
    pointer: str
    from_index: int
    to_index: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that differs. `values` is what stands outside of rules; pointers are those of the later document."""

    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    changed: tuple[ChangedRule, ...]
    moved: tuple[MovedRule, ...]
    values: tuple[Change, ...]
    patch: tuple[Mapping[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """As it is answered."""
        return {
            "same": not self.patch,
            "added": [{"id": one.rule_id, "pointer": one.pointer, "rule": one.rule} for one in self.added],
            "removed": [{"id": one.rule_id, "pointer": one.pointer, "rule": one.rule} for one in self.removed],
            "changed": [
                {"id": one.rule_id, "pointer": one.pointer, "changes": [change.as_json() for change in one.changes]}
                for one in self.changed
            ],
            "moved": [
                {"id": one.rule_id, "pointer": one.pointer, "from_index": one.from_index, "to_index": one.to_index}
                for one in self.moved
            ],
            "values": [change.as_json() for change in self.values],
            "patch": list(self.patch),
        }

    def faults(self) -> list[FieldError]:
        """The same as faults of a request that did not know of it."""
        return [
            *(FieldError(one.pointer, f"rule {one.rule_id} was added") for one in self.added),
            *(FieldError(one.pointer, f"rule {one.rule_id} was removed") for one in self.removed),
            *(
                FieldError(one.pointer + change.pointer, f"{change.told} (rule {one.rule_id})")
                for one in self.changed
                for change in one.changes
            ),
            *(
                FieldError(one.pointer, f"rule {one.rule_id} was moved from place {one.from_index} to {one.to_index}")
                for one in self.moved
            ),
            *(FieldError(change.pointer, change.told) for change in self.values),
        ]


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    """What must happen to `before` to make `after` of it."""
    added: list[Rule] = []
    removed: list[Rule] = []
    changed: list[ChangedRule] = []
    moved: list[MovedRule] = []
    values: list[Change] = []

    def compare(one: Any, other: Any, pointer: str) -> None:
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            for name in [*one, *(name for name in other if name not in one)]:
                compare(one.get(name, ABSENT), other.get(name, ABSENT), f"{pointer}/{_escaped(name)}")
        elif key := _known_by(one, other):
            rules(one, other, key, pointer)
        elif not _same(one, other):
            values.append(Change(pointer, one, other))

    def rules(one: Any, other: Any, key: str, pointer: str) -> None:
        old = {rule[key]: (place, rule) for place, rule in enumerate([] if one is ABSENT else one)}
        new = {rule[key]: (place, rule) for place, rule in enumerate([] if other is ABSENT else other)}
        removed.extend(Rule(name, f"{pointer}/{old[name][0]}", old[name][1]) for name in old if name not in new)
        added.extend(Rule(name, f"{pointer}/{new[name][0]}", new[name][1]) for name in new if name not in old)
        both = [name for name in new if name in old]
        for name in both:
            inside = tuple(_changes(old[name][1], new[name][1], ""))
            if inside:
                changed.append(ChangedRule(name, f"{pointer}/{new[name][0]}", inside))
        stayed = _longest_ascent([old[name][0] for name in both])
        for place, name in enumerate(both):
            if place not in stayed:
                moved.append(MovedRule(name, f"{pointer}/{new[name][0]}", old[name][0], new[name][0]))

    compare(before, after, "")
    patch = tuple(jsonpatch.make_patch(dict(before), dict(after)).patch)
    return Difference(tuple(added), tuple(removed), tuple(changed), tuple(moved), tuple(values), patch)


def _changes(one: Any, other: Any, pointer: str) -> Iterator[Change]:
    """The values inside of a rule that differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in [*one, *(name for name in other if name not in one)]:
            yield from _changes(one.get(name, ABSENT), other.get(name, ABSENT), f"{pointer}/{_escaped(name)}")
    elif not _same(one, other):
        yield Change(pointer, one, other)


def _known_by(one: Any, other: Any) -> str | None:
    """The field that tells the objects of both lists apart, if they are such lists."""
    lists = [side for side in (one, other) if side is not ABSENT]
    if not all(isinstance(side, list) for side in lists) or not any(lists):
        return None
    for key in KNOWN_BY:
        names = [[rule.get(key) if isinstance(rule, Mapping) else None for rule in side] for side in lists]
        if all(isinstance(name, str) for side in names for name in side) and all(
            len(side) == len(set(side)) for side in names
        ):
            return key
    return None


def _longest_ascent(places: Sequence[int]) -> set[int]:
    """The indexes of a longest ascending subsequence: what can be said to have stayed where it was."""
    ends: list[int] = []
    last: list[int] = []
    previous: list[int | None] = []
    for index, place in enumerate(places):
        at = bisect_left(ends, place)
        ends[at : at + 1] = [place]
        previous.append(last[at - 1] if at else None)
        last[at : at + 1] = [index]
    stayed: set[int] = set()
    index_or_none = last[-1] if last else None
    while index_or_none is not None:
        stayed.add(index_or_none)
        index_or_none = previous[index_or_none]
    return stayed


def _same(one: Any, other: Any) -> bool:
    """The same JSON; true is not 1."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
