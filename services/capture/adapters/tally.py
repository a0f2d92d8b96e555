"""Tally: form responses. https://tally.so/help/webhooks"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, Adapter, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.fields import ignored, text
from services.capture.adapters.form_answers import FormAnswer, form_fields, form_lead
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any

_BY_TYPE = {"INPUT_EMAIL": "email", "INPUT_PHONE_NUMBER": "phone"}
_MANY = frozenset({"CHECKBOXES", "MULTI_SELECT", "RANKING"})


class Tally(Adapter):
    """Questions are known by their labels, then by their types; choices are ids of options."""

    kind: ClassVar[str] = "tally"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        given = (header_bytes(value) for value in request.headers.all("tally-signature"))
        require_any((base64.b64encode(hmac_sha256(key, request.raw_body)) for key in keys(secrets)), given)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: read_object(request.raw_body)["eventId"])

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body, key = read_object(request.raw_body), self.delivery_id(request)
        if body.get("eventType") != "FORM_RESPONSE":
            return Reading((ignored(key, request, "event_type"),), {}, body)
        data = object_at(body, "data")
        if not isinstance(data.get("fields"), list):
            raise Unmappable("a response has fields")
        questions = [field for field in objects_at(data, "fields") if not _repeats_an_option(field)]
        answers = [_answer(field) for field in questions]
        by_key = {str(field.get("key")): answer.value for field, answer in zip(questions, answers, strict=True)}
        fact = form_lead(
            key,
            request,
            settings,
            form_fields(answers, settings),
            at=data.get("createdAt") or body.get("createdAt"),
            external_id=text(data.get("responseId")) or text(data.get("submissionId")),
            properties={
                "form_id": data.get("formId"),
                "form_name": data.get("formName"),
                "respondent_id": data.get("respondentId"),
            },
        )
        return Reading((fact,), by_key | {answer.name: answer.value for answer in reversed(answers)}, body)


def _repeats_an_option(field: Mapping[str, Any]) -> bool:
    """Beside the list of the ticked boxes there is a yes or no for each of them."""
    return field.get("type") == "CHECKBOXES" and isinstance(field.get("value"), bool)


def _answer(field: Mapping[str, Any]) -> FormAnswer:
    kind = str(field.get("type"))
    name = text(field.get("label")) or text(field.get("key")) or kind
    return FormAnswer(
        name,
        _value(kind, field),
        by_type=_BY_TYPE.get(kind),
        box=_box(kind, field),
        hidden=kind == "HIDDEN_FIELDS",
        place=text(field.get("key")) or "",
    )


def _box(kind: str, field: Mapping[str, Any]) -> bool | None:
    """A question with one box to tick is a box; what is written or chosen from several says nothing by being there."""
    if kind == "CHECKBOXES":
        return True if len(objects_at(field, "options")) == 1 else None
    return None if objects_at(field, "options") or kind == "HIDDEN_FIELDS" else False


def _value(kind: str, field: Mapping[str, Any]) -> Any:
    value = field.get("value")
    texts = {str(option.get("id")): option.get("text") for option in objects_at(field, "options")}
    if kind == "FILE_UPLOAD":
        return [file.get("url") or file.get("name") for file in objects_at(field, "value")]
    if kind == "MATRIX" and isinstance(value, dict):
        rows, columns = (
            {str(one.get("id")): text(one.get("text")) for one in objects_at(field, name)}
            for name in ("rows", "columns")
        )
        return {rows.get(row) or row: list(_texts(chosen, columns)) for row, chosen in value.items()}
    if not texts:
        return value
    chosen = list(_texts(value, texts))
    return chosen if kind in _MANY or len(chosen) > 1 else next(iter(chosen), None)


def _texts(chosen: Any, texts: Mapping[str, Any]) -> Iterator[str]:
    """The texts of the chosen options; what is no option's id was written in their place."""
    for one in chosen if isinstance(chosen, list) else [chosen]:
        if (said := text(texts.get(str(one), one))) is not None:
            yield said


ADAPTER = Tally()
