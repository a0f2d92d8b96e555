"""What routing reads, and what each fact makes it do."""

from services.routing.assignments import handlers as assignments
from services.routing.assignments import merges, recovery, segments
from services.routing.deals import handlers as deals
from services.routing.deals import rotting
from services.routing.handoffs import handlers as handoffs
from services.routing.parts import make_parts
from services.routing.people import accounts
from services.routing.people import handlers as people
from services.routing.privacy import handlers as privacy
from services.routing.requests import handlers as requests
from services.routing.sla.answering import on_breaches, on_contacts
from shared.contacts import CONTACTS
from shared.events import (
    AccountChanged,
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    AssignmentRequested,
    ConsentChanged,
    DealChanged,
    DealRotted,
    ExportRequested,
    HandoffTaskChanged,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadHandedOff,
    LeadMerged,
    LeadUnmerged,
    RepNoticeRequested,
    SegmentEntered,
    SegmentLeft,
    SlaBreached,
    StageChanged,
    TouchRecorded,
    WebhookRequested,
)
from shared.identity import identity_routes
from shared.kafka import Route, on, on_batch
from shared.lead_scores import fold_scores
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
        on_batch(SegmentEntered, people.on_segments_changed),
        on_batch(SegmentLeft, people.on_segments_changed),
        on_batch(StageChanged, people.on_stages_changed),
        on_batch(StageChanged, lambda events, tx: fold_scores(tx.connection, events)),
        on_batch(LeadAssigned, recovery.on_leads_assigned, awaited=False),
        on_batch(AssignmentAccepted, recovery.on_assignments_accepted),
        on_batch(AssignmentRejected, recovery.on_assignments_rejected),
        on_batch(AssignmentExpired, recovery.on_assignments_expired),
        on_batch(SlaBreached, on_breaches),
        on_batch(DealChanged, deals.on_deals_changed),
        on_batch(DealRotted, rotting.on_rotted),
        on_batch(LeadHandedOff, lambda events, tx: handoffs.on_handed_off(events, tx, parts=parts)),
        on_batch(HandoffTaskChanged, handoffs.on_tasks_changed),
        on_batch(TouchRecorded, on_contacts, decides=True, only=lambda event: event.type in CONTACTS),
        on_batch(LeadCaptured, lambda events, tx: assignments.on_leads_captured(events, tx, parts=parts), decides=True),
        on_batch(StageChanged, lambda events, tx: assignments.on_stages_changed(events, tx, parts=parts), decides=True),
        on_batch(SegmentEntered, lambda events, tx: segments.on_changed(events, tx, parts=parts), decides=True),
        on_batch(SegmentLeft, lambda events, tx: segments.on_changed(events, tx, parts=parts), decides=True),
        on(
            AssignmentRequested,
            lambda event, tx: requests.on_assignment_requested(event, tx, parts=parts),
            decides=True,
        ),
        on(RepNoticeRequested, lambda event, tx: requests.on_notice_requested(event, tx, parts=parts), decides=True),
        on(WebhookRequested, lambda event, tx: requests.on_webhook_requested(event, tx, parts=parts), decides=True),
        on(LeadMerged, lambda event, tx: merges.on_identity_changed(event, tx, parts=parts), decides=True),
        on(LeadUnmerged, lambda event, tx: merges.on_identity_changed(event, tx, parts=parts), decides=True),
        on(IdentityLinked, lambda event, tx: merges.on_identity_changed(event, tx, parts=parts), decides=True),
        on(LeadErased, lambda event, tx: assignments.on_lead_erased(event, tx, parts=parts), decides=True),
    )
