"""A provider of data about leads, as its owner writes it; checked when it is saved, compiled once per version."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, model_validator

from services.capture.enrichment.templates import is_personal, is_place, places_in
from services.capture.leads.domain import ATTRIBUTE, FIELDS
from services.capture.reading import FreeObject, Strict
from shared.errors import FieldError
from shared.money import Currency
from shared.outbound import AddressRefused, PrivateHosts, check_url
from shared.profiles import LEAD
from shared.rules import (
    INTEGER,
    OPEN,
    Expression,
    ExpressionFault,
    InvalidDocument,
    Vocabulary,
    compile_expression,
)

TARGETS = tuple(name for name in FIELDS if name != "email")
ENRICHMENT = "enrichment:"
MOST_FIELDS = 100
USUAL_CONFIDENCE = 0.8
_ATTRIBUTE = re.compile(r"attributes\.[^\x00-\x1f:]{1,100}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_OWN_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "host", "content-length", "transfer-encoding", "connection", "cookie"}
    | {"accept-encoding", "te", "trailer", "upgrade", "expect"}
)
_WHEN = Vocabulary({"lead": LEAD})
_ANSWER = Vocabulary({"response": OPEN, "status": INTEGER, "lead": LEAD})

Expr = Annotated[str, Field(min_length=1, max_length=4_000)]
Template = Annotated[str, Field(max_length=4_000)]
Policy = Literal["fill_empty", "overwrite"]
Count = Annotated[int, Field(ge=1, le=10**9)]
Status = Annotated[int, Field(ge=200, le=599)]


class RequestPart(Strict):
    """What is sent. Texts hold places such as {domain}; the host has none."""

    method: Literal["GET", "POST"] = "GET"
    url: Annotated[str, Field(min_length=1, max_length=4_000)]
    headers: Annotated[dict[str, Template], Field(max_length=50)] = Field(default_factory=dict)
    query: Annotated[dict[str, Template], Field(max_length=50)] = Field(default_factory=dict)
    body: FreeObject | None = None


class AuthPart(Strict):
    """How the provider's credential is shown; it is kept apart, by `PUT …/credential`."""

    type: Literal["none", "bearer", "basic", "header", "query"] = "none"
    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    username: Annotated[str, Field(max_length=500)] | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "AuthPart":
        if self.type in ("header", "query") and self.name is None:
            raise ValueError("name is required: of the header or parameter that holds the credential")
        if self.type == "basic" and self.username is None:
            raise ValueError("username is required; the credential is the password")
        return self


class CachePart(Strict):
    """How long an answer is good for, also for other leads with the same key; without a key, for the same request."""

    key: Template | None = None
    days: Annotated[int, Field(ge=1, le=3_650)] = 30


class RatePart(Strict):
    """How often the provider may be called, over all processes."""

    per_second: Annotated[int, Field(ge=1, le=1_000)] | None = None
    per_minute: Annotated[int, Field(ge=1, le=60_000)] | None = None

    @model_validator(mode="after")
    def _says_one(self) -> "RatePart":
        if (self.per_second is None) == (self.per_minute is None):
            raise ValueError("either per_second or per_minute is required")
        return self

    @property
    def interval_s(self) -> float:
        """Seconds between two calls."""
        return 1 / self.per_second if self.per_second else 60 / (self.per_minute or 1)


class BudgetPart(Strict):
    """How many calls a UTC day and a calendar month may have; `cost_minor` is what one costs, for the account."""

    per_day: Count | None = None
    per_month: Count | None = None
    cost_minor: Annotated[int, Field(ge=0, le=10**9)] = 0
    currency: Currency | None = None


class BreakerPart(Strict):
    """After so many failures in a row the provider is left alone, then tried with one call."""

    failures: Annotated[int, Field(ge=1, le=1_000)] = 5
    open_s: Annotated[int, Field(ge=1, le=86_400)] = 60


class ProviderDocument(Strict):
    """A provider. Those with the smaller `order` are asked first, each only for what is still missing."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    active: bool = True
    order: Annotated[int, Field(ge=0, le=10_000)] = 100
    when: Expr | None = None
    request: RequestPart
    auth: AuthPart = Field(default_factory=AuthPart)
    map: Annotated[dict[str, Expr], Field(min_length=1, max_length=MOST_FIELDS)]
    confidence: Annotated[float, Field(ge=0, le=1)] | Expr = USUAL_CONFIDENCE
    policy: dict[str, Policy] = Field(default_factory=dict)
    cache: CachePart | None = None
    rate: RatePart | None = None
    budget: BudgetPart = Field(default_factory=BudgetPart)
    timeout_s: Annotated[float, Field(ge=0.1, le=30)] = 10.0
    breaker: BreakerPart = Field(default_factory=BreakerPart)
    nothing_status: Annotated[list[Status], Field(max_length=20)] = Field(default_factory=lambda: [404])
    refresh: bool = False
    stop_when: Annotated[list[str], Field(max_length=MOST_FIELDS)] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider, ready for use. `personal` says that what is sent is about one person."""

    provider_id: str
    version: int
    document: ProviderDocument
    when: Expression | None
    map: Mapping[str, Expression]
    confidence: float | Expression
    personal: bool

    @property
    def origin(self) -> str:
        """Who is named as the source of what it says."""
        return f"{ENRICHMENT}{self.provider_id}"

    def overwrites(self, field: str) -> bool:
        """Whether what it says about a field counts even where somebody told something else."""
        return self.document.policy.get(field) == "overwrite"


