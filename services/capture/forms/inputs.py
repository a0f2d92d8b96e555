"""What callers get of forms, and say about what was sent with them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from services.capture.reading import Strict
from shared.ids import LeadId

SubmissionState = Literal["accepted", "spam", "released", "discarded"]


class Embedding(BaseModel):
    """What to put into a page to have the form there. The script is as high as the form and knows the visit."""

    script: str
    iframe: str


class FormOut(BaseModel):
    """A form as it is now, where it is, and how to embed it."""

    form_id: str
    version: int
    url: str
    embed: Embedding
    document: dict[str, Any]
    author: str
    created_at: datetime
    updated_at: datetime


class SubmissionOut(BaseModel):
    """What became of something that was sent. `reasons` say why a person has to look at it."""

    submission_id: str
    version: int
    state: SubmissionState
    reasons: list[str]
    received: int
    lead_id: LeadId | None
    note: str | None
    received_at: datetime
    handled_at: datetime


class ShownSubmission(SubmissionOut):
    """The same with what was typed, as long as it is kept for a review."""

    values: dict[str, list[str]] | None
    page: str | None


class DiscardInput(Strict):
    """Why it is given up."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class ReceivedOut(BaseModel):
    """What a front end of one's own gets: what to show, where to go, and whether a link to confirm was sent."""

    submission_id: str
    title: str
    text: str
    redirect: str | None
    confirmation_sent: bool


class OpenForm(BaseModel):
    """A form for a front end of one's own: what to ask, and what to send back with the answers.

    `token` comes back as `_token`. `_proof` is a whole number for which SHA-256 over `<token>:<proof>` begins with
    `work_bits` zero bits.
    """

    form_id: str
    version: int
    language: str
    languages: list[str]
    document: dict[str, Any]
    token: str
    work_bits: int
    trap: str
