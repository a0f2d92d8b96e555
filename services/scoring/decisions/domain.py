"""Decisions about a lead's stage that stand against the rules: disqualified, recycled, or set by hand.

A disqualified lead stays so until it is requalified, or sales opens a deal with it after all. A recycled one returns
when its time is over, when it asks to be contacted again, or when sales takes it up anew. A stage set by hand stands
until the rules bring the lead further than that. What sales had of a lead before it was set aside no longer counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from shared.errors import Conflict
from shared.events import Stage

Move = Literal["advanced", "fell_back", "disqualified", "requalified", "recycled", "returned", "set_by_hand"]
Kind = Literal["disqualify", "recycle", "set_stage", "requalify"]
ORDER: dict[str, int] = {stage: place for place, stage in enumerate(get_args(Stage))}
SET_ASIDE: frozenset[Stage] = frozenset({"disqualified", "recycled"})
WORKED_ON: frozenset[Stage] = frozenset({"mql", "sal", "sql"})
OF_DEALS: frozenset[Stage] = frozenset({"opportunity", "customer"})
BY_ATTEMPTS = "attempts"
_TAKEN_UP: frozenset[Stage] = frozenset({"sal", "sql", *OF_DEALS})
_WEEKEND = 5


class StageRefused(Conflict):
    """A stage that makes no sense for the lead as it stands; the detail says what to do instead."""

    slug = "scoring/stage-refused"
    title = "The lead cannot be moved there"


@dataclass(frozen=True, slots=True)
class Decision:
    """A stage that a lead has by decision, since when, because of what, and until when at the latest.

    `lead_id` is the id it was taken about.
    """

    decision_id: str
    stage: Stage
    since: datetime
    because: str
    until: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str = ""
    by_hand: bool = True
    lead_id: str = ""

    @property
    def cuts(self) -> bool:
        """Whether what sales had of the lead before no longer counts."""
        return self.stage in SET_ASIDE


def decision_of(stored: Mapping[str, Any]) -> Decision:
    """A decision as it is stored with where the lead stands."""
    times = {name: stored[name] and datetime.fromisoformat(stored[name]) for name in ("since", "until", "ended_at")}
    return Decision(**{**stored, **times})


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a lead is set aside for later by itself, and for how long.

    After `attempts` to reach it, none of which connected, once `working_days` from the first of them have passed; and
    when a rep rejects it. Working days are Monday to Friday, UTC.
    """

    after_days: int = 90
    attempts: int = 6
    working_days: int = 10
    attempt_types: frozenset[str] = frozenset({"contact_attempted"})
    connected_types: frozenset[str] = frozenset(
        {"call_connected", "meeting_booked", "meeting_held", "email_replied", "sms_replied", "chat_started"}
    )

    @property
    def after(self) -> timedelta:
        """How long a lead is set aside."""
        return timedelta(days=self.after_days)

    def exhausted(self, attempts: Iterable[datetime], since: datetime | None) -> Decision | None:
        """The decision that follows from attempts after `since` without a connection, in time order."""
        made = [at for at in attempts if since is None or at > since]
        if len(made) < self.attempts:
            return None
        at = max(made[self.attempts - 1], working_days_after(made[0], self.working_days))
        because = f"no contact after {self.attempts} attempts over {self.working_days} working days"
        return Decision(f"{BY_ATTEMPTS}:{at.isoformat()}", "recycled", at, because, at + self.after, by_hand=False)


def working_days_after(at: datetime, days: int) -> datetime:
    """The same time of day so many working days later, Monday to Friday."""
    while days:
        at += timedelta(days=1)
        days -= at.astimezone(UTC).weekday() < _WEEKEND
    return at


def why_over(decision: Decision, at: datetime, raised_at: datetime | None, anew: Stage | None) -> str | None:
    """Why a decision no longer stands; None while it does. To `anew` the rules have just brought the lead."""
    if decision.ended_at is not None:
        return decision.end_reason or "ended"
    if decision.until is not None and at >= decision.until:
        return f"its time is over since {decision.until.isoformat()}"
    if anew in OF_DEALS:
        return "sales has a deal with it"
    match decision.stage:
        case "disqualified":
            return None
        case "recycled":
            if raised_at is not None and raised_at > decision.since:
                return "asked to be contacted again"
            return "sales took it up again" if anew in _TAKEN_UP else None
        case _:
            further = anew is not None and ORDER[anew] > ORDER[decision.stage]
            return "the rules went further" if further else None


def move(previous: Stage | None, stage: Stage, *, set_by_hand: bool) -> Move:
    """What kind of move a stage change is; one backwards is never told as if it were an advance."""
    if stage == "disqualified":
        return "disqualified"
    if stage == "recycled":
        return "recycled"
    if set_by_hand:
        return "set_by_hand"
    if previous == "disqualified":
        return "requalified"
    if previous == "recycled":
        return "returned"
    return "advanced" if previous is None or ORDER[stage] > ORDER[previous] else "fell_back"


def further(one: Stage, other: Stage) -> Stage:
    """The stage further on; being set aside is not further."""
    return one if other in SET_ASIDE else max(one, other, key=lambda stage: ORDER[stage])


def check_set_aside(kind: Literal["disqualify", "recycle"], stands: Stage, ruled: Stage) -> None:
    """Refuse to set aside a lead for which that makes no sense. Raises StageRefused."""
    if stands == "disqualified":
        hint = "requalify it first" if kind == "recycle" else "requalify it to undo that"
        raise StageRefused(f"the lead is disqualified already; {hint}")
    if stands in OF_DEALS or ruled in OF_DEALS:
        what = "is a customer" if "customer" in (stands, ruled) else "has an open deal"
        raise StageRefused(f"the lead {what}; its deals decide that, so change the deal (lose it) first")


def check_stage(stage: Stage, stands: Stage, ruled: Stage, known: Sequence[Stage]) -> None:
    """Refuse a stage to be set by hand that makes no sense. Raises StageRefused."""
    if stage in SET_ASIDE:
        call = "disqualify" if stage == "disqualified" else "recycle"
        raise StageRefused(f"a lead is not set to {stage}, which needs its own reason: call :{call}")
    if stage in OF_DEALS:
        raise StageRefused(f"a lead becomes {stage} by its deal: open or win one, and it follows")
    if stands == "disqualified":
        raise StageRefused("the lead is disqualified; requalify it first")
    if ruled in OF_DEALS:
        raise StageRefused(f"the lead is {ruled} by its deal; change the deal first")
    if stage == stands:
        raise StageRefused(f"the lead is at {stage} already")
    if stage not in known:
        raise StageRefused(f"the active rules know no stage {stage}; there are {', '.join(known)}")
