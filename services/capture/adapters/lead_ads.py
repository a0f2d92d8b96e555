"""What the lead forms of ad platforms have in common."""

from collections.abc import Mapping
from typing import Any

from services.capture.adapters.fields import is_tracking, lead_field

_WORK = {
    "work_email": "email",
    "business_email": "email",
    "work_phone": "phone",
    "work_phone_number": "phone",
}
_TEST_VALUE = "<test lead:"  # what the testing tools of Meta and TikTok answer every question with


def form_fields(answers: Mapping[str, Any]) -> dict[str, Any]:
    """The answers by what they say about a lead; an address at work is the address where there is no other."""
    fields: dict[str, Any] = {}
    at_work: dict[str, tuple[str, Any]] = {}
    for name, value in answers.items():
        if is_tracking(name):
            continue
        if field := _WORK.get(name.lower()):
            at_work[name] = (field, value)
        else:
            fields[lead_field(name) or f"attributes.{name}"] = value
    for name, (field, value) in at_work.items():
        fields[f"attributes.{name}" if fields.get(field) else field] = value
    return fields


def is_test_lead(answers: Mapping[str, Any]) -> bool:
    """Whether a platform's testing tool filled in the form."""
    return any(isinstance(value, str) and value.lower().startswith(_TEST_VALUE) for value in answers.values())


def named_values(**values: Any) -> dict[str, str]:
    """Those of the ids and names that are there, as text: numbers of 64 bits come in both ways."""
    return {
        name: str(value)
        for name, value in values.items()
        if isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    }
