"""Answers to forms whose questions have names only: which of them tell about the person, the visit, and consent.

A name is known as it stands, then by the question's label, then by its type, and last by what is left of it without
`your`, `work` or a number at its end. Each field takes one answer, the first; the others stay attributes.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.capture.adapters.facts import LeadFact, Touch
from services.capture.adapters.fields import (
    CONSENT_CHANNELS,
    click_ids_of,
    consent_state,
    happened_at,
    is_tracking,
    lead_field,
    person_of,
    query_of,
    text,
    touch_of,
    utm_of,
)
from services.capture.adapters.lead_body import api_fields, tracking_fields
from services.capture.adapters.request import BLANK, HookRequest
from services.capture.mapping import FORM_SUBMITTED, MappingSettings
from shared.events import ConsentChannel, ConsentState

PAGE, REFERRER = "touch.url", "touch.referrer"
_PAGE_NAMES = {"pageurl": PAGE, "landingpage": PAGE, "landingpageurl": PAGE, "referrer": REFERRER, "referer": REFERRER}
_OTHER_WORDS = {
    "mail": "email",
    "tel": "phone",
    "telephone": "phone",
    "telephonenumber": "phone",
    "mobile": "phone",
    "mobilephone": "phone",
    "mobilenumber": "phone",
    "cell": "phone",
    "cellphone": "phone",
    "contactnumber": "phone",
    "organization": "company",
    "organisation": "company",
    "organizationname": "company",
    "organisationname": "company",
    "businessname": "company",
    "fname": "first_name",
    "givenname": "first_name",
    "lname": "last_name",
    "surname": "last_name",
    "familyname": "last_name",
}
_BEFORE = frozenset(
    {
        *("what", "is", "s", "your", "my", "the", "enter", "please"),
        *("work", "business", "corporate", "professional", "primary", "contact"),
    }
)
_BEHIND = frozenset({"work", "business", "required", "optional", "field"})
_PARTS_OF_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[^\W_a-zA-Z]+")
_CONSENT = re.compile(
    r"\b(consent|opt ?in|newsletter|subscribe|mailing list|(agree|want|like|happy|ok) to (receive|get)"
    r"|marketing (emails?|updates|communications?|permissions?|messages?)"
    r"|acceptance (marketing|email|sms|whatsapp)|(email|sms|whatsapp) (ok|updates|marketing|permission))\b"
)
# Agreeing to these allows no mail.
_TERMS = re.compile(r"\b(terms|privacy|policy|policies|tos|gdpr notice|conditions)\b")
_NEWS = re.compile(r"\b(marketing|newsletters?|updates|offers|promotions?)\b")
_CHANNEL_WORDS = re.compile(r"\b(e mails?|emails|text messages?)\b")
_OTHER_CHANNELS = re.compile(r"\b(phone|telephone|calls?|post|fax)\b")
_NEGATED = re.compile(r"\b(no|not|don|dont|never|stop|without|decline|refuse|withdraw|revoke|opt ?out|unsubscribe)\b")


@dataclass(frozen=True, slots=True)
class FormAnswer:
    """One answer. `name` is the question's stable name, `label` what people see, `by_type` the field of its type.

    `box` says whether it is a box that was ticked or not; None where the source does not tell. `hidden` fields are
    what the page around the form knew, below the answers in rank. `place` is where a mapping finds it, if not by name.
    """

    name: str
    value: Any
    label: str = ""
    by_type: str | None = None
    box: bool | None = None
    hidden: bool = False
    place: str = ""


def form_fields(
    answers: Iterable[FormAnswer], settings: MappingSettings, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The answers in the vocabulary of `fields`, below what is known; what the mapping places is no attribute."""
    given = [answer for answer in answers if not _is_blank(answer.value) and answer.value != BLANK]
    visit = tracking_fields({_tracking_name(answer): answer.value for answer in given if _is_tracking(answer)})
    fields = visit | dict(known or {})
    left = [answer for answer in given if not _is_tracking(answer) and not _takes_consent(answer, fields)]
    for answer in _unplaced([answer for answer in left if not answer.hidden], fields):
        if not _is_mapped(answer, settings):
            fields.setdefault(f"attributes.{answer.name}", answer.value)
    for answer in _unplaced([answer for answer in left if answer.hidden], fields):
        if _named(answer.name) is None and not _is_mapped(answer, settings):
            fields.setdefault(f"attributes.{answer.name}", answer.value)
    return fields


def owner_fields(body: Mapping[str, Any], settings: MappingSettings) -> dict[str, Any]:
    """A body whose names the owner typed: those of the API where they are, else as a form's."""
    told = {name: value for name, value in body.items() if not _is_blank(value)}
    known = api_fields(told)
    others = [name for name in told if f"attributes.{name}" in known]
    for name in others:
        del known[f"attributes.{name}"]
    if "consent" in known:  # a box, not the group of them
        del known["consent"]
        others.append("consent")
    return form_fields((FormAnswer(name, told[name]) for name in others), settings, known)


