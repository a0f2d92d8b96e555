"""What is written to a CRM, and what its answers mean. Pure; the shapes of each CRM stand in a module of its own."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, Protocol

import orjson

from services.routing.deals.domain import Deal
from shared.money import exponent
from shared.outbound import Answer

CrmName = Literal["salesforce", "hubspot", "zoho"]
RecordKind = Literal["lead", "deal"]
DEAL = "throughline.deal.changed.v1"
STAGE = "throughline.stage.changed.v1"
ERASED = "throughline.lead.erased.v1"
MERGED = "throughline.lead.merged.v1"
TYPES = (
    "throughline.lead.assigned.v1",
    "throughline.assignment.accepted.v1",
    STAGE,
    DEAL,
    ERASED,
    MERGED,
)
"""The facts that are written back, unless a connection names others."""
UNKNOWN = "[not provided]"
"""What stands in a field that a CRM wants and nobody knows, as Salesforce's own forms write it."""
BY_ADDRESS = frozenset({"email", "Email"})
"""The fields that are filled with the address: it is another one some day, and the record the same."""
INCOMPLETE = ("REQUIRED_FIELD_MISSING", "MANDATORY_NOT_FOUND")
"""What CRMs say of a new record without a field that they want."""
UNAUTHORIZED, NOT_FOUND, TIMED_OUT, LOCKED, TOO_MANY = 401, 404, 408, 423, 429
STANDS = (
    "external_id", "status", "stage", "probability", "value_minor", "currency", "recurring_minor", "rep_id",
    "opened_at", "closed_at", "conversion_id", "pipeline_id", "pipeline_version", "expected_close_on",
    "contract_starts_on", "contract_ends_on", "renewal_of", "lost_reason", "revision",
)  # fmt: skip
"""What of a deal can be written into fields, beside its texts."""
REST_S = 10
"""So long a CRM that says that it is asked too much is left alone, where it does not say how long."""
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Ways:
    """How a connection writes: fields of the CRM by what they are filled from, its words for stages, its users.

    `ids` are the fields that a record is found by again: one named email by the address, any other by our id.
    `merged` is the field of a lead that names, where a CRM cannot merge, the lead that it became part of.
    """

    fields: Mapping[RecordKind, Mapping[str, str]]
    ids: Mapping[RecordKind, str]
    stages: Mapping[str, str]
    deal_stages: Mapping[str, str]
    users: Mapping[str, str]
    pipelines: Mapping[str, str]
    merged: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A lead or a deal to be written, found again by one field.

    `owner` is the CRM's user, `person` the CRM's id of the lead of a deal, and `email` that person's address. Of one
    that is `known` to stand there, what the CRM wants and nobody here knows is left as somebody there wrote it.
    """

    kind: RecordKind
    id_field: str
    id_value: str
    fields: Mapping[str, Any]
    stage: str | None = None
    pipeline: str | None = None
    owner: str | None = None
    person: str | None = None
    email: str | None = None
    known: bool = False

    def filled_up(self, wanted: Mapping[RecordKind, Mapping[str, str]]) -> dict[str, Any]:
        """The fields, and what the CRM wants of a new record beside them."""
        return {**({} if self.known else wanted[self.kind]), **self.fields}

    def places(self, stage: str, owner: str, pipeline: str | None = None) -> dict[str, str]:
        """Where the record stands, as far as it is known, under the CRM's names for that."""
        told = {stage: self.stage, owner: self.owner} | ({pipeline: self.pipeline} if pipeline else {})
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a CRM's interface, below its base address or, for tokens, of a whole address."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


