"""The facts that capture tells about people."""

from dataclasses import dataclass
from datetime import datetime

import orjson

from services.capture.accounts.domain import Match
from services.capture.errors import ProfileTooLarge
from services.capture.leads.domain import Profile
from shared.emails import is_free
from shared.errors import FieldError
from shared.events import (
    IdentifierKind,
    IdentityLinked,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
)
from shared.ids import EventId, LeadId, derived_id
from shared.personal import Draft

LARGEST_PERSONAL = 262_144
_PERSONAL = ("email", "phone", "first_name", "last_name", "title", "attributes", "external_ids")


@dataclass(frozen=True, slots=True)
class Cause:
    """The call or delivery that something is told for. `origin` is its source."""

    origin: str
    occurred_at: datetime
    received_at: datetime
    reason: str | None = None


def captured_draft(  # noqa: PLR0913  # what a snapshot is made of
    lead_id: LeadId,
    made_from: IdentifierKind,
    revision: int,
    profile: Profile,
    captured_at: datetime,
    cause: Cause,
    account: Match,
) -> Draft:
    """A person's profile as it stands. Raises ProfileTooLarge when it would not fit into a fact."""
    event = LeadCaptured(
        event_id=EventId(derived_id("lead-captured", lead_id, str(revision))),
        lead_id=lead_id,
        occurred_at=cause.occurred_at,
        received_at=cause.received_at,
        revision=revision,
        captured_at=captured_at,
        origin=cause.origin,
        company=profile.company,
        country=profile.country,
        region=profile.region,
        industry=profile.industry,
        employees=profile.employees,
        annual_revenue=profile.annual_revenue,
        use_case=profile.use_case,
        free_mail=is_free(profile.email) if profile.email else None,
        made_from=made_from,
        account_id=account.account_id,
        account_matched_by=account.matched_by if account.account_id is not None else None,
    )
    told = {name: value for name in _PERSONAL if (value := getattr(profile, name))}
    if profile.derived:
        told["attributes"] = {**profile.derived, **profile.attributes}
    if account.account_id is not None:
        told["account_reason"] = account.reason
    personal = orjson.dumps(told)
    if len(personal) > LARGEST_PERSONAL:
        detail = f"all attributes of a person together have at most {LARGEST_PERSONAL} bytes"
        raise ProfileTooLarge(detail, [FieldError("/attributes", detail)])
    return Draft(event, personal)


def lead_merged(
    from_lead_id: LeadId, lead_id: LeadId, at: datetime, identifier: IdentifierKind | None = None
) -> LeadMerged:
    """One lead, or the id made from one identifier, is another lead."""
    return LeadMerged(
        event_id=EventId(derived_id("lead-merged", from_lead_id, lead_id, at.isoformat())),
        lead_id=lead_id,
        occurred_at=at,
        received_at=at,
        from_lead_id=from_lead_id,
        identifier=identifier,
    )


def lead_unmerged(from_lead_id: LeadId, lead_id: LeadId, at: datetime) -> LeadUnmerged:
    """One lead is not another one after all."""
    return LeadUnmerged(
        event_id=EventId(derived_id("lead-unmerged", from_lead_id, lead_id, at.isoformat())),
        lead_id=lead_id,
        occurred_at=at,
        received_at=at,
        from_lead_id=from_lead_id,
    )


def identity_linked(
    anonymous_lead_id: LeadId, lead_id: LeadId, occurred_at: datetime, received_at: datetime
) -> IdentityLinked:
    """A browser belongs to a person from a moment on."""
    return IdentityLinked(
        event_id=EventId(derived_id("identity-linked", anonymous_lead_id, lead_id, occurred_at.isoformat())),
        lead_id=lead_id,
        occurred_at=occurred_at,
        received_at=received_at,
        anonymous_lead_id=anonymous_lead_id,
    )


def lead_erased(lead_id: LeadId, at: datetime, receipt_id: str | None, person_id: LeadId) -> LeadErased:
    """What was personal under this id is unreadable: it was one of this person's."""
    return LeadErased(
        event_id=EventId(derived_id("lead-erased", lead_id)),
        lead_id=lead_id,
        occurred_at=at,
        received_at=at,
        receipt_id=receipt_id,
        person_id=person_id,
    )
