"""Elementor Pro: the form action Webhook. https://elementor.com/help/webhook-form-submission/

With Advanced Data it sends fields by id, in the brackets of PHP; without, the labels as people see them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import object_at, read_any
from services.capture.adapters.fields import text
from services.capture.adapters.form_answers import FormAnswer, form_fields, form_lead
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import Unsigned

_BRACKETS = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])+)")
_DEEPEST = 6
_BY_TYPE = {"email": "email", "tel": "phone"}
_BOXES = frozenset({"acceptance"})
_WRITTEN = frozenset({"text", "textarea", "email", "tel", "url", "number", "date", "time"})
_UNLABELLED = "No Label "
_LABELS_OF_VISIT = frozenset(
    {"form_id", "form_name", "Date", "Time", "Page URL", "User Agent", "Remote IP", "Powered by"}
)


class Elementor(Unsigned):
    """Date and time are local to the site, without a zone: the time of receipt counts."""

    kind: ClassVar[str] = "elementor"

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: None)

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_any(request)
        if not isinstance(body, dict):
            raise Unmappable("a form is one object")
        written, body = body, unbracketed(body)
        fields = object_at(body, "fields")
        answers = list(_by_id(fields)) if fields else list(_by_label(body))
        form = object_at(body, "form")
        page = text(object_at(object_at(body, "meta"), "page_url").get("value")) or text(body.get("Page URL"))
        fact = form_lead(
            self.delivery_id(request),
            request,
            settings,
            {"touch.url": page, **form_fields(answers, settings)},
            properties={
                "form_id": form.get("id") or body.get("form_id"),
                "form_name": form.get("name") or body.get("form_name"),
            },
        )
        return Reading((fact,), {**written, **{answer.name: answer.value for answer in answers}}, body)


def unbracketed(form: Mapping[str, Any]) -> dict[str, Any]:
    """The form as PHP reads it: `fields[email][value]` is the value of the email of the fields."""
    whole: dict[str, Any] = {}
    for name, value in form.items():
        found = _BRACKETS.fullmatch(name)
        steps = [found[1], *found[2][1:-1].split("][")] if found is not None else [name]
        if len(steps) > _DEEPEST:
            raise Unmappable("the names of the form have too many brackets")
        if steps[-1] == "" and len(steps) > 1:  # `name[]`, once for each value
            steps.pop()
            value = value if isinstance(value, list) else [value]  # noqa: PLW2901  # as PHP reads it
        place = whole
        for step in steps[:-1]:
            below = place.setdefault(step, {})
            if not isinstance(below, dict):
                raise Unmappable("a name of the form is both a value and a group")
            place = below
        if isinstance(place.get(steps[-1]), dict):
            raise Unmappable("a name of the form is both a value and a group")
        place[steps[-1]] = value
    return whole


def _by_id(fields: Mapping[str, Any]) -> Iterator[FormAnswer]:
    for name, field in fields.items():
        if not isinstance(field, dict):
            yield FormAnswer(name, field)
            continue
        kind = text(field.get("type")) or ""
        box = True if kind in _BOXES else False if kind in _WRITTEN else None
        yield FormAnswer(
            text(field.get("id")) or name,
            _value(field),
            label=text(field.get("title")) or "",
            by_type=_BY_TYPE.get(kind),
            box=box,
            hidden=kind == "hidden",
        )


def _by_label(body: Mapping[str, Any]) -> Iterator[FormAnswer]:
    for name, value in body.items():
        if name not in _LABELS_OF_VISIT and name not in ("form", "meta", "fields"):
            yield FormAnswer(name, value, label=name.removeprefix(_UNLABELLED))


def _value(field: Mapping[str, Any]) -> Any:
    """The answer; of several choices the list, which `value` has as one text."""
    raw = field.get("raw_value")
    if isinstance(raw, dict) and all(name.isdecimal() for name in raw):
        raw = list(raw.values())
    return raw if isinstance(raw, list) and raw else field.get("value")


ADAPTER = Elementor()
