"""What the people of each variant came to, put together from what stands in the ledger and in the projection."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from services.nurture.experiments import queries
from services.nurture.experiments.domain import Tally, Trial
from services.nurture.experiments.statistics import Amounts
from services.nurture.sequences.document import WHOLE
from services.nurture.sequences.domain import Plan
from shared.db import Connection
from shared.ids import SequenceId
from shared.money import Money

SENT = ("sent", "delivered", "bounced", "failed", "opened", "opened_raw", "clicked", "clicked_raw", "unsubscribed")
TREATED, KEPT_OUT = "treated", "held_out"


@dataclass(frozen=True, slots=True)
class Counted:
    """A variant's people by what they were sent and did, and its tally for comparing."""

    tally: Tally
    reached: Mapping[str, int] = field(default_factory=dict)
    revenue: tuple[Money, ...] = ()
    credited: tuple[Money, ...] = ()


async def tallies_of(connection: Connection, sequence_id: SequenceId, trial: Trial) -> list[Counted]:
    """The variants of an experiment, in their order."""
    experiment = trial.experiment
    window = timedelta(days=experiment.window_days)
    bought = _by_variant(await queries.people_and_money(connection, sequence_id, trial, window))
    step_id = trial.step_id if trial.varies == "message" else None
    responded = await queries.responded(connection, sequence_id, trial, step_id)
    replied = await queries.replied_within(connection, sequence_id, trial, window)
    earned = _by_variant(await queries.credited(connection, sequence_id, trial))
    compared = earned if experiment.metric == "attributed_revenue" else bought
    counted = []
    for variant in experiment.variants:
        row = responded.get(variant.id)
        reached = {name: row[name] if row is not None else 0 for name in SENT} | {"replied": replied.get(variant.id, 0)}
        tally = _tally(variant.id, variant.weight, bought[variant.id], compared[variant.id], experiment.currency)
        tally = Tally(
            tally.variant_id, tally.weight, tally.people, tally.converted, reached["unsubscribed"], tally.amounts
        )
        counted.append(Counted(tally, reached, _money(bought[variant.id]), _money(earned[variant.id])))
    return counted


async def tallies_of_holdout(
    connection: Connection, plan: Plan, versions: Iterable[int], currency: str | None
) -> list[Counted]:
    """Those who entered the sequence, and those from whom it was kept, in this order."""
    assert plan.holdout is not None
    percent, window = plan.holdout.percent, timedelta(days=plan.holdout.window_days)
    bought = _by_variant(await queries.people_and_money_by_holdout(connection, plan.sequence_id, versions, window))
    return [
        Counted(_tally(name, weight, bought[name], bought[name], currency), revenue=_money(bought[name]))
        for name, weight in ((TREATED, WHOLE - percent), (KEPT_OUT, percent))
    ]


def _by_variant(rows: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row["variant"]].append(row)
    return found


def _tally(name: str, weight: int, bought: Sequence[Any], compared: Sequence[Any], currency: str | None) -> Tally:
    people = sum(row["people"] for row in bought)
    money = next((row for row in compared if currency is not None and row["currency"] == currency), None)
    amounts = Amounts(people, 0, 0.0, 0.0)
    if money is not None:
        amounts = Amounts(people, money["buyers"], float(money["value_minor"]), money["squares"])
    converted = sum(row["buyers"] for row in bought if row["currency"] is None)
    return Tally(name, weight, people, converted, 0, amounts)


def _money(rows: Sequence[Any]) -> tuple[Money, ...]:
    named = [row for row in rows if row["currency"] is not None]
    return tuple(Money(row["value_minor"], row["currency"]) for row in sorted(named, key=lambda row: row["currency"]))
