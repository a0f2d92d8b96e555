"""Jotform: form submissions. https://www.jotform.com/help/245-how-to-setup-a-webhook-with-jotform/

A multipart form; the answers are JSON text in its field `rawRequest`. No signature, and no time of submission.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from services.capture.adapters.adapter import PLAIN, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import object_at, read_any, read_object
from services.capture.adapters.fields import is_tracking, text
from services.capture.adapters.form_answers import FormAnswer, form_fields, form_lead
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.request import BLANK
from services.capture.adapters.shared_secret import Unsigned

_NUMBERED = re.compile(r"q[0-9]+_(.+)", re.ASCII | re.DOTALL)
_NUMBERED_END = re.compile(r"(?<=[a-z])[0-9]+$")
_ECHO = re.compile(rb'(name="?webhookURL"?[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*\r?\n)[^\r\n]*', re.IGNORECASE)
_ECHO_IN_FORM = re.compile(rb"((?:^|&)webhookURL=)[^&]*", re.IGNORECASE)
_ECHO_IN_JSON = re.compile(rb'("webhookURL"\s*:\s*)"(?:[^"\\]|\\.)*"', re.IGNORECASE)


class Jotform(Unsigned):
    """Answers are known by their names behind the number, which differs from form to form."""

    kind: ClassVar[str] = "jotform"

    def stored(self, request: HookRequest, secrets: Sequence[str]) -> HookRequest:
        """The body repeats the whole address that it was sent to."""
        kept = super().stored(request, secrets)
        blank = BLANK.encode()
        body = _ECHO.sub(rb"\1" + blank, kept.raw_body)
        body = _ECHO_IN_JSON.sub(rb'\1"' + blank + b'"', body)
        if kept.content_type == "application/x-www-form-urlencoded":
            body = _ECHO_IN_FORM.sub(rb"\1" + quote(BLANK).encode(), body)
        return replace(kept, raw_body=body)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: text(read_any(request)["submissionID"]))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        form = read_any(request)
        raw = form.get("rawRequest") if isinstance(form, dict) else None
        if not isinstance(raw, str):
            raise Unmappable("the answers are JSON text in rawRequest")
        answers = read_object(raw.encode())
        fact = form_lead(
            self.delivery_id(request),
            request,
            settings,
            form_fields(_answers(answers), settings),
            external_id=text(form.get("submissionID")),
            properties={"form_id": form.get("formID"), "form_name": form.get("formTitle")},
        )
        return Reading((fact,), answers, form | {"rawRequest": answers})


def _answers(raw: Mapping[str, Any]) -> Iterator[FormAnswer]:
    """The questions; what has no number is about the form, but for the visit's parameters and addresses of files."""
    uploads = {_NUMBERED.sub(r"\1", written) for written in object_at(raw, "temp_upload")}
    for written, value in raw.items():
        numbered = _NUMBERED.fullmatch(written)
        if numbered is not None:
            name = numbered[1]
            yield FormAnswer(name, value, label=_NUMBERED_END.sub("", name), place=written)
        elif is_tracking(written) or written in uploads:
            yield FormAnswer(written, value)


ADAPTER = Jotform()
