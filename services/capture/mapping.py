"""What the owner of a source says about its bodies: which field stands where, and what to assume.

A mapping is data: a field and where to find it. A text is a key of the answers as written, else a dotted path into the
body; `{"cel": …}` is an expression over `body`, `query` and `headers`. Fields are those of a lead as in the API, `name`
(split into first and last), `occurred_at`, `idempotency_key`, `event`, and below `touch.`, `consent.`, `attributes.`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

from services.capture.adapters.bodies import plain
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.facts import (
    BookingFact,
    ConversionFact,
    CrmFact,
    Fact,
    Ignored,
    LeadFact,
    MessageFact,
    Reading,
    RefundFact,
    Touch,
    TouchFact,
)
from services.capture.adapters.fields import (
    CONSENT_CHANNELS,
    LEAD_FIELDS,
    TOUCH_FIELDS,
    happened_at,
    person_of,
    text,
    touch_of,
)
from services.capture.adapters.request import HookRequest
from services.capture.facts.inputs import MOST_MINOR
from shared.errors import FieldError, Invalid
from shared.money import UnknownCurrency, exponent
from shared.phones import known_country
from shared.rules import OPEN, Evaluation, Expression, ExpressionFault, Vocabulary, compile_expression

MOST_FIELDS = 200
LONGEST_NAME = 200
FORM_SUBMITTED = "form_submitted"
_VOCABULARY = Vocabulary({"body": OPEN, "query": OPEN, "headers": OPEN})
_CEL_FAILURES = (KeyError, TypeError, RuntimeError, ValueError, ArithmeticError, IndexError)
_OWN_FIELDS = LEAD_FIELDS | {"occurred_at", "idempotency_key", "event"}
_GROUPS = ("attributes.", "touch.properties.")
_DEFAULTS = (
    "phone_country",
    "channel",
    "touch_type",
    "currency",
    "organization_id",
    "verify_token",
    "allow_legacy",
    "api_base",
)
_SNAKE = re.compile(r"[a-z][a-z0-9_]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MappingSettings:
    """A source's mapping, ready for use, and its defaults.

    `phone_country` is where a number without a country code is from; `channel` and `touch_type` are those of the
    source's touches; `currency` is that of money that names none. `organization_id` is the only sender's account that
    is believed, `verify_token` what a handshake must name, `allow_legacy` whether an older, weaker signature will do,
    `api_base` the provider's own address where it has one for each region.
    """

    places: tuple[tuple[str, str | Expression], ...] = ()
    phone_country: str | None = None
    channel: str | None = None
    touch_type: str | None = None
    currency: str | None = None
    organization_id: str | None = None
    verify_token: str | None = None
    allow_legacy: bool = False
    api_base: str | None = None

    @classmethod
    def of(cls, mapping: Mapping[str, Any], defaults: Mapping[str, Any]) -> "MappingSettings":
        """The settings of a source as saved; kept, since every delivery asks. Raises Invalid with the faults."""
        return _settings(orjson.dumps([mapping, defaults]))

    def find(self, reading: Reading, request: HookRequest) -> dict[str, Any]:
        """The mapped fields that this delivery has."""
        with_expressions = any(not isinstance(place, str) for _, place in self.places)
        evaluation = _evaluation(reading, request) if with_expressions else Evaluation({})
        found: dict[str, Any] = {}
        for field, place in self.places:
            value = look_up(place, reading) if isinstance(place, str) else result_of(place, evaluation)
            if value is not None and value != "":
                found[field] = value
        return found


PLAIN = MappingSettings()


@dataclass(frozen=True, slots=True)
class MappedField:
    """What a line of a mapping found in a body; `why` says why it found nothing."""

    field: str
    place: str
    value: Any = None
    why: str | None = None


def explain(reading: Reading, request: HookRequest, settings: MappingSettings) -> list[MappedField]:
    """What each line of the mapping finds, for whoever writes it."""
    evaluation = _evaluation(reading, request)
    return [_explained(field, place, reading, evaluation) for field, place in settings.places]


def _explained(field: str, place: str | Expression, reading: Reading, evaluation: Evaluation) -> MappedField:
    if isinstance(place, str):
        value = look_up(place, reading)
        names = reading.answers or (reading.body if isinstance(reading.body, Mapping) else {})
        offered = ", ".join(str(name) for name in list(names)[:20])
        why = None if value not in (None, "") else f"nothing stands there; there are {offered or 'no names'}"
        return MappedField(field, place, value, why)
    try:
        value = _told(place.value(evaluation))
    except _CEL_FAILURES as exc:
        return MappedField(field, place.source, None, f"the expression fails: {exc}"[:300])
    return MappedField(
        field, place.source, value, None if value not in (None, "") else "the expression comes to nothing"
    )


def overlay(reading: Reading, request: HookRequest, settings: MappingSettings) -> list[Fact]:
    """The facts with the mapped fields in place of the adapter's own; Unmappable.

    A lead, a touch and a meeting of nobody are ignored. Money, mails and changes in a CRM are told whoever it was.
    """
    found = settings.find(reading, request) if settings.places else {}
    return [_identified(_overlaid(_in_proportion(fact), found, request, settings)) for fact in reading.facts]


def look_up(place: str, reading: Reading) -> Any:
    """What stands under a key of the answers as written, else at a dotted path."""
    for whole in (reading.answers, reading.body):
        if isinstance(whole, Mapping) and place in whole:
            return whole[place]
    for whole in (reading.answers, reading.body):
        value = _at_path(whole, place.split("."))
        if value is not None:
            return value
    return None


def validate_mapping(mapping: Any, defaults: Any) -> list[FieldError]:
    """The faults of a source's mapping and defaults, with pointers below `/mapping` and `/defaults`."""
    return [*_mapping_faults(mapping), *_defaults_faults(defaults)]


