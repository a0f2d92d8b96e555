"""Which variant a person gets, whether one variant is better than another, and what follows from that. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from itertools import combinations
from typing import Literal

from services.nurture.experiments.statistics import (
    ALPHA,
    FEWEST_BUYERS,
    Amounts,
    Interval,
    amounts_p,
    difference_interval,
    labels_p,
    ratio_interval,
)
from services.nurture.sequences.document import WHOLE, Experiment, Variant
from shared.ids import LeadId, SequenceId

GUARD_ALPHA = 0.01
"""The probability with which the guard ever stops a variant of an experiment that is no worse than the others."""

RulingKind = Literal["winner", "stopped"]


@dataclass(frozen=True, slots=True)
class Trial:
    """An experiment at its step. `wait` is the step's own, for variants that have none."""

    step_id: str
    experiment: Experiment
    wait: timedelta | None = None

    @property
    def design(self) -> str:
        """What must not change for people to be comparable: with other variants or weights the count begins anew."""
        return " ".join(f"{variant.id}:{variant.weight}" for variant in self.experiment.variants)

    @property
    def varies(self) -> Literal["message", "time", "path"]:
        """What differs between the variants."""
        if self.experiment.variants[0].to is not None:
            return "path"
        return "message" if self.wait is None else "time"

    def variant(self, variant_id: str) -> Variant | None:
        """The variant of this id; None when the experiment has none."""
        return next((one for one in self.experiment.variants if one.id == variant_id), None)

    def wait_of(self, variant: Variant) -> timedelta:
        """How long a variant waits."""
        return variant.wait.span if variant.wait is not None else self.wait or timedelta()


