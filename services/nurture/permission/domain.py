"""What a person has had lately, what a bad report means, and when there are too many of them. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from services.nurture.permission.document import Guard, Pressure, PressureLimit
from services.nurture.sequences.domain import Plan
from shared.events import ConsentChannel, MessageReported

Trouble = Literal["hard_bounce", "soft_bounce", "complaint"]
UNDER_PRESSURE = "contact pressure: "
QUIET = "quiet hours: "
# What a run may begin with that the person did not do a moment ago.
_NOT_THEIR_DOING = (
    "stage_changed",
    "segment_entered",
    "segment_left",
    "assignment_accepted",
    "lead_handed_off",
)
# Twilio: no such number, a landline, a number that is none. https://www.twilio.com/docs/api/errors
_NO_SUCH_NUMBER = frozenset({"30005", "30006", "21211", "21214", "21614"})


@dataclass(frozen=True, slots=True)
class Had:
    """An unasked message that went to the person, or may have."""

    at: datetime
    channel: ConsentChannel
    sequence: str
    step_id: str


@dataclass(frozen=True, slots=True)
class Excess:
    """There is no room for another one before `until`, and why."""

    until: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What came of a sequence's messages in a span: how many were taken, refused for good, and complained of."""

    taken: int
    bounced: int
    complained: int


def answers(plan: Plan, triggered_at: datetime, now: datetime, within: timedelta) -> bool:
    """Whether a message comes so soon after what the person did that it is an answer to it."""
    source = plan.trigger.source
    theirs = "event.type" in source and not any(word in source for word in _NOT_THEIR_DOING)
    return theirs and timedelta() <= now - triggered_at <= within


def excess(pressure: Pressure, had: Sequence[Had], channel: ConsentChannel, now: datetime) -> Excess | None:
    """The limit that holds up a message the longest, with the messages that fill it; None when there is room."""
    found = [_over(limit, had, channel, now) for limit in pressure.limits]
    found.append(_too_soon(pressure, had, now))
    return max((one for one in found if one is not None), key=lambda one: one.until, default=None)


def room(pressure: Pressure, had: Sequence[Had], channel: ConsentChannel, now: datetime) -> int | None:
    """How many more messages could go now; None without any limit."""
    left = [limit.messages - len(_counted(limit, had, channel, now)) for limit in _limits(pressure, channel)]
    if pressure.gap_minutes:
        left.append(1)
    return min(left, default=None)


def _limits(pressure: Pressure, channel: ConsentChannel) -> list[PressureLimit]:
    return [limit for limit in pressure.limits if limit.channel in (None, channel)]


def _counted(limit: PressureLimit, had: Iterable[Had], channel: ConsentChannel, now: datetime) -> list[Had]:
    """The messages that fill a limit, the latest first."""
    if limit.channel not in (None, channel):
        return []
    since = now - limit.span
    mine = [one for one in had if one.at > since and limit.channel in (None, one.channel)]
    return sorted(mine, key=lambda one: one.at, reverse=True)


def _over(limit: PressureLimit, had: Iterable[Had], channel: ConsentChannel, now: datetime) -> Excess | None:
    counted = _counted(limit, had, channel, now)
    if len(counted) < limit.messages:
        return None
    what = f"{limit.channel} " if limit.channel else ""
    days = "24 hours" if limit.days == 1 else f"{limit.days} days"
    why = f"at most {limit.messages} {what}in {days}, and there were {_listed(counted)}"
    return Excess(counted[limit.messages - 1].at + limit.span, why)


def _too_soon(pressure: Pressure, had: Iterable[Had], now: datetime) -> Excess | None:
    gap = timedelta(minutes=pressure.gap_minutes)
    last = max(had, key=lambda one: one.at, default=None)
    if last is None or last.at + gap <= now:
        return None
    return Excess(last.at + gap, f"{pressure.gap_minutes} minutes between two, and the last was {_listed([last])}")


def _listed(had: Sequence[Had], most: int = 5) -> str:
    named = [f"{one.sequence}/{one.step_id} ({one.channel}, {one.at:%Y-%m-%d %H:%M}Z)" for one in had[:most]]
    return ", ".join(named) + (f" and {len(had) - most} more" if len(had) > most else "")


def trouble_of(event: MessageReported) -> Trouble | None:
    """What a report says against writing to the address again; None for all that does not.

    A mail that was held up, blocked for its content or its sender, or not even tried says nothing of the address.
    """
    match event.event:
        case "complained":
            return "complaint"
        case "bounced":
            return "hard_bounce" if event.permanent else "soft_bounce"
        case "undelivered" | "failed":
            return "hard_bounce" if event.permanent or event.code in _NO_SUCH_NUMBER else "soft_bounce"
        case _:
            return None


def too_many(times: Sequence[datetime], count: int, span: timedelta) -> bool:
    """Whether any `count` of these instants lie within a span, in whatever order they came."""
    ordered = sorted(times)
    return any(later - earlier <= span for earlier, later in zip(ordered, ordered[count - 1 :], strict=False))


def why_pause(guard: Guard, standing: Standing) -> str | None:
    """Why a sequence is paused; None while all is well, or too little is known.

    Complaints are of those that were taken, bounces of all that were handed over.
    """
    handed_over = standing.taken + standing.bounced
    if handed_over < guard.min_messages:
        return None
    shares = [
        ("complaints", standing.complained, standing.taken, guard.complaint_percent),
        ("bounces", standing.bounced, handed_over, guard.bounce_percent),
    ]
    for what, bad, of, percent in shares:
        if of and bad * 100 >= percent * of:
            share = f"{bad * 100 / of:.2f} %"
            return f"paused by the guard: {share} {what} ({bad} of {of} in {guard.days} days; limit {percent:g} %)"
    return None
