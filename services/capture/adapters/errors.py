"""The two ways in which a delivery can fail: it is not from the source, or nothing can be made of it."""

from shared.errors import Rejected


class BadSignature(Rejected):
    """The request does not prove that it comes from the source; also every header that does not parse."""

    slug = "capture/bad-signature"
    status = 401
    title = "The delivery is not signed by this source"


class Unmappable(Rejected):
    """A genuine delivery that nothing can be made of: it is kept for a person to look at, and can be tried again."""

    slug = "capture/unmappable"
    title = "The delivery cannot be mapped"
