"""What happens to deals, and what is told about it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.routing.deals import queries
from services.routing.deals.changes import Stages, Teller, change_of, new_entries, opening_of, reopening_of
from services.routing.deals.domain import Deal, deal_id_of, opened_deal
from services.routing.deals.gates import Gap, gaps_in, gaps_of_move, reads_lead
from services.routing.deals.inputs import DealChange, DealInput, Reopening, Stakeholder, Terms
from services.routing.deals.lines import Line
from services.routing.deals.pipeline import DEFAULT_ID
from services.routing.deals.saving import Outcome, keep, opening_outcome, outcome_of, save
from services.routing.deals.sealing import mark_of, opened
from services.routing.deals.story import FIELDS, Change, Entry, steps_of
from services.routing.errors import DealChangedMeanwhile, DealExists, DealNotReady, NoSuchDeal, NoSuchPipeline
from services.routing.parts import Parts
from services.routing.people.handlers import person
from services.routing.people.queries import is_known
from services.routing.reps.queries import unknown_reps
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid, Unavailable
from shared.events import DealChanged
from shared.ids import DealId, LeadId, RepId
from shared.personal import PersonKeys
from shared.telemetry import log

MARK_UNDER_WAY = timedelta(seconds=3)
"""So long a mark in the feed of leads may take from capture to here."""
LOOK_EVERY = timedelta(milliseconds=50)
VERSION_OF_IDS = 8


async def await_lead(parts: Parts, lead_id: LeadId) -> None:
    """Until the lead is known here: a caller who just made it may be ahead of Kafka.

    Raises Invalid when there is no such lead: all that was told before the question is here, and it is not among it.
    Raises Unavailable when that cannot be said.
    """
    runtime, time = parts.runtime, asyncio.get_running_loop().time
    until = time() + (runtime.settings.watermark_every + MARK_UNDER_WAY).total_seconds()
    async with runtime.database.reading() as connection:
        asked = await agreed_now(connection, runtime.clock)
    while True:
        async with runtime.database.reading() as connection:
            # In this order: who looks after the mark was seen misses nothing that was told before it.
            waited = await agreed_now(connection, runtime.clock) - asked
            is_all_here = await runtime.feeds.fresh(connection, "leads", waited)
            if await is_known(connection, (await person(connection, lead_id)).ids):
                return
            if not _is_an_id(lead_id) or (is_all_here and not await runtime.feeds.parked(connection, [lead_id])):
                raise Invalid("look at /lead_id", [FieldError("/lead_id", "is not the id of a lead")])
        if time() >= until:
            raise Unavailable("what is told of leads is not all here, so that this one may yet be among it", 5)
        await asyncio.sleep(LOOK_EVERY.total_seconds())


def _is_an_id(lead_id: LeadId) -> bool:
    """Whether capture makes such ids, so that there may be a lead of whom nothing was heard here yet."""
    try:
        return UUID(lead_id).version == VERSION_OF_IDS
    except ValueError:
        return False


async def open_new_deal(tx: Tx, parts: Parts, told: DealInput, by: str) -> tuple[Deal, bool]:
    """Open a deal. Answers it and whether it is new; with an external id, the same told again is the same deal.

    Raises DealExists when the external id was told with other values, DealNotReady, Invalid.
    """
    stages = await stages_of(tx.connection, parts, told.pipeline or DEFAULT_ID)
    rep_id = await rep_of(tx.connection, told)
    if rep_id is None:
        rep_id = await queries.owner_of(tx.connection, (await person(tx.connection, told.lead)).ids)
    if told.renewal_of is not None and await queries.deal_by_id(tx.connection, DealId(told.renewal_of)) is None:
        raise Invalid("look at /renewal_of", [FieldError("/renewal_of", "is not the id of a deal")])
    deal_id = deal_id_of(told.external_id)
    at = await agreed_now(tx.connection, parts.runtime.clock)
    blank = opened_deal(deal_id, told, stages.pipeline, rep_id, at)
    outcome = opening_outcome(blank, [opening_of(blank, stages, by)])
    mark, keys = mark_of(told, parts.runtime.secrets), parts.runtime.keys
    known = await deal_by_id(tx.connection, keys, deal_id) if told.external_id is not None else None
    if known is None:
        refuse_gaps(await _gaps(tx.connection, parts, None, outcome.after, stages), force=False)
        deal = await save(tx, parts, outcome, stages.pipeline, mark=mark)
        if deal is not None:
            return deal, True
        known = await deal_by_id(tx.connection, keys, deal_id)
    before = await queries.opened_with(tx.connection, deal_id)
    if known is None or (before is not None and before not in (mark, told.as_json())):
        detail = f"deal {deal_id} has this external id and was opened with other values; change that one"
        raise DealExists(detail, [FieldError("/external_id", "is another deal's")])
    return known, False


async def change(  # noqa: PLR0913  # what a change is made of
    tx: Tx, parts: Parts, deal_id: DealId, told: DealChange, by: str, expected: int | None = None
) -> tuple[Deal, Deal]:
    """Change a deal; the same change again changes nothing. What a won deal made is told as one conversion.

    Answers how it stood and stands. Raises DealChangedMeanwhile where `expected` is not its revision.
    """
    before, entries = await locked_deal(tx, parts, deal_id, expected)
    stages = await _stages_told(tx.connection, parts, told.pipeline, before)
    await rep_of(tx.connection, told)
    teller = Teller(by, await agreed_now(tx.connection, parts.runtime.clock))
    entry, written = change_of(steps_of(before, entries), before, told, stages, teller)
    outcome = outcome_of(before, entries, [entry], written)
    if not outcome.changed:
        if told.occurred_at is not None and new_entries([entry], entries, entry.number):
            before = await keep(tx, before, entry)
        return before, before
    gaps = await _gaps(tx.connection, parts, before, outcome.after, stages)
    refuse_gaps(gaps, force=told.force)
    if gaps:
        forced = entry.change.model_copy(update={"forced": tuple(gap.name for gap in gaps)})
        outcome = replace(outcome, told=[replace(entry, change=forced)])
    elif told.force and not told.lost:
        outcome = _unforced(outcome, before)
    after = await save(tx, parts, outcome, stages.pipeline)
    assert after is not None  # it was there before
    return before, after


async def reopen(  # noqa: PLR0913  # the same
    tx: Tx, parts: Parts, deal_id: DealId, told: Reopening, by: str, expected: int | None = None
) -> tuple[Deal, Deal]:
    """Open a closed deal again; the money that it made is taken back. Answers how it stood and stands."""
    before, entries = await locked_deal(tx, parts, deal_id, expected)
    stages = await stages_of(tx.connection, parts, before.pipeline_id)
    teller = Teller(by, await agreed_now(tx.connection, parts.runtime.clock))
    entry, written = reopening_of(steps_of(before, entries), before, told, stages, teller)
    after = await save(tx, parts, outcome_of(before, entries, [entry], written), stages.pipeline)
    assert after is not None
    return before, after


async def locked_deal(tx: Tx, parts: Parts, deal_id: DealId, expected: int | None = None) -> tuple[Deal, list[Entry]]:
    """A deal, locked and opened, and all that was told of it.

    Raises NoSuchDeal, and DealChangedMeanwhile where it has another revision than is `expected`.
    """
    deal = await deal_by_id(tx.connection, parts.runtime.keys, deal_id, locked=True)
    if deal is None:
        raise NoSuchDeal(f"there is no deal {deal_id[:100]}")
    if expected is not None and deal.revision != expected:
        detail = f"the deal is at revision {deal.revision}, you started from {expected}: read it, then send it again"
        raise DealChangedMeanwhile(detail)
    return deal, await queries.entries(tx.connection, deal)


async def stages_of(connection: Connection, parts: Parts, pipeline_id: str) -> Stages:
    """A pipeline with what was measured of it. Raises Invalid where there is none of this id."""
    try:
        pipeline = await parts.pipelines.current(connection, pipeline_id)
    except NoSuchPipeline as exc:
        known = ", ".join(await parts.pipelines.names(connection))
        detail = f"there is no pipeline {pipeline_id[:100]}; there are {known}"
        raise Invalid("look at /pipeline", [FieldError("/pipeline", detail)]) from exc
    return Stages(pipeline, await queries.measured(connection, pipeline_id))


async def rep_of(connection: Connection, told: Terms) -> RepId | None:
    """The rep who is told, if one is. Raises Invalid for one that there is not."""
    if told.rep_id is None:
        return None
    rep_id = RepId(told.rep_id)
    if await unknown_reps(connection, [rep_id]):
        raise Invalid("look at /rep_id", [FieldError("/rep_id", "is not the id of a rep")])
    return rep_id


def refuse_gaps(gaps: Sequence[Gap], *, force: bool) -> None:
    """Raise DealNotReady for what is missing, unless the move is forced and may be."""
    held = [gap for gap in gaps if not (force and gap.may_force)]
    if not held:
        return
    if force:
        how = "its stage does not allow to force it"
    else:
        how = "force it with a reason, or add it" if all(gap.may_force for gap in held) else "add it"
    raise DealNotReady(f"the deal misses {', '.join(gap.name for gap in held)}; {how}", [gap.fault for gap in held])


async def lead_values(connection: Connection, parts: Parts, deal: Deal) -> Mapping[str, Any]:
    """`lead` for criteria."""
    lead: Mapping[str, Any] = (await person(connection, deal.lead_id, keys=parts.runtime.keys)).values().get("lead", {})
    return lead


async def deal_by_id(connection: Connection, keys: PersonKeys, deal_id: DealId, *, locked: bool = False) -> Deal | None:
    """A deal, opened."""
    stored = await queries.deal_by_id(connection, deal_id, locked=locked)
    return None if stored is None else (await opened(connection, keys, [stored]))[0]


async def on_deals_changed(events: Sequence[DealChanged], tx: Tx) -> None:
    """Deals that were published, folded back: how a database restored to an earlier copy learns of them."""
    known = await queries.known_revisions(tx.connection, [event.deal_id for event in events])
    for event in sorted(events, key=lambda event: event.revision):
        if known.get(event.deal_id, 0) < event.revision:
            log.warning("deal_recovered", deal_id=event.deal_id)
            deal = _deal(event)
            if event.begins:
                await queries.drop_history(tx.connection, event.deal_id, event.begins)
            await queries.add_history(tx.connection, deal, [_entry(deal)])
            entries = await queries.entries(tx.connection, deal)
            await queries.put_deal(tx.connection, replace(deal, passed=steps_of(deal, entries)[-1].deal.passed))


async def _gaps(
    connection: Connection, parts: Parts, before: Deal | None, after: Deal, stages: Stages
) -> Sequence[Gap]:
    """What a deal misses to stand where it is to stand; nothing is asked of one that stays, or is lost."""
    pipeline = stages.pipeline
    moves = before is None or (before.stage, before.pipeline_id) != (after.stage, after.pipeline_id)
    if not moves or after.status == "lost" or (before is not None and before.status != "open"):
        return ()
    lead = await lead_values(connection, parts, after) if reads_lead(pipeline) else {}
    order: Sequence[str] = ()
    if before is not None and pipeline.stage(before.stage) is None:
        order = await parts.pipelines.order(connection, before)
    gaps = gaps_of_move(before, after, lead, pipeline, order)
    if after.status == "won" and pipeline.handoff is not None and pipeline.handoff.block:
        gaps = [*gaps, *gaps_in(pipeline.handoff.required, after, lead)]
    return list({gap.name: gap for gap in gaps}.values())


async def _stages_told(connection: Connection, parts: Parts, pipeline_id: str | None, deal: Deal) -> Stages:
    if pipeline_id is not None:
        return await stages_of(connection, parts, pipeline_id)
    pipeline = await parts.pipelines.of_deal(connection, deal.pipeline_id)
    return Stages(pipeline, await queries.measured(connection, pipeline.pipeline_id))


def _unforced(outcome: Outcome, before: Deal) -> Outcome:
    """Nothing had to be forced, so that no reason for it is kept."""
    return replace(outcome, after=replace(outcome.after, remarks=before.remarks))


def _entry(deal: Deal) -> Entry:
    """What was told of a deal, as a change that sets all of it."""
    sets: dict[str, Any] = {name: getattr(deal, name) for name in FIELDS}
    if deal.status == "open":
        names = ("stage", "probability", "pipeline_id", "pipeline_version")
        sets |= {"reopened": True} | {name: getattr(deal, name) for name in names}
    else:
        sets |= {deal.status: True, "corrects": deal.closed_at == deal.changed_at, "lost_reason": deal.lost_reason}
    return Entry(deal.revision, deal.changed_at, Change(**sets))


def _deal(event: DealChanged) -> Deal:
    return Deal(
        deal_id=event.deal_id,
        lead_id=event.lead_id,
        revision=event.revision,
        external_id=event.external_id,
        name=event.name,
        status=event.status,
        stage=event.stage,
        probability=event.probability,
        value_minor=event.value_minor,
        currency=event.currency,
        recurring_minor=event.recurring_minor,
        rep_id=event.rep_id,
        pipeline_version=event.pipeline_version or 0,
        opened_at=event.opened_at,
        changed_at=event.occurred_at,
        closed_at=event.closed_at,
        reason=event.reason,
        conversion_id=event.conversion_id,
        sealed=event.personal,
        pipeline_id=event.pipeline_id or DEFAULT_ID,
        expected_close_on=event.expected_close_on,
        contract_starts_on=event.contract_starts_on,
        contract_ends_on=event.contract_ends_on,
        lines=tuple(Line.model_validate(line.model_dump()) for line in event.lines),
        stakeholders=tuple(Stakeholder.model_validate(one.model_dump()) for one in event.stakeholders),
        renewal_of=event.renewal_of,
        lost_reason=event.lost_reason,
    )
