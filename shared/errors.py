"""The three endings: `Rejected` never succeeds, `Unavailable` may, anything else is a bug."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of a request: `pointer` is a JSON Pointer into the body, or `header:…` / `query:…`."""

    pointer: str
    detail: str
    column: int | None = None


class Rejected(Exception):
    """The request or the fact can never succeed as it is: a 4xx, or parked."""

    slug: ClassVar[str] = "rejected"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The request cannot be carried out as it is"

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)


class Invalid(Rejected):
    """A body, parameter or header that does not mean anything here."""

    slug = "validation-failed"
    title = "The request has invalid fields"


class Malformed(Rejected):
    """Bytes that are not what they claim to be."""

    slug = "invalid-request"
    status = 400
    title = "The request cannot be read"


class NotFound(Rejected):
    """There is no such thing."""

    slug = "not-found"
    status = 404
    title = "Not found"


class Conflict(Rejected):
    """The thing is no longer in the state that the request expects."""

    slug = "conflict"
    status = 409
    title = "The request conflicts with the present state"


class TooLarge(Rejected):
    """The body is over the limit of this endpoint."""

    slug = "payload-too-large"
    status = 413
    title = "The body is too large"


class Packed(Rejected):
    """The body is packed, and this endpoint reads plain ones."""

    slug = "unsupported-content-encoding"
    status = 415
    title = "The content coding is not supported"


class Unauthenticated(Rejected):
    """No token, or one that does not count."""

    slug = "unauthenticated"
    status = 401
    title = "A valid token is needed"


class OutOfScope(Rejected):
    """A valid token without the scope that this needs."""

    slug = "insufficient-scope"
    status = 403
    title = "The token lacks a scope"


class QuotaExceeded(Rejected):
    """More requests than are allowed in the time. `retry_after` is in seconds."""

    slug = "quota-exceeded"
    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class IdempotencyKeyReused(Rejected):
    """The same Idempotency-Key came with another body."""

    slug = "idempotency-key-reused"
    title = "The Idempotency-Key was used for another request"


class Unavailable(Exception):
    """It may succeed later: a 503 with Retry-After, or the batch backs off and tries again."""

    slug: ClassVar[str] = "dependency-unavailable"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
