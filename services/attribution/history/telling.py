"""The history of a conversion's credits, as the API tells it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel

from services.attribution.channels.domain import UNATTRIBUTED
from services.attribution.channels.groupings import ChannelGrouping
from services.attribution.credits.domain import Credited
from services.attribution.domain import SHARE_UNITS, Conversion, CreditingRun
from services.attribution.history import queries
from services.attribution.history.domain import Change, Known, Late, Moved, changes, last_moments
from services.attribution.history.told import (
    AssignmentTold,
    ConversionTold,
    DealTold,
    IdentityTold,
    ProfileTold,
    RefundTold,
    Told,
    TouchTold,
    WithdrawalTold,
)
from shared.db import Connection
from shared.ids import ConversionId

What = Literal[
    "touch",
    "touch_corrected",
    "touch_withdrawn",
    "conversion_corrected",
    "other_conversion",
    "refund",
    "refund_corrected",
    "linked",
    "merged",
    "unmerged",
    "erased",
    "profile",
    "deal",
    "assigned",
]


class CameLate(BaseModel):
    """A fact that came after the conversion was known; of the names those that it has.

    `reason` says how it is known that a machine made a touch, which so earns nothing. `lead_id` is the id that it came
    with, `into_lead_id` whose that id turned out to be, or turned out not to be.
    """

    what: What
    occurred_at: datetime
    lead_id: str | None = None
    into_lead_id: str | None = None
    touch_id: str | None = None
    origin: str | None = None
    channel: str | None = None
    conversion_id: str | None = None
    refund_id: str | None = None
    value_minor: int | None = None
    currency: str | None = None
    deal_id: str | None = None
    rep_id: str | None = None
    reason: str | None = None


class Part(BaseModel):
    """What a channel had of the conversion."""

    share: float
    value_minor: int


class MovedCredit(BaseModel):
    """What a channel had by a model before and after."""

    model: str
    channel: str
    before: Part
    after: Part


class Recredit(BaseModel):
    """What was received at one moment after the conversion was, and what it moved. Of credits, those that moved."""

    received_at: datetime
    came: list[CameLate]
    moved: list[Moved]
    value_minor_before: int
    value_minor_after: int
    credits: list[MovedCredit]


class History(BaseModel):
    """What came late and what it moved, in the order in which it was received.

    It is told by the models and the channels of today. `complete` is false where it is too long to go through: then
    only its end is told, or nothing where the person has more than 10,000 touches or 1,000 ids.
    """

    first_received_at: datetime
    complete: bool
    items: list[Recredit]


@dataclass(frozen=True, slots=True)
class Story:
    """What a conversion's history is told from; `told` is None where that is too much."""

    conversion_id: ConversionId
    first_received_at: datetime
    told: Sequence[Told] | None


async def story_of(
    connection: Connection, conversion: Conversion, lookback: timedelta | None, grouping: ChannelGrouping
) -> Story:
    """All that was ever told of a conversion, with touches as far back as `lookback`."""
    versions = await queries.versions_of(connection, conversion.conversion_id)
    first = min(version.received_at for version in versions)
    times = [version.conversion.occurred_at for version in versions]
    span = (None if lookback is None else min(times) - lookback, max(times))
    everyone = await queries.everyone(connection, [version.conversion.lead_id for version in versions])
    told = await queries.told_of(connection, conversion.conversion_id, everyone, span, grouping)
    return Story(conversion.conversion_id, first, told)


def history_of(story: Story, runs: Sequence[CreditingRun], lookback: timedelta | None) -> History:
    """The history of a conversion's credits by these runs, on paths that reach back as far as `lookback`."""
    if story.told is None:
        return History(first_received_at=story.first_received_at, complete=False, items=[])
    since, is_all = last_moments(story.told, story.first_received_at)
    found = changes(story.told, since, Known(story.conversion_id), runs, lookback)
    items = [_recredit(change, runs) for change in found]
    return History(first_received_at=story.first_received_at, complete=is_all, items=items)


def _recredit(change: Change, runs: Sequence[CreditingRun]) -> Recredit:
    return Recredit(
        received_at=change.received_at,
        came=[_came(late) for late in change.came],
        moved=sorted(change.moved),
        value_minor_before=change.before.path.value_minor,
        value_minor_after=change.after.path.value_minor,
        credits=[credit for run in runs for credit in _moved_credits(change, run)],
    )


def _moved_credits(change: Change, run: CreditingRun) -> list[MovedCredit]:
    before, after = (_by_channel(credited, run.run) for credited in (change.before, change.after))
    nothing = Part(share=0, value_minor=0)
    return [
        MovedCredit(
            model=run.model.model_id,
            channel=channel,
            before=before.get(channel, nothing),
            after=after.get(channel, nothing),
        )
        for channel in sorted({*before, *after})
        if before.get(channel) != after.get(channel)
    ]


def _by_channel(credited: Credited, run: int) -> dict[str, Part]:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    division = credited.divisions[run]
    channels = (UNATTRIBUTED, *credited.path.channels)
    for channel, units, minor in zip(channels, division.units, division.value_minor, strict=True):
        if units or minor:
            sums[channel][0] += units
            sums[channel][1] += minor
    return {channel: Part(share=units / SHARE_UNITS, value_minor=minor) for channel, (units, minor) in sums.items()}


def _came(late: Late) -> CameLate:
    told = late.told
    match told:
        case TouchTold(touch=touch):
            return CameLate(
                what="touch_corrected" if late.corrects else "touch",
                occurred_at=touch.occurred_at,
                lead_id=told.lead_id,
                touch_id=touch.touch_id,
                origin=touch.origin,
                channel=touch.channel,
                reason=touch.automated_reason,
            )
        case WithdrawalTold():
            return CameLate(
                what="touch_withdrawn",
                occurred_at=told.received_at,
                touch_id=told.touch_id,
                origin=told.origin,
                reason=told.reason,
            )
        case ConversionTold(conversion=conversion):
            return CameLate(
                what="conversion_corrected" if late.corrects else "other_conversion",
                occurred_at=conversion.occurred_at,
                lead_id=conversion.lead_id,
                conversion_id=conversion.conversion_id,
                value_minor=conversion.value_minor,
                currency=conversion.currency,
            )
        case RefundTold():
            return CameLate(
                what="refund_corrected" if late.corrects else "refund",
                occurred_at=told.occurred_at,
                refund_id=told.refund_id,
                value_minor=told.amount_minor,
                currency=told.currency,
            )
        case IdentityTold():
            return CameLate(
                what=told.kind, occurred_at=told.occurred_at, lead_id=told.lead_id, into_lead_id=told.into_id
            )
        case ProfileTold():
            return CameLate(what="profile", occurred_at=told.captured_at, lead_id=told.lead_id)
        case DealTold():
            return CameLate(what="deal", occurred_at=told.opened_at, deal_id=told.deal_id, rep_id=told.rep)
        case AssignmentTold():
            return CameLate(what="assigned", occurred_at=told.received_at, lead_id=told.lead_id, rep_id=told.rep_id)
