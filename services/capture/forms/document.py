"""What a form looks like when it is written down, and everything that can be wrong with it."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError

from services.capture.adapters.fields import LEAD_FIELDS, lead_field
from services.capture.consent.inputs import Purpose
from services.capture.facts.inputs import TypeName
from services.capture.forms.patterns import pattern_fault
from services.capture.reading import Strict, read_body
from services.capture.sites.domain import allows
from services.capture.sites.inputs import Origin
from shared.consents import ALL, MARKETING
from shared.errors import FieldError, Invalid
from shared.events import ConsentChannel
from shared.phones import known_country

FieldType = Literal[
    "text", "email", "phone", "textarea", "number", "date", "url", "select", "radio", "checkbox", "checkboxes", "hidden"
]
CHOICES = frozenset({"select", "radio", "checkboxes"})
NOT_OURS = LEAD_FIELDS - {"anonymous_id", "external_id"}
_LANGUAGE = r"^[a-z]{2}(-[A-Z]{2})?$"
_COLOUR = r"^#[0-9a-fA-F]{6}$"


def _by_language(value: Any) -> Any:
    return {"": value} if isinstance(value, str) else value


Words = Annotated[
    dict[Annotated[str, Field(pattern=r"^$|" + _LANGUAGE)], Annotated[str, Field(min_length=1, max_length=5_000)]],
    BeforeValidator(_by_language, json_schema_input_type=str | dict[str, str]),
    Field(min_length=1, description="A text, or texts by language: `{'en': …, 'de': …}`"),
]
"""Texts by language; one that was given alone stands under the empty name, and is of the form's own language."""

FieldId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", description="Its name in what is sent")]
Colour = Annotated[str, Field(pattern=_COLOUR)]


class Option(Strict):
    """A choice."""

    value: Annotated[str, Field(min_length=1, max_length=200)]
    label: Words | None = None


class FormField(Strict):
    """A question. `maps_to` says what of the lead its answer is; by default that of its name, else an attribute."""

    id: FieldId
    type: FieldType = "text"
    label: Words | None = None
    help: Words | None = None
    placeholder: Words | None = None
    required: bool = False
    options: Annotated[list[Option], Field(max_length=300)] = Field(default_factory=list)
    pattern: Annotated[
        str | None, Field(max_length=300, description="A regular expression that the whole answer must match")
    ] = None
    pattern_help: Annotated[Words | None, Field(description="What is said when the answer does not match")] = None
    max_length: Annotated[int | None, Field(ge=1, le=10_000)] = None
    country: Annotated[
        str | None, Field(max_length=2, description="Where phone numbers without a country code are from")
    ] = None
    value: Annotated[
        str | None, Field(max_length=2_000, description="Of a hidden field: what it always says; else the first answer")
    ] = None
    maps_to: Annotated[str | None, Field(max_length=100, examples=["email", "attributes.budget"])] = None

    @property
    def place(self) -> str:
        """What of the lead the answer is."""
        if self.maps_to:
            return self.maps_to
        known = lead_field(self.id)
        if known is None and self.type in ("email", "phone"):
            known = self.type
        return known if known in NOT_OURS else f"attributes.{self.id}"


class ConsentBox(Strict):
    """Something to agree to. Its text is kept as evidence, as it was shown, with the version of the form."""

    id: FieldId
    channel: ConsentChannel = "email"
    purpose: Purpose = MARKETING
    text: Words
    required: bool = False


class Theme(Strict):
    """What a form looks like."""

    accent: Colour = "#1d4ed8"
    background: Colour = "#ffffff"
    text: Colour = "#1f2937"
    radius: Annotated[int, Field(ge=0, le=24)] = 8
    font: Literal["sans", "serif", "mono"] = "sans"


class Texts(Strict):
    """What a form says beside its questions; what is not given is said in the form's language."""

    title: Words | None = None
    intro: Words | None = None
    button: Words | None = None
    thanks_title: Words | None = None
    thanks: Words | None = None


