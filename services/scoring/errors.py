"""What scoring refuses."""

from shared.errors import Conflict, NotFound


class NoSuchLead(NotFound):
    """Nothing was ever told about this lead, so that its score is unknown, which is not the same as zero."""

    slug = "scoring/no-such-lead"
    title = "There is no such lead"


class NoSuchSegment(NotFound):
    """There is no segment with this id, or no such version of it."""

    slug = "scoring/no-such-segment"
    title = "There is no such segment"


class SegmentExists(Conflict):
    """Another segment has this id, or one that was deleted is still being cleared away."""

    slug = "scoring/segment-exists"
    title = "The id of the segment is taken"


class SegmentInUse(Conflict):
    """Other segments ask for this one."""

    slug = "scoring/segment-in-use"
    title = "Other segments name this one"


class NotAList(Conflict):
    """People are put into a static segment only; a dynamic one finds its own."""

    slug = "scoring/not-a-list"
    title = "The segment is not a list"


class TooManySegments(Conflict):
    """Every fact of a person is tried on the segments that it may concern, so their number has an end."""

    slug = "scoring/too-many-segments"
    title = "There are too many segments"


class NoSuchModel(NotFound):
    """No predictive model has this version."""

    slug = "scoring/no-such-model"
    title = "There is no such version"


class NoSuchTraining(NotFound):
    """No training has this id."""

    slug = "scoring/no-such-training"
    title = "There is no such training"


class NoSuchAccount(NotFound):
    """Nothing was ever told about this account, and nobody names it as theirs."""

    slug = "scoring/no-such-account"
    title = "There is no such account"
