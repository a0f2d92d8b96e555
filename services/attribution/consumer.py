"""What attribution reacts to. All of it is folding: attribution decides nothing and tells nothing."""

from services.attribution.conversions import handlers as conversions
from services.attribution.costs import handlers as costs
from services.attribution.journeys import handlers as journeys
from services.attribution.models.catalogue import Catalogue
from shared.events import (
    ConversionRecorded,
    CostRecorded,
    DealChanged,
    LeadCaptured,
    LeadErased,
    RefundRecorded,
    TouchRecorded,
)
from shared.identity import identity_routes
from shared.kafka import Route, on, on_batch
from shared.service import Runtime


def routes(_runtime: Runtime) -> tuple[Route, ...]:
    """The facts that make journeys, conversions, costs and credits."""
    catalogue = Catalogue()
    return (
        *identity_routes(lambda event, tx, affected: journeys.on_identity_changed(event, tx, affected, catalogue)),
        on(LeadErased, journeys.on_lead_erased),
        on_batch(LeadCaptured, lambda events, tx: journeys.on_leads_captured(events, tx, catalogue)),
        on_batch(TouchRecorded, lambda events, tx: journeys.on_touches(events, tx, catalogue)),
        on_batch(ConversionRecorded, lambda events, tx: conversions.on_conversions(events, tx, catalogue)),
        on_batch(RefundRecorded, lambda events, tx: conversions.on_refunds(events, tx, catalogue)),
        on_batch(DealChanged, lambda events, tx: conversions.on_deals(events, tx, catalogue)),
        on_batch(CostRecorded, costs.on_costs),
    )
