"""Fillout: form submissions. https://www.fillout.com/help/webhook"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.fields import text
from services.capture.adapters.form_answers import FormAnswer, form_fields, form_lead
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import Unsigned

_BY_TYPE = {"EmailInput": "email", "PhoneNumber": "phone", "PhoneInput": "phone"}
_BOXES = frozenset({"Checkbox", "Switch"})
_CHOICES = frozenset({"Checkboxes", "MultipleChoice", "Dropdown", "MultiSelect", "ImagePicker"})


class Fillout(Unsigned):
    """Questions are known by their names, then by their types."""

    kind: ClassVar[str] = "fillout"

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _submission(read_object(request.raw_body))["submissionId"])

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        submission = _submission(body)
        if not isinstance(submission.get("questions"), list):
            raise Unmappable("a submission has questions")
        questions = objects_at(submission, "questions")
        parameters = objects_at(submission, "urlParameters")
        answers = [*map(_answer, questions), *_hidden(parameters)]
        fact = form_lead(
            self.delivery_id(request),
            request,
            settings,
            form_fields(answers, settings),
            at=submission.get("submissionTime"),
            external_id=text(submission.get("submissionId")),
            properties={"form_id": body.get("formId"), "form_name": body.get("formName")},
        )
        by_id = {str(question.get("id")): question.get("value") for question in questions}
        return Reading((fact,), by_id | {answer.name: answer.value for answer in reversed(answers)}, body)


def _submission(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return object_at(body, "submission")


def _answer(question: Mapping[str, Any]) -> FormAnswer:
    kind, value = str(question.get("type")), question.get("value")
    box = True if kind in _BOXES or isinstance(value, bool) else None if kind in _CHOICES else False
    name = text(question.get("name")) or text(question.get("id")) or kind
    return FormAnswer(name, value, by_type=_BY_TYPE.get(kind), box=box, place=text(question.get("id")) or "")


def _hidden(parameters: list[Mapping[str, Any]]) -> Iterator[FormAnswer]:
    for parameter in parameters:
        if name := text(parameter.get("name")) or text(parameter.get("id")):
            yield FormAnswer(name, parameter.get("value"), hidden=True)


ADAPTER = Fillout()