def form_lead(  # noqa: PLR0913  # what submissions have beside their fields
    key: str,
    request: HookRequest,
    settings: MappingSettings,
    fields: Mapping[str, Any],
    *,
    at: Any = None,
    external_id: str | None = None,
    page: str | None = None,
    properties: Mapping[str, Any] | None = None,
) -> LeadFact:
    """The lead of a submission. `page` is where the form stands; it says how the visit came, if no field does."""
    occurred_at, timed_by = happened_at(at, request)
    kept = {name: said for name, value in (properties or {}).items() if (said := text(value)) is not None}
    touch = Touch(type=settings.touch_type or FORM_SUBMITTED, touch_id=key.partition(":")[2], properties=kept)
    touch = touch_of(fields, touch)
    if page is not None:
        query = query_of(page)
        touch = replace(touch, utm=touch.utm or utm_of(query), click_ids=touch.click_ids or click_ids_of(query))
    return LeadFact(
        idempotency_key=key,
        occurred_at=occurred_at,
        timed_by=timed_by,
        person=person_of(fields, settings.phone_country),
        touch=touch,
        external_id=external_id,
    )


def is_test(body: Mapping[str, Any]) -> bool:
    """Whether the body says of itself that it is a try."""
    return any(consent_state(body.get(name)) == "granted" for name in ("is_test", "test"))


def consent_given(answer: FormAnswer) -> tuple[Sequence[ConsentChannel], ConsentState] | None:
    """What the answer allows or refuses, for which channels; None unless it is a box about that, and clear."""
    if answer.box is False or answer.hidden:
        return None
    question = _spoken(f"{answer.name} {answer.label}")
    options = answer.value if isinstance(answer.value, list) else []
    about = " ".join([question, *(_spoken(item) for item in options if isinstance(item, str))])
    if _TERMS.search(about) or _NEGATED.search(question):
        return None
    if not _CONSENT.search(about) and not (answer.box and _NEWS.search(about)):
        return None
    state, channels = _state(answer), _channels(about)
    return (channels, state) if state is not None and channels else None


def _channels(about: str) -> Sequence[ConsentChannel]:
    """The channels that are named, else email; none where only channels are named that we have not."""
    written = _CHANNEL_WORDS.sub(lambda found: "sms" if found[0].startswith("text") else "email", about)
    named = [channel for channel in CONSENT_CHANNELS if channel in written.split()]
    return named or ([] if _OTHER_CHANNELS.search(written) else ["email"])


def _state(answer: FormAnswer) -> ConsentState | None:
    if (state := consent_state(answer.value)) is not None:
        return state
    said = _spoken(text(answer.value) or "")
    ticked = said and (answer.box or _CONSENT.search(said))
    return "granted" if ticked and not _NEGATED.search(said) else None


def _takes_consent(answer: FormAnswer, fields: dict[str, Any]) -> bool:
    given = consent_given(answer)
    if given is None:
        return False
    channels, state = given
    fields.update({f"consent.{channel}": state for channel in channels})
    return True


def _unplaced(answers: list[FormAnswer], fields: dict[str, Any]) -> list[FormAnswer]:
    """The answers that no field takes; the others are put in theirs."""
    ways: tuple[Callable[[FormAnswer], str | None], ...] = (
        lambda answer: _named(answer.name),
        lambda answer: _named(answer.label),
        lambda answer: answer.by_type,
        lambda answer: _loosely_named(answer.label) or _loosely_named(answer.name),
    )
    for way in ways:
        left = []
        for answer in answers:
            field = way(answer)
            if field is None or answer.box or field in fields:
                left.append(answer)
            else:
                fields |= {part: value for part, value in _parts(field, answer.value).items() if part not in fields}
        answers = left
    return answers


def _named(name: str) -> str | None:
    return lead_field(name) or _PAGE_NAMES.get(re.sub(r"[^a-z]", "", name.lower()))


def _loosely_named(name: str) -> str | None:
    words = _spoken(name).split()
    while len(words) > 1 and (words[-1].isdecimal() or words[-1] in _BEHIND):
        words.pop()
    while words:
        if field := _OTHER_WORDS.get("".join(words)) or lead_field("".join(words)):
            return field
        if words[0] not in _BEFORE:
            return None
        del words[0]
    return None


def _parts(field: str, value: Any) -> dict[str, Any]:
    """Names and numbers that come in parts."""
    match field, value:
        case "name", {"first": first, **more}:
            return {"first_name": first, "last_name": more.get("last")}
        case "phone", {"full": full}:
            return {"phone": full}
        case "phone", {"phone": number, **more}:
            country = (text(more.get("country")) or "").lstrip("+")
            parts = (f"+{country}" if country else None, text(more.get("area")), text(number))
            return {"phone": " ".join(part for part in parts if part)}
        case _:
            return {field: value}


def _spoken(name: str) -> str:
    """The words of a name in lower case, with one blank between: `yourEmail` and `your-email` are one."""
    return " ".join(_PARTS_OF_WORDS.findall(name[:500])).lower()


def _is_tracking(answer: FormAnswer) -> bool:
    return is_tracking(answer.name) or is_tracking(answer.label)


def _tracking_name(answer: FormAnswer) -> str:
    return answer.name if is_tracking(answer.name) else answer.label


def _is_mapped(answer: FormAnswer, settings: MappingSettings) -> bool:
    places = [place for _, place in settings.places if isinstance(place, str)]
    names = {answer.name, answer.label, answer.place}
    return any(place in names or (answer.place and place.startswith(f"{answer.place}.")) for place in places)


def _is_blank(value: Any) -> bool:
    match value:
        case str():
            return not value.strip()
        case list():
            return all(_is_blank(item) for item in value)
        case Mapping():
            return all(_is_blank(item) for item in value.values())
        case _:
            return value is None
