"""What became of a lead's enrichment, as the API shows it."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from services.capture.enrichment import queries
from services.capture.enrichment.domain import Ask, Claim, provenance
from services.capture.enrichment.inputs import ClaimOut, EnrichmentOut, FieldOut, RunOut, VersionOut
from services.capture.leads.domain import together
from services.capture.leads.queries import Family
from shared.db import Connection
from shared.rules import StoredDocument


async def enrichment_out(
    connection: Connection, family: Family, off: AbstractSet[str], field: str | None = None
) -> EnrichmentOut:
    """All that is said about a person, by whom, and how it went with each provider."""
    asks = await queries.asks_of(connection, sorted(family.members))
    claims = provenance(together((row.lead_id, row.statements) for row in family.rows), off)
    lead_id = family.root.lead_id
    return EnrichmentOut(
        lead_id=lead_id,
        fields={name: _field(found, asks) for name, found in claims.items() if field in (None, name)},
        runs=[_run(each) for each in asks.values()],
        due_at=await connection.fetchval(queries.DUE_AT, lead_id),
    )


def version_out(stored: StoredDocument) -> VersionOut:
    """A version of a provider's document."""
    return VersionOut(
        version=stored.version,
        active=stored.active,
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
    )


def _field(claims: list[Claim], asks: Mapping[str, Ask]) -> FieldOut:
    shown = [
        ClaimOut(
            value=claim.value,
            origin=claim.origin,
            confidence=claim.confidence,
            at=claim.at,
            expires_at=asks[claim.provider_id].until if claim.provider_id and claim.provider_id in asks else None,
            counts=claim.counts,
        )
        for claim in claims
    ]
    first = shown[0]
    if not first.counts:
        return FieldOut(claims=shown)
    return FieldOut(
        value=first.value,
        origin=first.origin,
        confidence=first.confidence,
        at=first.at,
        expires_at=first.expires_at,
        claims=shown,
    )


def _run(ask: Ask) -> RunOut:
    return RunOut(
        provider_id=ask.provider_id,
        outcome=ask.outcome,
        detail=ask.detail,
        fields=list(ask.fields),
        version=ask.version,
        tries=ask.tries,
        asked_at=ask.asked_at,
        expires_at=ask.until,
        retry_at=ask.retry_at,
    )
