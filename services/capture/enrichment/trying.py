"""A provider tried with a lead: what would be sent, what it answers, and what would count. Nothing is kept."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from services.capture.consent.queries import consents_of
from services.capture.enrichment.asking import NoCredential, ask, prepare
from services.capture.enrichment.calling import CompiledProviders, account, mapped_answer, opened, take_permit
from services.capture.enrichment.document import Provider
from services.capture.enrichment.domain import Mapped, NotBefore, findings, wanted_fields
from services.capture.enrichment.handlers import Person
from services.capture.enrichment.inputs import RequestOut, TriedLead, TriedOut, TryInput
from services.capture.enrichment.providers import ProviderCatalogue
from services.capture.enrichment.templates import Absent
from services.capture.leads.domain import Statements, counting, learn, profile_of, together
from services.capture.leads.inputs import statements_of
from services.capture.leads.views import family_of
from shared.consents import latest_consents, marketing_words
from shared.db import Connection
from shared.ids import LeadId
from shared.outbound import Outbound
from shared.service import Runtime

NOBODY = LeadId("00000000-0000-0000-0000-000000000000")


async def try_provider(provider_id: str, asked: TryInput, catalogue: ProviderCatalogue, runtime: Runtime) -> TriedOut:
    """Ask a provider about a lead, or about what one could look like. The call counts; nothing else is kept."""
    async with runtime.database.reading() as connection:
        row = await catalogue.row(connection, provider_id)
        person = await _person(connection, asked, runtime)
    provider = CompiledProviders(runtime).of(row)
    wanted = wanted_fields(provider, person.statements)
    try:
        prepared = prepare(provider, person.places, opened(row, runtime))
    except Absent as exc:
        return TriedOut(asked=False, detail=f"the lead has no {exc}", wanted=wanted)
    except NoCredential:
        return TriedOut(asked=False, detail="the provider has no credential; set one", wanted=wanted)
    body = orjson.loads(prepared.content) if prepared.content is not None else None
    shown = RequestOut(method=prepared.method, url=prepared.shown_url, headers=dict(prepared.shown_headers), body=body)
    holds, why = provider.when.holds({"lead": person.lead}) if provider.when else (True, "")
    if not holds:
        return TriedOut(asked=False, detail=f"when: {why}", wanted=wanted, request=shown)
    decision = await take_permit(provider, runtime)
    if isinstance(decision, NotBefore):
        detail = f"{decision.why}; not before {decision.at.isoformat()}"
        return TriedOut(asked=False, detail=detail, wanted=wanted, request=shown)
    async with Outbound.of(runtime.settings) as outbound:
        said = await ask(provider, prepared, outbound)
    await account(provider, said, runtime)
    answer = mapped_answer(provider, said, person.lead)
    return TriedOut(
        asked=True,
        detail=said.detail or ("it knows nothing" if said.kind == "nothing" else None),
        wanted=wanted,
        request=shown,
        status=said.status,
        response=said.response,
        values=dict(answer.values),
        confidence=answer.confidence if answer.values else None,
        problems=dict(answer.problems),
        wins=_winning(provider, answer, wanted, person.statements, runtime.clock.now()),
    )


def _winning(
    provider: Provider, answer: Mapped, wanted: Sequence[str], known: Statements, now: datetime
) -> dict[str, Any]:
    """What of an answer would stand in the profile."""
    counts = counting({**known, **findings(provider, answer, wanted, known, now)})
    return {
        name: counts[name].value for name in answer.values if name in counts and counts[name].origin == provider.origin
    }


async def _person(connection: Connection, asked: TryInput, runtime: Runtime) -> Person:
    off = runtime.settings.enrichment_off
    if asked.lead_id is not None:
        family = await family_of(connection, LeadId(asked.lead_id.lower()), runtime.keys)
        consents = await consents_of(connection, sorted(family.members))
        statements = together((row.lead_id, row.statements) for row in family.rows)
        return Person(
            family.root.lead_id, statements, profile_of(statements, off), marketing_words(latest_consents(consents))
        )
    lead = asked.lead or TriedLead()
    told = learn({}, dict(statements_of(lead.__dict__, lead.attributes, {})), runtime.clock.now(), "api")
    return Person(NOBODY, told, profile_of(told, off), {})
