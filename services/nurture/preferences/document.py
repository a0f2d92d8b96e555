"""The preference page as it is written: which purposes it offers, by channel and language."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

from pydantic import Field, model_validator

from services.nurture.preferences.words import LANGUAGES
from services.nurture.sequences.document import Purpose
from services.nurture.templates.document import Shape
from shared.consents import ALL, TRANSACTIONAL
from shared.events import ConsentChannel
from shared.rules import DocumentStore

Language = Annotated[str, Field(pattern=r"^[a-z]{2}(-[A-Z]{2})?$")]
Texts = Annotated[dict[Language, Annotated[str, Field(min_length=1, max_length=500)]], Field(min_length=1)]
Days = Annotated[int, Field(ge=1, le=366)]


class Choice(Shape):
    """A purpose that people can switch on and off, on these channels."""

    purpose: Purpose
    channels: list[ConsentChannel] = Field(min_length=1, max_length=3)
    titles: Texts
    texts: Texts | None = None


class PreferenceDocument(Shape):
    """The page. A text that a language lacks stands there in the default one."""

    default_language: Language = "en"
    languages: dict[Language, Annotated[str, Field(min_length=1, max_length=60)]] = Field(
        default_factory=lambda: dict(LANGUAGES), min_length=1, max_length=60
    )
    purposes: list[Choice] = Field(min_length=1, max_length=30)
    pause_days: list[Days] = Field(default_factory=lambda: [30, 60, 90], max_length=6)

    @model_validator(mode="after")
    def _is_complete(self) -> "PreferenceDocument":
        if self.default_language not in self.languages:
            raise ValueError(f"languages lacks the default one, {self.default_language}")
        names = [choice.purpose for choice in self.purposes]
        for number, choice in enumerate(self.purposes):
            place = f"purposes/{number}"
            if choice.purpose in (ALL, TRANSACTIONAL):
                raise ValueError(f"{place}: nobody chooses {choice.purpose} here")
            if names.index(choice.purpose) != number:
                raise ValueError(f"{place}: {choice.purpose} is there already")
            if len(set(choice.channels)) < len(choice.channels):
                raise ValueError(f"{place}: a channel is there twice")
            for texts in (choice.titles, choice.texts or choice.titles):
                if self.default_language not in texts:
                    raise ValueError(f"{place}: a text in {self.default_language} is missing")
        return self


@dataclass(frozen=True, slots=True)
class PreferencePage:
    """A version of the page."""

    version: int
    document: PreferenceDocument

    def language_for(self, *wanted: str | None) -> str:
        """The first of these languages that the page has, or a relative of it; else the default one."""
        for name in wanted:
            for one in (name or "", (name or "").partition("-")[0]):
                if one in self.document.languages:
                    return one
        return self.document.default_language

    def said(self, texts: Mapping[str, str] | None, language: str) -> str:
        """A text in a language, its relative, or the default one."""
        if texts is None:
            return ""
        return texts.get(language) or texts.get(language.partition("-")[0]) or texts[self.document.default_language]


def checked(document: dict[str, Any]) -> PreferenceDocument:
    """The document, when it can work. Raises pydantic's ValidationError."""
    return PreferenceDocument.model_validate(document)


def shipped() -> dict[str, Any]:
    """The page that comes with the product."""
    source = resources.files("services.nurture").joinpath("shipped", "preferences.json").read_text()
    document: dict[str, Any] = json.loads(source)
    return document


PAGES = DocumentStore("preference-page", shipped())
