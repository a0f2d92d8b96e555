"""A provider asked about a lead: the request that its document makes, and what its answer is, in words of ours."""

import hmac
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never
from urllib.parse import quote, urlencode

import orjson

from services.capture.enrichment.document import Provider
from services.capture.enrichment.templates import fill, fill_address, fill_value
from services.capture.reading import too_deep
from shared.outbound import AddressRefused, Answer, NoAnswer, Outbound

MASK = "***"
_REFUSED = frozenset({401, 403})
_LATER = frozenset({408, 425, 429})
TOO_MANY = 429
_HEADER_SAFE = " !#$%&'()*+,-./:;<=>?@[]^_`{|}~"


class NoCredential(Exception):
    """The provider wants a credential and was given none."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, filled. `sent` tells it from others and holds no credential; `kept_by` is the key of the cache."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None
    shown_url: str
    shown_headers: Mapping[str, str]
    sent: str
    kept_by: str


@dataclass(frozen=True, slots=True)
class Said:
    """What came of a call: data, nothing known, or why there is no answer.

    `blame` says that the provider is at fault, `final` that asking again with the same request is no use.
    """

    kind: Literal["data", "nothing", "failure"]
    status: int | None
    response: Any = None
    detail: str | None = None
    blame: bool = False
    final: bool = False
    retry_after_s: int | None = None


def prepare(provider: Provider, known: Mapping[str, str], credential: str | None) -> Prepared:
    """The request about a lead. Raises Absent, NoCredential."""
    request, auth = provider.document.request, provider.document.auth
    url = fill_address(request.url, known)
    query = {name: fill(template, known) for name, template in request.query.items()}
    headers = {
        name.lower(): quote(fill(template, known), safe=_HEADER_SAFE) for name, template in request.headers.items()
    }
    content = orjson.dumps(fill_value(request.body, known)) if request.body is not None else None
    headers.setdefault("accept", "application/json")
    if content is not None:
        headers.setdefault("content-type", "application/json")
    plain = orjson.dumps([request.method, url, query, headers, None if content is None else content.decode()]).decode()
    key = provider.document.cache.key if provider.document.cache else None
    kept_by = fill(key, known) if key is not None else plain
    if auth.type != "none" and credential is None:
        raise NoCredential
    proof: dict[str, str] = {}
    secret_query: dict[str, str] = {}
    match auth.type:
        case "none":
            pass
        case "bearer":
            proof["authorization"] = f"Bearer {credential}"
        case "basic":
            proof["authorization"] = f"Basic {b64encode(f'{auth.username}:{credential}'.encode()).decode()}"
        case "header":
            proof[str(auth.name).lower()] = str(credential)
        case "query":
            secret_query[str(auth.name)] = str(credential)
        case _:
            assert_never(auth.type)
    return Prepared(
        method=request.method,
        url=_with_query(url, query | secret_query),
        headers=headers | proof,
        content=content,
        shown_url=_with_query(url, query | dict.fromkeys(secret_query, MASK)),
        shown_headers=headers | dict.fromkeys(proof, MASK),
        sent=plain,
        kept_by=kept_by,
    )


def hashed(secret: bytes, provider_id: str, text: str) -> str:
    """A keyed hash: the same for the same text, and nobody can tell from it what the text was."""
    return hmac.digest(secret, f"{provider_id}\x1f{text}".encode(), "sha256").hex()


async def ask(provider: Provider, prepared: Prepared, outbound: Outbound) -> Said:
    """What the provider says. Never raises: no answer is an answer too."""
    try:
        answer = await outbound.call(
            prepared.method,
            prepared.url,
            headers=prepared.headers,
            content=prepared.content,
            timeout_s=provider.document.timeout_s,
        )
    except AddressRefused as exc:
        return Said("failure", None, detail=exc.detail, blame=True)
    except NoAnswer as exc:
        return Said("failure", None, detail=exc.detail, blame=True)
    return _understood(provider, answer)


def _understood(provider: Provider, answer: Answer) -> Said:
    status = answer.status
    if status in provider.document.nothing_status or (answer.is_success and not answer.body.strip()):
        return Said("nothing", status)
    if status in _REFUSED:
        return Said("failure", status, detail=f"it refuses the credential ({status}); set another", blame=True)
    if not answer.is_success:
        own_fault = 400 <= status < 500 and status not in _LATER
        return Said(
            "failure",
            status,
            detail=f"it answered {status}",
            blame=not own_fault and status != TOO_MANY,
            final=own_fault,
            retry_after_s=answer.retry_after_s,
        )
    try:
        response = answer.json()
        if too_deep(response):
            raise ValueError("nested too deep")
    except (ValueError, RecursionError):
        return Said("failure", status, detail="its answer is not JSON, or nested too deep", blame=True)
    return Said("data", status, response)


def _with_query(url: str, query: Mapping[str, str]) -> str:
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"
