"""What pauses marketing to a person now, and until when, out of what others told. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from services.nurture.sequences.document import TakeoverCause
from services.nurture.takeover.document import MEETINGS, AfterSilence, DealReach, Policy
from shared.ids import LeadId

Cause = TakeoverCause | Literal["hand"]
HELD = "takeover/"
"""How the reason of a message begins that waits because a human has taken over."""
LOOK_AGAIN = timedelta(hours=12)
"""A message that waits is looked at this often at least, whatever else was missed."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """An assignment as it stands."""

    assignment_id: str
    lead_id: LeadId
    revision: int
    state: str
    at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Touched:
    """A reply, a meeting or what a rep did; of a meeting, when it is."""

    touch_id: str
    lead_id: LeadId
    type: str
    at: datetime
    meeting_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dealt:
    """A deal as it stands."""

    deal_id: str
    lead_id: LeadId
    status: str
    opened_at: datetime
    changed_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class ByHand:
    """A pause that somebody asked for; `reason` as they gave it."""

    pause_id: str
    lead_id: LeadId
    reach: DealReach
    since: datetime
    until: datetime | None
    author: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """All that may pause marketing to one person. `own` are the person's ids, `released` the pauses ended by hand."""

    own: frozenset[LeadId]
    assignments: Sequence[Assigned] = ()
    touches: Sequence[Touched] = ()
    deals: Sequence[Dealt] = ()
    by_hand: Sequence[ByHand] = ()
    released: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Pause:
    """Marketing is paused. `until` is None where only an event or a person ends it; `lead_id` is whose matter it is.

    `offered` is when a lead was offered that nobody has accepted yet, `met` when a meeting was held.
    """

    pause_id: str
    cause: Cause
    why: str
    since: datetime
    until: datetime | None
    reach: DealReach
    lead_id: LeadId
    offered: datetime | None = None
    met: datetime | None = None

    @property
    def reason(self) -> str:
        """Why a message waits."""
        return f"{HELD}{self.cause}: {self.why}"


def pauses_of(policy: Policy, known: Known, now: datetime) -> list[Pause]:
    """What pauses marketing to a person now, by what is known of them; the longest first."""
    found = [*_assignment(policy, known), *_touches(policy, known), *_meeting(policy, known), *_deals(policy, known)]
    for one in known.by_hand:
        asked = Pause(one.pause_id, "hand", _asked(one), one.since, one.until, one.reach, one.lead_id)
        found += [asked] if one.lead_id in known.own else of_company([asked])
    return in_force(found, known.released, now)


def won_for_group(policy: Policy, known: Known) -> datetime | None:
    """When a deal was won last in which the person has a part that is not their own, where the policy counts it."""
    if policy.says.deal.pauses not in ("deal", "account"):
        return None
    won = (one.closed_at for one in known.deals if one.status == "won" and one.lead_id not in known.own)
    return max((at for at in won if at is not None), default=None)


def of_company(pauses: Iterable[Pause]) -> list[Pause]:
    """Of a colleague's pauses those that are for everybody in the company."""
    return [
        replace(pause, why=f"{pause.why} (somebody of the same company)")
        for pause in pauses
        if pause.reach == "account"
    ]


def in_force(pauses: Iterable[Pause], released: Collection[str], now: datetime) -> list[Pause]:
    """The pauses that neither time nor a person has ended, each once, the longest first."""
    standing = {
        pause.pause_id: pause
        for pause in pauses
        if pause.reach != "nobody" and pause.pause_id not in released and (pause.until is None or pause.until > now)
    }
    return sorted(
        standing.values(), key=lambda one: (one.until is not None, -_stamp(one.until), one.since, one.pause_id)
    )


def heeded(
    pauses: Iterable[Pause], causes: Collection[Cause] | None, *, follows_meeting: datetime | None = None
) -> list[Pause]:
    """The pauses that hold a sequence which names what it pauses on; one by hand always does.

    What a meeting set going that was held then follows a human up: only what came after the meeting holds it.
    """
    return [
        pause
        for pause in pauses
        if pause.cause == "hand"
        or ((causes is None or pause.cause in causes) and (follows_meeting is None or pause.since > follows_meeting))
    ]


def standing_meeting(touches: Iterable[Touched]) -> Touched | None:
    """The meeting that was told last and not called off. One that is moved takes the place of the one before."""
    booked: list[Touched] = []
    for one in sorted((one for one in touches if one.type in MEETINGS), key=lambda one: (one.at, one.touch_id)):
        same = next((other for other in reversed(booked) if other.meeting_at == one.meeting_at), None)
        if one.type == "meeting_canceled":
            gone = same if one.meeting_at is not None else booked[-1] if booked else None
            booked = [other for other in booked if other is not gone]
        elif one.type == "meeting_rescheduled":
            booked = [*booked[:-1], one]
        else:
            booked = [*(other for other in booked if other is not same), one]
    return booked[-1] if booked else None