def compile_provider(
    provider_id: str, version: int, document: ProviderDocument, private: PrivateHosts | None = None
) -> Provider:
    """The provider. Raises InvalidDocument with every fault; `private` are the private hosts that may be called."""
    faults: list[FieldError] = []

    def compiled(source: str, vocabulary: Vocabulary, pointer: str, *, boolean: bool = False) -> Expression | None:
        try:
            return compile_expression(source, vocabulary, pointer, boolean=boolean)
        except ExpressionFault as fault:
            faults.append(FieldError(fault.pointer, fault.detail, fault.column))
            return None

    when = compiled(document.when, _WHEN, "/when", boolean=True) if document.when else None
    mapped = {name: compiled(source, _ANSWER, f"/map/{_part(name)}") for name, source in document.map.items()}
    confidence: float | Expression | None = (
        compiled(document.confidence, _ANSWER, "/confidence")
        if isinstance(document.confidence, str)
        else float(document.confidence)
    )
    faults += _target_faults(document)
    faults += _request_faults(document.request, private)
    faults += _auth_faults(document)
    if document.cache and document.cache.key is not None:
        faults += _place_faults(document.cache.key, "/cache/key")
    if faults:
        detail = f"look at {', '.join(fault.pointer for fault in faults[:5])}"
        raise InvalidDocument(detail, errors=faults[:100])
    assert confidence is not None, "without a fault it was compiled"
    return Provider(
        provider_id=provider_id,
        version=version,
        document=document,
        when=when,
        map={name: expression for name, expression in mapped.items() if expression is not None},
        confidence=confidence,
        personal=any(is_personal(name) for text in _texts(document.request) for name, _ in places_in(text)),
    )


def _target_faults(document: ProviderDocument) -> Iterator[FieldError]:
    for name in document.map:
        if name == "email":
            detail = "an email address says who somebody is: tell it with POST /capture/v1/leads"
            yield FieldError("/map/email", detail)
        elif name not in TARGETS and not _ATTRIBUTE.fullmatch(name):
            offered = f"{', '.join(TARGETS)} and {ATTRIBUTE}<name>"
            yield FieldError(f"/map/{_part(name)}", f"there is no such field; there are {offered}")
    for name in document.policy:
        if name not in document.map:
            yield FieldError(f"/policy/{_part(name)}", "the map says nothing about this field")
    for index, name in enumerate(document.stop_when):
        if name != "email" and name not in TARGETS and not _ATTRIBUTE.fullmatch(name):
            yield FieldError(f"/stop_when/{index}", "there is no such field")


def _request_faults(request: RequestPart, private: PrivateHosts | None) -> Iterator[FieldError]:
    host = urlsplit(request.url.replace("{", "%7B").replace("}", "%7D")).netloc if "://" in request.url else ""
    if "%7B" in host:
        yield FieldError("/request/url", "the host is always the same: places stand after it")
    else:
        try:
            check_url(re.sub(r"\{[^{}]*\}", "x", request.url), private or PrivateHosts())
        except AddressRefused as exc:
            yield FieldError("/request/url", exc.detail)
    yield from _place_faults(request.url, "/request/url")
    for name, template in request.headers.items():
        pointer = f"/request/headers/{_part(name)}"
        if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
            yield FieldError(pointer, "is not a header that can be set here; credentials go by `auth`")
        if not template.isascii() or not template.isprintable():
            yield FieldError(pointer, "a header is one line of ASCII text")
        yield from _place_faults(template, pointer)
    for name, template in request.query.items():
        yield from _place_faults(template, f"/request/query/{_part(name)}")
    if request.body is not None and request.method == "GET":
        yield FieldError("/request/body", "a GET has no body; let the method be POST")
    for text in _texts(request.body):
        yield from _place_faults(text, "/request/body")


def _auth_faults(document: ProviderDocument) -> Iterator[FieldError]:
    auth = document.auth
    if auth.type == "header" and (not _HEADER.fullmatch(auth.name or "") or auth.name in ("host", "Host")):
        yield FieldError("/auth/name", "is not the name of a header")


def _place_faults(template: str, pointer: str) -> Iterator[FieldError]:
    for name, column in places_in(template):
        if not is_place(name):
            yield FieldError(pointer, f"there is no place {{{name[:50]}}}", column)


def _texts(value: Any) -> Iterator[str]:
    match value:
        case RequestPart():
            yield value.url
            for part in (value.headers, value.query, value.body):
                yield from _texts(part)
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
        case BaseModel() | _:
            return


def _part(name: str) -> str:
    return name[:200].replace("~", "~0").replace("/", "~1")
