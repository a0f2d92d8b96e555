"""LinkedIn lead sync. https://learn.microsoft.com/linkedin/marketing/lead-sync/leadsync"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    Answer,
    ErasureFact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    Touch,
    Unmappable,
)
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.fields import (
    happened_at,
    ignored,
    person_of,
    text,
)
from services.capture.adapters.lead_ads import named_values
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.records import looked_up, record_id
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any
from services.capture.mapping import FORM_SUBMITTED

_VERSION = "202602"  # LinkedIn takes a version for about a year
_RESPONSE = re.compile(r"urn:li:leadGenFormResponse:([A-Za-z0-9_-]{1,100})", re.ASCII)
_CHALLENGE = re.compile(r"[A-Za-z0-9-]{1,100}", re.ASCII)


class LinkedIn(Adapter):
    """A delivery has ids only. Answers have the ids of their questions, so that the owner's mapping names them."""

    kind: ClassVar[str] = "linkedin"
    api: ClassVar[str | None] = "https://api.linkedin.com"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        given = (header_bytes(value) for value in request.headers.all("x-li-signature"))
        require_any((_hex(key, b"hmacsha256=", request.raw_body) for key in keys(secrets)), given)

    def handshake(
        self, request: HookRequest, secrets: Sequence[str], settings: MappingSettings = PLAIN
    ) -> Answer | None:
        """Signs the challenge, but only one that could not be a delivery: or else anybody could have one signed."""
        challenge = request.query.get("challengeCode")
        if request.method != "GET" or challenge is None:
            return None
        key = next(keys(secrets), None)
        if key is None or not _CHALLENGE.fullmatch(challenge):
            return Answer(403)
        said = {"challengeCode": challenge, "challengeResponse": _hex(key, challenge.encode()).decode()}
        return Answer(body=json.dumps(said, separators=(",", ":")).encode(), content_type="application/json")

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _name(read_object(request.raw_body)))

    def lookups(self, request: HookRequest) -> Sequence[str]:
        try:
            body = read_object(request.raw_body)
            return (_path(body),) if _is_new(body) else ()
        except Unmappable:
            return ()

    def authorization(self, credential: str) -> Mapping[str, str]:
        versions = {"linkedin-version": _VERSION, "x-restli-protocol-version": "2.0.0"}
        return {"authorization": f"Bearer {credential}", **versions}

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        key = self.delivery_id(request)
        if body.get("type") != "LEAD_ACTION":
            return Reading((ignored(key, request, "type"),), {}, body)
        if body.get("leadAction") == "DELETED":
            return Reading((_erasure(body, key, request),), {}, body)
        if not _is_new(body):
            return Reading((ignored(key, request, "lead_action"),), {}, body)
        response = looked_up(request, _path(body))
        form = response.get("formResponse")
        if not isinstance(form, dict) or record_id(response.get("id", _id(body))) != _id(body):
            raise Unmappable("the answer is not the response to the lead form")
        answers = _answers(form)
        if response.get("testLead") is True:
            return Reading((ignored(key, request, "test"),), answers, body)
        at, timed_by = happened_at(body.get("occurredAt") or response.get("submittedAt"), request)
        fact = LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(_unmapped(answers, settings), settings.phone_country, Person(external_id=_urn(body))),
            touch=_touch(body, response, settings),
            external_id=_urn(body),
        )
        return Reading((fact,), {**_consents(form), **answers}, body)


def _hex(key: bytes, *signed: bytes) -> bytes:
    return hmac_sha256(key, *signed).hex().encode()


def _is_new(body: Mapping[str, Any]) -> bool:
    return body.get("type") == "LEAD_ACTION" and body.get("leadAction") == "CREATED"


def _urn(body: Mapping[str, Any]) -> str:
    return f"urn:li:leadGenFormResponse:{_id(body)}"


def _id(body: Mapping[str, Any]) -> str:
    """The id at the end of the response's URN."""
    written = body.get("leadGenFormResponse")
    matched = _RESPONSE.fullmatch(written) if isinstance(written, str) else None
    if matched is None:
        raise Unmappable("leadGenFormResponse is not the URN of a response")
    return matched[1]


def _name(body: Mapping[str, Any]) -> str:
    return f"{_urn(body)}:{body['leadAction']}"


def _path(body: Mapping[str, Any]) -> str:
    return f"/rest/leadFormResponses/{_id(body)}"


def _erasure(body: Mapping[str, Any], key: str, request: HookRequest) -> ErasureFact:
    """Of the person who is known by the response, which is all that a deletion names."""
    at, timed_by = happened_at(body.get("occurredAt"), request)
    person = Person(external_id=_urn(body))
    return ErasureFact(idempotency_key=key, occurred_at=at, timed_by=timed_by, person=person)


def _answers(form: Mapping[str, Any]) -> dict[str, Any]:
    """The answers by the ids of their questions."""
    return {
        name: _value(object_at(answer, "answerDetails"))
        for answer in objects_at(form, "answers")
        if (name := text(answer.get("questionId"))) is not None
    }


def _value(details: Mapping[str, Any]) -> Any:
    if "textQuestionAnswer" in details:
        return object_at(details, "textQuestionAnswer").get("answer")
    options = object_at(details, "multipleChoiceAnswer").get("options")
    return options[0] if isinstance(options, list) and len(options) == 1 else options


def _consents(form: Mapping[str, Any]) -> dict[str, Any]:
    """The boxes by their ids, which say nothing of what they allow: the owner's mapping does."""
    boxes = objects_at(form, "consentResponses")
    return {f"consent_{text(box.get('consentId'))}": box.get("accepted") for box in boxes}


def _unmapped(answers: Mapping[str, Any], settings: MappingSettings) -> dict[str, Any]:
    """What the owner's mapping does not take, kept as attributes."""
    mapped = {place for _, place in settings.places if isinstance(place, str)}
    return {f"attributes.{name}": value for name, value in answers.items() if name not in mapped}


def _touch(body: Mapping[str, Any], response: Mapping[str, Any], settings: MappingSettings) -> Touch:
    lead_type = text(body.get("leadType")) or text(response.get("leadType"))
    sponsored = object_at(object_at(response, "leadMetadata"), "sponsoredLeadMetadata")
    return Touch(
        type=settings.touch_type or FORM_SUBMITTED,
        touch_id=_id(body),
        channel="paid_social" if lead_type in (None, "SPONSORED") else "organic_social",
        campaign=text(sponsored.get("campaign")),
        properties=named_values(
            lead_type=lead_type,
            form=body.get("leadGenForm"),
            creative=object_at(body, "associatedEntity").get("creative"),
            account=object_at(body, "owner").get("sponsoredAccount"),
        ),
    )


ADAPTER = LinkedIn()