class FormDocument(Strict):
    """A form. `origins` are where it may be embedded; `redirect`, at one of them, is where people go afterwards."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    language: Annotated[str, Field(pattern=_LANGUAGE)] = "en"
    fields: Annotated[list[FormField], Field(min_length=1, max_length=60)]
    consents: Annotated[list[ConsentBox], Field(max_length=10)] = Field(default_factory=list)
    double_opt_in: Annotated[
        bool, Field(description="Consent counts only once a link was followed that is sent to the address")
    ] = False
    texts: Texts = Field(default_factory=Texts)
    redirect: Annotated[str | None, Field(max_length=2_000)] = None
    origins: Annotated[list[Origin], Field(max_length=50)] = Field(default_factory=list)
    theme: Theme = Field(default_factory=Theme)
    touch_type: TypeName = "form_submitted"


def read_document(body: bytes) -> FormDocument:
    """A form out of a request. Raises Malformed, or Invalid with the JSON Pointer of every fault."""
    document = read_body(FormDocument, body)
    if faults := list(document_faults(document)):
        raise Invalid(f"look at {', '.join(fault.pointer for fault in faults[:5])}", faults)
    return document


def stored_document(content: Mapping[str, Any]) -> FormDocument:
    """A form as it was saved."""
    try:
        return FormDocument.model_validate(content)
    except ValidationError as exc:
        raise AssertionError("what was saved was valid") from exc


def document_faults(document: FormDocument) -> Iterator[FieldError]:
    """What is wrong with a form beyond its shape."""
    seen: set[str] = set()
    named = [(f"/fields/{index}/id", field.id) for index, field in enumerate(document.fields)]
    for pointer, name in [*named, *((f"/consents/{index}/id", box.id) for index, box in enumerate(document.consents))]:
        if name in seen:
            yield FieldError(pointer, f"{name} is the name of another field already")
        seen.add(name)
    for index, field in enumerate(document.fields):
        for part, detail in _field_faults(field):
            yield FieldError(f"/fields/{index}/{part}", detail)
    for index, box in enumerate(document.consents):
        if box.purpose == ALL:
            yield FieldError(f"/consents/{index}/purpose", "name what is asked for; all at once can only be denied")
    yield from _place_faults(document)
    if document.redirect is not None and not _is_at(document.redirect, document.origins):
        yield FieldError("/redirect", "is not at one of the origins of the form")
    yield from _language_faults(document)


def _place_faults(document: FormDocument) -> Iterator[FieldError]:
    places = [field.place for field in document.fields]
    if not {"email", "phone"} & set(places):
        yield FieldError("/fields", "one of them has to be the email address or the phone number (maps_to)")
    for place in sorted({place for place in places if places.count(place) > 1}):
        last = len(places) - 1 - places[::-1].index(place)
        yield FieldError(f"/fields/{last}/maps_to", f"another field is {place} already")
    if document.double_opt_in and "email" not in places:
        yield FieldError("/double_opt_in", "there is no field for the address that the link goes to")
    if document.double_opt_in and not document.consents:
        yield FieldError("/double_opt_in", "there is no consent to confirm")


def _field_faults(field: FormField) -> Iterator[tuple[str, str]]:
    if field.type in CHOICES and not field.options:
        yield "options", f"a {field.type} needs options"
    if field.type not in CHOICES and field.options:
        yield "options", f"a {field.type} has no options"
    values = [option.value for option in field.options]
    if len(set(values)) < len(values):
        yield "options", "two of them have the same value"
    if field.type != "hidden" and field.label is None:
        yield "label", "is required"
    if field.pattern is not None and (fault := pattern_fault(field.pattern)):
        yield "pattern", fault
    if field.pattern is not None and field.type not in ("text", "textarea", "email", "phone", "url", "hidden"):
        yield "pattern", f"a {field.type} has no pattern"
    if field.country is not None and not known_country(field.country):
        yield "country", "is not an ISO 3166 code, such as DE"
    place = field.place
    if place not in NOT_OURS and not re.fullmatch(r"attributes\.[A-Za-z0-9_. -]{1,80}", place):
        yield "maps_to", f"is neither attributes.<name> nor one of {', '.join(sorted(NOT_OURS))}"
    if place in ("email", "phone") and field.type != place:
        yield "type", f"the {place} of a lead is asked for with the type {place}"


def _is_at(address: str, origins: list[str]) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return False
    printable = address.isascii() and address.isprintable() and not set(" \\'\"<>;,") & set(address)
    return printable and "@" not in parts.netloc and allows(origins, f"{parts.scheme}://{parts.netloc}")


def _language_faults(document: FormDocument) -> Iterator[FieldError]:
    for pointer, words in _all_words(document):
        if "" not in words and document.language not in words:
            yield FieldError(pointer, f"has no text in the form's own language, {document.language}")


def _all_words(document: FormDocument) -> Iterator[tuple[str, dict[str, str]]]:
    groups: list[tuple[str, Any]] = [("/texts", document.texts)]
    groups += [(f"/fields/{index}", field) for index, field in enumerate(document.fields)]
    groups += [(f"/consents/{index}", box) for index, box in enumerate(document.consents)]
    for index, field in enumerate(document.fields):
        groups += [(f"/fields/{index}/options/{n}", option) for n, option in enumerate(field.options)]
    for pointer, holder in groups:
        for name, value in holder:
            if isinstance(value, dict):
                yield f"{pointer}/{name}", value


def languages_of(document: FormDocument) -> tuple[str, ...]:
    """The languages that a form is written in, its own first."""
    others = {language for _, words in _all_words(document) for language in words} - {"", document.language}
    return document.language, *sorted(others)


def said(words: Mapping[str, str] | None, language: str, own: str) -> str:
    """A text in a language, else in the form's own."""
    if not words:
        return ""
    return words.get(language) or words.get(own) or words.get("") or next(iter(words.values()))