@dataclass(frozen=True, slots=True)
class Token:
    """What a CRM lets us in with, and for how long; `base_url` where it says where we are to go."""

    value: str
    lasts_s: int
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer means: `done` with the record's id, `expired` the token, `later` to be tried again, or refused.

    `rest_s` says that a limit is reached, and how long nothing is to come where the answer does not say so itself.
    Refused because the record is `gone` there, or because `twin`, another record there, has the address.
    """

    what: Literal["done", "expired", "later", "refused"]
    said: str
    crm_id: str | None = None
    rest_s: int | None = None
    gone: bool = False
    twin: str | None = None


class Crm(Protocol):
    """The REST interface of one CRM, as its public documentation describes it."""

    base_url: str | None
    fields: Mapping[RecordKind, Mapping[str, str]]
    ids: Mapping[RecordKind, str]
    merges: bool

    def token_call(self, base_url: str, credentials: Mapping[str, str], auth_url: str | None) -> Call | None:
        """How a token is fetched; None where the credentials are one."""
        ...

    def token_in(self, answer: Answer) -> Token:
        """The token in an answer. Raises ValueError."""
        ...

    def headers(self, token: str) -> Mapping[str, str]:
        """What every call carries."""
        ...

    def whoami(self) -> Call:
        """Something harmless that needs a token."""
        ...

    def user_call(self, email: str) -> Call:
        """Asks for the user with this address."""
        ...

    def user_in(self, answer: Answer, email: str) -> str | None:
        """The id of the user; None where there is none. Raises ValueError."""
        ...

    def upsert(self, record: Record) -> Call:
        """Writes a record, however often, once."""
        ...

    def update(self, record: Record, crm_id: str) -> Call:
        """Writes the fields of a record of which the CRM's own id is known, the address among them only if named."""
        ...

    def twin_call(self, record: Record, refused: Reading) -> Call | None:
        """Asks for the lead that was there before us, where a second one of the same person was refused."""
        ...

    def adopt(self, record: Record, answer: Answer) -> tuple[str, Call] | None:
        """The id of the lead that was asked for, and the call that makes it ours; None where there is none."""
        ...

    def after(self, record: Record, crm_id: str) -> Call | None:
        """Ties a deal to its person's contact or, where leads are no contacts, asks for that one."""
        ...

    def tie(self, answer: Answer, crm_id: str) -> Call | None:
        """Ties a deal to the contact that was asked for; None where there is none, or it is tied."""
        ...

    def merge(self, into: str, gone: str, field: str | None) -> Call | None:
        """Where it `merges`, makes one lead of two; else marks the one that is gone in this field, if there is one."""
        ...

    def erase(self, crm_id: str) -> Call:
        """Deletes a lead."""
        ...

    def read(self, answer: Answer) -> Reading:
        """What an answer to a write means."""
        ...


def filled(fields: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the CRM whose sources are known. A source is a dotted name, such as `lead.email`."""
    found = {name: _at(source, values) for name, source in fields.items()}
    return {name: value for name, value in found.items() if value is not None}


def _at(source: str, values: Mapping[str, Any]) -> Any:
    value: Any = values
    for part in source.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def deal_values(data: Mapping[str, Any]) -> dict[str, Any]:
    """A deal as fields are filled from it: `amount` in whole units of its currency, `close_date` as far as known."""
    personal = data.get("personal") or {}
    closed = data.get("closed_at") or data.get("expected_close_on")
    return {
        **{name: value for name, value in data.items() if name != "personal"},
        "name": personal.get("name") or data.get("name") or UNKNOWN,
        "amount": amount(int(data["value_minor"]), str(data["currency"])),
        "close_date": _day(closed) or _day(data["opened_at"]),
    }


def stands(deal: Deal) -> dict[str, Any]:
    """A deal as its facts tell it, in what fields are filled from."""
    told: dict[str, Any] = orjson.loads(orjson.dumps({name: getattr(deal, name) for name in STANDS}))
    return {**told, "personal": {"name": deal.name, "reason": deal.reason, "notes": dict(deal.notes)}}


def amount(minor: int, currency: str) -> str:
    """Money as CRMs take it: whole units with a point."""
    return str(Decimal(minor).scaleb(-exponent(currency)))


def _day(written: Any) -> str | None:
    if not isinstance(written, str):
        return None
    if len(written) == len("2026-01-01"):
        return date.fromisoformat(written).isoformat()
    return datetime.fromisoformat(written).date().isoformat()


def as_json(content: Any) -> bytes:
    """A body."""
    return orjson.dumps(content)


def granted(answer: Answer) -> Mapping[str, Any]:
    """What an answer that grants a token says; refusals come with any status. Raises ValueError."""
    content = content_of(answer)
    if not answer.is_success or not isinstance(content, dict) or not content.get("access_token"):
        raise ValueError("no token")
    return content


def content_of(answer: Answer) -> Any:
    """An answer's JSON; None where it is none."""
    try:
        return answer.json()
    except ValueError:
        return None


def reading_of(
    answer: Answer,
    codes: Iterable[Any],
    later: Container[str],
    expired: Container[str],
    limits: Mapping[str, int] = MappingProxyType({}),
) -> Reading:
    """What an answer that is no success means, by its status and the CRM's codes. Its texts repeat what is personal.

    `limits` are the codes of those that can be reached, with the seconds to wait then.
    """
    told = [str(code)[:100] for code in codes if code]
    words = {code.partition(" ")[0] for code in told}
    said = f"answered {answer.status}" + (f": {', '.join(told)}" if told else "")
    if answer.status == UNAUTHORIZED or any(word in expired for word in words):
        return Reading("expired", said)
    rests = [limits[word] for word in words if word in limits]
    if rests or answer.status in (LOCKED, TOO_MANY):
        return Reading("later", said, rest_s=answer.retry_after_s or max(rests, default=REST_S))
    if answer.status == TIMED_OUT or answer.status >= 500 or any(word in later for word in words):
        return Reading("later", said)
    return Reading("refused", said, gone=answer.status == NOT_FOUND)
