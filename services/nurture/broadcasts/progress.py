"""How far a broadcast is: counts by state and reason, the rate now, the time left, and what people did with it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.nurture.broadcasts import queries
from services.nurture.broadcasts.domain import A_MINUTE, RATE, kind_of, seconds_left
from services.nurture.broadcasts.queries import Broadcast
from services.nurture.sending.looking import STALE_CONSENT, STALE_LEDGER
from shared.db import Connection

MOST_REASONS = 50


@dataclass(frozen=True, slots=True)
class Why:
    """How many messages stand as they do for a reason."""

    state: str
    reason: str
    messages: int


@dataclass(frozen=True, slots=True)
class Progress:
    """`people` are all who are meant, `finished` those with whom it is done; the rate is that of the last minute."""

    people: int
    finished: int
    remaining: int
    messages: dict[str, int]
    reasons: tuple[Why, ...]
    responses: dict[str, int]
    per_minute: float
    seconds_left: int | None


async def progress_of(connection: Connection, broadcast: Broadcast, now: datetime) -> Progress:
    """How far it is now."""
    this, rate = broadcast.broadcast_id, broadcast.document.rate
    under_way = await queries.active(connection, this)
    finished = max(0, broadcast.entered - under_way)
    remaining = broadcast.people - finished if broadcast.state in ("running", "stopped") else under_way
    states = await queries.states(connection, this)
    first = await queries.first_claim(connection, this)
    since = A_MINUTE if first is None else min(A_MINUTE, max(now - first, timedelta(seconds=1)))
    per_minute = sum(lately for _, lately in states.values()) * (A_MINUTE / since)
    reasons: dict[tuple[str, str], int] = {}
    told = await queries.reasons(connection, this)
    for state, reason, messages in told:
        key = (state, kind_of(reason))
        reasons[key] = reasons.get(key, 0) + messages
    holds = {reason for state, reason, _ in told if state == "planned"}
    waits = not holds.isdisjoint((STALE_CONSENT, STALE_LEDGER)) or (not per_minute and not holds <= {RATE})
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:MOST_REASONS]
    return Progress(
        people=broadcast.people,
        finished=finished,
        remaining=remaining,
        messages={state: messages for state, (messages, _) in sorted(states.items())},
        reasons=tuple(Why(state, reason, messages) for (state, reason), messages in ordered),
        responses=await queries.responses(connection, this),
        per_minute=round(per_minute, 1),
        seconds_left=seconds_left(
            remaining,
            per_minute,
            rate.interval if rate and broadcast.document.local_time is None else None,
            waits=waits,
        )
        if broadcast.listed_at is not None and (broadcast.state == "running" or not remaining)
        else None,
    )
