"""What was known of a conversion at each moment at which something about it was received. Pure.

Facts are taken in the order in which they were received, never in that in which they were processed, so that the
history of credits is the same after every rebuild. Models and channels are those of today throughout.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Literal, TypeVar

from services.attribution.credits.domain import Credited, Person, credit
from services.attribution.domain import Conversion, CreditingRun, Deal, Profile, Touch, left_after_refunds
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
from shared.ids import ConversionId, LeadId, TouchId

T = TypeVar("T", TouchTold, ConversionTold, RefundTold, ProfileTold, DealTold, AssignmentTold)
Moved = Literal["person", "touches", "milestones", "value", "conversion", "credited_to", "shares", "details"]
MOST_MOMENTS = 1_000
FEWEST_MOMENTS = 20
MOST_TOUCHES_CREDITED = 60_000
"""How many touches are looked at in all, one time for each moment: about a second's work by one model."""

_DEEPEST = 64
"""How many merges are followed, as `shared.identity` does."""


@dataclass(slots=True)
class Known:
    """What is known at a moment of one conversion and of all who ever had to do with it."""

    conversion_id: ConversionId
    _touches: dict[Hashable, TouchTold] = field(default_factory=dict)
    _withdrawals: dict[Hashable, WithdrawalTold] = field(default_factory=dict)
    _conversions: dict[Hashable, ConversionTold] = field(default_factory=dict)
    _refunds: dict[Hashable, RefundTold] = field(default_factory=dict)
    _profiles: dict[Hashable, ProfileTold] = field(default_factory=dict)
    _deals: dict[Hashable, DealTold] = field(default_factory=dict)
    _assignments: dict[Hashable, AssignmentTold] = field(default_factory=dict)
    _aliases: dict[LeadId, IdentityTold] = field(default_factory=dict)
    _links: dict[LeadId, list[tuple[datetime, LeadId]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, told: Told) -> bool:
        """Learn a fact: of two with one name the one that counts stays, whichever comes first.

        Answers whether one of that name was known already.
        """
        match told:
            case TouchTold():
                return _put(self._touches, told)
            case WithdrawalTold():
                self._withdrawals[told.name] = told
                return told.name in self._touches
            case ConversionTold():
                return _put(self._conversions, told)
            case RefundTold():
                return _put(self._refunds, told)
            case IdentityTold():
                return self._take_identity(told)
            case ProfileTold():
                return _put(self._profiles, told)
            case DealTold():
                return _put(self._deals, told)
            case AssignmentTold():
                return _put(self._assignments, told)

    def credited(self, runs: Iterable[CreditingRun], lookback: timedelta | None) -> Credited:
        """What the conversion comes to; it must be known."""
        conversion = self._conversion()
        person = self.owner(conversion.lead_id, conversion.occurred_at)
        told = self._deals.get(conversion.deal_id) if conversion.deal_id is not None else None
        deal = Deal(told.opened_at, told.rep) if told is not None else None
        return credit(self._person(person), conversion, deal, runs, lookback)

    def owner(self, lead_id: LeadId, at: datetime) -> LeadId:
        """Whose a fact of this id is that occurred then (R7)."""
        if links := self._links.get(lead_id):
            lead_id = links[max(bisect_right(links, at, key=lambda link: link[0]) - 1, 0)][1]
        return self._survivor(lead_id)

    def details_of(self, credited: Credited) -> set[LeadId]:
        """The ids that touches on a path came with."""
        return {self._touches[touch.origin, touch.touch_id].lead_id for touch in credited.path.touches}

    def _take_identity(self, told: IdentityTold) -> bool:
        match told.kind:
            case "linked":
                assert told.into_id is not None
                link = (told.occurred_at, told.into_id)
                if link not in self._links[told.lead_id]:
                    insort(self._links[told.lead_id], link)
            case "merged" | "unmerged":
                known = self._aliases.get(told.lead_id)
                if known is None or (known.occurred_at, known.event_id) < (told.occurred_at, told.event_id):
                    self._aliases[told.lead_id] = told
            case "erased":
                pass  # takes details away, never credit
        return False

    def _survivor(self, lead_id: LeadId) -> LeadId:
        for _ in range(_DEEPEST):
            alias = self._aliases.get(lead_id)
            if alias is None or alias.kind != "merged" or alias.into_id is None:
                break
            lead_id = alias.into_id
        return lead_id

    def _conversion(self) -> Conversion:
        told = self._conversions[self.conversion_id].conversion
        amounts = [one.amount_minor for one in self._refunds.values() if one.currency == told.currency]
        return replace(told, value_minor=left_after_refunds(told.value_minor, amounts), refunded_minor=sum(amounts))

    def _person(self, person_id: LeadId) -> Person:
        touches = [
            self._counted(told)
            for told in self._touches.values()
            if self.owner(told.lead_id, told.touch.occurred_at) == person_id
        ]
        conversions = [
            told.conversion.occurred_at
            for told in self._conversions.values()
            if self.owner(told.conversion.lead_id, told.conversion.occurred_at) == person_id
        ]
        reps = [
            (told.received_at, told.revision, told.assignment_id, told.rep_id)
            for told in self._assignments.values()
            if self.owner(told.lead_id, told.received_at) == person_id
        ]
        return Person(
            person_id,
            touches,
            sorted(conversions),
            [(at, rep) for at, _, _, rep in sorted(reps)],
            self._profile(person_id),
        )

    def _counted(self, told: TouchTold) -> Touch:
        """A touch as it counts: withdrawn or as told."""
        withdrawn = self._withdrawals.get(told.name)
        if withdrawn is None or told.touch.automated:
            return told.touch
        return replace(told.touch, automated=True, automated_reason=withdrawn.reason)

    def _profile(self, person_id: LeadId) -> Profile | None:
        theirs = [told for told in self._profiles.values() if person_id in self._ever_owners(told.lead_id)]
        if not theirs:
            return None
        tells = min(theirs, key=lambda told: (told.lead_id != person_id, told.lead_id))
        return Profile(min(told.captured_at for told in theirs), tells.country, tells.account)

    def _ever_owners(self, lead_id: LeadId) -> set[LeadId]:
        links = self._links.get(lead_id)
        return {self._survivor(owner) for _, owner in links} if links else {self._survivor(lead_id)}


@dataclass(frozen=True, slots=True)
class Late:
    """A fact that came after the conversion was known; `corrects` says that one of its name was known by then."""

    told: Told
    corrects: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What was received at one moment after the conversion was, and what it moved."""

    received_at: datetime
    came: tuple[Late, ...]
    moved: frozenset[Moved]
    before: Credited
    after: Credited


def changes(
    told: Iterable[Told], since: datetime, known: Known, runs: Sequence[CreditingRun], lookback: timedelta | None
) -> Iterator[Change]:
    """What came after a moment and moved the conversion, in the order in which it was received.

    Nothing may be `known` yet, and the conversion must have been told by then.
    """
    told = sorted(told, key=_received)
    place = bisect_right(told, since, key=_received)
    for one in told[:place]:
        known.take(one)
    before = known.credited(runs, lookback)
    for received_at, together in groupby(told[place:], key=_received):
        came = [Late(one, known.take(one)) for one in together]
        after = known.credited(runs, lookback)
        if moved := _moved(before, after) | _stripped(came, known, after):
            yield Change(received_at, _movers(came, known.conversion_id, moved, before, after), moved, before, after)
        before = after


def last_moments(told: Iterable[Told], since: datetime) -> tuple[datetime, bool]:
    """From when on the history can be told in a bearable time, and whether that is all of it.

    To credit a conversion takes as long as there are touches, once for each moment.
    """
    touches, moments = 1, {since}
    for one in told:
        touches += isinstance(one, TouchTold)
        if one.received_at > since:
            moments.add(one.received_at)
    most = min(MOST_MOMENTS, max(FEWEST_MOMENTS, MOST_TOUCHES_CREDITED // touches))
    ordered = sorted(moments)
    return ordered[max(0, len(ordered) - 1 - most)], len(ordered) - 1 <= most


def _received(told: Told) -> datetime:
    return told.received_at


def _moved(before: Credited, after: Credited) -> frozenset[Moved]:
    old, new = before.path, after.path
    kinds = [(path.conversion_type, path.currency, path.occurred_at) for path in (old, new)]
    owners = [(path.country, path.account, path.rep) for path in (old, new)]
    differs: tuple[tuple[Moved, bool], ...] = (
        ("person", old.person_id != new.person_id),
        ("touches", old.touches != new.touches),
        ("milestones", _milestones(before) != _milestones(after)),
        ("value", old.value_minor != new.value_minor),
        ("conversion", kinds[0] != kinds[1]),
        ("credited_to", owners[0] != owners[1]),
        ("shares", _units(before) != _units(after)),
    )
    return frozenset(name for name, has_moved in differs if has_moved)


def _movers(
    came: Sequence[Late], conversion_id: ConversionId, moved: frozenset[Moved], before: Credited, after: Credited
) -> tuple[Late, ...]:
    """Those of what came together that can have moved this."""
    old, new = [{(touch.origin, touch.touch_id): touch for touch in one.path.touches} for one in (before, after)]
    places = {name for name in {*old, *new} if old.get(name) != new.get(name)}

    def can_have(told: Told) -> bool:
        match told:
            case TouchTold() | WithdrawalTold():
                return told.name in places
            case RefundTold():
                return "value" in moved
            case ConversionTold() if told.conversion.conversion_id != conversion_id:
                return "shares" in moved
            case ProfileTold() | DealTold():
                return bool(moved & {"milestones", "credited_to"})
            case AssignmentTold():
                return "credited_to" in moved
            case ConversionTold() | IdentityTold():
                return True

    return tuple(late for late in came if can_have(late.told)) or tuple(came)


def _milestones(credited: Credited) -> list[tuple[str, TouchId] | None]:
    touches = credited.path.touches
    places = (credited.path.lead_place, credited.path.deal_place)
    return [None if place is None else (touches[place].origin, touches[place].touch_id) for place in places]


def _units(credited: Credited) -> dict[int, tuple[int, ...]]:
    return {run: division.units for run, division in credited.divisions.items()}


def _stripped(came: Iterable[Late], known: Known, credited: Credited) -> frozenset[Moved]:
    erased = {late.told.lead_id for late in came if isinstance(late.told, IdentityTold) and late.told.kind == "erased"}
    return frozenset({"details"}) if erased and erased & known.details_of(credited) else frozenset()


def _put(known: dict[Hashable, T], told: T) -> bool:
    before = known.get(told.name)
    if before is None or before.rank < told.rank:
        known[told.name] = told
    return before is not None
