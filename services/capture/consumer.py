"""What capture reacts to: deliveries, to map them; and what it told itself, should an older database come back."""

from services.capture.accounts.folding import on_accounts_changed
from services.capture.adapters import adapters
from services.capture.consent.handlers import on_consent
from services.capture.enrichment.builtin import read_lists
from services.capture.erasures.handlers import on_reported
from services.capture.hooks.handlers import on_deliveries
from services.capture.leads import folding
from services.capture.leads.requested import on_update_requested
from services.capture.person_exports.handlers import on_answered
from services.capture.sites.handlers import on_identified
from shared.events import (
    AccountChanged,
    ConsentChanged,
    ConsentRequested,
    DeliveryReceived,
    ErasureReported,
    ExportAnswered,
    IdentityLinked,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    LeadUpdateRequested,
    VisitorIdentified,
)
from shared.kafka import Route, on, on_batch
from shared.service import Runtime


def routes(runtime: Runtime) -> tuple[Route, ...]:
    """The table of facts. None is folded into a projection, so a rebuild has nothing to do with them."""
    read_lists()
    adapters()
    return (
        on_batch(DeliveryReceived, lambda events, tx: on_deliveries(events, tx, runtime), decides=True),
        on_batch(
            LeadCaptured, lambda events, tx: folding.on_captured(events, tx, runtime), decides=True, awaited=False
        ),
        on_batch(AccountChanged, lambda events, tx: on_accounts_changed(events, tx, runtime), decides=True),
        on(LeadMerged, folding.on_merged, decides=True),
        on(LeadUnmerged, folding.on_merged, decides=True),
        on(IdentityLinked, lambda event, tx: folding.on_linked(event, tx, runtime), decides=True),
        on(ConsentChanged, on_consent, decides=True),
        on(ConsentRequested, on_consent, decides=True),
        on(VisitorIdentified, lambda event, tx: on_identified(event, tx, runtime), decides=True),
        on(LeadUpdateRequested, lambda event, tx: on_update_requested(event, tx, runtime), decides=True),
        on(LeadErased, lambda event, tx: folding.on_erased(event, tx, runtime), decides=True),
        on(ErasureReported, on_reported, decides=True),
        on(ExportAnswered, on_answered, decides=True),
    )
