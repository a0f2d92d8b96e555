"""What routing refuses to do."""

from shared.errors import Conflict, NotFound, Rejected


class NoSuchRep(NotFound):
    """There is no rep with this id."""

    slug = "routing/no-such-rep"


class EmailTaken(Conflict):
    """Another rep has this email address."""

    slug = "routing/rep-email-taken"
    title = "Another rep has this email address"


class NoSuchLead(NotFound):
    """Nothing was ever told here about this lead."""

    slug = "routing/no-such-lead"


class NotAssigned(NotFound):
    """The lead was never given to a rep; the detail says why, when it is held."""

    slug = "routing/not-assigned"
    title = "The lead has no assignment"


class NotCurrent(Conflict):
    """The assignment is no longer the lead's current one."""

    slug = "routing/not-current"
    title = "The assignment is no longer current"


class NobodyElse(Rejected):
    """The rules find no other rep for the lead."""

    slug = "routing/nobody-else"
    title = "There is nobody else to give the lead to"


class NoSuchDeal(NotFound):
    """There is no deal with this id."""

    slug = "routing/no-such-deal"


class DealClosed(Conflict):
    """The deal is won or lost; deals are not reopened."""

    slug = "routing/deal-closed"
    title = "The deal is closed"


class DealExists(Conflict):
    """Another deal, opened with other values, has this external id."""

    slug = "routing/deal-exists"
    title = "A deal with this external id exists"
