"""Lifecycle stages: which one a lead stands in, and when that could next change by time alone.

The stages of a document are tried in order and the last that counts is the lead's. A stage counts while its `when`
holds; with a `leave_when` it also counts, once reached, until that holds: so a score that wavers around a bar does not
make a lead flap. All of it is judged at the moment of the newest touch first, so that points are counted whole however
long the touch was on its way, then wherever something turned since, and at the present.

What a person decided about the lead stands against the rules until it ends (`decisions/`); the rules are followed
beneath it, so that the lead is where they say when it does.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import log2
from typing import Any, get_args

from services.scoring.decisions.domain import WORKED_ON, Decision, Recycling, why_over
from services.scoring.engagement.contacts import NO_CONTACTS
from services.scoring.engagement.decay import EPOCH, micros
from services.scoring.engagement.domain import EngagementRules
from services.scoring.stages.crossings import Bars, Curve, Lookahead, Watch, is_decaying, watched
from services.scoring.stages.standing import FIRST, NO_SALES, Check, Rule, Sales, Score, Standing, Step, Verdict
from shared.events import Stage
from shared.rules import Evaluation, Path

_REMEMBERED = 20_000
_TICK = timedelta(microseconds=1)
_ENGAGEMENT: Path = ("score", "engagement")
_TOTAL: Path = ("score", "total")


class StageRules:
    """The stage part of a rule set."""

    def __init__(self, rules: Sequence[Rule], engagement: EngagementRules, recycling: Recycling | None = None) -> None:
        self.rules = tuple(rules)
        self.recycling = recycling or Recycling()
        self.engagement = engagement
        self._order = dict.fromkeys(get_args(Stage), -1) | {rule.stage: place for place, rule in enumerate(rules)}
        expressions = [one for rule in rules for one in (rule.when, rule.leave_when) if one is not None]
        self._lead_fields = sorted({path[1] for one in expressions for path in one.references if path[0] == "lead"})
        self._plain_lead_fields = [name for name in self._lead_fields if name != "consent"]
        self._reads_open = "attributes" in self._lead_fields
        self._roots = frozenset(path[0] for one in expressions for path in one.references)
        self._reads_hand_raise = any(one.reads("score", "hand_raise") for one in expressions)
        decaying = [one for one in expressions if any(is_decaying(path) for path in one.references)]
        self._reads_named = sorted({path[1] for one in expressions for path in one.references if path[0] == "scores"})
        most = max([engagement.limit, *(engagement.named[name].limit for name in self._reads_named)])
        self.watch = watched(decaying, most)
        self._compares = sorted({path for one in decaying for path in one.references if path[0] == "lead"})
        self._known: OrderedDict[Any, Verdict] = OrderedDict()
        self._bars_known: dict[float, tuple[Bars, Sequence[float]]] = {}
        half_lives = [rule.half_life for rules in (engagement, *engagement.named.values()) for rule in rules.rules]
        # While a touch is this young, and a thousandth of its points is gone, it counts as just happened.
        self._young = timedelta(microseconds=min(half_lives, default=0) // 720)
        self._shortest = min(half_lives, default=0)

    @property
    def lead_fields(self) -> list[str]:
        """The fields of the profile that some stage depends on."""
        return self._lead_fields

    def score(self, standing: Standing, at: datetime) -> Score:
        """The numbers at a moment."""
        engagement = self.engagement.value(standing.engagement, at)
        raised = standing.engagement.raised_at
        until = standing.engagement.raised_until
        rejected = standing.sales.rejected_at
        hand_raise = raised is not None and until is not None and at < until
        if hand_raise and rejected is not None and raised is not None:
            hand_raise = raised > rejected
        total = round(engagement + standing.fit.points, 6)
        named = self.engagement.named_values(standing.engagement, at)
        return Score(at, engagement, standing.fit.points, total, hand_raise, named)

    def moment(self, standing: Standing, now: datetime) -> datetime:
        """The moment that counts as the present: that of the newest touch while it is young."""
        newest = standing.engagement.newest
        return newest if newest is not None and now - newest <= self._young else now

    def at(self, standing: Standing, before: Verdict, moment: datetime) -> Verdict:
        """Where the lead stood at a moment that is not before its newest touch, coming from `before`."""
        return self._judge(standing, before, self.score(standing, moment))

    def settle(self, standing: Standing, before: Verdict, now: datetime) -> Verdict:
        """Where the lead stands now, coming from `before`; with the reason of `before` when nothing changed."""
        return self.judge(standing, before, now)[0]

    def judge(self, standing: Standing, before: Verdict, now: datetime) -> tuple[Verdict, Score]:
        """Where the lead stands now, coming from `before`, and the numbers that decided."""
        step = self.arrive(standing, before, now)
        return step.verdict, step.score

    def arrive(self, standing: Standing, before: Verdict, now: datetime) -> Step:
        """The judgement now, after a fact: whatever turned since the newest touch has been gone through."""
        newest, after = standing.engagement.newest, before
        if newest is not None and newest < self.moment(standing, now):
            decided = before.decision is not None or (standing.decision is not None and not standing.decision.ended_at)
            if decided:  # the past is gone through by the rules alone: what was decided since is about the present
                engagement = replace(standing.engagement, contacts=NO_CONTACTS)
                by_rules = self._gone_through(replace(standing, decision=None, engagement=engagement), before, now)
                after = replace(before, held=by_rules.verdict.held)
            else:
                step = self._gone_through(standing, before, now)
                after, standing = step.verdict, step.standing
        step = self.look(standing, after, now)
        if step.verdict.stage == before.stage and step.verdict.reason != before.reason:
            step = replace(step, verdict=replace(step.verdict, reason=before.reason))
        return step

    def _gone_through(self, standing: Standing, before: Verdict, now: datetime) -> Step:
        newest = standing.engagement.newest or now
        step = self.look(standing, before.by_rules, newest)
        if self._turns_between(standing, newest, now):
            for later in self.steps(step.standing, step.verdict, newest, now):
                step = later
        return step

    def steps(self, standing: Standing, before: Verdict, since: datetime, until: datetime) -> Iterator[Step]:
        """The judgements wherever something may turn by time alone, after `since` and not after `until`."""
        at = since
        while (check := self.next_check(standing, at)) is not None and check.at <= until:
            at = check.at
            step = self.look(standing, before, at)
            before, standing = step.verdict, step.standing
            yield step

    def look(self, standing: Standing, before: Verdict, now: datetime) -> Step:
        """The judgement at an instant: by the rules, and by what was decided about the lead."""
        moment = self.moment(standing, now)
        score = self.score(standing, moment)
        sales = self._seen_sales(standing, now)
        judged = standing if sales == standing.sales else replace(standing, sales=sales)
        verdict = ruled = self._judge(judged, before.by_rules, score)
        decision = standing.decision
        if decision is not None:
            anew = ruled.stage if before.decision and before.ruled != ruled.stage else None
            over = why_over(decision, now, standing.engagement.raised_at, anew)
            if over is None:
                verdict = _decided(decision, ruled, before)
            elif before.decision is not None or (standing.entered is not None and decision.since > standing.entered):
                verdict = replace(ruled, reason=f"{before.stage} ended: {over}")
            if over is not None and decision.ended_at is None:
                decision = replace(decision, ended_at=now, end_reason=over)
        if verdict.decision is None and {before.by_rules.stage, ruled.stage} <= WORKED_ON:
            exhausted = self._exhausted(standing)
            if exhausted is not None and exhausted.since <= now:
                decision, verdict = exhausted, _decided(exhausted, ruled, before)
        entered = standing.entered if verdict.stage == before.stage else now
        return Step(now, verdict, score, replace(standing, decision=decision, entered=entered))

    @property
    def reads_named(self) -> Sequence[str]:
        """The named scores that some stage depends on."""
        return self._reads_named

    def bars(self, standing: Standing) -> Sequence[float]:
        """The engagement at which some condition can turn for this lead, ascending."""
        return self._bars_of(standing)

    def bars_on(self, name: str) -> Sequence[float]:
        """The points of a named score at which some condition can turn, ascending."""
        return sorted(self.watch.bars.get(("scores", name), Bars()).every)

    @property
    def computes(self) -> bool:
        """Whether some condition computes with points, so that it can turn anywhere."""
        return bool(self.watch.comparisons)

    def next_check(
        self, standing: Standing, now: datetime, known: Check | None = None, *, exactly: bool = True
    ) -> Check | None:
        """When the stage could change without any fact: exactly then, or else not later, which costs far less.

        `known` is what was found before; it is answered again when more points can only have put it off.
        """
        moment = self.moment(standing, now)
        opens = moment + self._young + _TICK if moment < now or moment == standing.engagement.newest else now
        found = self._next_bar(standing, moment, known if known and known.at > opens else None, exactly=exactly)
        if found is not None and found.at < opens:
            found = Check(opens, found.below)
        until = standing.engagement.raised_until
        if self._reads_hand_raise and until is not None and until > moment:
            found = _earlier(found, max(until, opens))
        for at in self._set_instants(standing):
            if at > now:
                found = _earlier(found, at)
        return found

    def returns_at(self, standing: Standing) -> datetime | None:
        """When a lead that was set aside comes back at the latest."""
        decision, sales = standing.decision, standing.sales
        if decision is not None and decision.ended_at is None:
            return decision.until
        if sales.assignment == "rejected" and sales.rejected_at is not None:
            return sales.rejected_at + self.recycling.after
        return None

    def _set_instants(self, standing: Standing) -> Iterator[datetime]:
        """Instants, past or to come, at which something turns that does not decay."""
        if (returns := self.returns_at(standing)) is not None:
            yield returns
        if standing.engagement.contacts.attempts and (exhausted := self._exhausted(standing)) is not None:
            yield exhausted.since

    def _exhausted(self, standing: Standing) -> Decision | None:
        """The decision that the attempts to reach the lead come to, those counted that were made since it got here."""
        decision, attempts = standing.decision, standing.engagement.contacts.attempts
        if not attempts or (decision is not None and decision.ended_at is None):
            return None
        marks = (standing.engagement.raised_at, standing.entered, decision.ended_at if decision is not None else None)
        since = max([at for at in marks if at is not None], default=None)
        return self.recycling.exhausted([EPOCH + timedelta(microseconds=at) for at in attempts], since)

    def _seen_sales(self, standing: Standing, now: datetime) -> Sales:
        """What counts of sales: not an assignment from before the lead was set aside, nor a rejection long ago."""
        decision, sales = standing.decision, standing.sales
        if sales.assignment is None or sales.settled_at is None:
            return sales
        if decision is not None and decision.cuts and sales.settled_at <= decision.since:
            return replace(sales, assignment=None)
        if sales.assignment == "rejected" and now >= sales.settled_at + self.recycling.after:
            return replace(sales, assignment=None)
        return sales

    def _turns_between(self, standing: Standing, newest: datetime, now: datetime) -> bool:
        """Whether there is more between two instants than they show: else it is not worth to look for it."""
        if self.watch.comparisons or any(total.mantissa < 0 for total in standing.engagement.sums.values()):
            return True
        bars = self._bars_of(standing)
        first, last = (self.engagement.value(standing.engagement, at) for at in (newest, now))
        until = standing.engagement.raised_until
        ends = self._reads_hand_raise and until is not None and newest < until <= now
        ends_set = sum(newest < at <= now for at in self._set_instants(standing))
        return bisect_right(bars, first) - bisect_right(bars, last) + ends + ends_set > 1

    def _judge(self, standing: Standing, before: Verdict, score: Score) -> Verdict:
        """One step. Remembered, since a verdict depends on a decaying score only by which bars it has reached."""
        if self.watch.comparisons or self._reads_open:
            return self._evaluate(standing, before, score)
        bars = self._bars_of(standing)
        reached = [(bisect_left(bars, score.engagement), bisect_right(bars, score.engagement))]
        for name in self._reads_named:
            reached.append(self.watch.bars.get(("scores", name), Bars()).level(score.named[name]))
        lead = tuple([standing.lead.get(name) for name in self._plain_lead_fields])
        consent = tuple(standing.lead["consent"].items()) if "consent" in standing.lead else None
        types = standing.engagement.types if "touch_types" in self._roots else None
        key = (
            tuple(reached),
            score.hand_raise,
            standing.fit.points,
            standing.fit.grade,
            before,
            standing.sales.assignment,
            standing.sales.deal,
            lead,
            consent,
            types,
        )
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._evaluate(standing, before, score)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _evaluate(self, standing: Standing, before: Verdict, score: Score) -> Verdict:
        evaluation = Evaluation(self._values(standing, before.stage, score))
        stage: Stage = FIRST
        held: set[str] = set()
        ended = entered = ""
        for rule in self.rules:
            counts, _ = rule.when.holds(evaluation)
            if rule.leave_when is not None:
                left = not counts and rule.stage in before.held and rule.leave_when.holds(evaluation)[0]
                counts = counts or (rule.stage in before.held and not left)
                held |= {rule.stage} if counts else set()
            if counts:
                stage, entered = rule.stage, f"{rule.stage}: {rule.when.source}"
            elif rule.stage == before.stage:
                last = rule.leave_when.source if rule.leave_when is not None else f"no longer {rule.when.source}"
                ended = f"{rule.stage} ended: {last}"
        if stage == before.stage:
            return Verdict(stage, frozenset(held), before.reason)
        forward = self._order[stage] > self._order[before.stage]
        return Verdict(stage, frozenset(held), entered if forward else ended or entered)

    def _values(self, standing: Standing, stage: Stage, score: Score) -> dict[str, Any]:
        values: dict[str, Any] = {
            "score": {
                "engagement": score.engagement,
                "fit": float(score.fit),
                "total": score.total,
                "grade": standing.fit.grade,
                "hand_raise": score.hand_raise,
            },
            "stage": stage,
            "assignment": {"state": standing.sales.assignment} if standing.sales.assignment else {},
            "deal": {"status": standing.sales.deal} if standing.sales.deal else {},
        }
        if self._lead_fields:
            values["lead"] = {name: standing.lead[name] for name in self._lead_fields if name in standing.lead}
        if self._reads_named:
            values["scores"] = dict(score.named)
        if "touch_types" in self._roots:
            values["touch_types"] = sorted(standing.engagement.types)
        return values

    def values(self, standing: Standing, stage: Stage, at: datetime) -> dict[str, Any]:
        """What conditions see at a moment."""
        return self._values(standing, stage, self.score(standing, at))

    def _bars_of(self, standing: Standing) -> Sequence[float]:
        """The engagement at which some condition can turn for this lead, ascending."""
        return self._bars_with(float(standing.fit.points))[1]

    def _bars_with(self, fit: float) -> tuple[Bars, Sequence[float]]:
        """The bars of engagement, those of the total lowered by fit among them; and all of their numbers."""
        known = self._bars_known.get(fit)
        if known is None:  # there are few sums of fit points
            own, of_total = (self.watch.bars.get(path, Bars()) for path in (_ENGAGEMENT, _TOTAL))
            bars = of_total.lowered(fit, own)
            known = self._bars_known[fit] = bars, sorted(bars.every)
        return known

    def _next_bar(self, standing: Standing, moment: datetime, known: Check | None, *, exactly: bool) -> Check | None:
        engagement = standing.engagement
        named = [name for name in self._reads_named if engagement.named.get(name)]
        if not self.watch or not (engagement.sums or named):
            return None
        below = None
        if not (self.watch.comparisons or named) and all(total.mantissa > 0 for total in engagement.sums.values()):
            bars, value = self._bars_of(standing), self.engagement.value(engagement, moment)
            below = bars[bisect_right(bars, value) - 1] if bars and bars[0] <= value else 0.0
            if below <= 0:
                return None
            if known is not None and known.below == below:
                return known
            if not exactly:
                # Limits only slow the decay, and nothing decays faster than the shortest half-life.
                shortest = min(bucket.half_life for bucket in engagement.sums)
                return Check(moment + timedelta(microseconds=shortest * log2(value / below)), below)
        start = micros(moment)
        if below is not None:  # the total only moves with engagement
            watch = Watch({_ENGAGEMENT: self._bars_with(float(standing.fit.points))[0]}, ())
            found = Lookahead(watch, {_ENGAGEMENT: Curve(self.engagement, engagement, start)}, {}).first(self._shortest)
            return Check(moment + timedelta(microseconds=found), below) if found is not None else None
        curves = {
            path: Curve(self.engagement, engagement, start, more)
            for path, more in ((_ENGAGEMENT, 0), (_TOTAL, standing.fit.points))
            if path in self.watch.bars or self.watch.comparisons
        }
        for name in self._reads_named:
            curves["scores", name] = Curve(self.engagement.named[name], engagement.of(name), start)
        found = Lookahead(self.watch, curves, self._constants(standing)).first(self._shortest)
        return Check(moment + timedelta(microseconds=found), below) if found is not None else None

    def _constants(self, standing: Standing) -> dict[Path, float | int]:
        """The numbers that a score is compared with and that do not decay."""
        constants: dict[Path, float | int] = {("score", "fit"): float(standing.fit.points)}
        for path in self._compares:
            found: Any = standing.lead
            for name in path[1:]:
                found = found.get(name) if isinstance(found, Mapping) else None
            if isinstance(found, int | float):
                constants[path] = found
        return constants


def _earlier(found: Check | None, at: datetime) -> Check:
    if found is None:
        return Check(at)
    return found if found.at <= at else Check(at, found.below)


def _decided(decision: Decision, ruled: Verdict, before: Verdict) -> Verdict:
    known = before.decision == decision.decision_id
    reason = before.reason if known else f"{decision.stage}: {decision.because}"
    return Verdict(decision.stage, ruled.held, reason, ruled.stage, decision.decision_id)


__all__ = [
    "FIRST",
    "NO_SALES",
    "Check",
    "Rule",
    "Sales",
    "Score",
    "StageRules",
    "Standing",
    "Step",
    "Verdict",
]
