"""Who a person is and what they allow, put together out of all the ids whose facts are theirs."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.nurture.sequences.document import Purpose
from shared.events import ConsentChannel
from shared.ids import LeadId
from shared.profiles import Consent
from shared.rules import present


@dataclass(frozen=True, slots=True)
class Addresses:
    """Makes the keyed hash under which an address is suppressed, so that the list need not keep the address."""

    key: bytes

    def hash_of(self, email: str) -> str:
        """The hash of a normalised address."""
        return hmac.digest(self.key, email.lower().encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class Profile:
    """What one id's newest snapshot said."""

    lead_id: LeadId
    captured_at: datetime
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why an address or a person must not be written to. A later consent ends an unsubscription, and nothing else."""

    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Person:
    """A person as known now. `ids` are all ids whose facts are theirs."""

    person_id: LeadId
    ids: tuple[LeadId, ...]
    fields: Mapping[str, Any]
    consents: Mapping[ConsentChannel, Consent]
    stage: str | None
    suppressions: tuple[Suppression, ...] = ()
    erased: bool = False
    parked: bool = False

    @property
    def known(self) -> bool:
        """Whether anything but an id is known."""
        return bool(self.fields or self.consents or self.stage or self.erased)

    @property
    def email(self) -> str | None:
        """Where an email goes."""
        address = self.fields.get("email")
        return address if isinstance(address, str) and address else None

    def values(self) -> dict[str, Any]:
        """`lead` and `stage` for expressions, without what is absent."""
        consent = {channel: consent.state for channel, consent in self.consents.items()}
        lead = present(**self.fields) | ({"consent": consent} if consent else {})
        return present(lead=lead or None, stage=self.stage)


UNSUBSCRIBED = "unsubscribed"


def why_not(person: Person, purpose: Purpose, channel: ConsentChannel) -> str | None:
    """The reason why a message must not go to this person now; None when it may.

    A transactional message needs no consent, but an address that bounces or complains gets nothing at all.
    """
    if person.erased:
        return "the person was erased"
    for suppression in person.suppressions:
        if suppression.reason != UNSUBSCRIBED:
            return f"suppressed: {suppression.reason}"
    if purpose == "marketing":
        consent = person.consents.get(channel)
        if consent is not None and consent.state == "denied":
            return f"consent for {channel} is denied"
        if any(consent is None or consent.at <= suppression.since for suppression in person.suppressions):
            return "unsubscribed"
        if consent is None:
            return f"no consent for {channel}"
    if channel == "email" and person.email is None:
        return "no email address"
    return None
