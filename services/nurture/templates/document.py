"""What a template looks like when it is written down: the message in each language, and what is added by rule."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, field_validator, model_validator

from services.nurture.templates.languages import nearest_language, relative_of
from shared.web import Input

Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$", description="As in `de` or `de-AT`")]
TemplateId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Source = Annotated[str, Field(min_length=1, max_length=100_000)]
Host = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", max_length=253)]
Mark = Annotated[str, Field(min_length=1, max_length=200)]
BODIES: tuple[Literal["html", "mjml", "text"], ...] = ("html", "mjml", "text")
FALLBACK_PATH = re.compile(r"lead(\.[A-Za-z0-9_-]{1,64}){1,4}")


class Shape(Input):
    """A part of a document: no unknown fields, no guessing of types."""

    model_config = ConfigDict(strict=True, str_max_length=100_000, validate_by_name=False, validate_by_alias=True)


class Utm(Shape):
    """What is added to the web links of a message that do not say it themselves; values may be templates.

    `hosts` names the hosts, each with its subdomains, whose links get it; without it all do.
    """

    source: Mark | None = None
    medium: Mark | None = None
    campaign: Mark | None = None
    term: Mark | None = None
    content: Mark | None = None
    hosts: list[Host] | None = Field(default=None, min_length=1, max_length=50)

    @property
    def marks(self) -> dict[str, str]:
        """The parameters of a link, by their names."""
        values = {name: getattr(self, name) for name in ("source", "medium", "campaign", "term", "content")}
        return {f"utm_{name}": value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _adds_something(self) -> "Utm":
        if not self.marks:
            raise ValueError("name at least one of source, medium, campaign, term and content")
        return self


class Bodies(Shape):
    """The parts of a message, in Jinja. HTML is written as `html`, or as `mjml` that becomes responsive HTML.

    `defaults` are printed where the lead has no value: `{"lead.first_name": "there"}`.
    """

    html: Source | None = None
    mjml: Source | None = None
    text: Source | None = None
    defaults: dict[str, Mark] = Field(default={}, max_length=100)

    @model_validator(mode="after")
    def _has_a_body(self) -> "Bodies":
        named = getattr(self, "name", None) is not None
        if not named and self.html is None and self.text is None and self.mjml is None:
            raise ValueError("a template has html or mjml, text or both")
        return self

    @field_validator("defaults")
    @classmethod
    def _are_of_the_lead(cls, defaults: dict[str, str]) -> dict[str, str]:
        for path in defaults:
            if not FALLBACK_PATH.fullmatch(path):
                raise ValueError(f"{path[:80]} is not the name of a value of the lead, such as lead.first_name")
        return defaults


class Variant(Bodies):
    """The message, or the part, in another language."""

    subject: str | None = Field(default=None, min_length=1, max_length=500)


class Template(Variant):
    """The words of a message, in Jinja.

    An email has a subject and HTML, text or both: the part that is absent is made out of the other one. An SMS has
    `text` alone. A WhatsApp message has `text` too (which reaches only who wrote within 24 hours), or else it is a
    template that WhatsApp has approved: its `name` (with Twilio its content SID), `language` and `parameters`.
    `languages` has a message in other languages than `default_language`; the lead's own decides. What is not `tracked`
    has its links as they are written, and nobody counts opens and clicks.
    """

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]{1,512}$")
    language: str | None = Field(default=None, pattern=r"^[a-z]{2,3}(_[A-Za-z]{2,4})?$")
    parameters: list[Annotated[str, Field(min_length=1, max_length=1_024)]] | None = Field(default=None, max_length=50)
    default_language: Language = "en"
    languages: dict[Language, Variant] = Field(default={}, max_length=50)
    utm: Utm | None = None
    tracked: bool = True

    @model_validator(mode="after")
    def _is_whole_in_each_language(self) -> "Template":
        if self.name is None and (self.language is not None or self.parameters):
            raise ValueError("only an approved template, which has a name, has a language and parameters")
        if self.name is not None and (self.language is None or self.languages):
            raise ValueError("an approved template has a name and a language, one for each language")
        return _checked_languages(self, self.languages, self.default_language, subject=self.subject is not None)


class Part(Bodies):
    """What several templates have in common; they take it in by its id: `{% include "footer" %}`."""

    default_language: Language = "en"
    languages: dict[Language, Variant] = Field(default={}, max_length=50)

    @model_validator(mode="after")
    def _is_whole_in_each_language(self) -> "Part":
        return _checked_languages(self, self.languages, self.default_language, subject=False)


P = TypeVar("P", bound=Bodies)


def _checked_languages(whole: P, languages: dict[str, Variant], default: str, *, subject: bool) -> P:
    bodies: tuple[Bodies, ...] = (whole, *languages.values())
    if subject and any(one.html is not None and one.mjml is not None for one in bodies):
        raise ValueError("a message has html or mjml, not both")
    for language, variant in languages.items():
        if language == default:
            raise ValueError(f"{language} is the default language; its text stands outside of languages")
        if subject != (variant.subject is not None):
            raise ValueError(
                f"languages/{language} {'has no subject' if subject else 'has a subject: a part has none'}"
            )
    return whole


class StoredTemplate(Shape):
    """A template that stands by itself, versioned: a `message` that steps send, or a `part` of others."""

    name: str = Field(min_length=1, max_length=200)
    message: Template | None = None
    part: Part | None = None

    @model_validator(mode="after")
    def _is_one_of_them(self) -> "StoredTemplate":
        if (self.message is None) == (self.part is None):
            raise ValueError("a template is either a message or a part")
        return self

    def as_json(self) -> dict[str, Any]:
        """The document as it is stored: defaults spelt out, so that a later default changes no stored template."""
        return self.model_dump(mode="json", exclude_none=True)


@dataclass(frozen=True, slots=True)
class TemplateRef:
    """A stored template: one version of it, or the one that counts when the message is written."""

    template_id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Approved:
    """A template that WhatsApp keeps, and what fills its places."""

    name: str
    language: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """A message in one language, ready to be filled. `locale` is how its dates and numbers are written."""

    subject: str = ""
    html: str | None = None
    mjml: str | None = None
    text: str | None = None
    language: str = "en"
    locale: str = "en"
    defaults: tuple[tuple[str, str], ...] = ()
    utm: Utm | None = None
    approved: Approved | None = None
    tracked: bool = True


def in_language(template: Template, wanted: str | None) -> Words:
    """The message as somebody reads it who speaks a language; None: nobody knows which."""
    language = nearest_language(wanted, template.languages, template.default_language)
    variant: Variant = template.languages.get(language, template)
    spoken = wanted if wanted is not None and relative_of(wanted) == relative_of(language) else language
    return Words(
        variant.subject or template.subject or "",
        variant.html,
        variant.mjml,
        variant.text,
        language,
        spoken,
        tuple(sorted({**template.defaults, **variant.defaults}.items())),
        template.utm,
        None
        if template.name is None
        else Approved(template.name, template.language or "", tuple(template.parameters or ())),
        template.tracked,
    )
