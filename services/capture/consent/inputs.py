"""What callers say about consent, and what they get."""

from datetime import datetime
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.capture.consent.domain import ConsentWord
from services.capture.reading import Strict, read_body
from shared.consents import ALL, MARKETING, WELL_KNOWN, Standing
from shared.events import ConsentChannel, ConsentEvidence
from shared.ids import LeadId
from shared.web import OccurredAt

MOST_ENTRIES = 100
LONGEST_TEXT = 10_000

Method = Literal[
    "form",
    "api",
    "import",
    "webhook",
    "double_opt_in",
    "preference_centre",
    "unsubscribe_link",
    "verbal",
    "paper",
    "message",
    "other",
]
Purpose = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9_]{0,63}$",
        description=f"snake_case. Well known are {', '.join(WELL_KNOWN)}; `all`, of a denial, means every purpose",
        examples=["marketing", "newsletter"],
    ),
]
Line = Annotated[str, Field(min_length=1, max_length=2_000)]


class EvidenceInput(Strict):
    """How the word can be proven. Kept and told only encrypted, with the person's key."""

    method: Method
    text: Annotated[str | None, Field(max_length=LONGEST_TEXT, description="What the person read")] = None
    text_version: Line | None = None
    form_id: Line | None = None
    url: Line | None = None
    ip: Annotated[Line | None, Field(max_length=45)] = None
    user_agent: Line | None = None
    reference: Annotated[Line | None, Field(description="The record it came from, by the name you have for it")] = None
    note: Line | None = None

    def evidence(self) -> ConsentEvidence:
        """The same as a fact carries it."""
        return ConsentEvidence(**self.model_dump())


class ConsentInput(Strict):
    """One word: a channel, a purpose, and whether it is allowed. `pending`: asked for, and not confirmed yet."""

    channel: ConsentChannel
    purpose: Purpose = MARKETING
    state: Literal["granted", "denied", "pending"]
    occurred_at: OccurredAt | None = None
    evidence: EvidenceInput | None = None

    @model_validator(mode="after")
    def _names_a_purpose(self) -> "ConsentInput":
        if self.purpose == ALL and self.state != "denied":
            raise ValueError("all purposes at once can only be denied; name what was granted or asked for")
        return self

    def word(self) -> ConsentWord:
        """The same as the ledger takes it."""
        evidence = self.evidence.evidence() if self.evidence else None
        return ConsentWord(self.channel, self.state, self.purpose, evidence, self.occurred_at)


class ConsentEntries(Strict):
    """Up to 100 words at once; one alone may also be sent by itself."""

    entries: Annotated[list[ConsentInput], Field(min_length=1, max_length=MOST_ENTRIES)]


def entries_in(body: bytes) -> list[ConsentInput]:
    """The words in a body: a list of them, or one by itself. Raises Malformed and Invalid."""
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        read = None
    if isinstance(read, dict) and "channel" in read:
        return [read_body(ConsentInput, body)]
    return read_body(ConsentEntries, body).entries


class ConsentEntry(BaseModel):
    """One word in the ledger. `origin` is the source that told it, `api` for this API."""

    event_id: str
    lead_id: LeadId
    channel: ConsentChannel
    purpose: str
    state: Standing
    occurred_at: datetime
    received_at: datetime
    origin: str
    reason: str | None = None
    evidence: ConsentEvidence | None = None


class PermissionOut(BaseModel):
    """Whether messages of a purpose may go over a channel, since when, and why."""

    channel: ConsentChannel
    purpose: str
    state: Standing | None
    since: datetime | None
    allowed: bool
    why: str


class ConsentOut(BaseModel):
    """What a person allows, and everything they ever said about it, newest first.

    `consent` is about marketing, by channel. With `as_of` only what was said by then counts (`occurred_at`, the clock
    of whoever told it), with `known_at` only what we had heard by then (`received_at`, ours).
    """

    model_config = ConfigDict(frozen=True)

    lead_id: LeadId
    as_of: datetime | None = None
    known_at: datetime | None = None
    consent: dict[ConsentChannel, Standing]
    permissions: list[PermissionOut]
    entries: list[ConsentEntry]


class ChangedEntry(BaseModel):
    """A word in the order in which it came into the ledger, by `recorded_at`. `person_id` is whose it is now."""

    event_id: str
    lead_id: LeadId
    person_id: LeadId
    channel: ConsentChannel
    purpose: str
    state: Standing
    occurred_at: datetime
    received_at: datetime
    recorded_at: datetime
    origin: str
    reason: str | None = None


class ChangedPage(BaseModel):
    """One page of changes. Without `next_cursor` that is all until `complete_until`: ask from there the next time."""

    items: list[ChangedEntry]
    next_cursor: str | None = None
    complete_until: datetime
