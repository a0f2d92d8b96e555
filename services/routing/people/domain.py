"""What routing knows about a person when it decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.events import Grade, Stage
from shared.ids import LeadId
from shared.profiles import LEAD
from shared.rules import INTEGER, NUMBER, TEXT, TIME, present

SCORE = {"engagement": NUMBER, "fit": INTEGER, "total": NUMBER, "grade": TEXT}
DEAL = {
    "deal_id": TEXT,
    "external_id": TEXT,
    "name": TEXT,
    "stage": TEXT,
    "probability": INTEGER,
    "value_minor": INTEGER,
    "currency": TEXT,
    "recurring_minor": INTEGER,
}
FIELDS = {"lead": LEAD, "score": SCORE, "stage": TEXT, "deal": DEAL, "now": TIME}
"""What an expression may read of a person: `deal` is the open deal that changed last."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one id's newest snapshot said."""

    lead_id: LeadId
    revision: int
    captured_at: datetime
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """The stage one id entered last, with the scores that decided it."""

    lead_id: LeadId
    revision: int
    stage: Stage
    engagement: float
    fit: int
    total: float
    grade: Grade

    def score(self) -> Mapping[str, Any]:
        """`score` for expressions."""
        return {"engagement": self.engagement, "fit": self.fit, "total": self.total, "grade": self.grade}


@dataclass(frozen=True, slots=True)
class Person:
    """A person as known now. `ids` are all ids whose facts are theirs; `revision` is that of their own profile."""

    person_id: LeadId
    ids: tuple[LeadId, ...]
    lead: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0
    standing: Standing | None = None
    deal: Mapping[str, Any] | None = None
    erased: bool = False

    @property
    def stage(self) -> Stage | None:
        """The lifecycle stage."""
        return None if self.standing is None else self.standing.stage

    @property
    def company(self) -> str | None:
        """The company's name as it is compared: without case and surplus spaces."""
        name = self.lead.get("company")
        return " ".join(str(name).split()).casefold() or None if name else None

    def values(self) -> dict[str, Any]:
        """The inputs of a decision, for expressions and for the record; what is absent is missing."""
        score = None if self.standing is None else self.standing.score()
        return present(lead=dict(self.lead), score=score, stage=self.stage, deal=self.deal)


def current_standing(person_id: LeadId, standings: Sequence[Standing]) -> Standing | None:
    """The person's own standing; before scoring has told one for the survivor of a merge, another id's newest."""
    return max(standings, key=lambda one: (one.lead_id == person_id, one.revision), default=None)
