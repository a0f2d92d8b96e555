"""What routing refuses to do."""

from shared.errors import Conflict, NotFound, Rejected


class NoSuchRep(NotFound):
    """There is no rep with this id."""

    slug = "routing/no-such-rep"


class NoCalendar(NotFound):
    """The rep has no calendar of their own here."""

    slug = "routing/no-calendar"


class NotHeld(NotFound):
    """The lead does not wait for a rep."""

    slug = "routing/not-held"
    title = "The lead is not held"


class StillActive(Conflict):
    """The rep still works, so that their leads are not given to others."""

    slug = "routing/rep-still-active"
    title = "The rep is active"


class EmailTaken(Conflict):
    """Another rep has this email address."""

    slug = "routing/rep-email-taken"
    title = "Another rep has this email address"


class NoSuchQueue(NotFound):
    """Neither the active rules nor the books have a queue with this id."""

    slug = "routing/no-such-queue"


class NoSuchLead(NotFound):
    """Nothing was ever told here about this lead."""

    slug = "routing/no-such-lead"


class NotAssigned(NotFound):
    """The lead was never given to a rep; the detail says why, when it is held."""

    slug = "routing/not-assigned"
    title = "The lead has no assignment"


class NoSuchAssignment(NotFound):
    """There is no assignment with this id."""

    slug = "routing/no-such-assignment"


class NotReplayable(Conflict):
    """What the decision saw is not there: it was a person's, an earlier version's, or the lead was erased."""

    slug = "routing/not-replayable"
    title = "The decision cannot be taken again"


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
    """The deal is won or lost; it is changed again only once it is reopened."""

    slug = "routing/deal-closed"
    title = "The deal is closed"


class DealExists(Conflict):
    """Another deal, opened with other values, has this external id."""

    slug = "routing/deal-exists"
    title = "A deal with this external id exists"


class NotClosed(Conflict):
    """The deal is open."""

    slug = "routing/deal-not-closed"
    title = "The deal is open"


class DealNotReady(Rejected):
    """The deal misses something that its stage, or winning it, asks for."""

    slug = "routing/deal-not-ready"
    title = "The deal misses something"


class NoSuchPipeline(NotFound):
    """There is no pipeline with this id."""

    slug = "routing/no-such-pipeline"


class NoSuchHandoff(NotFound):
    """The deal was not handed to customer success, or has no such task."""

    slug = "routing/no-such-handoff"


class NoSuchEndpoint(NotFound):
    """There is no webhook endpoint with this id, or no such secret of it."""

    slug = "routing/no-such-webhook"


class NoSuchDelivery(NotFound):
    """The endpoint has no such delivery, or it was settled so long ago that it is forgotten."""

    slug = "routing/no-such-delivery"


class TwoSecretsLive(Conflict):
    """An endpoint has two live secrets at most."""

    slug = "routing/two-secrets-live"
    title = "Two secrets are live"


class LastSecret(Conflict):
    """The last secret of an endpoint is not retired, since then nothing could be signed."""

    slug = "routing/last-secret"
    title = "It is the last secret"


class NotClaimable(Conflict):
    """The lead is not open to be claimed, or not by this rep now."""

    slug = "routing/not-claimable"
    title = "The lead cannot be claimed"


class NoSlack(NotFound):
    """Slack is not set up here."""

    slug = "routing/no-slack"
    title = "Slack is not set up"


class NoSuchConnection(NotFound):
    """There is no connection with a CRM of this id, or no record of this id was written by it."""

    slug = "routing/no-such-crm-connection"


class DealChangedMeanwhile(Conflict):
    """The deal is not as it was when the caller read it; the detail says what it is by now."""

    slug = "routing/deal-changed-meanwhile"
    title = "The deal was changed meanwhile"


class NoSuchSubscription(NotFound):
    """There is no subscription with this id."""

    slug = "routing/no-such-subscription"


class TooManySubscriptions(Conflict):
    """There are as many subscriptions as there may be: each reads the facts for itself."""

    slug = "routing/too-many-subscriptions"
    title = "There are too many subscriptions"


class EndpointInUse(Conflict):
    """Subscriptions tell the endpoint facts."""

    slug = "routing/webhook-in-use"
    title = "The endpoint has subscriptions"
