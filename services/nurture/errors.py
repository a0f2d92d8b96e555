"""What nurture refuses to do."""

from shared.errors import Conflict, Invalid, NotFound


class NoSuchSequence(NotFound):
    """No sequence has this id."""

    slug = "nurture/no-such-sequence"
    title = "There is no such sequence"


class NoSuchTemplate(NotFound):
    """No template has this id, or it has no such version."""

    slug = "nurture/no-such-template"
    title = "There is no such template"


class TemplateExists(Conflict):
    """Another template has this id."""

    slug = "nurture/template-exists"
    title = "There is such a template already"


class NoSuchStep(NotFound):
    """The sequence has no such step, or it sends nothing."""

    slug = "nurture/no-such-step"
    title = "There is no such step"


class NoSuchLead(NotFound):
    """Nothing is known here of such a lead."""

    slug = "nurture/no-such-lead"
    title = "There is no such lead"


class NoSuchLink(NotFound):
    """An address that no message of ours holds, or holds no longer."""

    slug = "nurture/no-such-link"
    title = "There is no such address"


class NoSuchSuppression(NotFound):
    """No such entry is in the suppression list."""

    slug = "nurture/no-such-suppression"
    title = "There is no such suppression"


class NoSuchAudience(NotFound):
    """No retargeting list has this id, or it is ending."""

    slug = "nurture/no-such-audience"
    title = "There is no such audience"


class NotOneClick(Invalid):
    """A POST to an unsubscribe address without the field that RFC 8058 asks for."""

    slug = "nurture/not-one-click"


class NoSuchTrial(NotFound):
    """No simulation of this sequence has this id, or not any more."""

    slug = "nurture/no-such-simulation"
    title = "There is no such simulation"


class NotPaused(Conflict):
    """The guard has not paused this sequence."""

    slug = "nurture/not-paused"


class NoSuchExperiment(NotFound):
    """The version of the sequence has no experiment of this id, or no holdout."""

    slug = "nurture/no-such-experiment"
    title = "There is no such experiment"


class VariantStopped(Conflict):
    """A variant that drives people away was chosen as the winner."""

    slug = "nurture/variant-stopped"


class NoSuchMessage(NotFound):
    """The ledger has no message of this id."""

    slug = "nurture/no-such-message"
    title = "There is no such message"


class OutcomeKnown(Conflict):
    """A message was to be resolved whose outcome is known, or not yet due to be."""

    slug = "nurture/outcome-known"


class CannotResend(Conflict):
    """What the message said is not kept, so that it cannot be sent again."""

    slug = "nurture/cannot-resend"


class NoSuchPause(NotFound):
    """No such pause holds messages to this person."""

    slug = "nurture/no-such-pause"
    title = "There is no such pause"


class NoSuchRun(NotFound):
    """Nobody ever entered a sequence under this id."""

    slug = "nurture/no-such-run"
    title = "There is no such run"


class NoSuchBroadcast(NotFound):
    """No broadcast has this id, or no such dry run was made of it."""

    slug = "nurture/no-such-broadcast"
    title = "There is no such broadcast"


class WrongBroadcastState(Conflict):
    """A broadcast in this state cannot do that."""

    slug = "nurture/broadcast-state"
    title = "The state of the broadcast does not allow it"


class NoProvider(Conflict):
    """Nothing is set up that messages of this channel could be handed to."""

    slug = "nurture/no-provider"
    title = "There is no provider for this channel"
