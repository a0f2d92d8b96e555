"""What is said about consent, as it stands in a call, and the permissions that follow."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from shared.consents import (
    CHANNELS,
    MARKETING,
    TRANSACTIONAL,
    Consent,
    Permission,
    Standing,
    latest_consents,
    permission,
)
from shared.events import ConsentChannel, ConsentEvidence


@dataclass(frozen=True, slots=True)
class ConsentWord:
    """One word about consent. `at` is when it was said, where that is not when the rest of the call happened."""

    channel: ConsentChannel
    state: Standing
    purpose: str = MARKETING
    evidence: ConsentEvidence | None = None
    at: datetime | None = None


def permissions(
    words: Iterable[Consent], channel: ConsentChannel | None = None, purpose: str | None = None
) -> list[tuple[ConsentChannel, str, Permission]]:
    """Whether each purpose may go over each channel: those that anybody named, those that always matter, or one."""
    consents = latest_consents(words)
    named = {told for _, told in consents} | {MARKETING, TRANSACTIONAL}
    purposes = [purpose] if purpose else sorted(named - {"all"})
    return [
        (each, about, permission(consents, each, about))
        for each in ([channel] if channel else CHANNELS)
        for about in purposes
    ]
