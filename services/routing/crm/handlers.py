"""From a fact on its way to a CRM to the record there: what is known now, whose it is, the call, what the answer means.

Records are written by an id of ours or the address, so that a fact delivered twice is one record; by the CRM's own id
once it is known, where they are found by the address, since that can change.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, assert_never
from weakref import WeakValueDictionary

import orjson

from services.routing.assignments import queries as assignments
from services.routing.crm import queries
from services.routing.crm.domain import (
    BY_ADDRESS,
    DEAL,
    ERASED,
    INCOMPLETE,
    MERGED,
    STAGE,
    Crm,
    Reading,
    Record,
    Ways,
    deal_values,
    filled,
    stands,
)
from services.routing.crm.hubspot import HubSpot
from services.routing.crm.profiles import person_told
from services.routing.crm.records import Records
from services.routing.crm.salesforce import Salesforce
from services.routing.crm.sessions import NotLetIn, Session, Where, ask, call_with_token, no_answer, token_of, write
from services.routing.crm.zoho import Zoho
from services.routing.deals.handlers import deal_by_id
from services.routing.people.domain import Person
from services.routing.reps.queries import reps_of
from services.routing.webhooks.domain import CLAIM_FOR
from services.routing.webhooks.queries import Claimed
from shared.db import Connection, agreed_now
from shared.identity import resolve
from shared.ids import DealId, LeadId, RepId
from shared.outbound import AddressRefused, Answer, NoAnswer, Outbound
from shared.personal import KeysAwaited
from shared.service import Runtime
from shared.webhooks import Verdict, verdict_on_silence, verdict_to_try_again

CRMS: Mapping[str, Crm] = MappingProxyType({"salesforce": Salesforce(), "hubspot": HubSpot(), "zoho": Zoho()})
USERS_KEPT_S = 600
LET_IN_AGAIN = timedelta(minutes=5)
"""So long what a CRM does not let in waits: until somebody mends the credentials, however long that takes."""
LONGEST_S = 50.0
"""A fact takes less than a claim lasts, however many calls it takes: or somebody else would begin it anew."""


class CrmWriter:
    """Writes what is delivered to connections with CRMs."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sessions: dict[str, Session] = {}
        self._records = Records(runtime)
        self._turns: WeakValueDictionary[tuple[str, LeadId], asyncio.Lock] = WeakValueDictionary()

    async def deliver(self, outbound: Outbound, claimed: Claimed, body: bytes) -> Verdict:
        """One fact, as a record of the CRM."""
        told = orjson.loads(body)
        try:
            async with asyncio.timeout(LONGEST_S):
                return await self._deliver(outbound, claimed, told)
        except AddressRefused as exc:
            return Verdict("failed", exc.detail)
        except NoAnswer as exc:
            return verdict_on_silence(exc.detail, claimed.attempts, claimed.delivery_id)
        except TimeoutError:
            return verdict_on_silence(f"not done within {LONGEST_S:g} seconds", claimed.attempts, claimed.delivery_id)
        except KeysAwaited as exc:
            return verdict_to_try_again(str(exc), None, claimed.attempts, claimed.delivery_id)
        except NotLetIn as exc:
            return _verdict(claimed, exc.reading, exc.answer)

    async def _deliver(self, outbound: Outbound, claimed: Claimed, told: Mapping[str, Any]) -> Verdict:
        async with self._runtime.database.reading() as connection:
            where = await self._connection(connection, claimed.endpoint_id)
        if where is None:
            return Verdict("failed", "the connection was deleted")
        data = told["data"]
        if "lead_id" not in data:
            return _verdict(claimed, *await write(outbound, where, where.crm.whoami(), tested=True))
        async with self._runtime.database.reading() as connection:
            person_id = await resolve(connection, LeadId(data["lead_id"]))
        # Facts of one lead come one after the other, those of one person by all their leads do not.
        async with self._turns.setdefault((where.endpoint_id, person_id), asyncio.Lock()):
            return await self._tell(outbound, where, claimed, told)

    async def _tell(self, outbound: Outbound, where: Where, claimed: Claimed, told: Mapping[str, Any]) -> Verdict:
        data = told["data"]
        who = await person_told(self._runtime, data)
        if who is None:
            why = "the lead's profile is on its way"
            return verdict_to_try_again(why, None, claimed.attempts, claimed.delivery_id)
        if told["type"] == ERASED:
            return await self._erase(outbound, where, claimed, LeadId(data["lead_id"]))
        if who.erased:
            return Verdict("dropped", "the person was erased")
        lead = await self._lead(outbound, where, who, told)
        if lead is None:
            return Verdict("delivered", f"nothing to write: the lead has no {where.ways.ids['lead']}")
        if told["type"] == MERGED:
            return await self._merge(outbound, where, claimed, (who.person_id, lead), LeadId(data["from_lead_id"]))
        if told["type"] != DEAL:
            return _verdict(claimed, *await self._put(outbound, where, who.person_id, lead))
        crm_id = await self._records.known(where.endpoint_id, "lead", who.person_id)
        if crm_id is None:
            reading, answer = await self._put(outbound, where, who.person_id, lead)
            if reading.what != "done":
                return _verdict(claimed, reading, answer)
            crm_id = reading.crm_id
        deal = replace(await self._deal(outbound, where, data), person=crm_id, email=who.lead.get("email"))
        return _verdict(claimed, *await self._put(outbound, where, str(data["deal_id"]), deal))

    async def _merge(
        self,
        outbound: Outbound,
        where: Where,
        claimed: Claimed,
        survivor: tuple[LeadId, Record],
        gone_id: LeadId,
    ) -> Verdict:
        """The lead that survives is written as it is known now; the other one's record becomes part of its."""
        gone = await self._there(outbound, where, claimed, gone_id)
        if isinstance(gone, Verdict):
            return gone
        if gone is None:
            return Verdict("delivered", "nothing to merge: one of the two was never written")
        reading, answer = await self._put(outbound, where, *survivor)
        into = reading.crm_id or await self._records.known(where.endpoint_id, "lead", survivor[0])
        if reading.what != "done" or into is None or into == gone:
            return _verdict(claimed, reading, answer)
        reading, answer = await _merged(outbound, where, into, gone, answer)
        if where.crm.merges and reading.what == "done":
            for our_id in (survivor[0], gone_id):  # a merged record may have a new id
                await self._records.note(where.endpoint_id, "lead", our_id, reading.crm_id or into)
        return _verdict(claimed, reading, answer)

    async def _erase(self, outbound: Outbound, where: Where, claimed: Claimed, lead_id: LeadId) -> Verdict:
        """The record of an erased lead is deleted; what the CRM said to that is kept with its id."""
        crm_id = await self._there(outbound, where, claimed, lead_id)
        if isinstance(crm_id, Verdict):
            async with self._runtime.database.reading() as connection:
                await queries.note_erasure(connection, where.endpoint_id, lead_id, None, crm_id.said)
            return crm_id
        if crm_id is None:
            return Verdict("delivered", "nothing to erase: it was never written")
        reading, answer = await write(outbound, where, where.crm.erase(crm_id))
        if reading.gone:
            reading = Reading("done", f"answered {answer.status}: it was gone already")
        async with self._runtime.database.reading() as connection:
            at = await agreed_now(connection, self._runtime.clock) if reading.what == "done" else None
            await queries.note_erasure(connection, where.endpoint_id, lead_id, at, reading.said)
        return _verdict(claimed, reading, answer)

    async def _connection(self, connection: Connection, endpoint_id: str) -> Where | None:
        row = await queries.to_write(connection, endpoint_id)
        if row is None:
            return None
        session = self._sessions.get(endpoint_id)
        if session is None or session.told_at != row["updated_at"]:
            session = self._sessions[endpoint_id] = Session(row["updated_at"])
        credentials = self._runtime.keys.open_request(row["sealed"], label_of(endpoint_id))
        written = {name: str(value) for name, value in credentials.items()}
        ways = Ways(**row["ways"])
        return Where(endpoint_id, CRMS[row["crm"]], row["base_url"], row["auth_url"], ways, written, session)

    async def _lead(self, outbound: Outbound, where: Where, who: Person, told: Mapping[str, Any]) -> Record | None:
        """The person as they are known now; None where the CRM could not find them again.

        The stage of a fact counts unless this service has read a later one.
        """
        data, standing = told["data"], who.standing
        stage = None if standing is None else standing.stage
        if told["type"] == STAGE and (standing is None or standing.revision <= data["revision"]):
            stage = data["stage"]
        async with self._runtime.database.reading() as connection:
            assignment = await assignments.current(connection, who.person_id)
        values = {**who.values(), "stage": stage, "lead_id": who.person_id}
        if assignment is not None:
            values["assignment"] = {"queue": assignment.queue, "rep_id": assignment.rep_id}
        id_field = where.ways.ids["lead"]
        id_value = who.lead.get("email") if id_field in BY_ADDRESS else who.person_id
        if not id_value or not (who.lead.get("email") or who.lead.get("phone")):
            return None
        owner = None if assignment is None else await self._user(outbound, where, assignment.rep_id)
        fields = filled(where.ways.fields["lead"], values)
        return Record("lead", id_field, str(id_value), fields, where.ways.stages.get(stage or ""), owner=owner)

    async def _deal(self, outbound: Outbound, where: Where, data: Mapping[str, Any]) -> Record:
        """A deal as it stands now: a fact that is told late, or again, does not take it back."""
        async with self._runtime.database.reading() as connection:
            deal = await deal_by_id(connection, self._runtime.keys, DealId(data["deal_id"]))
        if deal is not None and deal.revision > data["revision"]:
            data = {**data, **stands(deal)}
        rep_id = data.get("rep_id")
        owner = None if rep_id is None else await self._user(outbound, where, RepId(rep_id))
        fields = filled(where.ways.fields["deal"], {"deal": deal_values(data)})
        stage = where.ways.deal_stages.get(str(data["stage"]), str(data["stage"]))
        pipeline = where.ways.pipelines.get(str(data.get("pipeline_id")))
        return Record("deal", where.ways.ids["deal"], str(data["deal_id"]), fields, stage, pipeline, owner)

    async def _there(self, outbound: Outbound, where: Where, claimed: Claimed, lead_id: LeadId) -> str | Verdict | None:
        """The CRM's id of a lead, also of one whose first write was not answered; a verdict where that cannot be told.

        None where it does not stand there.
        """
        known = await self._records.known(where.endpoint_id, "lead", lead_id)
        begun = None if known else await self._records.begun(where.endpoint_id, lead_id, where.ways.ids["lead"])
        if begun is None:
            return known
        if begun.under_way:
            return Verdict("waiting", "the lead is being written", pause=CLAIM_FOR, counts=False)
        if begun.found_by is None:
            return Verdict("failed", "it may stand there: it was written, not answered, and its address is forgotten")
        # What merges makes one of two, whatever stands in the other; else nothing is made that was not there.
        asked = Record("lead", where.ways.ids["lead"], begun.found_by, {}, known=not where.crm.merges)
        known, unanswered = await self._look(outbound, where, lead_id, asked)
        return known if unanswered is None else _verdict(claimed, *unanswered)

    async def _look(
        self, outbound: Outbound, where: Where, lead_id: LeadId, asked: Record
    ) -> tuple[str | None, tuple[Reading, Answer] | None]:
        """The id of a lead whose first write was not answered, by writing once more what finds it.

        None where the CRM does not take it; beside that what it said where that tells neither.
        """
        reading, answer = await write(outbound, where, where.crm.upsert(asked))
        if reading.what in ("later", "expired"):
            return None, (reading, answer)
        if reading.crm_id is None:
            await self._records.not_there(where.endpoint_id, lead_id)
        else:
            await self._records.note(where.endpoint_id, "lead", lead_id, reading.crm_id)
        return reading.crm_id, None

    async def _user(self, outbound: Outbound, where: Where, rep_id: RepId) -> str | None:
        """The CRM's user who is this rep: as the connection says, else by the address."""
        if rep_id in where.ways.users:
            return where.ways.users[rep_id]
        async with self._runtime.database.reading() as connection:
            rep = (await reps_of(connection, [rep_id])).get(rep_id)
        if rep is None:
            return None
        known, until = where.session.users.get(rep.email, (None, 0.0))
        if until > time.monotonic():
            return known
        answer = await call_with_token(outbound, where, where.crm.user_call(rep.email))
        try:
            found = where.crm.user_in(answer, rep.email)
        except ValueError:
            raise NotLetIn(no_answer("asked for a user", where.crm.read(answer)), answer) from None
        where.session.users[rep.email] = (found, time.monotonic() + USERS_KEPT_S)
        return found

    async def _put(self, outbound: Outbound, where: Where, our_id: str, record: Record) -> tuple[Reading, Answer]:
        """Write a record, note its id there, and tie a deal to its person's contact.

        Where the CRM does not let us do that, the deal stands there all the same, and the log says so.
        """
        known = await self._records.known(where.endpoint_id, record.kind, our_id)
        if known is None and record.kind == "lead":
            known, unanswered = await self._begin(outbound, where, LeadId(our_id), record)
            if unanswered is not None:
                return unanswered
        reading, answer = await self._found(outbound, where, record, known)
        if reading.twin is not None:
            reading, answer = await self._taken(outbound, where, record, known, reading.twin)
        elif reading.what == "refused":
            reading, answer = await self._adopt(outbound, where, record, (reading, answer))
        if reading.what == "refused" and record.kind == "lead":
            await self._records.not_there(where.endpoint_id, LeadId(our_id))
        if reading.what != "done" or reading.crm_id is None:
            return reading, answer
        await self._records.note(where.endpoint_id, record.kind, our_id, reading.crm_id)
        more = where.crm.after(record, reading.crm_id)
        if more is None:
            return reading, answer
        token = await token_of(outbound, where, None)
        found = await ask(outbound, where, more, token)
        last = where.crm.tie(found, reading.crm_id) if found.is_success else None
        if last is None and found.is_success:
            return reading, found
        answer = found if last is None else await ask(outbound, where, last, token)
        then = where.crm.read(answer)
        if then.what in ("refused", "expired"):
            then = Reading("done", f"{reading.said}; its contact: {then.said}")
        return replace(then, crm_id=reading.crm_id), answer

    async def _begin(
        self, outbound: Outbound, where: Where, lead_id: LeadId, record: Record
    ) -> tuple[str | None, tuple[Reading, Answer] | None]:
        """Note that a lead is written; where it was before, under another address, and not answered, look for that."""
        found_by = await self._records.begin(where.endpoint_id, lead_id, record)
        if found_by is None:
            return await self._records.known(where.endpoint_id, "lead", lead_id), None
        if found_by == record.id_value:
            return None, None
        fields = {name: value for name, value in record.fields.items() if name not in BY_ADDRESS}
        asked = replace(record, id_value=found_by, fields=fields)
        known, unanswered = await self._look(outbound, where, lead_id, asked)
        if known is None and unanswered is None:
            await self._records.begin(where.endpoint_id, lead_id, record)
        return known, unanswered

    async def _found(
        self, outbound: Outbound, where: Where, record: Record, known: str | None
    ) -> tuple[Reading, Answer]:
        """Write a record where it is found: one that is found by an address by the CRM's own id once that is known."""
        if known is not None and record.id_field in BY_ADDRESS:
            whole = {record.id_field: record.id_value, **record.fields}
            reading, answer = await write(outbound, where, where.crm.update(replace(record, fields=whole), known))
            if not reading.gone:
                return replace(reading, crm_id=known if reading.what == "done" else None), answer
        whole_call, less = (where.crm.upsert(replace(record, known=there)) for there in (False, known is not None))
        reading, answer = await write(outbound, where, less)
        if less != whole_call and any(code in reading.said for code in INCOMPLETE):  # somebody deleted it there
            reading, answer = await write(outbound, where, whole_call)
        return reading, answer

    async def _taken(
        self, outbound: Outbound, where: Where, record: Record, known: str | None, twin: str
    ) -> tuple[Reading, Answer]:
        """Where the address is another record's, that one is the person's, and the one before becomes part of it."""
        told = {**record.fields, record.id_field: record.id_value}
        fields = {name: value for name, value in told.items() if name not in BY_ADDRESS}
        reading, answer = await write(outbound, where, where.crm.update(replace(record, fields=fields), twin))
        if reading.what != "done" or known in (None, twin):
            return replace(reading, crm_id=twin), answer
        joined, answer = await _merged(outbound, where, twin, known, answer)
        if joined.what in ("refused", "expired"):
            joined = Reading("done", f"{reading.said}; merging {known} into it: {joined.said}")
        return replace(joined, crm_id=(joined.crm_id if where.crm.merges else None) or twin), answer

    async def _adopt(
        self, outbound: Outbound, where: Where, record: Record, refused: tuple[Reading, Answer]
    ) -> tuple[Reading, Answer]:
        """Where a lead was refused since the CRM has the person already: write that one, and it is ours from now on."""
        call = where.crm.twin_call(record, refused[0])
        if call is None:
            return refused
        answer = await call_with_token(outbound, where, call)
        if not answer.is_success:
            return where.crm.read(answer), answer
        twin = where.crm.adopt(record, answer)
        if twin is None:
            return refused
        reading, answer = await write(outbound, where, twin[1])
        return replace(reading, crm_id=twin[0]), answer


