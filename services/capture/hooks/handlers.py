"""A stored delivery is opened, mapped, and each of its facts does what the API does with such a fact."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never

from services.capture.adapters.adapter import (
    ActionFact,
    BookingFact,
    ConversionFact,
    CrmFact,
    ErasureFact,
    Fact,
    HookRequest,
    Ignored,
    LeadFact,
    MessageFact,
    Person,
    RefundFact,
    Touch,
    TouchFact,
)
from services.capture.adapters.records import GONE
from services.capture.adapters.told import kind_of
from services.capture.consent.domain import ConsentWord
from services.capture.deals.domain import WORDS
from services.capture.deals.handlers import told_with_contact, whose
from services.capture.erasures.domain import Wish
from services.capture.errors import NoSuchSource, SignatureReused
from services.capture.facts.domain import conversion_fact, encode_touch, refund_fact
from services.capture.facts.inputs import ConversionInput, RefundInput
from services.capture.hooks import queries
from services.capture.hooks.queries import Handled
from services.capture.hooks.reports import is_report, reaction, report_fact
from services.capture.hooks.sealing import request_in
from services.capture.hooks.touches import meeting, stage_change, touch_fields
from services.capture.leads.domain import FIELDS, strongest
from services.capture.leads.erasure import erase_named
from services.capture.leads.handlers import LeadCall, capture_lead
from services.capture.leads.identifying import Named, identify
from services.capture.leads.inputs import statements_of
from services.capture.leads.telling import Cause
from services.capture.sources.known import Source, source_in
from shared.db import Tx
from shared.errors import Rejected
from shared.events import ConsentEvidence, ConsentState, DeliveryReceived
from shared.ids import LeadId, SourceId
from shared.service import Runtime
from shared.telemetry import counter, log

HANDLED = counter("throughline_deliveries_total", "Deliveries by what became of them", ["kind", "state"])
_CONSENT: Mapping[str, ConsentState] = {
    "unsubscribed": "denied",
    "complained": "denied",
    "resubscribed": "granted",
}
_WITHOUT_IDENTIFIERS = frozenset(FIELDS) - {"email", "phone"}


async def on_deliveries(events: Sequence[DeliveryReceived], tx: Tx, runtime: Runtime) -> None:
    """Map deliveries, each once. What cannot be mapped is quarantined: it holds up nobody, and can be tried again."""
    done = await queries.handled_already(tx.connection, [(event.source_id, event.delivery_id) for event in events])
    sources: dict[SourceId, Source | None] = {}
    again: Counter[tuple[SourceId, str]] = Counter()
    for event in events:
        key = (event.source_id, event.delivery_id)
        if key in done:
            again[key] += 1
            continue
        done.add(key)
        if event.source_id not in sources:
            sources[event.source_id] = await _source(event.source_id, tx, runtime)
        await handle_delivery(event, sources[event.source_id], tx, runtime)
    await queries.count_again(tx.connection, again)


async def handle_delivery(
    event: DeliveryReceived, source: Source | None, tx: Tx, runtime: Runtime, found: Mapping[str, Any] | None = None
) -> Handled:
    """Map one delivery and write down what became of it; `found` is what was looked up for it.

    One of whose records some are gone, or some nobody's, is mapped as far as it goes, and quarantined for the rest.
    """
    mark = tx.mark()
    try:
        if source is None:
            raise NoSuchSource(f"there is no source {event.source_id} any more")
        async with tx.connection.transaction():
            handled = await _Mapping(event, tx, runtime).carry_out(source, found)
        if gone := sorted(path.partition("?")[0] for path, value in (found or {}).items() if value is GONE):
            reason = f"partial: the provider says that {len(gone)} of {len(found or {})} records are gone: "
            handled = replace(handled, state="quarantined", reason=(reason + ", ".join(gone))[:500])
    except Rejected as exc:
        tx.take_back(mark)
        handled = Handled("quarantined", reason=f"{exc.slug}: {exc.detail}"[:500])
        log.warning("delivery_quarantined", source_id=event.source_id, kind=event.kind, slug=exc.slug)
    sealed = event.sealed if handled.unmapped or handled.state == "pending" else None
    try_at = runtime.clock.now() if handled.state == "pending" else None
    await queries.record_handled(
        tx.connection, event.source_id, event.delivery_id, event.kind, handled, sealed, event.received_at, try_at
    )
    HANDLED.labels(event.kind, handled.state).inc()
    return handled


async def _source(source_id: SourceId, tx: Tx, runtime: Runtime) -> Source | None:
    try:
        return await source_in(tx.connection, source_id, runtime.keys)
    except NoSuchSource:
        return None


class _Mapping:
    """One delivery on its way to facts."""

    def __init__(self, event: DeliveryReceived, tx: Tx, runtime: Runtime) -> None:
        self._event = event
        self._source_id = event.source_id
        self._tx = tx
        self._runtime = runtime
        self._lead_id: LeadId | None = None
        self._untied: list[str] = []

    async def carry_out(self, source: Source, found: Mapping[str, Any] | None) -> Handled:
        event = self._event
        request = request_in(event.sealed, event.source_id, event.delivery_id, self._runtime.keys)
        await self._refuse_replay(source, request)
        if found is None and source.adapter.lookups(request):
            return Handled("pending", reason="second call")
        facts = source.adapter.facts(replace(request, found=found or {}), source.settings)
        reasons: list[str] = []
        told: list[dict[str, str]] = []
        for fact in facts:
            reason = await self._take(fact)
            if reason is not None:
                reasons.append(reason)
                continue
            told.append({"kind": kind_of(fact), "idempotency_key": fact.idempotency_key})
        if self._untied:
            reason = f"untied: {'; '.join(self._untied)}"[:500]
            return Handled("quarantined", len(told), self._lead_id, reason, tuple(told))
        return Handled(
            "mapped" if told else "ignored", len(told), self._lead_id, reasons[0] if reasons else None, tuple(told)
        )

    async def _refuse_replay(self, source: Source, request: HookRequest) -> None:
        for token in sorted(source.adapter.signed_once(request)):
            body = hashlib.sha256(request.raw_body).digest()
            if not await queries.is_first_body(self._tx.connection, self._source_id, token, body):
                raise SignatureReused("its signature came with another body before, so this is not from the source")

    async def _take(self, fact: Fact) -> str | None:
        """Do what a fact asks for; answers why it was left alone, if it was."""
        match fact:
            case LeadFact():
                return await self._on_lead(fact)
            case BookingFact():
                return await self._on_lead(replace(fact, touch=meeting(fact)))
            case MessageFact() | ConversionFact() if not fact.person.identified:
                return queries.NO_IDENTIFIER
            case CrmFact():
                return await self._on_crm(fact)
            case MessageFact():
                return await self._on_message(fact)
            case ActionFact():
                return "action"
            case TouchFact():
                return await self._on_touch(fact)
            case ConversionFact():
                return await self._on_conversion(fact)
            case RefundFact():
                return await self._on_refund(fact)
            case ErasureFact():
                return await self._on_erasure(fact)
            case Ignored():
                return fact.reason
            case _:
                assert_never(fact)

    async def _on_lead(self, fact: LeadFact | BookingFact | CrmFact, touch: Touch | None = None) -> str | None:
        lead_id = await self._capture(fact.person, self._cause(fact))
        if lead_id is None:
            return "erased"
        await self._touch(touch if isinstance(fact, CrmFact) else fact.touch, fact, lead_id, fact.person)
        return None

    async def _on_crm(self, fact: CrmFact) -> str | None:
        """A deal may come without its contact, and then is whose it was said to be, or its account's only person's."""
        connection, at = self._tx.connection, self._event.received_at
        if fact.person.identified:
            unused = await self._on_lead(fact, stage_change(fact))
            if fact.deal and unused is None and self._lead_id is not None:
                await told_with_contact(fact, self._lead_id, self._source_id, at, connection)
            return unused
        if not fact.deal:
            return queries.NO_IDENTIFIER
        tied = await whose(fact, self._source_id, self._event.delivery_id, at, connection)
        if tied.lead_id is None:
            self._untied.append(f"the deal {fact.external_id} is nobody's: {WORDS[tied.reason]}")
            return "untied"
        self._lead_id = tied.lead_id
        await self._touch(stage_change(fact), fact, tied.lead_id, fact.person)
        return None

    async def _on_message(self, fact: MessageFact) -> str | None:
        """A touch if somebody did something; refusing what is sent is consent denied, wanting it again is granted.

        What became of the message is told as such, to whoever may have sent it.
        """
        state = _CONSENT.get(fact.event or "")
        touch = reaction(fact)
        reported = await self._report(fact)
        if state is None and touch is None:
            return None if reported else fact.event or "unknown"
        person = replace(fact.person, consent={fact.channel: state}) if state else fact.person
        if touch is None:
            return None if await self._capture(person, self._cause(fact)) else "erased"
        told = TouchFact(
            idempotency_key=fact.idempotency_key,
            occurred_at=fact.occurred_at,
            timed_by=fact.timed_by,
            event=fact.event,
            person=person,
            touch=touch,
        )
        return await self._on_touch(told)

    async def _report(self, fact: MessageFact) -> bool:
        if not is_report(fact):
            return False
        lead_id = await self._id_of(_named(fact.person, self._source_id))
        if lead_id is not None:
            self._tx.emit(report_fact(fact, lead_id, self._event.received_at, self._source_id))
        return lead_id is not None

    async def _on_touch(self, fact: TouchFact) -> str | None:
        """A touch that only names somebody makes no lead of them; one that says more does."""
        person = fact.person
        named = _named(person, self._source_id)
        ways = sum(way is not None for way in (named.email, named.phone, named.external_id, named.anonymous_id))
        says_who = any(getattr(person, name) is not None for name in _WITHOUT_IDENTIFIERS)
        if ways > 1 or person.consent or person.attributes or says_who:
            lead_id = await self._capture(person, self._cause(fact))
        else:
            lead_id = await self._id_of(named)
        if lead_id is None:
            return "erased"
        await self._touch(fact.touch, fact, lead_id, person)
        return None

    async def _on_conversion(self, fact: ConversionFact) -> str | None:
        lead_id = await self._capture(fact.person, self._cause(fact))
        if lead_id is None:
            return "erased"
        await self._touch(fact.touch, fact, lead_id, fact.person)
        external_id = await self._purchase((fact.external_id, *fact.same_as), fact, lead_id)
        self._tell_conversion(fact, external_id, fact.amount_minor, lead_id)
        return None

    async def _on_refund(self, fact: RefundFact) -> str | None:
        names = await queries.purchases_of(self._tx.connection, self._source_id, [fact.external_id])
        external_id = min(names, default=fact.external_id)
        if not names:
            await queries.name_purchase(self._tx.connection, self._source_id, [external_id], external_id)
        refund = RefundInput.model_construct(
            external_id=external_id,
            source=None,
            refund_id=fact.refund_id,
            amount_minor=fact.amount_minor,
            currency=fact.currency,
            occurred_at=fact.occurred_at,
        )
        self._tx.emit(refund_fact(refund, self._event.received_at, self._source_id))
        return None

    async def _on_erasure(self, fact: ErasureFact) -> str | None:
        named = _named(fact.person, self._source_id)
        wish = Wish(
            actor=f"source:{self._source_id}",
            requested_by="source",
            reference=f"delivery {self._event.delivery_id}",
            origin=self._source_id,
        )
        erased = await erase_named(named, self._event.received_at, wish, self._tx, self._runtime)
        return None if erased else "nobody_known"

    async def _capture(self, person: Person, cause: Cause) -> LeadId | None:
        external_ids: dict[str, str] = {self._source_id: person.external_id} if person.external_id else {}
        fields = {name: getattr(person, name) for name in FIELDS}
        call = LeadCall(
            named=_named(person, self._source_id),
            told=dict(statements_of(fields, person.attributes, external_ids)),
            cause=cause,
            consent=[
                ConsentWord(channel, state, evidence=self._evidence())
                for channel, state in sorted(person.consent.items())
            ],
            stored_at=self._event.received_at,
        )
        captured = await capture_lead(call, self._tx, self._runtime)
        if captured is None:
            return None
        self._lead_id = captured.lead_id
        return captured.attached

    def _evidence(self) -> ConsentEvidence:
        return ConsentEvidence(method="webhook", reference=f"delivery {self._event.delivery_id}")

    async def _id_of(self, named: Named) -> LeadId | None:
        identified = await identify(self._tx.connection, self._runtime.ids, named, self._event.received_at)
        if identified is None:
            return None
        if identified.strong:
            return strongest(identified.strong).own_id
        return identified.anonymous.own_id if identified.anonymous else None

    async def _touch(self, touch: Touch | None, fact: Fact, lead_id: LeadId, person: Person) -> None:
        if touch is None:
            return
        encoded = encode_touch(
            touch_fields(touch, fact.occurred_at),
            lead_id=lead_id,
            occurred_at=fact.occurred_at,
            received_at=self._event.received_at,
            origin=self._source_id,
            anonymous_id=person.anonymous_id,
            click_ids=tuple(sorted(touch.click_ids)),
        )
        await self._runtime.keys.emit_drafts(self._tx, [encoded])

    async def _purchase(self, names: Sequence[str], fact: ConversionFact, lead_id: LeadId) -> str:
        """The one name of a purchase. What was taken for two before is one from now on, the other worth nothing."""
        known = await queries.purchases_of(self._tx.connection, self._source_id, names)
        external_id = min(known, default=names[0])
        doubled = sorted(known - {external_id})
        all_names = sorted({*names, *doubled})
        await queries.name_purchase(self._tx.connection, self._source_id, all_names, external_id)
        for other in doubled:
            self._tell_conversion(fact, other, 0, lead_id)
        return external_id

    def _tell_conversion(self, fact: ConversionFact, external_id: str, value_minor: int, lead_id: LeadId) -> None:
        conversion = ConversionInput.model_construct(
            external_id=external_id,
            type=fact.type,
            value_minor=value_minor,
            currency=fact.currency,
            occurred_at=fact.occurred_at,
        )
        self._tx.emit(conversion_fact(conversion, lead_id, self._event.received_at, self._source_id))

    def _cause(self, fact: Fact) -> Cause:
        return Cause(self._source_id, fact.occurred_at, self._event.received_at, fact.event)


def _named(person: Person, source_id: SourceId) -> Named:
    return Named(
        email=person.email,
        phone=person.phone,
        external_id=person.external_id,
        anonymous_id=person.anonymous_id,
        origin=source_id,
    )
