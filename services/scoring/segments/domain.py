"""Who is in which segment: conditions tried in an order in which those that others name come first."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from graphlib import CycleError, TopologicalSorter
from math import sqrt
from typing import Any

from services.scoring.accounts.domain import Company
from services.scoring.engagement.domain import EngagementRules
from services.scoring.rules.document import PERSONAL
from services.scoring.segments.document import LIST, PERSON, Segment, Tally
from services.scoring.stages.domain import Rule, StageRules
from shared.ids import AccountId, LeadId, SegmentId
from shared.rules import Evaluation

EVERYTHING = frozenset(
    {PERSON, LIST, "lead", "score", "scores", "stage", "touch_types", "touches", "assignment", "deal", "segments"}
)
BY_TOUCHES = frozenset({"score", "scores", "touch_types", "touches"})
BY_PROFILE = frozenset({"lead", "score"})
BY_SALES = frozenset({"assignment", "deal", "score"})
BY_TIME = frozenset({"score", "scores", "touches"})
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Count:
    """Touches of one kind that fall into a window."""

    number: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """All that conditions see of a person but for the segments; when time alone could change it; the lists they are on.

    Of an erased person nothing counts: they are in no segment.
    """

    person_id: LeadId
    values: Mapping[str, Any]
    listed: frozenset[SegmentId] = frozenset()
    changes_at: datetime | None = None
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What others know of a person and a segment; the revision counts the tellings."""

    member: bool = False
    revision: int = 0
    since: datetime | None = None


NEVER = Told()


@dataclass(frozen=True, slots=True)
class Before:
    """What is kept of a person: the results of every version that is served or being built, and what was told."""

    results: frozenset[tuple[SegmentId, int]] = frozenset()
    told: Mapping[SegmentId, Told] = field(default_factory=dict)

    def was_told(self, segment_id: SegmentId) -> bool:
        """Whether others take the person for a member."""
        return self.told.get(segment_id, NEVER).member


@dataclass(frozen=True, slots=True)
class Found:
    """A result that changed; why a person is in, as the values that the condition read."""

    segment: Segment
    member: bool
    why: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """Somebody entered or left a segment. `initial`: because it was saved, not because of anything they did."""

    person_id: LeadId
    segment: Segment
    told: Told
    initial: bool


class Live:
    """The segments of one moment: those that serve, and the versions that are being built beside them."""

    def __init__(self, serving: Iterable[Segment], building: Iterable[Segment]) -> None:
        self.serving = in_order(serving)
        self.building = tuple(building)
        self.every = (*self.serving, *self.building)
        self._crossings: dict[int, StageRules] = {}

    def concerned(self, changed: Collection[str], named: Collection[SegmentId] = ()) -> tuple[Segment, ...]:
        """Segments that depend on what changed, or are named, or name such ones."""
        found = dict.fromkeys(named)
        concerned = []
        for segment in self.every:
            if (
                segment.segment_id in named
                or not segment.reads.isdisjoint(changed)
                or not segment.nested.isdisjoint(found)
            ):
                found[segment.segment_id] = None
                concerned.append(segment)
        return tuple(concerned)

    def crossing(self, version: int, engagement: EngagementRules) -> StageRules:
        """The conditions as stages have them: what they see, and when a score that decays next reaches a bar.

        One that reads a score which these rules do not name holds for nobody.
        """
        if version not in self._crossings:
            while len(self._crossings) >= 8:
                del self._crossings[next(iter(self._crossings))]
            conditions = [
                Rule("lead", segment.when)
                for segment in self.every
                if segment.when is not None and segment.scores <= engagement.named.keys()
            ]
            self._crossings[version] = StageRules(conditions, engagement)
        return self._crossings[version]


