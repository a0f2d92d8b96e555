"""What another channel grouping would make of the touches there are: nothing of it is stored."""

from collections import Counter
from datetime import datetime, timedelta

from pydantic import BaseModel

from services.attribution.channels import queries
from services.attribution.channels.groupings import ChannelGrouping
from shared.db import Connection

MOST_TOUCHES = 200_000


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


class Simulation(BaseModel):
    """Which touches would move between channels, the most first.

    `sampled` is the part of all touches that was tried: 1 for all, less where there are more than 200,000.
    """

    touches: int
    sampled: float
    moved: int
    moves: list[Move]
    channels: list[Channel]


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
    )
