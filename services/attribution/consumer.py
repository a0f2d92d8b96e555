"""What attribution reacts to. All of it is folding, but for what it tells of an erasure."""

from datetime import timedelta

from services.attribution.accounts import handlers as accounts
from services.attribution.channels import handlers as channels
from services.attribution.channels.groupings import active_grouping
from services.attribution.conversions import handlers as conversions
from services.attribution.costs import handlers as costs
from services.attribution.exports import handlers as exports
from services.attribution.history import handlers as history
from services.attribution.journeys import handlers as journeys
from services.attribution.models.catalogue import Catalogue
from services.attribution.pipeline import handlers as pipeline
from services.attribution.privacy import handlers as privacy
from shared.db import Tx
from shared.events import (
    AccountChanged,
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    ConversionRecorded,
    CostRecorded,
    DealChanged,
    ExportRequested,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    RefundRecorded,
    StageChanged,
    TouchRecorded,
    TouchWithdrawn,
)
from shared.identity import identity_routes
from shared.ids import LeadId
from shared.kafka import Route, on, on_batch
from shared.service import Runtime

GATHER = timedelta(milliseconds=200)
"""A report is read by people and may be a moment behind; each batch rewrites sums that its facts share."""

IdentityChange = IdentityLinked | LeadMerged | LeadUnmerged


def routes(runtime: Runtime) -> tuple[Route, ...]:
    """The facts that make journeys, conversions, costs and credits."""
    catalogue = Catalogue()
    groupings = active_grouping()

    async def identity_changed(event: IdentityChange, tx: Tx, affected: set[LeadId]) -> None:
        await journeys.on_identity_changed(event, tx, affected, catalogue)
        await pipeline.on_identity_changed(event, tx, affected)

    return (
        *identity_routes(identity_changed),
        on(LeadErased, privacy.on_erased, decides=True),
        on(LeadErased, exports.on_lead_erased, decides=True),
        on(ExportRequested, lambda event, tx: privacy.on_export_requested(event, tx, runtime=runtime), decides=True),
        on(LeadErased, lambda event, tx: journeys.on_lead_erased(event, tx, catalogue)),
        *(on_batch(kind, history.on_identity_told) for kind in history.IDENTITY_FACTS),
        on_batch(LeadCaptured, history.on_profiles_told),
        on(LeadErased, lambda event, tx: channels.on_lead_erased(event, tx, catalogue, groupings)),
        on_batch(LeadCaptured, lambda events, tx: journeys.on_leads_captured(events, tx, catalogue)),
        on_batch(TouchRecorded, lambda events, tx: journeys.on_touches(events, tx, catalogue, groupings)),
        on_batch(TouchWithdrawn, lambda events, tx: journeys.on_withdrawn(events, tx, catalogue)),
        on_batch(ConversionRecorded, lambda events, tx: conversions.on_conversions(events, tx, catalogue)),
        on_batch(RefundRecorded, lambda events, tx: conversions.on_refunds(events, tx, catalogue)),
        on_batch(DealChanged, history.on_deals_told),
        on_batch(DealChanged, lambda events, tx: conversions.on_deals(events, tx, catalogue)),
        on_batch(LeadAssigned, lambda events, tx: pipeline.on_assignments(events, tx, catalogue)),
        on(LeadErased, pipeline.on_erased),
        on_batch(LeadCaptured, pipeline.on_captured),
        on_batch(ConversionRecorded, pipeline.on_conversions),
        on_batch(RefundRecorded, pipeline.on_refunds),
        on_batch(DealChanged, pipeline.on_deals),
        on_batch(StageChanged, pipeline.on_stages),
        on_batch(AssignmentAccepted, pipeline.on_answers),
        on_batch(AssignmentRejected, pipeline.on_answers),
        on_batch(AssignmentExpired, pipeline.on_answers),
        on_batch(CostRecorded, costs.on_costs),
        on_batch(AccountChanged, lambda events, tx: accounts.on_accounts_changed(events, tx, catalogue)),
    )
