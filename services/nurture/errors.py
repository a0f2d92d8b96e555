"""What nurture refuses to do."""

from shared.errors import Conflict, Invalid, NotFound


class NoSuchSequence(NotFound):
    """No sequence has this id."""

    slug = "nurture/no-such-sequence"
    title = "There is no such sequence"


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


class NotOneClick(Invalid):
    """A POST to an unsubscribe address without the field that RFC 8058 asks for."""

    slug = "nurture/not-one-click"


class StaleVersion(Conflict):
    """Somebody saved another version of the sequence meanwhile."""

    slug = "nurture/stale-version"
