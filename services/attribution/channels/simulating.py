"""What another channel grouping would make of the touches there are: nothing of it is stored."""

from collections import Counter
from datetime import datetime, timedelta

from pydantic import BaseModel

from services.attribution.channels import queries
from services.attribution.channels.groupings import ChannelGrouping
from services.attribution.models.choosing import serving_run
from shared.db import Connection

MOST_TOUCHES = 200_000
MOST_CONVERSIONS = 500


class Move(BaseModel):
    """Touches that would count under another channel."""

    before: str
    after: str
    touches: int


class Channel(BaseModel):
    """How many touches a channel has, and would have."""

    channel: str
    before: int
    after: int


class Worth(BaseModel):
    """What a channel earned by the model `linear`, and would have."""

    currency: str
    channel: str
    before_minor: int
    after_minor: int


class Simulation(BaseModel):
    """Which touches would move between channels, the most first, and what that moves of the newest conversions' value.

    `sampled` is the part of all touches that was tried: 1 for all, less where there are more than 200,000. Value is of
    the newest 500 conversions.
    """

    touches: int
    sampled: float
    moved: int
    moves: list[Move]
    channels: list[Channel]
    value: list[Worth]


async def simulate(connection: Connection, grouping: ChannelGrouping, now: datetime, days: int) -> Simulation:
    """Group the touches of the last days by a grouping, and compare with how they are grouped."""
    known = await queries.touches_known(connection)
    percent = min(100.0, 100.0 * MOST_TOUCHES / max(known, 1))
    since = now - timedelta(days=days)
    moves: Counter[tuple[str, str]] = Counter()
    for traffic, channel, touches in await queries.kinds(
        connection, since, percent, whole=grouping.reads_what_erasure_takes
    ):
        moves[channel, grouping.group(traffic).channel] += touches
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for (old, new), touches in moves.items():
        before[old] += touches
        after[new] += touches
    moved = [Move(before=old, after=new, touches=n) for (old, new), n in moves.most_common() if old != new]
    channels = sorted(before | after, key=lambda name: (-after[name], name))
    return Simulation(
        touches=moves.total(),
        sampled=round(percent / 100, 6),
        moved=sum(move.touches for move in moved),
        moves=moved,
        channels=[Channel(channel=name, before=before[name], after=after[name]) for name in channels],
        value=await _value(connection, grouping, since),
    )


async def _value(connection: Connection, grouping: ChannelGrouping, since: datetime) -> list[Worth]:
    run = await serving_run(connection, "linear")
    before: Counter[tuple[str, str]] = Counter()
    after: Counter[tuple[str, str]] = Counter()
    for traffic, channel, currency, minor in await queries.earned(connection, run.run, since, MOST_CONVERSIONS):
        before[currency, channel] += minor
        after[currency, grouping.group(traffic).channel] += minor
    places = sorted({*before, *after}, key=lambda place: (place[0], -after[place], place[1]))
    return [
        Worth(
            currency=currency,
            channel=channel,
            before_minor=before[currency, channel],
            after_minor=after[currency, channel],
        )
        for currency, channel in places
    ]
