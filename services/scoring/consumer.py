"""What scoring reacts to. A fact is folded first, which a rebuild does too; then those concerned are judged.

Touches are judged where they are folded: most of the work is to have the persons at hand.
"""

from services.scoring.accounts.handlers import on_accounts_changed
from services.scoring.decisions import handlers as decisions
from services.scoring.engagement.handlers import on_touches, on_withdrawn
from services.scoring.fit.handlers import on_consents, on_erased, on_profiles
from services.scoring.parts import make_parts
from services.scoring.people.identity import on_identity_changed
from services.scoring.privacy import handlers as privacy
from services.scoring.sales.handlers import on_assigned, on_assignment_settled, on_deals
from services.scoring.segments import handlers as segments
from services.scoring.segments import lists
from services.scoring.stages.handlers import settle_before, settle_identified, settle_told
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
    TouchRecorded,
    TouchWithdrawn,
)
from shared.identity import identity_routes
from shared.kafka import Route, on, on_batch
from shared.service import Runtime


def routes(runtime: Runtime) -> tuple[Route, ...]:
    """The handlers of every fact, in the order in which they run."""
    parts = make_parts(runtime)
    return (
        *identity_routes(lambda event, tx, affected: on_identity_changed(event, tx, affected, parts=parts)),
        on(LeadErased, lambda event, tx: privacy.on_erased(event, tx, runtime=runtime), decides=True),
        on(ExportRequested, lambda event, tx: privacy.on_export_requested(event, tx, runtime=runtime), decides=True),
        on(LeadErased, lists.on_erased, decides=True),
        on_batch(LeadCaptured, lambda events, tx: settle_before(events, tx, parts=parts), decides=True),
        on_batch(ConsentChanged, lambda events, tx: settle_before(events, tx, parts=parts), decides=True),
        on_batch(LeadAssigned, lambda events, tx: settle_before(events, tx, parts=parts), decides=True),
        on_batch(AssignmentAccepted, lambda events, tx: settle_before(events, tx, parts=parts), decides=True),
        on_batch(AssignmentRejected, lambda events, tx: settle_before(events, tx, parts=parts), decides=True),
        on_batch(AssignmentExpired, lambda events, tx: settle_before(events, tx, parts=parts), decides=True),
        on_batch(DealChanged, lambda events, tx: settle_before(events, tx, parts=parts), decides=True),
        on_batch(LeadCaptured, lambda events, tx: on_profiles(events, tx, parts=parts)),
        on_batch(AccountChanged, lambda events, tx: on_accounts_changed(events, tx, parts=parts)),
        on_batch(ConsentChanged, lambda events, tx: on_consents(events, tx, parts=parts)),
        on(LeadErased, lambda event, tx: on_erased(event, tx, parts=parts)),
        on_batch(TouchRecorded, lambda events, tx: on_touches(events, tx, parts=parts)),
        on_batch(TouchWithdrawn, lambda events, tx: on_withdrawn(events, tx, parts=parts)),
        on_batch(LeadAssigned, lambda events, tx: on_assigned(events, tx, parts=parts)),
        on_batch(AssignmentAccepted, lambda events, tx: on_assignment_settled(events, tx, parts=parts)),
        on_batch(AssignmentRejected, lambda events, tx: on_assignment_settled(events, tx, parts=parts)),
        on_batch(AssignmentExpired, lambda events, tx: on_assignment_settled(events, tx, parts=parts)),
        on_batch(DealChanged, lambda events, tx: on_deals(events, tx, parts=parts)),
        on_batch(AccountChanged, lambda events, tx: segments.on_accounts(events, tx, parts=parts), decides=True),
        on_batch(LeadCaptured, lambda events, tx: settle_told(events, tx, parts=parts), decides=True),
        on_batch(ConsentChanged, lambda events, tx: settle_told(events, tx, parts=parts), decides=True),
        on(LeadMerged, lambda event, tx: settle_identified(event, tx, parts=parts), decides=True),
        on(LeadUnmerged, lambda event, tx: settle_identified(event, tx, parts=parts), decides=True),
        on(IdentityLinked, lambda event, tx: settle_identified(event, tx, parts=parts), decides=True),
        on_batch(LeadErased, lambda events, tx: settle_told(events, tx, parts=parts), decides=True),
        on(LeadErased, decisions.on_erased, decides=True),
        on_batch(LeadAssigned, lambda events, tx: settle_told(events, tx, parts=parts), decides=True),
        on_batch(AssignmentAccepted, lambda events, tx: settle_told(events, tx, parts=parts), decides=True),
        on_batch(AssignmentRejected, lambda events, tx: settle_told(events, tx, parts=parts), decides=True),
        on_batch(AssignmentExpired, lambda events, tx: settle_told(events, tx, parts=parts), decides=True),
        on_batch(DealChanged, lambda events, tx: settle_told(events, tx, parts=parts), decides=True),
    )
