"""Contact Form 7, through a plugin that posts the form: no id, no time, no signature. https://contactform7.com/

Two identical bodies are one delivery.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import read_any
from services.capture.adapters.fields import ignored
from services.capture.adapters.form_answers import form_lead, is_test, owner_fields
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import Unsigned

_OF_PLUGIN = ("_wpcf7", "_wpnonce", "_wp_http_referer", "g-recaptcha-response", "_post_id", "_remote_ip", "_user_agent")
# To us on this occasion, and nothing about the person.
_WRITTEN = {"your-message": "message", "message": "message", "your-subject": "subject", "subject": "subject"}


class ContactForm7(Unsigned):
    """Answers are known by the tags of the form: `your-email`, `tel-123`."""

    kind: ClassVar[str] = "contact_form_7"

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: None)

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body, key = read_any(request), self.delivery_id(request)
        if not isinstance(body, dict):
            raise Unmappable("a form is one object")
        if is_test(body):
            return Reading((ignored(key, request, "test"),), body, body)
        answers = {name: value for name, value in body.items() if not name.startswith(_OF_PLUGIN)}
        fact = form_lead(
            key,
            request,
            settings,
            owner_fields(_without_written(answers), settings),
            properties={ours: answers[name] for name, ours in _WRITTEN.items() if name in answers},
        )
        return Reading((fact,), body, body)


def _without_written(answers: Mapping[str, Any]) -> dict[str, Any]:
    page = {"page_url": answers["_url"]} if "_url" in answers else {}
    return page | {name: value for name, value in answers.items() if name not in {*_WRITTEN, "_url"}}


ADAPTER = ContactForm7()
