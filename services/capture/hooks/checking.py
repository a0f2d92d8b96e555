"""Recorded requests: read from a file, verified and mapped as a source would, without a database."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from services.capture.adapters import adapters
from services.capture.adapters.adapter import Adapter, Answer, BadSignature, Headers, HookRequest, Unmappable
from services.capture.adapters.told import told
from services.capture.mapping import MappingSettings
from shared.clock import present
from shared.errors import FieldError, Invalid
from shared.settings import Settings

OK, NOT_TAKEN, TOO_LARGE = 200, 405, 413
LARGEST: int = Settings.model_fields["body_limit"].default


class Fetched(BaseModel):
    """A second call, and what the provider answered."""

    request: str
    response: Any = None


class Handshake(BaseModel):
    """What a sample says of its handshake beside the request itself."""

    verify_token: str | None = None


class RecordedRequest(BaseModel):
    """A request as it came in, and what is needed to judge it. What else the file holds is for people."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    source: str
    method: str = "POST"
    url: str = ""
    now: AwareDatetime = Field(default_factory=present.now)
    headers: dict[str, str] | list[tuple[str, str]] = Field(default_factory=dict)
    body: str = ""
    secret: str | list[str] | None = None
    secrets: list[str] = Field(default_factory=list)
    mapping: dict[str, Any] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    default_country: str | None = None
    default_currency: str | None = None
    organization_id: str | None = None
    verify_token: str | None = None
    handshake: Handshake | None = None
    allow_legacy: bool = False
    certificates: dict[str, str] = Field(default_factory=dict)
    fetch: Fetched | list[Fetched] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, told: Any) -> Any:
        """What is there as null is not there."""
        return {name: value for name, value in told.items() if value is not None} if isinstance(told, dict) else told


@dataclass(frozen=True, slots=True)
class Recorded:
    """The same, ready for use."""

    adapter: Adapter
    request: HookRequest
    secrets: Sequence[str]
    settings: MappingSettings


def recorded(content: RecordedRequest) -> Recorded:
    """A recorded request, ready for use. Raises Invalid for an unknown source or a mapping with faults."""
    adapter = adapters().get(content.source)
    if adapter is None:
        known = ", ".join(sorted(adapters()))
        raise Invalid(f"there is no kind {content.source}", [FieldError("/source", f"is not one of {known}")])
    request = HookRequest(
        method=content.method.upper(),
        url=content.url,
        headers=Headers.of(content.headers),
        raw_body=content.body.encode(errors="surrogatepass"),
        received_at=content.now.astimezone(UTC),
        found=dict(content.certificates),
    )
    own = {
        "phone_country": content.default_country,
        "currency": content.default_currency,
        "organization_id": content.organization_id,
        "verify_token": content.verify_token or (content.handshake and content.handshake.verify_token),
        "allow_legacy": content.allow_legacy or None,
    }
    defaults = content.defaults | {name: value for name, value in own.items() if value is not None}
    live = content.secret if isinstance(content.secret, list) else [content.secret]
    secrets = [secret for secret in (*live, *content.secrets) if secret is not None]
    fetched = content.fetch if isinstance(content.fetch, list) else [content.fetch]
    found = _answers(adapter.lookups(request), fetched)
    request = replace(request, found={**request.found, **found})
    return Recorded(adapter, request, tuple(dict.fromkeys(secrets)), MappingSettings.of(content.mapping, defaults))


def check(given: Recorded) -> dict[str, Any]:
    """What the door would say to the request, and the facts that the worker would make of it.

    `verdict` is `accept` or `refuse`, `status` what is answered, `answer` the body if there is one, and what the door
    would get then; `quarantined` says why a genuine request could not be mapped.
    """
    adapter, request, settings = given.adapter, given.request, given.settings
    if len(request.raw_body) > LARGEST:
        return {"verdict": "refuse", "status": TOO_LARGE, "facts": [], "reason": f"the body is over {LARGEST} bytes"}
    handshake = adapter.handshake(request, given.secrets, settings)
    if handshake is not None:
        asked = adapter.confirmation(request) if handshake.status == OK else None
        return _verdict(handshake, [], asked)
    if request.method in ("GET", "HEAD"):
        return _verdict(Answer(), [])
    if request.method != "POST":
        return {"verdict": "refuse", "status": NOT_TAKEN, "facts": [], "reason": "the door takes POST, GET and HEAD"}
    try:
        adapter.verify(request, given.secrets, request.received_at, settings)
    except BadSignature as exc:
        return {"verdict": "refuse", "status": exc.status, "facts": [], "reason": exc.detail}
    stored = replace(adapter.stored(request, given.secrets), found=request.found)
    answer = adapter.answer(stored)
    try:
        return _verdict(answer, [told(fact) for fact in adapter.facts(stored, settings)])
    except Unmappable as exc:
        return _verdict(answer, []) | {"quarantined": exc.detail}


def _verdict(answer: Answer, facts: list[dict[str, Any]], asked: str | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {"verdict": "accept" if answer.status < 300 else "refuse", "status": answer.status}
    if answer.body or asked:
        said["answer"] = {
            "status": answer.status,
            "content_type": answer.content_type,
            "body": answer.body.decode(errors="replace"),
        }
    if asked:
        said["answer"]["then"] = {"method": "GET", "url": asked}
    return said | {"facts": facts}


def _answers(paths: Sequence[str], fetched: Sequence[Fetched]) -> Mapping[str, Any]:
    """The recorded answers by the paths that the adapter asks for; queries may differ in what they ask to see."""
    by_path = {re.sub("^https://[^/]+", "", one.request.rpartition(" ")[2]): one.response for one in fetched}
    bare = {path.partition("?")[0]: answer for path, answer in by_path.items()}
    found = {}
    for path in paths:
        if path in by_path:
            found[path] = by_path[path]
        elif path.partition("?")[0] in bare:
            found[path] = bare[path.partition("?")[0]]
    return found
