"""What the message that asks for confirmation says, by language, and what can be wrong with it."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any

from pydantic import Field

from services.nurture.sequences.document import Shape, Template
from services.nurture.templates.check import Names, template_faults
from shared.rules import DocumentStore, ExpressionFault, invalid_document

LINK = "confirm_url"
# Nothing of what was typed into the form: anybody could have it sent to a stranger, in our name.
NAMES: Names = {LINK: None, "form": frozenset({"name"}), "sender": frozenset({"name"})}
Language = Annotated[str, Field(pattern=r"^[a-z]{2}(-[A-Z]{2})?$")]


class OptinMessages(Shape):
    """The message by language. A form in a language that is not here gets the default one."""

    default_language: Language = "en"
    messages: Annotated[dict[Language, Template], Field(min_length=1)]

    def template_for(self, language: str) -> Template:
        """The message in a language, else in its relative, else in the default one."""
        for name in (language, language.partition("-")[0], self.default_language):
            if name in self.messages:
                return self.messages[name]
        return next(iter(self.messages.values()))


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
        for part in ("subject", "html", "text"):
            source = getattr(template, part)
            pointer = f"/messages/{language}/{part}"
            if source is None:
                continue
            for line, detail in template_faults(source, NAMES):
                yield ExpressionFault(pointer, 1, detail, line)
            if part != "subject" and LINK not in source:
                yield ExpressionFault(pointer, 1, f"does not hold the link: {{{{ {LINK} }}}}")
