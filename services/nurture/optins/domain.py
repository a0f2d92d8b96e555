"""Whether somebody may be asked to confirm now: pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.nurture.people.domain import Person, Suppression, why_not
from services.nurture.sending.domain import Readiness


@dataclass(frozen=True, slots=True)
class Ask:
    """The message may be claimed now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It has to wait, for a reason that has nothing to do with the person."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It must not be sent."""

    reason: str


def next_act(  # noqa: PLR0913  # a decision names its inputs
    person: Person,
    email: str,
    of_address: Sequence[Suppression],
    readiness: Readiness,
    expires_at: datetime,
    now: datetime,
) -> Ask | Wait | GiveUp:
    """What becomes of a message to `email`, which need not be in the profile: the person typed it a moment ago."""
    if now >= expires_at:
        return GiveUp("the link would not be valid any more")
    unsure = readiness.consent or readiness.ledger
    if unsure is None and person.parked:
        unsure = "facts of this person are parked, a refusal may be among them"
    if unsure is not None:
        return Wait(unsure)
    asked = replace(
        person,
        fields={**person.fields, "email": email},
        suppressions=(*person.suppressions, *of_address),
    )
    if refusal := why_not(asked, "transactional", "email"):
        return GiveUp(refusal)
    missing = readiness.missing.get("email")
    return Ask() if missing is None else Wait(missing)
