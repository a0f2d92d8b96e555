"""Everything nurture reacts to. Of two routes for one kind the fold comes first, the decision after it."""

from datetime import timedelta

from services.nurture.acts import handlers as acts
from services.nurture.audiences import handlers as audiences
from services.nurture.broadcasts import handlers as broadcasts
from services.nurture.enrolments import handlers as enrolments
from services.nurture.experiments import handlers as experiments
from services.nurture.explaining import handlers as explaining
from services.nurture.measurement import handlers as measurement
from services.nurture.optins import handlers as optins
from services.nurture.parts import make_parts
from services.nurture.people import handlers as people
from services.nurture.permission import handlers as permission
from services.nurture.preferences import handlers as preferences
from services.nurture.privacy import handlers as privacy
from services.nurture.sending import reconciling, settling
from services.nurture.takeover import handlers as takeover
from shared.events import (
    AccountChanged,
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    ConsentChanged,
    ConversionRecorded,
    CreditsChanged,
    DealChanged,
    EnrolmentEnded,
    EnrolmentStarted,
    ExperimentRuled,
    ExportRequested,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadHandedOff,
    LeadMerged,
    LeadScored,
    LeadUnmerged,
    MessageClaimed,
    MessageReported,
    MessageSettled,
    OptinRequested,
    PauseAsked,
    PauseEnded,
    RefundRecorded,
    SegmentEntered,
    SegmentLeft,
    StageChanged,
    StepPerformed,
    TouchRecorded,
    TouchWithdrawn,
    VariantAssigned,
)
from shared.identity import identity_routes
from shared.kafka import Route, on, on_batch
from shared.lead_scores import fold_scores
from shared.service import Runtime

GATHER = timedelta(milliseconds=100)
"""A message may leave that much later: its sequence waits for minutes at least."""


