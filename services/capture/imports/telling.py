"""What the rows of a file tell, some hundred at once: for each what the API does with such a call."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import orjson

from services.capture.enrichment.builtin import derive
from services.capture.errors import Contended
from services.capture.facts.domain import conversion_fact, cost_fact, encode_touch
from services.capture.facts.inputs import ConversionInput, CostInput, TouchFields, TouchInput, latest_allowed
from services.capture.facts.links import ToldLinks
from services.capture.imports.domain import BadRow, RowMapping, Told, reason_of
from services.capture.imports.queries import Import
from services.capture.imports.rows import Row
from services.capture.leads import queries as leads
from services.capture.leads.batches import capture_leads
from services.capture.leads.domain import EXTERNAL
from services.capture.leads.handlers import Captured, LeadCall
from services.capture.leads.identifying import Identified, Named, Sought, identify_each
from services.capture.leads.inputs import LeadInput
from services.capture.leads.telling import Cause, identity_linked
from shared.db import Tx
from shared.emails import parse_email
from shared.errors import Rejected
from shared.ids import LeadId, derived_id
from shared.personal import Draft, Encoded, PersonErased
from shared.service import Runtime
from shared.telemetry import log

ERASED = "person_erased"
_UNSTORABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, OverflowError)
_FUTURE = "occurred_at: lies more than a day in the future"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row: `created`, `updated`, `unchanged`, or `failed` with the reason."""

    state: str
    reason: str | None = None
    lead_id: LeadId | None = None


