"""Everything nurture reacts to. Of two routes for one kind the fold comes first, the decision after it."""

from services.nurture.enrolments import handlers as enrolments
from services.nurture.optins import handlers as optins
from services.nurture.parts import make_parts
from services.nurture.people import handlers as people
from services.nurture.privacy import handlers as privacy
from services.nurture.sending import handlers as sending
from shared.events import (
    AssignmentAccepted,
    ConsentChanged,
    ConversionRecorded,
    EnrolmentEnded,
    EnrolmentStarted,
    ExportRequested,
    IdentityLinked,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    MessageClaimed,
    MessageSettled,
    OptinRequested,
    StageChanged,
    TouchRecorded,
)
from shared.identity import identity_routes
from shared.kafka import Route, on, on_batch
from shared.service import Runtime


def routes(runtime: Runtime) -> tuple[Route, ...]:
    """What is folded, what is decided, and our own decisions read back."""
    parts = make_parts(runtime)
    return (
        *identity_routes(),
        on(LeadErased, lambda event, tx: privacy.on_erased(event, tx, runtime=runtime), decides=True),
        on(ExportRequested, lambda event, tx: privacy.on_export_requested(event, tx, runtime=runtime), decides=True),
        on_batch(LeadCaptured, lambda events, tx: people.on_profiles(events, tx, parts)),
        on_batch(ConsentChanged, people.on_consents),
        on_batch(StageChanged, people.on_stages),
        on(ConversionRecorded, people.on_conversion),
        on(AssignmentAccepted, people.on_accepted),
        on(LeadErased, people.on_erased),
        on(EnrolmentStarted, lambda event, tx: enrolments.on_started(event, tx, parts)),
        on(EnrolmentEnded, lambda event, tx: enrolments.on_ended(event, tx, parts)),
        on(MessageClaimed, lambda event, tx: sending.on_claimed(event, tx, parts)),
        on(MessageSettled, sending.on_settled),
        on_batch(TouchRecorded, lambda events, tx: enrolments.on_touches(events, tx, parts), decides=True),
        on_batch(StageChanged, lambda events, tx: enrolments.on_stages(events, tx, parts), decides=True),
        on_batch(ConversionRecorded, lambda events, tx: enrolments.on_conversions(events, tx, parts), decides=True),
        on_batch(AssignmentAccepted, lambda events, tx: enrolments.on_acceptances(events, tx, parts), decides=True),
        on_batch(LeadCaptured, lambda events, tx: enrolments.on_profiles(events, tx, parts), decides=True),
        on_batch(ConsentChanged, lambda events, tx: enrolments.on_consents(events, tx, parts), decides=True),
        on(IdentityLinked, lambda event, tx: enrolments.on_identity(event, tx, parts), decides=True),
        on(LeadMerged, lambda event, tx: enrolments.on_identity(event, tx, parts), decides=True),
        on(LeadUnmerged, lambda event, tx: enrolments.on_identity(event, tx, parts), decides=True),
        on(LeadErased, lambda event, tx: enrolments.on_erased(event, tx, parts), decides=True),
        on(LeadErased, optins.on_erased, decides=True),
        on(OptinRequested, optins.on_requested, decides=True),
    )