def _assignment(policy: Policy, known: Known) -> list[Pause]:
    """By the assignment made last: those before it are over."""
    says = policy.says.assignment
    newest = max(known.assignments, key=lambda one: (one.revision, one.at, one.assignment_id), default=None)
    counts = ("accepted",) if says.since == "accepted" else ("offered", "accepted")
    if newest is None or newest.state not in counts:
        return []
    offered = newest.at if newest.state == "offered" else None
    since = newest.settled_at if says.since == "accepted" and newest.settled_at else newest.at
    until = _after_silence(says, known, newest.settled_at or newest.at)
    took = "was given the lead" if offered else "took the lead"
    why = f"a rep {took}, {newest.settled_at or newest.at:%Y-%m-%d %H:%M} UTC; {_resumes(says.resume_after_days)}"
    name = f"assignment:{newest.assignment_id}"
    return [Pause(name, "assignment", why, since, until, says.pauses, newest.lead_id, offered)]


def _touches(policy: Policy, known: Known) -> list[Pause]:
    causes: tuple[tuple[Cause, AfterSilence, Collection[str], str], ...] = (
        ("reply", policy.says.reply, policy.says.reply.types, "the person answered"),
        ("contact", policy.says.contact, policy.says.contact.types, "a rep was in touch"),
    )
    found = []
    for cause, says, types, what in causes:
        last = max((one for one in known.touches if one.type in types), key=_when, default=None)
        if last is not None:
            why = f"{what} ({last.type}), {last.at:%Y-%m-%d %H:%M} UTC; {_resumes(says.resume_after_days)}"
            until = _after_silence(says, known, last.at)
            found.append(Pause(f"{cause}:{last.touch_id}", cause, why, last.at, until, says.pauses, last.lead_id))
    return found


def _meeting(policy: Policy, known: Known) -> list[Pause]:
    says, meeting = policy.says.meeting, standing_meeting(known.touches)
    if meeting is None:
        return []
    met = meeting.at if meeting.type == "meeting_held" else None
    at = met or meeting.meeting_at or meeting.at
    until = None if says.resume_after_days is None else max(at, meeting.at) + timedelta(days=says.resume_after_days)
    ends = "resumes by hand" if until is None else f"resumes {says.resume_after_days} days after it"
    why = f"a meeting is agreed, {at:%Y-%m-%d %H:%M} UTC; {ends}"
    name = f"meeting:{meeting.touch_id}"
    return [Pause(name, "meeting", why, meeting.at, until, says.pauses, meeting.lead_id, met=met)]


def _deals(policy: Policy, known: Known) -> list[Pause]:
    """Open deals, and those lost a while ago. One in which the person only has a part counts where the policy says."""
    says = policy.says.deal
    found = []
    for deal in known.deals:
        until = None
        if deal.status == "open":
            why = f"a deal is open since {deal.opened_at:%Y-%m-%d %H:%M} UTC; resumes when it is decided"
            if says.resume_after_days is not None:
                until = deal.changed_at + timedelta(days=says.resume_after_days)
        elif deal.status == "lost" and deal.closed_at is not None and says.resume_days_after_loss:
            until = deal.closed_at + timedelta(days=says.resume_days_after_loss)
            ends = f"resumes {says.resume_days_after_loss} days later"
            why = f"a deal was lost, {deal.closed_at:%Y-%m-%d %H:%M} UTC; {ends}"
        else:
            continue
        if deal.lead_id in known.own or says.pauses in ("deal", "account"):
            found.append(Pause(f"deal:{deal.deal_id}", "deal", why, deal.opened_at, until, says.pauses, deal.lead_id))
    return found


def _after_silence(says: AfterSilence, known: Known, since: datetime) -> datetime | None:
    """When marketing resumes if nobody is in touch with the person from now on."""
    if says.resume_after_days is None:
        return None
    return max([since, *(one.at for one in known.touches)]) + timedelta(days=says.resume_after_days)


def _resumes(days: int | None) -> str:
    return "resumes by hand" if days is None else f"resumes after {days} days in which nobody is in touch"


def _asked(one: ByHand) -> str:
    ends = "resumes by hand" if one.until is None else f"resumes {one.until:%Y-%m-%d %H:%M} UTC"
    return f"{one.author} asked for it; {ends}"


def _when(one: Touched) -> tuple[datetime, str]:
    return one.at, one.touch_id


def _stamp(at: datetime | None) -> float:
    return at.timestamp() if at is not None else 0.0
