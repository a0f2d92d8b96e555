"""What routing knows about a person when it decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.events import Grade, Stage
from shared.ids import AccountId, LeadId
from shared.profiles import ACCOUNT, LEAD
from shared.rules import INTEGER, NUMBER, OPEN, TEXT, TEXTS, TIME, present

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
    "rep_id": TEXT,
}
FIELDS = {
    "lead": {**LEAD, "account": ACCOUNT},
    "score": SCORE,
    "scores": OPEN,
    "stage": TEXT,
    "deal": DEAL,
    "segments": TEXTS,
    "now": TIME,
}
"""What an expression may read of a person: `deal` is the open deal that changed last."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one id's newest snapshot said; `personal` is the block with the rest."""

    lead_id: LeadId
    revision: int
    captured_at: datetime
    fields: Mapping[str, Any]
    personal: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The stage one id entered last, and when, with the scores that decided it and the named `scores` at the time."""

    lead_id: LeadId
    revision: int
    stage: Stage
    engagement: float
    fit: int
    total: float
    grade: Grade
    scores: Mapping[str, float] = field(default_factory=dict)
    entered_at: datetime | None = None

    def score(self) -> Mapping[str, Any]:
        """`score` for expressions."""
        return {"engagement": self.engagement, "fit": self.fit, "total": self.total, "grade": self.grade}


@dataclass(frozen=True, slots=True)
class Company:
    """An account as it was told last."""

    account_id: AccountId
    revision: int
    parent_id: AccountId | None = None
    merged_into: AccountId | None = None
    name: str | None = None
    domain: str | None = None
    owner_id: str | None = None
    industry: str | None = None
    employees: int | None = None
    annual_revenue: int | None = None
    country: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A person as known now. `ids` are all ids whose facts are theirs; `revision` is that of their own profile.

    `companies` are the account they belong to, if it is known, and those above it, the nearest first; `account_match`
    says by what they belong to it, as far as that was told.
    """

    person_id: LeadId
    ids: tuple[LeadId, ...]
    lead: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0
    standing: Standing | None = None
    deal: Mapping[str, Any] | None = None
    segments: frozenset[str] = frozenset()
    erased: bool = False
    account_id: AccountId | None = None
    companies: tuple[Company, ...] = ()
    account_match: Mapping[str, Any] = field(default_factory=dict)

    @property
    def awaits_account(self) -> bool:
        """Whether their profile names an account that is not here yet."""
        return self.account_id is not None and not self.companies

    @property
    def stage(self) -> Stage | None:
        """The lifecycle stage."""
        return None if self.standing is None else self.standing.stage

    @property
    def company(self) -> str | None:
        """The company's name, or that of the account where the lead tells none, as it is compared: without case and
        surplus spaces.
        """
        name = self.lead.get("company") or (self.companies[0].name if self.companies else None)
        return " ".join(str(name).split()).casefold() or None if name else None

    def values(self) -> dict[str, Any]:
        """The inputs of a decision, for expressions and for the record; what is absent is missing.

        `account_owners` are those of the person's account and of the ones above it, who have one; `account_match` says
        why it is their account.
        """
        score = None if self.standing is None else self.standing.score()
        scores = self.standing.scores if self.standing is not None else None
        lead = {**self.lead, "account": _account(self.companies)} if self.companies else dict(self.lead)
        owners = [
            {"account_id": one.account_id, "owner_id": one.owner_id, "levels_up": levels}
            for levels, one in enumerate(self.companies)
            if one.owner_id is not None
        ]
        match = {"account_id": self.account_id, **self.account_match} if self.account_match else None
        return present(
            lead=lead,
            score=score,
            scores=scores or None,
            stage=self.stage,
            deal=self.deal,
            account_owners=owners or None,
            account_match=match if self.account_id is not None else None,
            segments=sorted(self.segments),
        )


def _account(companies: Sequence[Company]) -> dict[str, Any]:
    """`lead.account` for expressions, without what is absent."""
    own = companies[0]
    values = {name: getattr(own, name) for name in ACCOUNT if hasattr(own, name)}
    return present(**values | {"ultimate_parent_id": companies[-1].account_id})


def chain(companies: Mapping[AccountId, Company], account_id: AccountId) -> tuple[Company, ...]:
    """An account and those above it, each as the one it was merged into; ends where the next is not known yet."""
    above: list[Company] = []
    seen: set[AccountId] = set()
    here: AccountId | None = account_id
    while here is not None and here not in seen and (company := companies.get(here)) is not None:
        seen.add(here)
        if company.merged_into is None:
            above.append(company)
        here = company.merged_into or company.parent_id
    return tuple(above)


def current_standing(person_id: LeadId, standings: Sequence[Standing]) -> Standing | None:
    """The person's own standing; before scoring has told one for the survivor of a merge, another id's newest."""
    return max(standings, key=lambda one: (one.lead_id == person_id, one.revision), default=None)
