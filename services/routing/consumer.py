"""What routing reads, and what each fact makes it do."""

from services.routing.assignments import handlers as assignments
from services.routing.assignments import merges, recovery
from services.routing.deals import handlers as deals
from services.routing.parts import make_parts
from services.routing.people import accounts
from services.routing.people import handlers as people
from services.routing.privacy import handlers as privacy
from shared.events import (
    AccountChanged,
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    ConsentChanged,
    DealChanged,
    ExportRequested,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    StageChanged,
)
from shared.identity import identity_routes
from shared.kafka import Route, on, on_batch
from shared.service import Runtime


def routes(runtime: Runtime) -> tuple[Route, ...]:
    """Folds first: a decision upon a fact sees what the fact tells."""
    parts = make_parts(runtime)
    return (
        *identity_routes(),
        on(LeadErased, lambda event, tx: privacy.on_erased(event, tx, runtime=runtime), decides=True),
        on(ExportRequested, lambda event, tx: privacy.on_export_requested(event, tx, runtime=runtime), decides=True),
        on_batch(LeadCaptured, lambda events, tx: people.on_leads_captured(events, tx, keys=runtime.keys)),
        on_batch(AccountChanged, lambda events, tx: accounts.on_accounts_changed(events, tx, keys=runtime.keys)),
        on_batch(ConsentChanged, people.on_consents_changed),
        on(LeadErased, people.on_lead_erased),
        on_batch(StageChanged, people.on_stages_changed),
        on_batch(LeadAssigned, recovery.on_leads_assigned),
        on_batch(AssignmentAccepted, recovery.on_assignments_accepted),
        on_batch(AssignmentRejected, recovery.on_assignments_rejected),
        on_batch(AssignmentExpired, recovery.on_assignments_expired),
        on_batch(DealChanged, deals.on_deals_changed),
        on_batch(LeadCaptured, lambda events, tx: assignments.on_leads_captured(events, tx, parts=parts), decides=True),
        on_batch(StageChanged, lambda events, tx: assignments.on_stages_changed(events, tx, parts=parts), decides=True),
        on(LeadMerged, lambda event, tx: merges.on_identity_changed(event, tx, parts=parts), decides=True),
        on(LeadUnmerged, lambda event, tx: merges.on_identity_changed(event, tx, parts=parts), decides=True),
        on(IdentityLinked, lambda event, tx: merges.on_identity_changed(event, tx, parts=parts), decides=True),
        on(LeadErased, lambda event, tx: assignments.on_lead_erased(event, tx, parts=parts), decides=True),
    )