async def _merged(outbound: Outbound, where: Where, into: str, gone: str, answer: Answer) -> tuple[Reading, Answer]:
    """One record of two, or a mark that they are one; `answer` is the one before, where neither can be."""
    call = where.crm.merge(into, gone, where.ways.merged)
    if call is None:
        said = f"{into} is up to date; merge {gone} into it by hand, or name ways.lead_merged_field"
        return Reading("done", said), answer
    reading, answer = await write(outbound, where, call)
    if reading.gone:  # as it is when it was merged before, and the answer to that was lost
        reading = Reading("done", f"{reading.said}: {gone} is there no more")
    return reading, answer


def label_of(endpoint_id: str) -> str:
    """Under which label the credentials of a connection are sealed."""
    return f"crm/{endpoint_id}"


def _verdict(claimed: Claimed, reading: Reading, answer: Answer) -> Verdict:
    """What a reading means for the delivery. Credentials that are refused are for somebody to mend: it waits."""
    again = (reading.said, answer.status, claimed.attempts, claimed.delivery_id)
    match reading.what:
        case "done":
            return Verdict("delivered", reading.said, answer.status)
        case "refused":
            return Verdict("failed", reading.said, answer.status)
        case "expired":
            return Verdict("waiting", reading.said, answer.status, LET_IN_AGAIN, counts=False)
        case "later":
            rest = reading.rest_s or answer.retry_after_s
            return verdict_to_try_again(*again, None if rest is None else timedelta(seconds=rest))
        case _:
            assert_never(reading.what)
