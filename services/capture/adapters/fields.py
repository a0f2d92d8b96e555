"""From named values, as sources write them, to a person and a touch.

Every adapter brings its body to one vocabulary: the fields of a lead by their names in the API, `name` for a whole
name, `consent.<channel>`, `attributes.<name>`, `touch.<field>`. What does not fit its field is kept as an attribute.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from services.capture.adapters.bodies import plain
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.facts import Ignored, Person, Touch
from services.capture.adapters.request import HookRequest
from shared.emails import parse_email
from shared.events import ConsentChannel, ConsentState
from shared.phones import parse_phone

CONSENT_CHANNELS: tuple[ConsentChannel, ...] = get_args(ConsentChannel)
TEXT_FIELDS = frozenset(
    {
        "external_id",
        "anonymous_id",
        "first_name",
        "last_name",
        "title",
        "company",
        "country",
        "region",
        "industry",
        "use_case",
    }
)
NUMBER_FIELDS = frozenset({"employees", "annual_revenue"})
LEAD_FIELDS = TEXT_FIELDS | NUMBER_FIELDS | {"email", "phone", "name"}
UTM_FIELDS = frozenset({"source", "medium", "campaign", "term", "content"})
CLICK_IDS = frozenset({"gclid", "gbraid", "wbraid", "fbclid", "msclkid", "ttclid", "li_fat_id"})
TOUCH_FIELDS = UTM_FIELDS | CLICK_IDS | {"type", "touch_id", "channel", "url", "referrer"}

LONGEST_TEXT = 500
LONGEST_ADDRESS = 2_000
_OTHER_NAMES = {
    "fullname": "name",
    "emailaddress": "email",
    "phonenumber": "phone",
    "companyname": "company",
    "jobtitle": "title",
}
_GRANTED = frozenset(
    {"granted", "true", "yes", "y", "on", "1", "checked", "opt_in", "opted_in", "subscribed", "accepted"}
)
_DENIED = frozenset(
    {"denied", "false", "no", "n", "off", "0", "unchecked", "opt_out", "opted_out", "unsubscribed", "declined"}
)
_UTM_NAME = re.compile(r"utm[_-]?(source|medium|campaign|term|content)", re.IGNORECASE)
_NUMBER = re.compile(r"([0-9]{1,15})(?:\.0*)?", re.ASCII)
_UTC = re.compile(r"(?<=[0-9]) ?(?:z|UTC|GMT)\Z")
_TYPE_BREAKS = re.compile(r"[^a-z0-9]+")


def lead_field(name: str) -> str | None:
    """The field of a lead that a question of this name asks for: `First Name`, `firstName` and `first-name` are one."""
    squeezed = re.sub(r"[^a-z0-9]", "", name.lower())
    return _OTHER_NAMES.get(squeezed) or _FIELDS_BY_SQUEEZED_NAME.get(squeezed)


_FIELDS_BY_SQUEEZED_NAME = {name.replace("_", ""): name for name in LEAD_FIELDS}


def person_of(fields: Mapping[str, Any], country: str | None, base: Person | None = None) -> Person:
    """The person the fields tell of, laid over what is known. `country` is that of phones without a country code."""
    person = base or Person()
    known: dict[str, Any] = {}
    attributes = dict(person.attributes)
    consent = dict(person.consent)
    for field, raw in sorted(fields.items(), key=_whole_names_first):
        group, _, name = field.partition(".")
        if group == "attributes" and name:
            if (value := _worth_keeping(raw)) is not None:
                attributes[name] = value
        elif group == "consent":
            if (state := consent_state(raw)) is not None:
                consent.update({channel: state for channel in CONSENT_CHANNELS if channel == name})
        elif field in LEAD_FIELDS and (value := _worth_keeping(raw)) is not None:
            fitting = _fitting(field, raw, country)
            if fitting is None:
                attributes[field] = value
            else:
                known |= fitting
    return replace(person, **known, attributes=attributes, consent=consent)


def _whole_names_first(item: tuple[str, Any]) -> bool:
    """Parts of a name are surer than a whole that is split, and so come after it."""
    return item[0] != "name"


def _fitting(field: str, value: Any, country: str | None) -> dict[str, Any] | None:
    """The value as its field takes it, the first that fits of an address that comes twice; None if none does."""
    if isinstance(value, list) and field in ("email", "phone"):
        return next((known for one in value if (known := _fitting(field, one, country)) is not None), None)
    written = text(value)
    if written is None or len(written) > LONGEST_TEXT:
        return None
    match field:
        case "name":
            first, _, last = written.partition(" ")
            return {"first_name": first, "last_name": last.strip() or None}
        case "email":
            fit: str | int | None = parse_email(written)
        case "phone":
            fit = phone_of(value, country)
        case "employees" | "annual_revenue":
            fit = int(number[1]) if (number := _NUMBER.fullmatch(written)) else None
        case "country":
            fit = written.upper() if len(written) == 2 else written
        case _:
            fit = written
    return None if fit is None else {field: fit}


def phone_of(value: Any, country: str | None) -> str | None:
    """The number in E.164, or None. One that came as a JSON number has lost its plus."""
    written = text(value)
    if written is None:
        return None
    phone = parse_phone(written, country)
    if phone is None and isinstance(value, int | Decimal):
        phone = parse_phone(f"+{written}")
    return phone


def touch_of(fields: Mapping[str, Any], base: Touch) -> Touch:
    """The touch the fields tell of, laid over what is known; the page's address has what no field says of the visit."""
    told = {
        name: value
        for field, raw in fields.items()
        if field.startswith("touch.") and (name := field.removeprefix("touch.")) and (value := text(raw))
    }
    changed: dict[str, Any] = {
        name: told[name][:LONGEST_ADDRESS]
        for name in ("touch_id", "channel", "url", "referrer")
        if name in told and (name != "touch_id" or len(told[name]) <= LONGEST_TEXT)
    }
    if kind := type_name(told.get("type", "")):
        changed["type"] = kind
    utm = dict(base.utm) | {name: value for name, value in told.items() if name in UTM_FIELDS}
    click_ids = dict(base.click_ids) | {name: value for name, value in told.items() if name in CLICK_IDS}
    properties = dict(base.properties) | {
        field.removeprefix("touch.properties."): value
        for field, raw in fields.items()
        if field.startswith("touch.properties.") and (value := _worth_keeping(raw)) is not None
    }
    in_address = query_of(changed.get("url", base.url))
    return replace(
        base,
        **changed,
        utm=utm or utm_of(in_address),
        click_ids=click_ids or click_ids_of(in_address),
        properties=properties,
    )