def in_order(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Segments, each after those that it names."""
    known = {segment.segment_id: segment for segment in segments}
    graph = {name: segment.nested & known.keys() for name, segment in sorted(known.items())}
    return tuple(known[name] for name in TopologicalSorter(graph).static_order())


def circle(nested: Mapping[SegmentId, Collection[SegmentId]]) -> list[SegmentId] | None:
    """A path of segments that leads back to where it began, if there is one."""
    try:
        TopologicalSorter(nested).prepare()
    except CycleError as found:
        path: list[SegmentId] = found.args[1]
        return path[::-1]
    return None


def holds(segment: Segment, facts: Facts, members: Collection[SegmentId], plain: Evaluation) -> bool:
    """Whether a person is in a segment; `plain` holds the facts ready for conditions that name no segment."""
    if facts.erased:
        return False
    if segment.when is None:
        return segment.segment_id in facts.listed
    if not segment.nested:
        return segment.when.holds(plain)[0]
    return segment.when.holds({**facts.values, "segments": sorted(members)})[0]


def why(segment: Segment, facts: Facts, members: Collection[SegmentId]) -> dict[str, Any]:
    """The values that a condition read, by name; of what is personal the name alone."""
    if segment.when is None:
        return {LIST: True}
    read: dict[str, Any] = {}
    for path in segment.when.references:
        name = ".".join(path)
        value: Any = {**facts.values, "segments": sorted(segment.nested & set(members))}
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            read[name] = "personal" if path[0] == "lead" and path[1] in PERSONAL else value
    return read


def judge(
    live: Live, concerned: Sequence[Segment], facts: Facts, before: Before, changed: Collection[str]
) -> list[Found]:
    """The results that are others now, of concerned segments that read what changed or name segments that did."""
    members = {segment.segment_id for segment in live.serving if segment.key in before.results}
    serving = frozenset(segment.key for segment in live.serving)
    moved = {name for name in (one.segment_id for one in concerned) if before.was_told(name) != (name in members)}
    plain = Evaluation(facts.values)
    found = []
    for segment in concerned:
        if segment.reads.isdisjoint(changed) and segment.nested.isdisjoint(moved) and not facts.erased:
            continue
        member = holds(segment, facts, members, plain)
        if member == (segment.key in before.results):
            continue
        found.append(Found(segment, member, why(segment, facts, members) if member else {}))
        if segment.key in serving:
            moved.add(segment.segment_id)
            (members.add if member else members.discard)(segment.segment_id)
    return found


def moves(  # noqa: PLR0913  # what a telling is made of
    live: Live,
    concerned: Sequence[Segment],
    person_id: LeadId,
    before: Before,
    found: Sequence[Found],
    at: datetime,
    *,
    initial: bool = False,
) -> list[Move]:
    """What there is to tell of a person: wherever the results that serve differ from what was told."""
    changed = {one.segment.key: one.member for one in found}
    serving = frozenset(segment.key for segment in live.serving)
    made = []
    by_saving: set[SegmentId] = set()
    for segment in concerned:
        member = changed.get(segment.key, segment.key in before.results)
        if segment.key not in serving or member == before.was_told(segment.segment_id):
            continue
        if initial or segment.key not in changed or not segment.nested.isdisjoint(by_saving):
            by_saving.add(segment.segment_id)
        revision = before.told.get(segment.segment_id, NEVER).revision + 1
        told = Told(member, revision, at if member else None)
        made.append(Move(person_id, segment, told, segment.segment_id in by_saving))
    return made


def leaves(person_id: LeadId, segment: Segment, told: Told) -> Move:
    """Somebody is out of a segment that is no more."""
    return Move(person_id, segment, Told(False, told.revision + 1), initial=True)


def values_of(tallies: Iterable[Tally], counts: Mapping[Tally, Count]) -> dict[str, dict[str, Any]]:
    """`touches` for conditions: what there was none of counts 0, and has no first and no last."""
    touches: dict[str, dict[str, Any]] = {}
    for tally in tallies:
        count = counts.get(tally)
        told = touches.setdefault(tally.type, {})
        if tally.days > 0:
            told[f"days_{tally.days}"] = count.number if count else 0
        else:
            told["ever"] = count.number if count else 0
            if count:
                told |= {"first_at": count.first, "last_at": count.last}
    return touches


def survivor(companies: Mapping[AccountId, Company], account_id: AccountId) -> Company | None:
    """What an account is by now, if that was told; facts of several may close a circle for a moment."""
    here: AccountId | None = account_id
    for _ in range(len(companies) + 1):
        company = companies.get(here) if here is not None else None
        if company is None or company.merged_into is None:
            return company
        here = company.merged_into
    return None


def next_expiry(counts: Mapping[Tally, Count]) -> datetime | None:
    """When the first touch falls out of a window."""
    return min(
        (count.first + timedelta(days=tally.days) for tally, count in counts.items() if tally.days > 0), default=None
    )


def margin(hits: int, sampled: int) -> tuple[float, float]:
    """Between which shares the true one lies, 19 times of 20 (Wilson's score interval, 1927)."""
    if not sampled:
        return 0.0, 1.0
    share, square = hits / sampled, _NORMAL_95**2 / sampled
    centre = (share + square / 2) / (1 + square)
    spread = _NORMAL_95 * sqrt(share * (1 - share) / sampled + square / (4 * sampled)) / (1 + square)
    return max(centre - spread, 0.0), min(centre + spread, 1.0)