@dataclass(frozen=True, slots=True)
class Standing:
    """What has been ruled about an experiment."""

    winner: str | None = None
    stopped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant of a person; `counted` says that they are to be counted in the experiment from now on."""

    variant: Variant
    counted: bool
    wait: timedelta = timedelta()


def chance(*parts: str) -> float:
    """A number in [0, 1) that is always the same for the same parts, and by chance for others."""
    return int.from_bytes(sha256("\x1f".join(parts).encode()).digest()[:7], "big") / 2**56


def choose(
    trial: Trial, sequence_id: SequenceId, person_id: LeadId, given: Sequence[tuple[str, str]], standing: Standing
) -> Choice:
    """The variant of a person. `given` are variant and design of what they were given before, under any id.

    What was given once stays. A variant that was stopped is given to nobody else: its share goes to the others in
    their proportions, so that these stay comparable. Once it is decided, or one variant is left, nobody is counted.
    """
    for variant_id, _ in given:
        kept = trial.variant(variant_id)
        if kept is not None:
            return Choice(kept, False, trial.wait_of(kept))
    winner = trial.variant(standing.winner) if standing.winner is not None else None
    if winner is not None:
        return Choice(winner, False, trial.wait_of(winner))
    left = [one for one in trial.experiment.variants if one.id not in standing.stopped] or trial.experiment.variants
    place = (sequence_id, trial.experiment.id, person_id)
    chosen = _drawn(trial.experiment.variants, chance(*place))
    if chosen not in left:
        chosen = _drawn(left, chance(*place, "again"))
    return Choice(chosen, len(left) > 1 and not given, trial.wait_of(chosen))


def _drawn(variants: Sequence[Variant], point: float) -> Variant:
    point *= sum(variant.weight for variant in variants)
    for variant in variants:
        point -= variant.weight
        if point < 0:
            return variant
    return variants[-1]


@dataclass(frozen=True, slots=True)
class Tally:
    """What the people of one variant came to. `amounts` are of the metric's money, where it is money."""

    variant_id: str
    weight: int
    people: int = 0
    converted: int = 0
    unsubscribed: int = 0
    amounts: Amounts = field(default_factory=lambda: Amounts(0, 0, 0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One variant against another. `ratio` is of rates, `difference` of money per person in minor units."""

    against: str
    better: bool
    p: float
    ratio: Interval | None = None
    difference: Interval | None = None


def compare(mine: Tally, theirs: Tally, *, money: bool) -> Comparison:
    """Whether mine does better, by an always-valid p-value of their doing the same."""
    if money:
        better = mine.amounts.mean > theirs.amounts.mean
        found = difference_interval(mine.amounts, theirs.amounts)
        return Comparison(theirs.variant_id, better, amounts_p(mine.amounts, theirs.amounts), difference=found)
    share = mine.weight / (mine.weight + theirs.weight)
    found = ratio_interval(mine.converted, theirs.converted, share)
    better = mine.converted * theirs.weight > theirs.converted * mine.weight
    return Comparison(theirs.variant_id, better, labels_p(mine.converted, theirs.converted, share), ratio=found)


@dataclass(frozen=True, slots=True)
class Ruling:
    """A variant won, or was stopped, and why."""

    kind: RulingKind
    variant_id: str
    reason: str


def judge(trial: Trial, tallies: Sequence[Tally], standing: Standing) -> list[Ruling]:
    """What is beyond doubt now: variants that make people leave, and the one that is better than all others.

    All pairs of variants share the error (Bonferroni), so it holds for the experiment as a whole.
    """
    if standing.winner is not None:
        return []
    experiment = trial.experiment
    pairs = len(list(combinations(experiment.variants, 2)))
    running = [one for one in tallies if one.variant_id not in standing.stopped]
    rulings = [
        Ruling("stopped", mine.variant_id, f"more people unsubscribed than by {worse_than}")
        for mine in (running if experiment.guard else ())
        if (worse_than := _drives_away(mine, running, GUARD_ALPHA / pairs)) is not None
    ]
    stopped = {ruling.variant_id for ruling in rulings}
    running = [one for one in running if one.variant_id not in stopped]
    if experiment.decide == "by_hand" or len(running) < 2 or min(one.people for one in running) < experiment.at_least:
        return rulings
    best = leader(trial, running, ALPHA / pairs)
    if best is not None:
        rulings.append(Ruling("winner", best, "it did better than each of the others"))
    return rulings


def leader(trial: Trial, running: Sequence[Tally], alpha: float) -> str | None:
    """The variant that does better than each of the others, beyond doubt."""
    money = trial.experiment.metric != "conversions"
    for mine in running:
        found = [compare(mine, other, money=money) for other in running if other is not mine]
        if found and all(one.better and one.p <= alpha for one in found):
            return mine.variant_id
    return None


def _drives_away(mine: Tally, running: Sequence[Tally], alpha: float) -> str | None:
    """The variant by which fewer unsubscribe, beyond doubt. Of the best one this is never so."""
    for theirs in running:
        share = mine.weight / (mine.weight + theirs.weight)
        worse = mine.unsubscribed * theirs.weight > theirs.unsubscribed * mine.weight
        if theirs is not mine and worse and labels_p(mine.unsubscribed, theirs.unsubscribed, share) <= alpha:
            return theirs.variant_id
    return None


def is_held_out(sequence_id: SequenceId, person_id: LeadId, percent: int) -> bool:
    """Whether a person is one of so many of 100 whom the sequence is kept from."""
    return chance(sequence_id, "holdout", person_id) * WHOLE < percent


def state_of(trial: Trial, standing: Standing) -> Literal["running", "decided", "stopped_by_guard"]:
    """How an experiment stands."""
    if standing.winner is not None:
        return "decided"
    return "stopped_by_guard" if len(standing.stopped) >= len(trial.experiment.variants) - 1 else "running"


def sentence(trial: Trial, tallies: Sequence[Tally], standing: Standing, why: Mapping[str, str]) -> str:
    """How an experiment stands, in words. `why` are the reasons of what was ruled, by variant."""
    match state_of(trial, standing):
        case "decided":
            return f"{standing.winner} is given to everybody: {why[standing.winner or '']}."
        case "stopped_by_guard":
            left = next(one.id for one in trial.experiment.variants if one.id not in standing.stopped)
            reasons = "; ".join(f"{name} was stopped, {why[name]}" for name in sorted(standing.stopped))
            return f"{left} is given to everybody new: {reasons}."
        case "running":
            return _open_question(trial, [one for one in tallies if one.variant_id not in standing.stopped])


def _open_question(trial: Trial, running: Sequence[Tally]) -> str:
    pairs = len(list(combinations(trial.experiment.variants, 2)))
    best = leader(trial, running, ALPHA / pairs)
    people = sum(one.people for one in running)
    fewest = min(running, key=lambda one: one.amounts.buyers)
    if trial.experiment.metric != "conversions" and fewest.amounts.buyers < FEWEST_BUYERS:
        few = f"of {fewest.variant_id} {fewest.amounts.buyers}"
        return f"Too few have bought yet: money is judged once {FEWEST_BUYERS} of each variant have, {few}."
    if best is None:
        return f"Nothing is beyond doubt after {people} people: what looks better may do so by chance."
    short = min(one.people for one in running)
    if trial.experiment.decide == "automatically" and short < trial.experiment.at_least:
        return f"{best} does better beyond doubt; it waits for {trial.experiment.at_least} people of each variant."
    return f"{best} does better than each of the others beyond doubt: decide for it whenever you like."


def sentence_of_lift(found: Comparison) -> str:
    """What a sequence does to the rate at which people convert, in words."""
    ratio = found.ratio or Interval(None, None)
    bounds = f"{_times(ratio.low)} to {_times(ratio.high)} times"
    if found.p > ALPHA:
        return f"Nothing is beyond doubt: those who entered converted {bounds} as often as those kept out."
    word = "more" if found.better else "less"
    return f"The sequence makes people convert {word} often: {bounds} as often as those kept out."


def _times(bound: float | None) -> str:
    return "any number of" if bound is None else f"{bound:.2f}"
