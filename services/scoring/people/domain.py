"""A person as scoring knows it: the fold of all facts, in one row."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from services.scoring.decisions.domain import Decision
from services.scoring.engagement.domain import Engagement, Touch
from services.scoring.fit.domain import Fit
from services.scoring.rules.document import RuleSet
from services.scoring.stages.domain import NO_SALES, Sales, Standing
from shared.emails import domain_of
from shared.events import LeadPersonal
from shared.ids import AccountId, EventId, LeadId
from shared.rules import present

SEEN = ("type", "origin", "channel", "source", "medium", "campaign", "content", "page", "referrer_host", "automated")
PROFILE_FIELDS = (
    "company",
    "country",
    "region",
    "industry",
    "employees",
    "annual_revenue",
    "use_case",
    "free_mail",
    "origin",
    "account_id",
)
_DEAL_RANK = {"lost": 0, "open": 1, "won": 2}


@dataclass(frozen=True, slots=True)
class Person:
    """What all facts of a person come to.

    `fit_from` is the profile that fit was made from, and since when; `profile_revision` the revision of the person's
    own profile (0: none).
    """

    person_id: LeadId
    rules_version: int
    engagement: Engagement
    fit: Fit
    fit_from: tuple[EventId, datetime] | None = None
    profile_revision: int = 0
    lead: Mapping[str, Any] = field(default_factory=dict)
    sales: Sales = NO_SALES

    @property
    def account_id(self) -> AccountId | None:
        """The company that the person belongs to, as capture told it."""
        found: AccountId | None = self.lead.get("account_id")
        return found

    def standing(
        self,
        personal: Mapping[str, Any] | None = None,
        decision: Decision | None = None,
        entered: datetime | None = None,
    ) -> Standing:
        """What stages look at; with what is personal, where they need it."""
        lead = {**self.lead, **personal} if personal else self.lead
        return Standing(self.engagement, self.fit, lead, self.sales, decision, entered)


@dataclass(frozen=True, slots=True)
class Profile:
    """One lead id's profile, opened."""

    lead_id: LeadId
    event_id: EventId
    revision: int
    occurred_at: datetime
    captured_at: datetime
    fields: Mapping[str, Any]
    personal: LeadPersonal | None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A lead given to a rep, and what became of it."""

    revision: int
    state: str
    settled_at: datetime | None


def nobody(person_id: LeadId, rules: RuleSet) -> Person:
    """A person of whom nothing is known yet."""
    return Person(person_id, rules.version, Engagement(), rules.nobody)


def touch_of(fact: Any, properties: Mapping[str, Any] | None = None) -> Touch:
    """A touch as the rules may see it, from an event or a stored row that has its fields."""
    seen = present(
        type=fact.type,
        origin=fact.origin,
        channel=fact.channel,
        source=fact.source,
        medium=fact.medium,
        campaign=fact.campaign,
        content=fact.content,
        page=fact.page,
        path=_path(fact.page) if fact.page is not None else None,
        referrer_host=fact.referrer_host,
        automated=fact.automated,
        properties=properties,
    )
    return Touch(fact.event_id, fact.occurred_at, fact.type, seen)


@lru_cache(maxsize=10_000)
def _path(page: str) -> str:
    try:
        return urlsplit(page if "//" in page else f"//{page}").path or "/"
    except ValueError:
        return "/"


def merged_profile(person_id: LeadId, profiles: Iterable[Profile]) -> tuple[Profile | None, dict[str, Any]]:
    """The profile that leads, and what rules see of all of them: the survivor's word first, then the latest told."""
    ordered = sorted(profiles, key=lambda one: (one.lead_id == person_id, one.occurred_at, one.lead_id), reverse=True)
    lead: dict[str, Any] = {}
    for profile in reversed(ordered):
        lead |= profile.fields
    if ordered and ordered[0].lead_id == person_id and "account_id" not in ordered[0].fields:
        lead.pop("account_id", None)  # who has none is not given another's
    return (ordered[0] if ordered else None), lead


def merged_personal(person_id: LeadId, profiles: Iterable[Profile]) -> dict[str, Any]:
    """What is personal in all profiles of a person, by the same precedence."""
    ordered = sorted(profiles, key=lambda one: (one.lead_id == person_id, one.occurred_at, one.lead_id))
    personal: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for profile in ordered:
        if profile.personal is not None:
            told = profile.personal.model_dump(exclude_none=True)
            attributes |= told.pop("attributes")
            personal |= told
    if "email" in personal:
        personal["email_domain"] = domain_of(personal["email"])
    return {**personal, "attributes": attributes}


def sales_of(assignments: Iterable[Assignment], deals: Iterable[str]) -> Sales:
    """What sales made of a person: the newest assignment counts; of deals the one that came furthest."""
    known = sorted(assignments, key=lambda one: one.revision)
    rejections = [one.settled_at for one in known if one.state == "rejected" and one.settled_at is not None]
    return Sales(
        known[-1].state if known else None,
        max(deals, key=lambda status: _DEAL_RANK[status], default=None),
        max(rejections, default=None),
        known[-1].settled_at if known else None,
    )


def refitted(person: Person, rules: RuleSet, profiles: list[Profile], consents: Mapping[str, str]) -> Person:
    """The person with fit made anew from the profiles and consents of all its ids."""
    leading, lead = merged_profile(person.person_id, profiles)
    if consents:
        lead["consent"] = dict(sorted(consents.items()))
    seen = {**lead, **merged_personal(person.person_id, profiles)} if rules.reads_personal else lead
    fit_from = (leading.event_id, leading.occurred_at) if leading is not None else None
    own = [profile.revision for profile in profiles if profile.lead_id == person.person_id]
    return replace(
        person, fit=rules.fit.judge(seen), fit_from=fit_from, profile_revision=max(own, default=0), lead=lead
    )
