"""Renewals: before a contract ends, a deal to renew it is opened, once, and follows the contract until it ends."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from dateutil.relativedelta import relativedelta

from services.routing.deals import queries
from services.routing.deals.changes import Stages, Written, opening_of
from services.routing.deals.domain import Deal, amounts, opened_deal
from services.routing.deals.handlers import stages_of
from services.routing.deals.inputs import DealInput, Terms
from services.routing.deals.lines import MOST_MINOR, total_minor
from services.routing.deals.pipeline import OTHER, RenewalShape
from services.routing.deals.saving import opening_outcome, outcome_of, save
from services.routing.deals.sealing import opened
from services.routing.deals.story import Change, Entry
from services.routing.errors import NoSuchPipeline
from services.routing.parts import Parts
from shared.db import Tx, agreed_now
from shared.ids import DealId, derived_id
from shared.telemetry import counter

RENEWALS = counter("throughline_routing_renewals_total", "Renewals opened before contracts end")
BY = "throughline"
AT_ONCE = 50
LATE = timedelta(days=30)
"""A contract that ended longer ago is history, told by an import: nobody renews it."""
NOT_WON = "the deal that it renews is not won any more"
TOGETHER = (
    ("lines", "value_minor", "recurring_minor"),
    ("expected_close_on",),
    ("contract_starts_on",),
    ("contract_ends_on",),
    ("rep_id",),
    ("stakeholders",),
)
"""What of a renewal follows its contract, each for itself; the amounts as one."""


async def open_renewals(parts: Parts) -> timedelta | None:
    """Open the renewals that are due; answers no wait when there may be more."""
    made = 0
    async with parts.runtime.database.transaction() as tx:
        now = await agreed_now(tx.connection, parts.runtime.clock)
        for name in await parts.pipelines.names(tx.connection):
            renewal = (await parts.pipelines.of_deal(tx.connection, name)).renewal
            if renewal is None or made >= AT_ONCE:
                continue
            today = renewal.today(now)
            until = today + timedelta(days=renewal.days_before)
            stored = await queries.renewable(tx.connection, name, (today - LATE, until), AT_ONCE - made, BY)
            deals = await opened(tx.connection, parts.runtime.keys, stored)
            for deal in deals:
                await _renew(tx, parts, deal, renewal)
            made += len(deals)
    RENEWALS.inc(made)
    return timedelta(0) if made >= AT_ONCE else None


async def follow_contract(tx: Tx, parts: Parts, before: Deal, after: Deal) -> None:
    """What a change of a won deal means for the renewals of it that are open.

    What somebody has set in a renewal stays as they set it; the rest is again as the contract says. When the deal is
    won no more there is nothing to renew, and they are lost.
    """
    is_as_it_was = (terms_of(before), before.name) == (terms_of(after), after.name)
    if before.status != "won" or (after.status == "won" and is_as_it_was):
        return
    for known in await opened(tx.connection, parts.runtime.keys, await queries.open_renewals(tx.connection, after)):
        pipeline = await parts.pipelines.of_deal(tx.connection, known.pipeline_id)
        entries = await queries.entries(tx.connection, known)
        now = await agreed_now(tx.connection, parts.runtime.clock)
        written = Written(known.name, known.reason, known.notes)
        if after.status == "won":
            sets = followed(known, before, after)
            if known.name == name_of(before) != name_of(after):
                sets, written = {**sets, "texts": ("name",)}, replace(written, name=name_of(after))
        else:
            sets = {"lost": True, "lost_reason": OTHER if OTHER in pipeline.lost_reasons else None}
            written = replace(written, reason=NOT_WON, remark=NOT_WON)
        entry = Entry(known.revision + 1, max(now, known.changed_at), Change(**sets), BY)
        outcome = outcome_of(known, entries, [entry], written)
        if outcome.changed:
            await save(tx, parts, outcome, pipeline)


def followed(renewal: Deal, before: Deal, after: Deal) -> dict[str, Any]:
    """What is set in a renewal when its deal changes: what it still has from the deal as that was before. Pure."""
    was, is_now = terms_of(before), terms_of(after)
    sets: dict[str, Any] = {}
    for names in TOGETHER:
        had = {name: was[name] for name in names}
        if had != {name: is_now[name] for name in names} and had == {name: getattr(renewal, name) for name in names}:
            sets |= {name: is_now[name] for name in names}
    starts, ends = (sets.get(name, getattr(renewal, name)) for name in ("contract_starts_on", "contract_ends_on"))
    if starts is not None and ends is not None and ends < starts:
        sets["contract_ends_on"] = is_now["contract_ends_on"]  # somebody's, of a contract that is no more
    return sets


def terms_of(deal: Deal) -> dict[str, Any]:
    """What is to be renewed: what recurs, for another year, and where nothing does, the same again.

    It begins the day after the contract ends, and lasts as long, or where nobody said since when, a year. Pure.
    """
    lines = tuple(line for line in deal.lines if line.recurring is not None)
    if not total_minor(lines):
        lines = ()
    value = min(deal.annual_minor or deal.value_minor, MOST_MINOR)  # a year of the largest amount is larger
    told = Terms(lines=lines, recurring_minor=None if lines else deal.recurring_minor)
    value_minor, recurring_minor = amounts(told, None if lines else value)
    starts = _day_after(deal.contract_ends_on)
    return {
        "lines": lines,
        "value_minor": value_minor,
        "recurring_minor": recurring_minor,
        "expected_close_on": deal.contract_ends_on,
        "contract_starts_on": starts,
        "contract_ends_on": _last_day(deal.contract_starts_on, starts),
        "rep_id": deal.rep_id,
        "stakeholders": deal.stakeholders,
    }


def name_of(deal: Deal) -> str:
    """What a renewal is called."""
    return f"Renewal of {deal.name}"[:500]


def _day_after(day: date | None) -> date | None:
    return None if day is None or day == date.max else day + timedelta(days=1)


def _last_day(began: date | None, starts: date | None) -> date | None:
    """The last day of a term that starts then and lasts as long as the one before it, which began on `began`.

    Whole months are counted as months, so that a year stays a year with a 29 February in it and without, and from a day
    that the last month has not, to its last one.
    """
    if starts is None:
        return None
    lasts = relativedelta(years=1) if began is None else relativedelta(starts, began)
    if began is not None and lasts.days == 1 and (starts - timedelta(days=1)).day < began.day:
        lasts -= relativedelta(days=1)
    try:
        ends: date = starts + lasts - timedelta(days=1)
    except (OverflowError, ValueError):  # after the year 9999
        return None
    return ends


async def _renew(tx: Tx, parts: Parts, deal: Deal, renewal: RenewalShape) -> None:
    """Open the renewal of a deal: its id follows from the deal, when it was won, and those before: so there is one."""
    try:
        await parts.pipelines.current(tx.connection, renewal.pipeline)
        stages: Stages = await stages_of(tx.connection, parts, renewal.pipeline)
    except NoSuchPipeline:
        stages = await stages_of(tx.connection, parts, deal.pipeline_id)
    told = DealInput.model_validate(_told(deal))
    at = await agreed_now(tx.connection, parts.runtime.clock)
    before = await queries.renewals(tx.connection, deal.deal_id)
    names = (str(deal.closed_at), str(before)) if before else (str(deal.closed_at),)
    renewal_id = DealId(derived_id("renewal", deal.deal_id, *names))
    blank = opened_deal(renewal_id, told, stages.pipeline, deal.rep_id, at)
    await save(tx, parts, opening_outcome(blank, [opening_of(blank, stages, BY)]), stages.pipeline)


def _told(deal: Deal) -> Mapping[str, Any]:
    terms = terms_of(deal)
    if terms["lines"]:  # both follow from them
        del terms["value_minor"], terms["recurring_minor"]
    told = {"lead_id": deal.lead_id, "name": name_of(deal), "currency": deal.currency, "renewal_of": deal.deal_id}
    return {**told, **{name: value for name, value in terms.items() if value not in (None, ())}}
