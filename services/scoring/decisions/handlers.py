"""Take decisions about the stage of a lead by hand: each with its author and reason, told like any stage change."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import orjson

from services.scoring.decisions import queries
from services.scoring.decisions.domain import Decision, Kind, StageRefused, check_set_aside, check_stage
from services.scoring.decisions.reasons import ReasonsIn, check_reason
from services.scoring.errors import NoSuchLead
from services.scoring.parts import Parts
from services.scoring.people.queries import lock_people
from services.scoring.stages.domain import FIRST, StageRules
from services.scoring.stages.handlers import settle
from services.scoring.stages.queries import Stood, lock_stood, vanish
from shared.db import Tx
from shared.errors import Conflict, FieldError, Invalid
from shared.events import LeadErased, Stage
from shared.identity import resolve
from shared.ids import LeadId

LONGEST = timedelta(days=1_095)
_EVER = datetime.min.replace(tzinfo=UTC)


class NoteRefused(Conflict):
    """A note is kept with the key of a person, so that it goes when they are erased; here is no key."""

    slug = "scoring/note-refused"
    title = "No note can be kept about this lead"


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to decide, and why. `stage` is where to, `until` when a recycled lead returns."""

    kind: Kind
    reason: str
    author: str
    note: str | None = None
    stage: Stage | None = None
    until: datetime | None = None


async def decide(tx: Tx, parts: Parts, reasons: ReasonsIn, lead_id: LeadId, wish: Wish) -> LeadId:
    """Carry out a wish; answers whose stage it is about.

    Raises NoSuchLead, Invalid for a reason that is not listed, and StageRefused for what makes no sense.
    """
    reason = check_reason(reasons, wish.kind, wish.reason, wish.note)
    person_id, stood, rules = await _stood_now(tx, parts, lead_id)
    now = max(await parts.present(tx.connection), stood.since or _EVER)
    decision = replace(_decision(wish, stood, rules, now), lead_id=person_id)
    if stood.decision is not None and stood.decision.ended_at is None:
        why = decision.end_reason or "another decision took its place"
        await queries.end(tx.connection, replace(stood.decision, ended_at=now, end_reason=why), wish.author)
    await queries.add(
        tx.connection,
        decision,
        kind=wish.kind,
        reason=wish.reason,
        author=wish.author,
        sealed=await _sealed(tx, parts, person_id, wish.note),
        of_record=reason.about == "record",
    )
    if decision.ended_at is not None:
        await queries.end(tx.connection, decision, wish.author)
    await settle(tx, parts, {person_id: f"decision:{decision.decision_id}"}, replan=True, decided=True)
    return person_id


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Forget what was decided about an erased person, and where they stood; nobody judges them any more."""
    await queries.forget(tx.connection, [event.lead_id])
    await vanish(tx.connection, event.lead_id)


async def _stood_now(tx: Tx, parts: Parts, lead_id: LeadId) -> tuple[LeadId, Stood, StageRules]:
    """Where the person behind an id stands after all that time alone has turned; locked."""
    person_id = await resolve(tx.connection, lead_id)
    person = (await lock_people(tx.connection, [person_id])).get(person_id)
    stood = (await lock_stood(tx.connection, [person_id]))[person_id]
    if person is None or stood.erased:
        raise NoSuchLead(f"nothing was told here about a lead {lead_id[:100]}")
    if stood.due is not None and stood.due.at <= await parts.present(tx.connection):
        await settle(tx, parts, {person_id: "due"}, replan=True, due=True)
        stood = (await lock_stood(tx.connection, [person_id]))[person_id]
    return person_id, stood, (await parts.rules.at_version(tx.connection, person.rules_version)).stages


def _decision(wish: Wish, stood: Stood, rules: StageRules, now: datetime) -> Decision:
    stands, ruled = stood.verdict.stage, stood.verdict.by_rules.stage
    decision_id, because = str(uuid4()), f"by hand, {wish.reason}"
    match wish.kind:
        case "disqualify":
            check_set_aside("disqualify", stands, ruled)
            return Decision(decision_id, "disqualified", now, because)
        case "recycle":
            check_set_aside("recycle", stands, ruled)
            return Decision(decision_id, "recycled", now, because, _until(wish.until, now, now + rules.recycling.after))
        case "set_stage":
            stage = wish.stage or FIRST
            check_stage(stage, stands, ruled, [FIRST, *(rule.stage for rule in rules.rules if rule.stage != FIRST)])
            return Decision(decision_id, stage, now, because)
        case "requalify":
            if stood.verdict.decision is None and stands != "recycled":
                raise StageRefused(f"the lead is at {stands} by the rules; no decision stands that could be undone")
            return Decision(decision_id, stands, now, because, None, now, f"requalified {because}")


def _until(wished: datetime | None, now: datetime, otherwise: datetime) -> datetime:
    if wished is None:
        return otherwise
    if not now < wished <= now + LONGEST:
        detail = f"lies after now and at most {LONGEST.days} days ahead"
        raise Invalid("look at /until", [FieldError("/until", detail)])
    return wished


async def _sealed(tx: Tx, parts: Parts, person_id: LeadId, note: str | None) -> str | None:
    if not note:
        return None
    blocks = await parts.keys.seal_known(tx.connection, {person_id: orjson.dumps({"note": note})})
    if person_id not in blocks:
        raise NoteRefused("nobody is known under this id, so that a note could not be erased; leave it out")
    return blocks[person_id]
