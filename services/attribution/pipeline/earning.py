"""Deals from the day they are opened to what they bring every month, and what is paid, as marks: pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from services.attribution.pipeline.domain import DealStep, Mark, Owner, Payment
from services.attribution.pipeline.funnels import deal_way
from services.attribution.pipeline.lapses import lapse_between
from shared.ids import DealId


def deals_marks(deals: Mapping[DealId, Sequence[DealStep]]) -> list[Mark]:
    """All deals of a person. The first one won that brings something every month is new, what follows is expansion."""
    told = {deal_id: counting(steps) for deal_id, steps in deals.items()}
    marks: list[Mark] = []
    won: list[tuple[datetime, DealId]] = []
    for deal_id, steps in told.items():
        marks += _deal(deal_id, steps)
        if steps[-1].status == "won":
            won.append((closed_at(steps), deal_id))
    is_customer = False
    for _, deal_id in sorted(won):
        recurring = _recurring(deal_id, told[deal_id], is_customer=is_customer)
        is_customer = is_customer or bool(recurring)
        marks += recurring
    return marks


def counting(steps: Sequence[DealStep]) -> list[DealStep]:
    """The steps of a deal that count, in order: those from where it was told anew last."""
    begins = max(step.begins for step in steps)
    return sorted((step for step in steps if step.revision >= begins), key=lambda step: step.revision)


def payment_marks(payments: Iterable[Payment], owner: Owner, owners: Mapping[DealId, Owner]) -> list[Mark]:
    """What was paid: the first time is new revenue, each later one recurring. A deal's counts for who has the deal."""
    paid = sorted((one for one in payments if one.value_minor > 0), key=lambda one: (one.at, one.conversion_id))
    return [
        Mark(
            "revenue",
            "recurring" if place else "new",
            one.conversion_id,
            one.at,
            owners.get(one.deal_id, owner) if one.deal_id is not None else owner,
            one.currency,
            value_minor=one.value_minor,
        )
        for place, one in enumerate(paid)
    ]


def times_of(steps: Sequence[DealStep]) -> list[datetime]:
    """When the deal came to stand so, step by step: what is told later to have happened earlier pushes back the rest.

    A deal that is closed was closed when its newest change says, and was opened at its `opened_at` at the latest.
    """
    end = _end_of_open(steps)
    told = [*(step.at for step in steps[:end]), *(closed_at(steps) for _ in steps[end:])]
    times = list(accumulate(reversed(told), min))[::-1]
    return [min(times[0], steps[-1].opened_at), *times[1:]]


def closed_at(steps: Sequence[DealStep]) -> datetime:
    """When a closed deal was closed."""
    return steps[-1].closed_at or steps[_end_of_open(steps)].at


def _end_of_open(steps: Sequence[DealStep]) -> int:
    """Where in the steps of a deal the last run of closed ones begins; their number, where the deal is open."""
    end = len(steps)
    while end and steps[end - 1].status != "open":
        end -= 1
    return end


def _deal(deal_id: DealId, steps: Sequence[DealStep]) -> list[Mark]:
    newest, times = steps[-1], times_of(steps)
    owner, currency = newest.owner, newest.currency
    marks = [Mark("created", "", deal_id, times[0], owner, currency, value_minor=newest.value_minor)]
    before: DealStep | None = None
    for step, at in zip(steps, times, strict=True):
        for sign, standing in ((-1, before), (1, step)):
            if standing is not None and standing.status == "open":
                value = sign * standing.value_minor
                weighted = value * standing.probability
                marks.append(Mark("open", standing.stage, deal_id, at, owner, currency, sign, value, weighted))
        before = step
    if newest.status != "open":
        lapse = lapse_between(times[0], times[-1])
        kind = newest.status
        marks.append(Mark(kind, "", deal_id, times[-1], owner, currency, value_minor=newest.value_minor, lapse=lapse))
    return marks + deal_way(deal_id, steps, times, owner)


def _recurring(deal_id: DealId, steps: Sequence[DealStep], *, is_customer: bool) -> list[Mark]:
    """What a won deal brings every month, and how that changed since; what is told as of the win corrects it."""
    closed, newest = closed_at(steps), steps[-1]
    after = steps[_end_of_open(steps) :]
    times = list(accumulate((step.at for step in reversed(after)), min))[::-1]
    begins = max(place for place, at in enumerate(times) if not place or at <= closed)
    monthly = after[begins].recurring_minor
    marks = [(closed, "expansion" if is_customer else "new", monthly)]
    for step, at in zip(after[begins + 1 :], times[begins + 1 :], strict=True):
        change = step.recurring_minor - monthly
        kind = "expansion" if change > 0 else "contraction" if step.recurring_minor else "churn"
        marks.append((at, kind, change))
        monthly = step.recurring_minor
    return [
        Mark("recurring", kind, deal_id, at, newest.owner, newest.currency, value_minor=change)
        for at, kind, change in marks
        if change
    ]
