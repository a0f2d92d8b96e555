"""Who a person is and what they allow, put together out of all the ids whose facts are theirs."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.nurture.sequences.document import Purpose
from shared.consents import Consents, marketing_words, needs_consent, permission
from shared.events import ConsentChannel
from shared.ids import LeadId
from shared.rules import Evaluation, present

UNSUBSCRIBED = "unsubscribed"
EVERY_CHANNEL = "all"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Makes the keyed hash under which an address is suppressed, so that the list need not keep the address."""

    key: bytes

    def hash_of(self, address: str) -> str:
        """The hash of a normalised address, of a phone number, of a domain (`@acme.com`) or of a role (`info@`)."""
        return hmac.digest(self.key, address.lower().encode(), "sha256").hex()

    def hashes_of(self, email: str | None, phone: str | None = None) -> list[str]:
        """All under which somebody may stand on the list: the address, its domain and those above it, its role."""
        names = [phone] if phone else []
        if email:
            local, _, domain = email.rpartition("@")
            labels = domain.split(".")
            names += [email, f"{local}@", *(f"@{'.'.join(labels[start:])}" for start in range(len(labels) - 1))]
        return [self.hash_of(name) for name in names]


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
    channel: str = "email"

    def concerns(self, channel: ConsentChannel) -> bool:
        """Whether it bars this channel."""
        return self.channel in (channel, EVERY_CHANNEL)


@dataclass(frozen=True, slots=True)
class Person:
    """A person as known now. `ids` are all ids whose facts are theirs."""

    person_id: LeadId
    ids: tuple[LeadId, ...]
    fields: Mapping[str, Any]
    consents: Consents
    stage: str | None
    suppressions: tuple[Suppression, ...] = ()
    erased: bool = False
    parked: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)
    segments: frozenset[str] = frozenset()
    paused_until: datetime | None = None
    _evaluated: list[Evaluation] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def known(self) -> bool:
        """Whether anything but an id is known."""
        return bool(self.fields or self.consents or self.stage or self.erased)

    @property
    def email(self) -> str | None:
        """Where an email goes."""
        address = self.fields.get("email")
        return address if isinstance(address, str) and address else None

    @property
    def phone(self) -> str | None:
        """Where a text message goes, in E.164."""
        number = self.fields.get("phone")
        return number if isinstance(number, str) and number else None

    def values(self) -> dict[str, Any]:
        """`lead`, `stage`, `scores` and `segments` for expressions, without what is absent."""
        consent = marketing_words(self.consents)
        lead = present(**self.fields) | ({"consent": consent} if consent else {})
        return present(lead=lead or None, stage=self.stage, scores=self.scores or None, segments=sorted(self.segments))

    def evaluation(self) -> Evaluation:
        """The same, converted once for all expressions that are tried on this person."""
        if not self._evaluated:
            self._evaluated.append(Evaluation(self.values()))
        return self._evaluated[0]


def why_not(person: Person, purpose: Purpose, channel: ConsentChannel) -> str | None:
    """The reason why a message must not go to this person now; None when it may.

    The rules of the channel decide. An address that bounces or complains gets nothing at all; who unsubscribed gets
    nothing unasked, whatever its purpose, until they grant something later.
    """
    if person.erased:
        return "the person was erased"
    suppressions = [suppression for suppression in person.suppressions if suppression.concerns(channel)]
    for suppression in suppressions:
        if suppression.reason != UNSUBSCRIBED:
            return f"suppressed: {suppression.reason}"
    found = permission(person.consents, channel, purpose)
    if found.state == "denied":
        return found.why
    if needs_consent(purpose) and any(
        found.since is None or found.since <= suppression.since for suppression in suppressions
    ):
        return UNSUBSCRIBED
    if not found.allowed:
        return found.why
    if channel == "email" and person.email is None:
        return "no email address"
    if channel != "email" and person.phone is None:
        return "no phone number"
    return None