def type_name(text: str) -> str:
    """The snake_case name of a touch type: `contact.created` is `contact_created`."""
    return _TYPE_BREAKS.sub("_", text.lower()).strip("_")[:100]


def utm_of(*places: Mapping[str, Any]) -> dict[str, str]:
    """The UTM parameters of the first of the places that has any; they belong together and are not mixed."""
    for place in places:
        found = {name.lower(): value for name, value in _matching(place, _UTM_NAME)}
        if found:
            return found
    return {}


def click_ids_of(*places: Mapping[str, Any]) -> dict[str, str]:
    """The click ids of the first of the places that has any."""
    for place in places:
        found = {
            name.lower(): value
            for name, raw in place.items()
            if name.lower() in CLICK_IDS and (value := text(raw)) is not None
        }
        if found:
            return found
    return {}


def is_tracking(name: str) -> bool:
    """Whether a field of this name is about the visit, not the visitor."""
    return name.lower() in CLICK_IDS or _UTM_NAME.fullmatch(name) is not None


def query_of(address: str | None) -> dict[str, str]:
    """The parameters in an address, or in its path and query alone."""
    if not address:
        return {}
    try:
        return dict(parse_qsl(urlsplit(address).query, max_num_fields=200))
    except ValueError:
        return {}


def consent_state(value: Any) -> ConsentState | None:
    """What an explicit box says; None for anything that is not clearly yes or no.

    Of several values the last counts: a form sends a hidden no before the yes of a box that is ticked.
    """
    if isinstance(value, list) and all(consent_state(one) is not None for one in value):
        value = value[-1] if value else None
    word = (text(value) or "").lower().replace("-", "_")
    if word in _GRANTED:
        return "granted"
    return "denied" if word in _DENIED else None


def text(value: Any) -> str | None:
    """The value as trimmed text; None for nothing, and for what has parts of its own."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value.strip() or None
        case int() | Decimal():
            return str(value)
        case list() if value and all(isinstance(item, str) for item in value):
            return ", ".join(value).strip() or None
        case _:
            return None


def ignored(key: str, request: HookRequest, reason: str) -> Ignored:
    """A delivery that means nothing here, for this reason."""
    return Ignored(idempotency_key=key, occurred_at=request.received_at, timed_by="receipt", reason=reason)


def happened_at(value: Any, request: HookRequest) -> tuple[datetime, Literal["source", "receipt"]]:
    """When it happened by the source's clock, where the source says so, else when we received it; and which of the two.

    Takes ISO 8601 (without an offset it is UTC), the dates of mails, and Unix time in seconds or milliseconds. Raises
    Unmappable for a text that is no time, and for a time more than a day ahead.
    """
    if value in (None, ""):
        return request.received_at, "receipt"
    at = _time(value)
    if at > request.received_at + timedelta(days=1):
        raise Unmappable("the delivery says it happened more than a day from now")
    return at, "source"


def _time(value: Any) -> datetime:
    written = text(value) or ""
    try:
        if re.fullmatch(r"[0-9]{9,13}(\.[0-9]{1,9})?", written, re.ASCII):
            number = Decimal(written)
            seconds, fraction = divmod(number / 1000 if number >= 10**11 else number, 1)
            return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(fraction * 1_000_000))
        at = parsedate_to_datetime(written) if written[:1].isalpha() else datetime.fromisoformat(_UTC.sub("Z", written))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise Unmappable(f"{written[:40]!r} is not a time") from exc


def _matching(place: Mapping[str, Any], pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    for name, raw in place.items():
        match = pattern.fullmatch(name)
        value = text(raw)
        if match is not None and value is not None:
            yield match[1], value


def _worth_keeping(value: Any) -> Any:
    """The value as it can be stored; None for one that says nothing."""
    if value is None or value in ("", [], {}):
        return None
    return plain(value.strip() or None if isinstance(value, str) else value)
