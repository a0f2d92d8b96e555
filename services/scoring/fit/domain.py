"""Fit: points and a grade for who the person is. Nothing decays; it is made anew whenever the profile changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.events import Grade
from shared.rules import Evaluation, Expression


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
    """The fit part of a rule set."""

    def __init__(self, rules: Sequence[Rule], exclude: Expression | None, grades: Mapping[str, int]) -> None:
        self.rules = tuple(rules)
        self.exclude = exclude
        self.grades = dict(grades)

    @property
    def expressions(self) -> list[Expression]:
        """Every condition on the profile."""
        return [rule.when for rule in self.rules] + ([self.exclude] if self.exclude else [])

    def judge(self, lead: Mapping[str, Any]) -> Fit:
        """The fit of a profile; what is unknown gives nothing."""
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
