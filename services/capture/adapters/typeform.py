"""Typeform: form responses. https://www.typeform.com/developers/webhooks/"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    HookRequest,
    LeadFact,
    MappingSettings,
    Reading,
    Touch,
    Unmappable,
)
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.fields import (
    CONSENT_CHANNELS,
    click_ids_of,
    happened_at,
    ignored,
    is_tracking,
    lead_field,
    person_of,
    text,
    touch_of,
    utm_of,
)
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any
from services.capture.mapping import FORM_SUBMITTED

_BY_TYPE = {"email": "email", "phone_number": "phone"}
_TERMS = ("terms", "privacy", "policy", "tos", "gdpr_notice")  # agreeing to these allows no mail
_ABOUT_TERMS = re.compile(r"\b(terms|conditions|privacy|policy|policies)\b", re.IGNORECASE)
_ABOUT_MAIL = re.compile(r"mail|marketing|newsletter|contact|updates|offers|sms|whatsapp", re.IGNORECASE)


class Typeform(Adapter):
    """Questions are known by their `ref`, which the form's owner sets, then by their type."""

    kind: ClassVar[str] = "typeform"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        given = (header_bytes(value) for value in request.headers.all("typeform-signature"))
        require_any((_signature(key, request.raw_body) for key in keys(secrets)), given)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        """By the response's token: the owner can send a response again, under an `event_id` of its own."""
        return delivery_name(self.kind, request, lambda: read_object(request.raw_body)["form_response"]["token"])

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        key = self.delivery_id(request)
        if body.get("event_type") != "form_response":
            return Reading((ignored(key, request, "event_type"),), {}, body)
        response = object_at(body, "form_response")
        if not isinstance(token := response.get("token"), str) or not token:
            raise Unmappable("a form response has a token")
        answers, hidden = _answers(response), object_at(response, "hidden")
        values = {_name(answer): _value(answer) for answer in answers}
        at, timed_by = happened_at(response.get("submitted_at"), request)
        touch = Touch(
            type=settings.touch_type or FORM_SUBMITTED,
            touch_id=token,
            utm=utm_of(hidden),
            click_ids=click_ids_of(hidden),
            properties={"form_id": str(response.get("form_id", ""))},
        )
        fact = LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(_hidden_fields(hidden) | _fields(answers), settings.phone_country),
            touch=touch_of({}, touch),
            external_id=token,
        )
        return Reading((fact,), {**hidden, **values}, body)


def _signature(key: bytes, raw_body: bytes) -> bytes:
    return b"sha256=" + base64.b64encode(hmac_sha256(key, raw_body))


def _fields(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answers by what they say about a lead: by the question's name, else first of a type, else an attribute."""
    fields = {field: _value(answer) for answer in reversed(answers) if (field := _field(answer)) is not None}
    for answer in answers:
        if _field(answer) is None:
            by_type = _BY_TYPE.get(str(answer.get("type")))
            taken = by_type is None or by_type in fields
            fields[f"attributes.{_name(answer)}" if taken else str(by_type)] = _value(answer)
    return fields


def _field(answer: Mapping[str, Any]) -> str | None:
    """The field that the question's own name asks for; a box that allows something is consent."""
    name, question = _name(answer), object_at(answer, "field")
    if answer.get("type") == "boolean":
        return _consent_field(name, text(question.get("title")) or "", legal=question.get("type") == "legal")
    return lead_field(name) or lead_field(text(question.get("subfield_key")) or "")


def _consent_field(name: str, title: str, legal: bool) -> str | None:
    lowered = name.lower()
    if not (lowered.startswith("consent") or legal) or any(word in lowered for word in _TERMS):
        return None
    if _ABOUT_TERMS.search(title) and not _ABOUT_MAIL.search(title):
        return None
    named = [channel for channel in CONSENT_CHANNELS if channel in lowered]
    if named:
        return f"consent.{named[0]}"
    return "consent.email" if legal else None


def _hidden_fields(hidden: Mapping[str, Any]) -> dict[str, Any]:
    """What the page around the form knew, below the answers in rank."""
    return {lead_field(name) or f"attributes.{name}": value for name, value in hidden.items() if not is_tracking(name)}


def _value(answer: Mapping[str, Any]) -> Any:
    value = answer.get(str(answer.get("type")))
    match answer.get("type"), value:
        case "choice", dict():
            return value.get("label") or value.get("other")
        case "choices", dict():
            return [*_texts(value.get("labels")), *_texts([value.get("other")])]
        case "payment", dict():
            return value.get("amount")
        case _:
            return value


def _name(answer: Mapping[str, Any]) -> str:
    """The stable name of the question, since texts and positions change; its text for old forms, which have none."""
    question = object_at(answer, "field")
    return str(question.get("ref") or text(question.get("title")) or question.get("id") or answer.get("type"))


def _answers(response: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    answers = response.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise Unmappable("the answers are not a list of answers")
    questions = {str(one.get("id")): one for one in _questions(object_at(response, "definition"))}
    return [answer | {"field": _question(answer, questions)} for answer in answers]


def _questions(form: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The questions, and within groups of them those of the group."""
    for question in objects_at(form, "fields"):
        yield question
        yield from objects_at(object_at(question, "properties"), "fields")


def _question(answer: Mapping[str, Any], questions: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the answer says of its question, over what the form does, which alone has its text."""
    named = object_at(answer, "field")
    return {**questions.get(str(named.get("id")), {}), **named}


def _texts(value: Any) -> Iterator[str]:
    return (item for item in value if isinstance(item, str) and item) if isinstance(value, list) else iter(())


ADAPTER = Typeform()
