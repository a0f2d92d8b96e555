"""A conversion's credits by a model as a fact."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.events import CreditsChanged, TouchCredit
from shared.ids import ConversionId, EventId, LeadId, derived_id

MOST_CREDITS = 1_000
"""As many touches are named in one fact, which has to fit into a Kafka record."""


@dataclass(frozen=True, slots=True)
class Division:
    """How a run of a model divides a conversion."""

    person_id: LeadId
    conversion_id: ConversionId
    conversion_type: str
    converted_at: datetime
    model: str
    version: int
    currency: str
    value_minor: int
    credits: tuple[TouchCredit, ...]


def fact_of(division: Division, revision: int, at: datetime) -> CreditsChanged:
    """The fact about a conversion's credits as they stand."""
    named = len(division.credits) <= MOST_CREDITS
    return CreditsChanged(
        event_id=EventId(derived_id("credits", division.conversion_id, division.model, str(revision))),
        lead_id=division.person_id,
        occurred_at=at,
        received_at=at,
        conversion_id=division.conversion_id,
        conversion_type=division.conversion_type,
        converted_at=division.converted_at,
        model=division.model,
        model_version=division.version,
        revision=revision,
        currency=division.currency,
        value_minor=division.value_minor,
        by_touch=named,
        credits=division.credits if named else together(division.credits),
    )


def together(credits: Sequence[TouchCredit]) -> tuple[TouchCredit, ...]:
    """Credits by channel, source, medium and campaign; those that earned least come under `(other)` if need be."""
    sums: dict[tuple[str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for credit in credits:
        pair = sums[credit.channel, credit.source, credit.medium, credit.campaign]
        pair[0] += credit.units
        pair[1] += credit.value_minor
    most = sorted(sums, key=lambda key: (-sums[key][0], key))
    for key in most[MOST_CREDITS - 1 :] if len(most) > MOST_CREDITS else ():
        pair = sums.pop(key)
        rest = sums[OTHER]
        rest[0] += pair[0]
        rest[1] += pair[1]
    return tuple(
        TouchCredit(channel=key[0], source=key[1], medium=key[2], campaign=key[3], units=units, value_minor=minor)
        for key, (units, minor) in sums.items()
    )


OTHER = ("(other)", "(other)", "(other)", "(other)")