def routes(runtime: Runtime) -> tuple[Route, ...]:
    """What is folded, what is decided, and our own decisions read back."""
    parts = make_parts(runtime)
    return (
        *identity_routes(people.note_moved),
        on_batch(IdentityLinked, people.lock_moved, decides=True),
        on_batch(LeadMerged, people.lock_moved, decides=True),
        on_batch(LeadUnmerged, people.lock_moved, decides=True),
        on(LeadErased, lambda event, tx: privacy.on_erased(event, tx, runtime=runtime), decides=True),
        on(ExportRequested, lambda event, tx: privacy.on_export_requested(event, tx, runtime=runtime), decides=True),
        on_batch(LeadCaptured, lambda events, tx: people.on_profiles(events, tx, parts)),
        on_batch(ConsentChanged, people.on_consents),
        on_batch(LeadScored, lambda events, tx: fold_scores(tx.connection, events)),
        on_batch(SegmentEntered, people.on_segments),
        on_batch(SegmentLeft, people.on_segments),
        on_batch(StageChanged, people.on_stages),
        on(ConversionRecorded, people.on_conversion),
        on(AssignmentAccepted, people.on_accepted),
        on(LeadHandedOff, people.on_handed_off),
        on(LeadErased, people.on_erased),
        on_batch(LeadAssigned, takeover.on_assigned),
        on(AssignmentAccepted, takeover.on_assignment_settled),
        on(AssignmentRejected, takeover.on_assignment_settled),
        on(AssignmentExpired, takeover.on_assignment_settled),
        on_batch(DealChanged, takeover.on_deals),
        on_batch(TouchRecorded, lambda events, tx: takeover.on_touches(events, tx, parts)),
        on_batch(LeadCaptured, takeover.on_profiles),
        on_batch(AccountChanged, takeover.on_accounts),
        on(LeadErased, takeover.on_erased),
        on_batch(ConsentChanged, explaining.on_consents),
        on_batch(StageChanged, explaining.on_stages),
        on(LeadErased, explaining.on_erased),
        on(EnrolmentStarted, lambda event, tx: enrolments.on_started(event, tx, parts)),
        on(EnrolmentEnded, lambda event, tx: enrolments.on_ended(event, tx, parts)),
        on(MessageClaimed, lambda event, tx: settling.on_claimed(event, tx, parts)),
        on(MessageSettled, settling.on_settled),
        on(StepPerformed, acts.on_performed),
        on(PauseAsked, takeover.on_pause_asked),
        on(PauseEnded, takeover.on_pause_ended),
        on(MessageClaimed, experiments.on_claimed),
        on(VariantAssigned, experiments.on_assigned),
        on(ExperimentRuled, experiments.on_ruled),
        on_batch(TouchRecorded, measurement.on_touches),
        on_batch(TouchWithdrawn, measurement.on_withdrawals),
        on_batch(RefundRecorded, measurement.on_refunds),
        on_batch(ConversionRecorded, measurement.on_conversions),
        on(IdentityLinked, measurement.on_identity),
        on(LeadMerged, measurement.on_identity),
        on(LeadUnmerged, measurement.on_identity),
        on(CreditsChanged, measurement.on_credits),
        on(MessageReported, reconciling.on_reported, decides=True),
        on_batch(TouchRecorded, lambda events, tx: enrolments.on_touches(events, tx, parts), decides=True),
        on_batch(SegmentEntered, lambda events, tx: enrolments.on_segments(events, tx, parts), decides=True),
        on_batch(SegmentLeft, lambda events, tx: enrolments.on_segments(events, tx, parts), decides=True),
        on_batch(StageChanged, lambda events, tx: enrolments.on_stages(events, tx, parts), decides=True),
        on_batch(ConversionRecorded, lambda events, tx: enrolments.on_conversions(events, tx, parts), decides=True),
        on_batch(AssignmentAccepted, lambda events, tx: enrolments.on_acceptances(events, tx, parts), decides=True),
        on_batch(LeadHandedOff, lambda events, tx: enrolments.on_handed_off(events, tx, parts), decides=True),
        on_batch(LeadCaptured, lambda events, tx: enrolments.on_profiles(events, tx, parts), decides=True),
        on_batch(ConsentChanged, lambda events, tx: enrolments.on_consents(events, tx, parts), decides=True),
        on(IdentityLinked, lambda event, tx: enrolments.on_identity(event, tx, parts), decides=True),
        on(LeadMerged, lambda event, tx: enrolments.on_identity(event, tx, parts), decides=True),
        on(LeadUnmerged, lambda event, tx: enrolments.on_identity(event, tx, parts), decides=True),
        on(LeadErased, lambda event, tx: enrolments.on_erased(event, tx, parts), decides=True),
        on_batch(LeadAssigned, takeover.look_again, decides=True),
        on_batch(AssignmentAccepted, takeover.look_again, decides=True),
        on_batch(AssignmentRejected, takeover.look_again, decides=True),
        on_batch(AssignmentExpired, takeover.look_again, decides=True),
        on_batch(DealChanged, takeover.look_again, decides=True),
        on_batch(TouchRecorded, takeover.look_again, decides=True),
        on(LeadMerged, takeover.look_again_at_both, decides=True),
        on(LeadUnmerged, takeover.look_again_at_both, decides=True),
        on(LeadErased, optins.on_erased, decides=True),
        on_batch(SegmentEntered, audiences.on_moved, decides=True),
        on_batch(SegmentLeft, audiences.on_moved, decides=True),
        on_batch(LeadCaptured, audiences.on_heard, decides=True),
        on_batch(ConsentChanged, audiences.on_heard, decides=True),
        on(IdentityLinked, audiences.on_identity, decides=True),
        on(LeadMerged, audiences.on_identity, decides=True),
        on(LeadUnmerged, audiences.on_identity, decides=True),
        on(LeadErased, audiences.on_identity, decides=True),
        on(LeadErased, preferences.on_erased, decides=True),
        on(MessageReported, lambda event, tx: permission.on_reported(event, tx, parts), decides=True),
        on(LeadErased, broadcasts.on_erased, decides=True),
        on(OptinRequested, optins.on_requested, decides=True),
    )
