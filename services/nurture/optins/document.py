"""What the message that asks for confirmation says, by language, and what can be wrong with it."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any

from pydantic import Field

from services.nurture.templates.check import Names, faults_of_template, unfit_parts
from services.nurture.templates.document import Language, Shape, Template
from services.nurture.templates.languages import nearest_language
from shared.rules import DocumentStore, ExpressionFault, invalid_document

LINK = "confirm_url"
# Nothing of what was typed into the form: anybody could have it sent to a stranger, in our name.
NAMES: Names = {LINK: None, "form": frozenset({"name"}), "sender": frozenset({"name"})}


class OptinMessages(Shape):
    """The message by language. A form in a language that is not here gets the default one."""

    default_language: Language = "en"
    messages: Annotated[dict[Language, Template], Field(min_length=1)]

    def template_for(self, language: str) -> Template:
        """The message in a language, else in its relative, else in the default one."""
        return self.messages[nearest_language(language, self.messages, self.default_language)]


def shipped() -> dict[str, Any]:
    """The message that comes with the product."""
    document: dict[str, Any] = json.loads(
        resources.files("services.nurture").joinpath("shipped", "optin.json").read_text()
    )
    return document


MESSAGES = DocumentStore("optin-message", shipped())


def checked(document: dict[str, Any]) -> OptinMessages:
    """The document, when it can work. Raises pydantic's ValidationError, or InvalidDocument with all its faults."""
    messages = OptinMessages.model_validate(document)
    if faults := list(_faults(messages)):
        raise invalid_document(faults)
    return messages


def _faults(messages: OptinMessages) -> Iterator[ExpressionFault]:
    if messages.default_language not in messages.messages:
        yield ExpressionFault("/default_language", 1, "there is no message in this language")
    for language, template in messages.messages.items():
        place = f"/messages/{language}"
        if template.languages or template.mjml:
            yield ExpressionFault(place, 1, "each language is a message of its own, of html, text or both")
        for fault in unfit_parts(template, "email", place) + faults_of_template(template, place, NAMES, parts=False):
            yield ExpressionFault(fault.pointer, 1, fault.detail)
        for part in ("html", "text"):
            source = getattr(template, part)
            if source is not None and LINK not in source:
                yield ExpressionFault(f"{place}/{part}", 1, f"does not hold the link: {{{{ {LINK} }}}}")