def _overlaid(fact: Fact, found: Mapping[str, Any], request: HookRequest, settings: MappingSettings) -> Fact:
    if isinstance(fact, MessageFact | CrmFact):
        return replace(fact, person=person_of(found, settings.phone_country, fact.person))
    if not isinstance(fact, LeadFact | TouchFact | BookingFact | ConversionFact):
        return fact
    touch = fact.touch
    if touch is None and any(field.startswith("touch.") for field in found):
        touch = Touch(type=FORM_SUBMITTED, touch_id=fact.external_id or fact.idempotency_key)
    if touch is not None:
        touch = touch_of(found, replace(touch, channel=touch.channel or settings.channel))
    changed: dict[str, Any] = {"person": person_of(found, settings.phone_country, fact.person), "touch": touch}
    if found.get("occurred_at") is not None:
        changed["occurred_at"], changed["timed_by"] = happened_at(found["occurred_at"], request)
    if event := text(found.get("event")):
        changed["event"] = event
    return replace(fact, **changed)


def _in_proportion(fact: Fact) -> Fact:
    """As the API has it: more than this is no price but a mistake."""
    if isinstance(fact, ConversionFact | RefundFact) and fact.amount_minor > MOST_MINOR:
        raise Unmappable("the amount is out of all proportion")
    return fact


def _identified(fact: Fact) -> Fact:
    if isinstance(fact, LeadFact | TouchFact | BookingFact) and not fact.person.identified:
        return Ignored(
            idempotency_key=fact.idempotency_key,
            occurred_at=fact.occurred_at,
            timed_by=fact.timed_by,
            event=fact.event,
            reason="no_identifier",
        )
    return fact


def _at_path(whole: Any, path: Sequence[str]) -> Any:
    for name in path:
        if isinstance(whole, Mapping):
            whole = whole.get(name)
        elif isinstance(whole, list) and name.isdecimal() and len(name) < 5:
            whole = whole[int(name)] if int(name) < len(whole) else None
        else:
            return None
    return whole


def _evaluation(reading: Reading, request: HookRequest) -> Evaluation:
    """The values of one delivery, converted once for all its expressions; of a header that comes twice, the first."""
    headers = dict(reversed(request.headers.pairs))
    return Evaluation({"body": plain(reading.body), "query": dict(request.query), "headers": headers})


def result_of(expression: Expression, evaluation: Evaluation) -> Any:
    """What the expression comes to; None when it reads what this delivery does not have."""
    try:
        return _told(expression.value(evaluation))
    except _CEL_FAILURES:
        return None


def _told(value: Any) -> Any:
    """A result of CEL among the kinds of values that bodies have."""
    match value:
        case datetime():
            return value.isoformat()
        case float():
            return Decimal(str(value))
        case dict():
            return {str(name): _told(inner) for name, inner in value.items()}
        case list():
            return [_told(inner) for inner in value]
        case str() | bool() | int():
            return value
        case _:
            return None


