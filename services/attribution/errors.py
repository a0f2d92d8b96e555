"""What attribution refuses to do."""

from shared.errors import Conflict, NotFound, Rejected


class NoSuchConversion(NotFound):
    """No conversion with this id has arrived here."""

    slug = "attribution/no-such-conversion"
    title = "There is no such conversion"


class NoSuchLead(NotFound):
    """No fact about this person has arrived here."""

    slug = "attribution/no-such-lead"
    title = "Nothing is known of this lead"


class NoSuchModel(Rejected):
    """Neither a built-in model nor a custom one has this id."""

    slug = "attribution/no-such-model"
    title = "There is no such model"


class ModelNotAvailable(Rejected):
    """The model is known by name but cannot answer this."""

    slug = "attribution/model-not-available"
    title = "The model is not available here"


class SeveralCurrencies(Rejected):
    """The answer would mix currencies, and money of different currencies is never added."""

    slug = "attribution/several-currencies"
    title = "The answer has several currencies; ask for one"


class ShippedModel(Rejected):
    """The models that ship with the product cannot be written over."""

    slug = "attribution/shipped-model"
    title = "This model ships with the product"


class NoSuchExport(NotFound):
    """No export has this id, or it was finished more than a week ago."""

    slug = "attribution/no-such-export"
    title = "There is no such export"


class NoSuchPart(NotFound):
    """The export has no part of this number, or not yet."""

    slug = "attribution/no-such-export-part"
    title = "There is no such part"


class PartErased(Rejected):
    """The part may hold what was known of somebody who was erased since."""

    slug = "attribution/export-part-erased"
    status = 410
    title = "The part is gone"


class TooManyExports(Conflict):
    """Enough exports wait to be written."""

    slug = "attribution/too-many-exports"
    title = "Too many exports wait"


class InvalidFilter(Rejected):
    """A filter that is not CEL, names what there is not, or asks for what a database cannot answer."""

    slug = "attribution/invalid-filter"
    title = "The filter cannot be used"


class NoSuchRate(NotFound):
    """No rate of this pair was posted for this day."""

    slug = "attribution/no-such-rate"
    title = "There is no such rate"


class MissingRates(Rejected):
    """Amounts cannot be converted, since no rate of their day, or shortly before, was posted."""

    slug = "attribution/missing-rates"
    title = "There are no rates for some of the days"


class SeveralCrossings(Rejected):
    """Two currencies without a rate between them have rates with more than one third currency."""

    slug = "attribution/several-crossings"
    title = "It is not clear by which currency to cross"


class TooManyChannels(Rejected):
    """A model that weighs channels against each other was asked about more of them than anybody can tell apart."""

    slug = "attribution/too-many-channels"
    title = "There are too many channels for this model"
