"""What stages look at, and what comes of it: frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.scoring.decisions.domain import Decision
from services.scoring.engagement.domain import Engagement
from services.scoring.fit.domain import Fit
from shared.events import Stage
from shared.rules import Expression

FIRST: Stage = "subscriber"


@dataclass(frozen=True, slots=True)
class Rule:
    """A stage, what brings a lead there, and what takes it away again."""

    stage: Stage
    when: Expression
    leave_when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Sales:
    """What sales made of the lead: the state of its present assignment, its deals, and its last rejection.

    `settled_at` is when the present assignment was accepted, rejected or lapsed.
    """

    assignment: str | None = None
    deal: str | None = None
    rejected_at: datetime | None = None
    settled_at: datetime | None = None


NO_SALES = Sales()


@dataclass(frozen=True, slots=True)
class Standing:
    """All that stages look at. `decision` is the latest about the lead, `entered` when it came to its present stage."""

    engagement: Engagement
    fit: Fit
    lead: Mapping[str, Any] = field(default_factory=dict)
    sales: Sales = NO_SALES
    decision: Decision | None = None
    entered: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The stage, the stages that count by their `leave_when`, and why it is not the stage before.

    Where a decision stands against the rules, `decision` is its id and `ruled` the stage by the rules.
    """

    stage: Stage = FIRST
    held: frozenset[str] = frozenset()
    reason: str = ""
    ruled: Stage | None = None
    decision: str | None = None

    @property
    def by_rules(self) -> "Verdict":
        """What it would be without the decision."""
        return self if self.ruled is None else Verdict(self.ruled, self.held)


@dataclass(frozen=True, slots=True)
class Score:
    """The numbers at a moment. `named` are those of the scores beside the main one."""

    at: datetime
    engagement: float
    fit: int
    total: float
    hand_raise: bool
    named: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """When the stage must be looked at again. Until then the engagement does not fall below `below`, if that is set."""

    at: datetime
    below: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A judgement: the instant, what came out, the numbers that decided, and what was looked at."""

    at: datetime
    verdict: Verdict
    score: Score
    standing: Standing
