"""When a message may go, by the hours of the place and by contact pressure. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.nurture.permission.document import SendingPolicy
from services.nurture.permission.domain import QUIET, UNDER_PRESSURE, Had, answers, excess
from services.nurture.permission.hours import closes_after, next_open
from services.nurture.permission.zones import whereabouts
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.steps import SendStep
from shared.consents import needs_consent
from shared.events import ConsentChannel


@dataclass(frozen=True, slots=True)
class Held:
    """A message waits until then, or where that is None is not sent any more; and why."""

    until: datetime | None
    why: str


def quiet_until(
    policy: SendingPolicy, channel: ConsentChannel, fields: Mapping[str, Any], now: datetime, share: float
) -> Held | None:
    """Until when it is quiet where somebody is; None when it is not.

    `share`, of 0 to 1, is how far into the time over which messages are spread then this one comes.
    """
    week = policy.weeks.get(channel)
    if week is None:
        return None
    place = whereabouts(fields, policy.default_time_zone)
    opens = next_open(week, place.zone, now)
    if opens == now:
        return None
    if opens is None:  # a week whose only window falls into an hour that is left out
        opens = now + timedelta(days=7)
        spread = timedelta()
    else:
        spread = min(timedelta(minutes=policy.spread_minutes), closes_after(week, place.zone, opens))
    local = now.astimezone(place.zone)
    why = (
        f"{QUIET}{local:%a %H:%M} in {place.zone.key} (by {place.known_by}), "
        f"{channel} goes out from {opens.astimezone(place.zone):%a %H:%M}"
    )
    return Held(opens + spread * share, why)


def patience(policy: SendingPolicy, step: SendStep) -> timedelta:
    """How long contact pressure may hold a message."""
    return step.patience or timedelta(hours=policy.pressure.expire_after_hours)


def foreseen(  # noqa: PLR0913  # a decision names its inputs
    policy: SendingPolicy,
    plan: Plan,
    step: SendStep,
    fields: Mapping[str, Any],
    had: Sequence[Had],
    *,
    triggered_at: datetime,
    due_at: datetime,
    now: datetime,
) -> Held | None:
    """What would hold a message, as the checks of the sender have it; priorities are not looked at."""
    if not needs_consent(plan.purpose):
        return None
    within = timedelta(minutes=policy.answer_within_minutes)
    if within and answers(plan, triggered_at, now, within):
        return None
    over = excess(policy.pressure, had, step.channel, now)
    if over is None:
        return quiet_until(policy, step.channel, fields, now, share=0)
    late, why = due_at + patience(policy, step), f"{UNDER_PRESSURE}{over.why}"
    return Held(None, f"expired under {why}") if now >= late else Held(min(over.until, late), why)
