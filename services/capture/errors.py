"""What capture refuses to do."""

from shared.errors import Conflict, NotFound, Rejected, Unavailable


class NoSuchLead(NotFound):
    """No call or delivery has told of a lead with this id."""

    slug = "capture/no-such-lead"
    title = "There is no such lead"


class LeadNotMerged(Conflict):
    """The lead stands for itself, so there is nothing to undo."""

    slug = "capture/lead-not-merged"
    title = "The lead is not merged into another"


class SamePerson(Conflict):
    """Both leads stand for one person already."""

    slug = "capture/same-person"
    title = "The leads are one person already"


class ProfileTooLarge(Rejected):
    """The attributes of a person would not fit into a fact any more."""

    slug = "capture/profile-too-large"
    title = "The profile is too large"


class NoSuchSource(NotFound):
    """The database knows no source with this id."""

    slug = "capture/no-such-source"
    title = "There is no such source"


class NoSuchDelivery(NotFound):
    """The source delivered nothing of this name, or it is not waiting any more."""

    slug = "capture/no-such-delivery"
    title = "There is no such delivery"


class NoSuchSecret(NotFound):
    """The source never had this secret, or it is retired."""

    slug = "capture/no-such-secret"
    title = "There is no such secret"


class TwoSecretsLive(Conflict):
    """Two secrets of a source are live, which is as many as a rotation needs."""

    slug = "capture/two-secrets-live"
    title = "Two secrets are live already"


class LastSecret(Conflict):
    """Without its last secret a source could not prove anything any more."""

    slug = "capture/last-secret"
    title = "The last secret cannot be retired"


class Contended(Unavailable):
    """Others changed the same person at the same moment; tried again it works."""

    slug = "capture/contended"


class SignatureReused(Rejected):
    """A signature that is good for one body came with another one."""

    slug = "capture/signature-reused"
    title = "The delivery is a forgery of another one"
