"""Somebody said something about consent: it is written into the ledger and told, each word once."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from services.capture.consent import queries
from services.capture.consent.domain import ConsentWord
from services.capture.errors import Contended, NoSuchLead
from services.capture.leads.queries import families_of, lock_roots, root_of
from services.capture.leads.telling import Cause
from shared.consents import MARKETING
from shared.db import Tx
from shared.events import ConsentChanged, ConsentRequested
from shared.ids import EventId, LeadId, derived_id
from shared.personal import Draft, PersonErased
from shared.service import Runtime


async def tell_words(lead_id: LeadId, words: Sequence[ConsentWord], cause: Cause, tx: Tx, runtime: Runtime) -> int:
    """Write words into the ledger and tell them; answers how many were new. The lead's row must be locked."""
    return (await tell_words_of_each([(lead_id, words, cause)], tx, runtime))[0]


Said = tuple[LeadId, Sequence[ConsentWord], Cause]


async def tell_words_of_each(said: Sequence[Said], tx: Tx, runtime: Runtime) -> list[int]:
    """The same for many calls, in a few statements: for each how many of its words were new."""
    drafts: dict[EventId, tuple[int, Draft]] = {}
    for index, (lead_id, told, cause) in enumerate(said):
        for word in told:
            draft = consent_draft(lead_id, word, cause)
            drafts.setdefault(draft.event.event_id, (index, draft))
    known = await queries.standing(tx.connection, list(drafts)) if drafts else set()
    fresh = [each for event_id, each in drafts.items() if event_id not in known]
    if fresh:
        facts = await runtime.keys.seal_drafts(tx, [draft for _, draft in fresh])
        tx.emit(*facts)
        await queries.tell(
            tx.connection, [fact for fact in facts if isinstance(fact, ConsentChanged | ConsentRequested)]
        )
    counts = Counter(index for index, _ in fresh)
    return [counts[index] for index in range(len(said))]


async def tell_words_of(lead_id: LeadId, words: Sequence[ConsentWord], cause: Cause, tx: Tx, runtime: Runtime) -> int:
    """The same for a lead by its id. Raises NoSuchLead, or PersonErased."""
    root = await root_of(tx.connection, lead_id)
    if root is None:
        raise NoSuchLead(f"there is no lead {lead_id}")
    if not await lock_roots(tx.connection, [root]):
        raise Contended("somebody else merged this lead just now")
    family = (await families_of(tx.connection, runtime.keys, [root]))[root]
    if family.root.erased_at is not None:
        raise PersonErased(f"the person behind lead {lead_id} was erased")
    if family.root.revision == 0:
        raise NoSuchLead(f"there is no lead {lead_id}")
    return await tell_words(lead_id if lead_id in family.members else root, words, cause, tx, runtime)


def consent_draft(lead_id: LeadId, word: ConsentWord, cause: Cause) -> Draft:
    """What a person said about a channel and purpose; the same said twice is one fact, whatever proves it."""
    at = word.at or cause.occurred_at
    personal = word.evidence.model_dump_json(exclude_none=True).encode() if word.evidence else None
    event_id = _event_id(lead_id, word, at, cause.origin)
    if word.state == "pending":
        asked = ConsentRequested(
            event_id=event_id,
            lead_id=lead_id,
            occurred_at=at,
            received_at=cause.received_at,
            channel=word.channel,
            purpose=word.purpose,
            origin=cause.origin,
            reason=cause.reason,
        )
        return Draft(asked, personal)
    said = ConsentChanged(
        event_id=event_id,
        lead_id=lead_id,
        occurred_at=at,
        received_at=cause.received_at,
        channel=word.channel,
        state=word.state,
        purpose=word.purpose,
        origin=cause.origin,
        reason=cause.reason,
    )
    return Draft(said, personal)


def _event_id(lead_id: LeadId, word: ConsentWord, at: datetime, origin: str) -> EventId:
    purpose = [] if word.purpose == MARKETING else [word.purpose]
    return EventId(derived_id("consent-changed", lead_id, word.channel, word.state, at.isoformat(), origin, *purpose))


async def on_consent(event: ConsentChanged | ConsentRequested, tx: Tx) -> None:
    """Keep in the one ledger what other services heard, and what an older copy of this database does not know."""
    await queries.tell(tx.connection, [event])