class Teller:
    """Tells the rows of one import."""

    def __init__(self, job: Import, told_at: datetime, runtime: Runtime) -> None:
        self._job = job
        self._told_at = told_at
        self._runtime = runtime
        self._links = ToldLinks()
        self._mapping = RowMapping(job.kind, job.columns, job.mapping or {}, job.defaults, job.source)

    def read(self, row: Row) -> Told | BadRow:
        """What a row says, or why nothing can be made of it."""
        try:
            told = self._mapping.told_by(row)
        except BadRow as exc:
            return exc
        if isinstance(told.content, LeadInput):  # remembered until it is asked for, between two statements
            derive(told.content.__dict__, self._runtime.settings.enrichment_off)
        return told

    async def tell(self, rows: Sequence[Told | BadRow], tx: Tx) -> list[Outcome]:
        """Do what each row says; a bad one does not hold up the others. Raises Contended: try the transaction again."""
        outcomes = await self._stored(rows, tx)
        if outcomes is not None:
            return outcomes
        each = [await self._stored([row], tx) for row in rows]  # one of them cannot be stored: it alone is bad
        return [one[0] if one else Outcome("failed", "holds a value that cannot be stored") for one in each]

    async def _stored(self, rows: Sequence[Told | BadRow], tx: Tx) -> list[Outcome] | None:
        mark = tx.mark()
        try:
            async with tx.connection.transaction():
                return await self._tell(rows, tx)
        except _UNSTORABLE as exc:
            tx.take_back(mark)
            log.warning("import_rows_not_storable", import_id=self._job.import_id, error=type(exc).__name__)
            return None

    async def _tell(self, rows: Sequence[Told | BadRow], tx: Tx) -> list[Outcome]:
        outcomes = {index: Outcome("failed", str(row)) for index, row in enumerate(rows) if isinstance(row, BadRow)}
        told = {index: row for index, row in enumerate(rows) if isinstance(row, Told)}
        try:
            match self._job.kind:
                case "leads":
                    outcomes |= await self._leads(told, tx)
                case "touches":
                    outcomes |= await self._touches(told, tx)
                case "conversions":
                    outcomes |= await self._conversions(told, tx)
                case "costs":
                    outcomes |= self._costs(told, tx)
        except PersonErased as exc:
            raise Contended("somebody was erased just now") from exc
        return [outcomes[index] for index in range(len(rows))]

    async def _leads(self, told: Mapping[int, Told], tx: Tx) -> dict[int, Outcome]:
        now = self._runtime.clock.now()
        calls = {index: self._calls(each, now) for index, each in told.items()}
        answers = iter(await capture_leads([call for each in calls.values() for call in each], tx, self._runtime))
        outcomes: dict[int, Outcome] = {}
        touches: list[Encoded] = []
        for index, each in calls.items():
            answered = [next(answers) for _ in each]
            outcome = outcomes[index] = _outcome_of(answered)
            lead = told[index].content
            assert isinstance(lead, LeadInput)
            captured = answered[0]
            if outcome.state == "failed" or lead.touch is None or not isinstance(captured, Captured):
                continue
            touch = self._touch_of_lead(lead, lead.touch, captured, each[-1].cause)
            if isinstance(touch, Outcome):
                outcomes[index] = touch
            elif not self._job.told_before:
                touches.append(touch)
        await self._runtime.keys.emit_drafts(tx, touches)
        return outcomes

    def _calls(self, told: Told, now: datetime) -> list[LeadCall]:
        """The calls that a row makes: what is said of them, before it since when, behind it their ids elsewhere."""
        lead, source = told.content, self._job.source
        assert isinstance(lead, LeadInput)
        cause = Cause(source, lead.occurred_at or self._told_at, now, f"import {self._job.import_id}")
        ids = told.external_ids
        statements: dict[str, object] = {
            name: value for name, value in lead.told(source).items() if not name.startswith(EXTERNAL)
        }
        statements |= {f"{EXTERNAL}{at}": external_id for at, external_id in ids.items()}
        first, *others = ids or (source,)
        named, *elsewhere = [
            Named(
                email=lead.email,
                phone=lead.phone,
                external_id=ids.get(at),
                anonymous_id=lead.anonymous_id,
                origin=at,
            )
            for at in (first, *(others if lead.email or lead.phone else ()))
        ]
        calls = [self._call(named, statements, cause, lead), *(self._call(each, {}, cause) for each in elsewhere)]
        if told.captured_at is not None and told.captured_at < cause.occurred_at:
            known: dict[str, object] = {name: statements[name] for name in ("email", "phone") if name in statements}
            calls.insert(0, self._call(named, known, Cause(source, told.captured_at, now)))
        return calls

    def _call(
        self, named: Named, statements: Mapping[str, object], cause: Cause, lead: LeadInput | None = None
    ) -> LeadCall:
        return LeadCall(
            named=named,
            told=statements,
            cause=cause,
            consent=lead.words() if lead else (),
            stored_at=self._job.uploaded_at,
            may_return=False,
            again=self._job.again,
        )

    def _touch_of_lead(
        self, lead: LeadInput, touch: TouchFields, captured: Captured, cause: Cause
    ) -> Encoded | Outcome:
        at = touch.occurred_at or cause.occurred_at
        if at > latest_allowed(cause.received_at):
            return Outcome("failed", f"touch.{_FUTURE}")
        return encode_touch(
            touch,
            lead_id=captured.attached,
            occurred_at=at,
            received_at=cause.received_at,
            origin=self._job.source,
            anonymous_id=lead.anonymous_id,
            default_id=derived_id("touch-of-call", captured.attached, touch.type, at.isoformat()),
        )

    async def _touches(self, told: Mapping[int, Told], tx: Tx) -> dict[int, Outcome]:
        now = self._runtime.clock.now()
        latest = latest_allowed(now)
        contents = {index: each.content for index, each in told.items() if isinstance(each.content, TouchInput)}
        outcomes = {index: fault for index, each in contents.items() if (fault := _touch_fault(each, latest))}
        people = await self._people({index: each for index, each in contents.items() if index not in outcomes}, tx)
        drafts: list[Draft | Encoded] = []
        for index, person in people.items():
            if person is None:
                outcomes[index] = Outcome("failed", ERASED)
                continue
            touch, (lead_id, browser) = contents[index], person
            at = touch.occurred_at or self._told_at
            drafts.append(
                encode_touch(
                    touch,
                    lead_id=lead_id,
                    occurred_at=at,
                    received_at=now,
                    origin=self._job.source,
                    anonymous_id=touch.anonymous_id,
                    default_id=self._content_id(told[index], dated=touch.occurred_at is not None),
                )
            )
            if browser is not None and browser != lead_id and self._links.is_news(browser, lead_id, at):
                drafts.append(Draft(identity_linked(browser, lead_id, at, now)))
                self._links.was_told(browser, lead_id, at)
            outcomes[index] = Outcome(self._fact_state, lead_id=lead_id)
        if not self._job.told_before:
            await self._runtime.keys.emit_drafts(tx, drafts)
        return outcomes

    async def _conversions(self, told: Mapping[int, Told], tx: Tx) -> dict[int, Outcome]:
        now = self._runtime.clock.now()
        contents = {index: each.content for index, each in told.items() if isinstance(each.content, ConversionInput)}
        given = {index: LeadId(each.lead_id.lower()) for index, each in contents.items() if each.lead_id}
        nobody = {
            index: Outcome("failed", "one of lead_id, email and anonymous_id is required")
            for index, each in contents.items()
            if not (each.lead_id or each.email or each.anonymous_id)
        }
        left = {index: each for index, each in contents.items() if index not in given and index not in nobody}
        people = await self._people(left, tx)
        outcomes = dict(nobody)
        for index, conversion in contents.items():
            if index in nobody:
                continue
            person = people.get(index)
            lead_id = given.get(index) or (person[0] if person else None)
            if lead_id is None:
                outcomes[index] = Outcome("failed", ERASED)
                continue
            dated = conversion.model_copy(update={"occurred_at": conversion.occurred_at or self._told_at})
            if not self._job.told_before:
                tx.emit(conversion_fact(dated, lead_id, now, self._job.source))
            outcomes[index] = Outcome(self._fact_state, lead_id=lead_id)
        return outcomes

    def _costs(self, told: Mapping[int, Told], tx: Tx) -> dict[int, Outcome]:
        now = self._runtime.clock.now()
        latest = latest_allowed(now).date()
        outcomes: dict[int, Outcome] = {}
        for index, each in told.items():
            cost = each.content
            assert isinstance(cost, CostInput)
            if cost.date > latest:
                outcomes[index] = Outcome("failed", "date: lies more than a day in the future")
                continue
            if not self._job.told_before:
                tx.emit(cost_fact(cost, now, self._job.source))
            outcomes[index] = Outcome(self._fact_state)
        return outcomes

    async def _people(
        self, contents: Mapping[int, TouchInput | ConversionInput], tx: Tx
    ) -> dict[int, tuple[LeadId, LeadId | None] | None]:
        """Whose each fact is, and by which browser; None of somebody erased who has not come back."""
        given = {index: LeadId(each.lead_id.lower()) for index, each in contents.items() if each.lead_id}
        gone = await leads.destroyed_at(tx.connection, sorted(set(given.values()))) if given else {}
        sought = []
        for index, each in contents.items():
            email = parse_email(each.email) if each.email and index not in given else None
            named = Named(email=email, anonymous_id=each.anonymous_id)
            sought.append(Sought(named, self._job.uploaded_at, may_return=False))
        found = dict(zip(contents, await identify_each(tx.connection, self._runtime.ids, sought), strict=True))
        return {
            index: None if given.get(index) in gone else _person(given.get(index), found[index]) for index in contents
        }

    @property
    def _fact_state(self) -> str:
        return "unchanged" if self._job.told_before else "created"

    def _content_id(self, told: Told, *, dated: bool) -> str:
        """The name of a touch that has none: by all that its row says, and by its file if that does not say when."""
        said = hashlib.sha256(orjson.dumps(told.body, option=orjson.OPT_SORT_KEYS)).hexdigest()
        return derived_id("touch-of-row", self._job.source, said, "" if dated else self._told_at.isoformat())


