"""What routing knows about a person when it decides."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.events import ConsentChannel, ConsentState, Grade, Stage
from shared.ids import LeadId
from shared.rules import BOOLEAN, INTEGER, NUMBER, OPEN, TEXT, TIME, present

LEAD = {
    "email": TEXT,
    "phone": TEXT,
    "first_name": TEXT,
    "last_name": TEXT,
    "title": TEXT,
    "company": TEXT,
    "country": TEXT,
    "region": TEXT,
    "industry": TEXT,
    "employees": INTEGER,
    "annual_revenue": INTEGER,
    "use_case": TEXT,
    "free_mail": BOOLEAN,
    "attributes": OPEN,
    "consent": {"email": TEXT, "sms": TEXT, "whatsapp": TEXT},
}
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
class Consent:
    """What one id allowed or refused on a channel, last."""

    channel: ConsentChannel
    state: ConsentState
    at: datetime


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


def combine_profiles(person_id: LeadId, profiles: Sequence[Profile]) -> dict[str, Any]:
    """The person's own profile, its gaps filled from the other ids', the newest first."""
    ranked = sorted(profiles, key=lambda profile: (profile.lead_id == person_id, profile.captured_at), reverse=True)
    combined: dict[str, Any] = {}
    for profile in ranked:
        for name, value in profile.fields.items():
            if name == "attributes":
                combined[name] = {**value, **combined.get(name, {})}
            elif value is not None:
                combined.setdefault(name, value)
    return combined


def latest_consents(consents: Iterable[Consent]) -> dict[ConsentChannel, ConsentState]:
    """What counts on each channel: the latest word, of two at once the refusal."""
    latest: dict[ConsentChannel, Consent] = {}
    for consent in consents:
        known = latest.get(consent.channel)
        if known is None or (consent.at, consent.state == "denied") > (known.at, known.state == "denied"):
            latest[consent.channel] = consent
    return {channel: consent.state for channel, consent in latest.items()}


def current_standing(person_id: LeadId, standings: Sequence[Standing]) -> Standing | None:
    """The person's own standing; before scoring has told one for the survivor of a merge, another id's newest."""
    return max(standings, key=lambda one: (one.lead_id == person_id, one.revision), default=None)
