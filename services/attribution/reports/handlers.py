"""How a report of credits comes about: find the runs that answer, read, settle the currency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from services.attribution.domain import TotalsModel
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.choosing import serving_model
from services.attribution.models.queries import Run
from services.attribution.rates.domain import Exchange
from services.attribution.rates.queries import exchange
from services.attribution.reports import queries
from services.attribution.reports.domain import choose_currency
from services.attribution.reports.figures import Cell, Cost, Money, OneCurrency
from services.attribution.reports.questions import Question
from services.attribution.standing.domain import CREDITS, Until
from services.attribution.totals.domain import Credit
from services.attribution.totals.handlers import totals_by_currency
from services.attribution.totals.queries import Totals
from services.attribution.totals.reporting import cells_of, wanted_of
from shared.db import Connection

MOST_ROWS = 10_000
PARTICIPATION = "participation"


@dataclass(frozen=True, slots=True)
class Read:
    """What was read for a report: the credits by each model with the run that answered, and the costs.

    `from_sums` says whether the credits came from the sums, but for parts of days.

    `whole` are the models that give conversions whole, so that what they credit sums to more than the total.
    """

    runs: Mapping[str, Run]
    whole: frozenset[str]
    models: Mapping[str, Sequence[Cell]]
    from_sums: bool
    costs: Sequence[Cost] = ()
    totals: Mapping[str, Mapping[str, Totals]] = field(default_factory=dict)
    """By model and currency, of those models that give totals by channel."""

    def drilled(self, model: str) -> str:
        """The model whose credits are shown behind a cell: one that gives totals has none, so all who took part."""
        return PARTICIPATION if model in self.totals else model

    def weighed(self, model: str, currency: str | None) -> dict[str, Credit]:
        """By channel, what a model that gives totals says of it."""
        found = self.totals.get(model, {}).get(currency or "")
        return {credit.channel: credit for credit in found.credits} if found else {}

    def until(self, model: str, currency: str | None) -> Until:
        """Until when all that was told is in the figures of a model."""
        found = self.totals.get(model, {}).get(currency or "")
        return CREDITS if found is None else CREDITS | found.until


@dataclass(frozen=True, slots=True)
class Settled:
    """The currency of a report, None when there is no amount, and what adds amounts up in it."""

    currency: str | None
    money: Money

    @property
    def only(self) -> str | None:
        """The currency of all that was added up, also if nobody asked for it; None where all were converted."""
        return None if isinstance(self.money, Exchange) else self.currency

    @property
    def crossed(self) -> dict[str, list[str]] | None:
        """The currencies that were converted through others; None where nothing was converted."""
        if not isinstance(self.money, Exchange):
            return None
        return {currency: sorted(through) for currency, through in sorted(self.money.crossed.items())}


async def read(
    connection: Connection,
    catalogue: Catalogue,
    models: Sequence[str],
    question: Question,
    parameter: str = "model",
) -> Read:
    """What models credit. Raises NoSuchModel and its like."""
    runs = {model: await serving_model(connection, model, parameter) for model in models}
    whole = [
        run.model_id
        for run in runs.values()
        if not question.whole_conversions and await catalogue.gives_whole(connection, run)
    ]
    totals: dict[str, Mapping[str, Totals]] = {}
    for name, run in runs.items():
        if not run.splits:
            model = await catalogue.model(connection, run.model_id, run.version)
            assert isinstance(model, TotalsModel)
            totals[name] = await totals_by_currency(connection, model, wanted_of(question, name))
    splitting = [run.run for run in runs.values() if run.splits]
    closed = await queries.closed(connection, question)
    cells = await queries.cells(connection, splitting, closed)
    by_model = {name: cells_of(totals[name]) if name in totals else cells[run.run] for name, run in runs.items()}
    return Read(runs, frozenset(whole), by_model, closed.from_sums, totals=totals)


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
