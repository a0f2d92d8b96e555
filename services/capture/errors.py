"""What capture refuses to do."""

from shared.errors import Conflict, NotFound, Packed, Rejected, Unavailable


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


class NoSuchSite(NotFound):
    """The database knows no site with this id."""

    slug = "capture/no-such-site"
    title = "There is no such site"


class ForeignOrigin(Rejected):
    """A page of another origin than those of the site or form sent this."""

    slug = "capture/foreign-origin"
    status = 403
    title = "Pages of this origin may not send this"


class NoSuchForm(NotFound):
    """Nobody made a form with this id."""

    slug = "capture/no-such-form"
    title = "There is no such form"


class NoSuchSubmission(NotFound):
    """The form has no submission with this id, or it is not waiting for a review."""

    slug = "capture/no-such-submission"
    title = "There is no such submission"


class NoSuchConfirmation(NotFound):
    """A link that nobody was sent, or one that is too old to confirm anything."""

    slug = "capture/no-such-confirmation"
    title = "This link does not confirm anything"


class NoSuchReceipt(NotFound):
    """No erasure has a receipt with this id."""

    slug = "capture/no-such-receipt"
    title = "There is no such receipt"


class NoSuchExport(NotFound):
    """No export of a person has this id, or it is over."""

    slug = "capture/no-such-export"
    title = "There is no such export"


class NamesSomebody(Rejected):
    """What would be kept after an erasure names whom it is about."""

    slug = "capture/names-somebody"
    title = "The receipt would name the person"


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


class NoSuchProvider(NotFound):
    """No document was ever saved for a provider of this name."""

    slug = "capture/no-such-provider"
    title = "There is no such provider"


class TooManyProviders(Conflict):
    """There are as many providers as a lead can wait for."""

    slug = "capture/too-many-providers"
    title = "There are too many providers"


class NoSuchImport(NotFound):
    """There is no import with this id."""

    slug = "capture/no-such-import"
    title = "There is no such import"


class NoSuchContentEncoding(Packed):
    """The body is packed in a way that is not understood here."""

    slug = "capture/content-encoding"


class ImportNotOpen(Conflict):
    """The import was started, or is over; or it has no file yet."""

    slug = "capture/import-not-open"
    title = "The import is in another state"


class Contended(Unavailable):
    """Others changed the same person at the same moment; tried again it works."""

    slug = "capture/contended"


class SignatureReused(Rejected):
    """A signature that is good for one body came with another one."""

    slug = "capture/signature-reused"
    title = "The delivery is a forgery of another one"


class NoSuchAccount(NotFound):
    """There is no account with this id."""

    slug = "capture/no-such-account"
    title = "There is no such account"


class AccountTaken(Conflict):
    """An external id or a domain is another account's."""

    slug = "capture/account-taken"
    title = "The external id or domain belongs to another account"


class SameAccount(Conflict):
    """Both ids mean one account already."""

    slug = "capture/same-account"
    title = "The accounts are one already"