def _person(given: LeadId | None, found: Identified | None) -> tuple[LeadId, LeadId | None] | None:
    browser = found.anonymous.own_id if found and found.anonymous else None
    if given is not None:
        return given, browser
    if found is None:
        return None
    if found.strong:
        return found.strong[0].own_id, browser
    return (browser, None) if browser else None


def _touch_fault(touch: TouchInput, latest: datetime) -> Outcome | None:
    if touch.lead_id is None and touch.email is None and touch.anonymous_id is None:
        return Outcome("failed", "one of lead_id, email and anonymous_id is required")
    if touch.lead_id is None and touch.email is not None and parse_email(touch.email) is None:
        return Outcome("failed", "email: not an email address")
    if touch.occurred_at is not None and touch.occurred_at > latest:
        return Outcome("failed", _FUTURE)
    return None


def _outcome_of(answers: Sequence[Captured | Rejected | None]) -> Outcome:
    """What became of a row, from what became of its calls."""
    lead_id = None
    created = changed = False
    for answer in answers:
        if answer is None or isinstance(answer, PersonErased):
            return Outcome("failed", ERASED)
        if isinstance(answer, Rejected):
            return Outcome("failed", reason_of(answer))
        created, changed, lead_id = created or answer.created, changed or answer.changed, answer.lead_id
    return Outcome("created" if created else "updated" if changed else "unchanged", lead_id=lead_id)
