"""Renewals: before a contract ends, a deal to renew it is opened, once."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from services.routing.deals import queries
from services.routing.deals.changes import Stages, opening_of
from services.routing.deals.domain import Deal, opened_deal
from services.routing.deals.handlers import stages_of
from services.routing.deals.inputs import DealInput
from services.routing.deals.lines import MOST_MINOR, total_minor
from services.routing.deals.pipeline import RenewalShape
from services.routing.deals.saving import opening_outcome, save
from services.routing.deals.sealing import opened
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


async def open_renewals(parts: Parts) -> timedelta | None:
    """Open the renewals that are due; answers no wait when there may be more."""
    made = 0
    async with parts.runtime.database.transaction() as tx:
        today = (await agreed_now(tx.connection, parts.runtime.clock)).date()
        for name in await parts.pipelines.names(tx.connection):
            renewal = (await parts.pipelines.of_deal(tx.connection, name)).renewal
            if renewal is None or made >= AT_ONCE:
                continue
            until = today + timedelta(days=renewal.days_before)
            stored = await queries.renewable(tx.connection, name, (today - LATE, until), AT_ONCE - made)
            deals = await opened(tx.connection, parts.runtime.keys, stored)
            for deal in deals:
                await _renew(tx, parts, deal, renewal)
            made += len(deals)
    RENEWALS.inc(made)
    return timedelta(0) if made >= AT_ONCE else None


async def _renew(tx: Tx, parts: Parts, deal: Deal, renewal: RenewalShape) -> None:
    """Open the renewal of a deal: its id follows from the deal and when it was won, so that there is one."""
    try:
        await parts.pipelines.current(tx.connection, renewal.pipeline)
        stages: Stages = await stages_of(tx.connection, parts, renewal.pipeline)
    except NoSuchPipeline:
        stages = await stages_of(tx.connection, parts, deal.pipeline_id)
    told = DealInput.model_validate(_terms(deal))
    at = await agreed_now(tx.connection, parts.runtime.clock)
    renewal_id = DealId(derived_id("renewal", deal.deal_id, str(deal.closed_at)))
    blank = opened_deal(renewal_id, told, stages.pipeline, deal.rep_id, at)
    await save(tx, parts, opening_outcome(blank, [opening_of(blank, stages, BY)]), stages.pipeline)


def _terms(deal: Deal) -> Mapping[str, Any]:
    """What is to be renewed: what recurs, for another year, and where nothing does, the same again."""
    assert deal.contract_ends_on is not None  # it is due by it
    lines = [line for line in deal.lines if line.recurring is not None]
    terms: dict[str, Any] = {
        "lead_id": deal.lead_id,
        "name": f"Renewal of {deal.name}"[:500],
        "currency": deal.currency,
        "rep_id": deal.rep_id,
        "expected_close_on": deal.contract_ends_on,
        "contract_starts_on": deal.contract_ends_on + timedelta(days=1),
        "renewal_of": deal.deal_id,
        "stakeholders": deal.stakeholders or None,
    }
    if lines and total_minor(lines):
        return terms | {"lines": tuple(lines)}
    value = min(deal.annual_minor or deal.value_minor, MOST_MINOR)  # a year of the largest amount is larger
    return terms | {"value_minor": value, "recurring_minor": deal.recurring_minor}
