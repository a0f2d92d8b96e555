"""Fit: points and a grade for who the person is. Nothing decays; it is made anew whenever the profile changes."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.events import Grade
from shared.rules import Evaluation, Expression

_REMEMBERED = 20_000
_MISSING = object()
_PLAIN = frozenset({str, int, float, bool, type(None), type(_MISSING)})


@dataclass(frozen=True, slots=True)
class Rule:
    """Points for a profile that meets the condition."""

    rule_id: str
    when: Expression
    points: int


@dataclass(frozen=True, slots=True)
class Fit:
    """Fit points, the grade they make, and the rules that gave them."""

    points: int
    grade: Grade
    rules: tuple[tuple[str, int], ...] = ()


class FitRules:
    """The fit part of a rule set. Remembers what it gave for which fields, where each is a plain value."""

    def __init__(self, rules: Sequence[Rule], exclude: Expression | None, grades: Mapping[str, int]) -> None:
        self.rules = tuple(rules)
        self.exclude = exclude
        self.grades = dict(grades)
        self._read = sorted({path[1:] for one in self.expressions for path in one.references})
        self._known: OrderedDict[tuple[Any, ...], Fit] = OrderedDict()

    @property
    def expressions(self) -> list[Expression]:
        """Every condition on the profile."""
        return [rule.when for rule in self.rules] + ([self.exclude] if self.exclude else [])

    def judge(self, lead: Mapping[str, Any]) -> Fit:
        """The fit of a profile; what is unknown gives nothing."""
        values = [_at(lead, path) for path in self._read]
        types = tuple(map(type, values))
        if not _PLAIN.issuperset(types):
            return self._judged(lead)
        key = (*values, *types)  # 1, 1.0 and true are equal, and no rule takes one for the other
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._judged(lead)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _judged(self, lead: Mapping[str, Any]) -> Fit:
        evaluation = Evaluation({"lead": lead})
        given = tuple((rule.rule_id, rule.points) for rule in self.rules if rule.when.holds(evaluation)[0])
        points = sum(points for _, points in given)
        excluded = self.exclude is not None and self.exclude.holds(evaluation)[0]
        return Fit(points, "F" if excluded else self._grade(points), given)

    def _grade(self, points: int) -> Grade:
        if points >= self.grades["A"]:
            return "A"
        if points >= self.grades["B"]:
            return "B"
        return "C" if points >= self.grades["C"] else "D"


def _at(lead: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = lead
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return _MISSING
        found = found[name]
    return found
