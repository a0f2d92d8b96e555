"""Why a conversion's credits are what they are."""

from collections import defaultdict
from datetime import datetime, timedelta

from pydantic import BaseModel

from services.attribution.conversions import queries
from services.attribution.credits.queries import credits_of
from services.attribution.domain import (
    LOOKBACK,
    SHARE_UNITS,
    Conversion,
    Milestone,
    Reason,
    Touch,
    path_to,
    reason_against,
)
from services.attribution.journeys.queries import journeys, profiles
from shared.db import Connection
from shared.identity import members, resolve

MOST_TOUCHES = 1_000


class Earned(BaseModel):
    """What one model gave to a touch."""

    share: float
    value_minor: int
    model_version: int


class Counted(BaseModel):
    """A touch that may earn. `late` says that it was received after the conversion was, and changed its credits."""

    touch_id: str
    origin: str
    type: str
    channel: str
    channel_rule: str
    occurred_at: datetime
    received_at: datetime
    late: bool
    milestones: list[Milestone]
    earned: dict[str, Earned]


class NotCounted(BaseModel):
    """A touch of the same person that may not earn from this conversion, and why."""

    touch_id: str
    origin: str
    type: str
    channel: str
    occurred_at: datetime
    reason: Reason


class Explanation(BaseModel):
    """All that a conversion's credits follow from. The lists end after 1,000 touches; the counts do not."""

    conversion_id: str
    lead_id: str
    value_minor: int
    refunded_minor: int
    currency: str
    occurred_at: datetime
    lookback_days: float
    lead_created_at: datetime | None
    deal_created_at: datetime | None
    counted: int
    not_counted: int
    touches: list[Counted]
    others: list[NotCounted]
    unattributed: dict[str, Earned]


async def explain(connection: Connection, conversion: Conversion, lookback: timedelta = LOOKBACK) -> Explanation:
    """Lay out a conversion's path as it stands, with the credits that are stored."""
    person = await resolve(connection, conversion.lead_id, conversion.occurred_at)
    people = {person: await members(connection, person)}
    latest = max(conversion.occurred_at, conversion.received_at)
    touches = (await journeys(connection, people, {person: (None, latest)}))[person]
    profile = (await profiles(connection, people)).get(person)
    lead_created_at = profile.created_at if profile else None
    deal_id = conversion.deal_id
    deal = (await queries.deals(connection, [deal_id])).get(deal_id) if deal_id else None
    deal_created_at = deal.opened_at if deal else None
    at = conversion.occurred_at
    path = path_to(at, touches, lookback, lead_created_at=lead_created_at, deal_created_at=deal_created_at)
    earned: dict[tuple[str | None, str | None], dict[str, Earned]] = defaultdict(dict)
    for row in await credits_of(connection, [conversion.conversion_id]):
        earned[row.origin, row.touch_id][row.model] = Earned(
            share=row.units / SHARE_UNITS, value_minor=row.value_minor, model_version=row.version
        )
    others = [
        (touch, reason)
        for touch in sorted(touches, key=lambda touch: touch.place, reverse=True)
        if (reason := reason_against(touch, at, lookback)) is not None
    ]
    return Explanation(
        conversion_id=conversion.conversion_id,
        lead_id=person,
        value_minor=conversion.value_minor,
        refunded_minor=conversion.refunded_minor,
        currency=conversion.currency,
        occurred_at=at,
        lookback_days=lookback / timedelta(days=1),
        lead_created_at=lead_created_at,
        deal_created_at=deal_created_at,
        counted=len(path.touches),
        not_counted=len(others),
        touches=[
            _counted(touch, conversion, path.milestones(index), earned[touch.origin, touch.touch_id])
            for index, touch in enumerate(path.touches[:MOST_TOUCHES])
        ],
        others=[_not_counted(touch, reason) for touch, reason in others[:MOST_TOUCHES]],
        unattributed=earned[None, None],
    )


def _counted(touch: Touch, conversion: Conversion, milestones: list[Milestone], earned: dict[str, Earned]) -> Counted:
    return Counted(
        touch_id=touch.touch_id,
        origin=touch.origin,
        type=touch.type,
        channel=touch.channel,
        channel_rule=touch.channel_rule,
        occurred_at=touch.occurred_at,
        received_at=touch.received_at,
        late=touch.received_at > conversion.received_at,
        milestones=milestones,
        earned=earned,
    )


def _not_counted(touch: Touch, reason: Reason) -> NotCounted:
    return NotCounted(
        touch_id=touch.touch_id,
        origin=touch.origin,
        type=touch.type,
        channel=touch.channel,
        occurred_at=touch.occurred_at,
        reason=reason,
    )
