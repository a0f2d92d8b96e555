"""How a report of credits comes about: find the runs that answer, read, settle the currency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from services.attribution.models.catalogue import Catalogue
from services.attribution.models.choosing import serving_run
from services.attribution.models.queries import Run
from services.attribution.rates.domain import Exchange
from services.attribution.rates.queries import exchange
from services.attribution.reports import queries
from services.attribution.reports.domain import choose_currency
from services.attribution.reports.figures import Cell, Cost, Money, OneCurrency
from services.attribution.reports.questions import Question
from shared.db import Connection

MOST_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Read:
    """What was read for a report: the credits by each model with the run that answered, and the costs.

    `whole` are the models that give conversions whole, so that what they credit sums to more than the total.
    """

    runs: Mapping[str, Run]
    whole: frozenset[str]
    models: Mapping[str, Sequence[Cell]]
    costs: Sequence[Cost] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """The currency of a report, None when there is no amount, and what adds amounts up in it."""

    currency: str | None
    money: Money

    @property
    def crossed(self) -> dict[str, list[str]] | None:
        """The currencies that were converted through others; None where nothing was converted."""
        if not isinstance(self.money, Exchange):
            return None
        return {currency: sorted(through) for currency, through in sorted(self.money.crossed.items())}


async def read(
    connection: Connection, catalogue: Catalogue, models: Sequence[str], question: Question, parameter: str = "model"
) -> Read:
    """What models credit. Raises NoSuchModel and its like."""
    runs = {model: await serving_run(connection, model, parameter) for model in models}
    whole = [
        run.model_id
        for run in runs.values()
        if not question.whole_conversions and await catalogue.gives_whole(connection, run)
    ]
    cells = await queries.cells(connection, [run.run for run in runs.values()], question)
    return Read(runs, frozenset(whole), {model: cells[run.run] for model, run in runs.items()})


async def read_with_costs(connection: Connection, catalogue: Catalogue, model: str, question: Question) -> Read:
    """What a model credits, and what it cost. Raises NoSuchModel and its like."""
    found = await read(connection, catalogue, [model], question)
    return replace(found, costs=await queries.costs(connection, question))


async def settle(connection: Connection, question: Question, *reads: Read | None) -> Settled:
    """The currency of the answer. Raises SeveralCurrencies, MissingRates, SeveralCrossings."""
    parts: list[Cell | Cost] = []
    for found in (found for found in reads if found is not None):
        parts += [*chain.from_iterable(found.models.values()), *found.costs]
    if question.convert_to is None:
        present = {one.currency for one in parts}
        return Settled(choose_currency(present, question.currency), OneCurrency())
    places = {(one.currency, one.day) for one in parts if one.minor and one.day is not None}
    rates = await exchange(connection, question.convert_to, places, question.through)
    rates.need(places)
    return Settled(question.convert_to, rates)