@lru_cache(maxsize=1_000)
def _settings(saved: bytes) -> MappingSettings:
    mapping, defaults = orjson.loads(saved)
    if faults := validate_mapping(mapping, defaults):
        raise Invalid("the source's mapping or defaults have faults", faults)
    places = tuple((field, compiled(place)) for field, place in mapping.items())
    return MappingSettings(places=places, **defaults)


def compiled(place: str | Mapping[str, str]) -> str | Expression:
    """A place, ready for use."""
    if isinstance(place, str):
        return place
    return compile_expression(place["cel"], _VOCABULARY, boolean=False)


def _mapping_faults(mapping: Any) -> Iterator[FieldError]:
    if not isinstance(mapping, Mapping):
        yield FieldError("/mapping", "a mapping is an object: a field of the lead, and where it stands")
        return
    if len(mapping) > MOST_FIELDS:
        yield FieldError("/mapping", f"a mapping has at most {MOST_FIELDS} fields")
    for field, place in mapping.items():
        pointer = f"/mapping/{escaped(field)}"
        if detail := _field_fault(field):
            yield FieldError(pointer, detail)
        yield from place_faults(place, pointer)


def _field_fault(field: str) -> str | None:
    if field in _OWN_FIELDS or (len(field) <= LONGEST_NAME and any(_names_one_of(field, group) for group in _GROUPS)):
        return None
    group, _, name = field.partition(".")
    match group:
        case "touch" if name:
            return None if name in TOUCH_FIELDS else f"a touch has no {name}; it has {', '.join(sorted(TOUCH_FIELDS))}"
        case "consent" if name:
            return None if name in CONSENT_CHANNELS else f"consent is for one of {', '.join(CONSENT_CHANNELS)}"
        case _:
            return f"a lead has no {field[:LONGEST_NAME]}; put it below `attributes.`"


def _names_one_of(field: str, group: str) -> bool:
    return field.startswith(group) and len(field) > len(group)


def place_faults(place: Any, pointer: str) -> Iterator[FieldError]:
    """What is wrong with where a field is said to stand."""
    match place:
        case str():
            if not place or len(place) > LONGEST_NAME:
                yield FieldError(pointer, f"a key or path has 1 to {LONGEST_NAME} characters")
        case {"cel": str(source), **others} if not others:
            try:
                compile_expression(source, _VOCABULARY, f"{pointer}/cel", boolean=False)
            except ExpressionFault as fault:
                yield FieldError(fault.pointer, fault.detail, fault.column)
        case _:
            yield FieldError(pointer, 'a place is a key, a dotted path, or {"cel": "an expression"}')


def _defaults_faults(defaults: Any) -> Iterator[FieldError]:
    if not isinstance(defaults, Mapping):
        yield FieldError("/defaults", "defaults are an object")
        return
    for name, value in defaults.items():
        if detail := _default_fault(name, value):
            yield FieldError(f"/defaults/{escaped(name)}", detail)


def _default_fault(name: str, value: Any) -> str | None:
    if name not in _DEFAULTS:
        return f"the defaults are {', '.join(_DEFAULTS)}"
    if name == "allow_legacy":
        return None if isinstance(value, bool) else "is true or false"
    if not isinstance(value, str):
        return "a default is a text"
    if name == "api_base":
        return None if value.startswith("https://") else "is the https:// address of the provider's API in your region"
    if name in ("organization_id", "verify_token"):
        return None if 1 <= len(value) <= LONGEST_NAME else f"has 1 to {LONGEST_NAME} characters"
    if name == "currency":
        return None if _is_currency(value) else "not the ISO 4217 code of a currency, such as EUR"
    if name == "phone_country":
        return None if known_country(value) else "not the ISO 3166 code of a country, such as DE"
    return None if _SNAKE.fullmatch(value) else "not a name in snake_case"


def _is_currency(code: str) -> bool:
    try:
        exponent(code)
    except UnknownCurrency:
        return False
    return True


def escaped(name: str) -> str:
    """As a part of a JSON Pointer."""
    return name[:LONGEST_NAME].replace("~", "~0").replace("/", "~1")
