"""What scoring refuses."""

from shared.errors import NotFound


class NoSuchLead(NotFound):
    """Nothing was ever told about this lead, so that its score is unknown, which is not the same as zero."""

    slug = "scoring/no-such-lead"
    title = "There is no such lead"
