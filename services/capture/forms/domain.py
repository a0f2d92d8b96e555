"""What somebody's answers to a form come to, and what makes them suspicious: pure."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from services.capture.forms.document import FormDocument, FormField, languages_of
from services.capture.forms.patterns import matches
from shared.emails import parse_email
from shared.phones import parse_phone

LONGEST = 500
LONGEST_TEXT = 5_000
LONGEST_CONTEXT = 2_000
_TRAPS = ("homepage", "fax_number", "middle_name", "reference_code")
_NUMBER = re.compile(r"-?[0-9]{1,15}([.,][0-9]{1,10})?", re.ASCII)
_WHOLE = frozenset({"employees", "annual_revenue"})
_CHECKED = "on"
Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What was said, by what of the lead it is; and by the names of fields and boxes what is wrong with it."""

    told: Mapping[str, Any]
    agreed: AbstractSet[str]
    faults: Mapping[str, str]


def read_answers(document: FormDocument, values: Values) -> Answers:
    """The answers to a form. A fault is the name of the sentence that says it."""
    told: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for each in document.fields:
        if each.type == "hidden" and each.value is not None:
            told[each.place] = each.value
            continue
        value, fault = _answer(each, values.get(each.id, ()))
        if fault is not None:
            faults[each.id] = fault
        elif value not in (None, [], ""):
            told[each.place] = value
    naming = [each.id for each in document.fields if each.place in ("email", "phone")]
    if not {"email", "phone"} & told.keys() and not faults.keys() & set(naming):
        faults[naming[0]] = "required"
    agreed = {box.id for box in document.consents if any(value.strip() for value in values.get(box.id, ()))}
    faults |= {box.id: "agree" for box in document.consents if box.required and box.id not in agreed}
    return Answers(told, agreed, faults)


def _answer(asked: FormField, given: Sequence[str]) -> tuple[Any, str | None]:
    """What a field's answer is, or what is wrong with it."""
    texts = [text for each in given if (text := _cleaned(each, lines=asked.type == "textarea"))]
    if any(not _can_be_kept(text) for text in texts):
        return None, "text"
    if not texts:
        if asked.required:
            return None, "agree" if asked.type == "checkbox" else "required"
        return (False if asked.type == "checkbox" else None), None
    if asked.type == "checkbox":
        return True, None
    if asked.type == "checkboxes":
        offered = {option.value for option in asked.options}
        return (None, "choice") if not set(texts) <= offered else (list(dict.fromkeys(texts)), None)
    text = texts[0]
    if len(text) > (asked.max_length or (LONGEST_TEXT if asked.type == "textarea" else LONGEST)):
        return None, "long"
    value, fault = _of_type(asked, text)
    if fault is None and asked.pattern is not None and not matches(asked.pattern, text):
        return None, "pattern"
    return value, fault


def _of_type(asked: FormField, text: str) -> tuple[Any, str | None]:  # one return for each type
    match asked.type:
        case "email":
            email = parse_email(text)
            return email, None if email else "email"
        case "phone":
            phone = parse_phone(text, asked.country)
            return phone, None if phone else "phone"
        case "number":
            return _number(text, whole=asked.place in _WHOLE)
        case "date":
            return (text, None) if _is_date(text) else (None, "date")
        case "url":
            return (text, None) if _is_web_address(text) else (None, "url")
        case "select" | "radio":
            return (text, None) if any(option.value == text for option in asked.options) else (None, "choice")
        case _:
            return (text, None) if asked.place not in _WHOLE else _number(text, whole=True)


def _number(text: str, *, whole: bool) -> tuple[Any, str | None]:
    if not _NUMBER.fullmatch(text):
        return None, "whole" if whole else "number"
    number = float(text.replace(",", "."))
    if number.is_integer():
        return (int(number), None) if number >= 0 or not whole else (None, "whole")
    return (None, "whole") if whole else (number, None)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in text


def _cleaned(text: str, *, lines: bool) -> str:
    return text.replace("\r\n", "\n").strip() if lines else " ".join(text.split())


def _can_be_kept(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def trap_of(document: FormDocument) -> str:
    """The name of the field that only machines fill in: an innocent one that the form does not use itself."""
    used = {each.id for each in document.fields} | {box.id for box in document.consents}
    free = [name for name in _TRAPS if name not in used]
    return free[0] if free else "reference_code_2"


def language_for(document: FormDocument, asked: str | None, accepted: str | None) -> str:
    """The language of a form that somebody asks for, or that their browser prefers; else the form's own."""
    offered = languages_of(document)
    for wanted in [asked or "", *_preferred(accepted or "")]:
        for language in offered:
            if wanted.lower() == language.lower() or wanted.lower().partition("-")[0] == language.lower():
                return language
    return offered[0]


def _preferred(accepted: str) -> list[str]:
    ranked: list[tuple[float, int, str]] = []
    for index, part in enumerate(accepted[:500].split(",")):
        language, _, quality = part.strip().partition(";q=")
        try:
            rank = float(quality) if quality else 1.0
        except ValueError:
            continue
        ranked.append((-rank, index, language))
    return [language for _, _, language in sorted(ranked)]


@dataclass(frozen=True, slots=True)
class Context:
    """Where a form was filled in: the page it stands in, who that page says its visitor is, and their session."""

    url: str | None = None
    referrer: str | None = None
    anonymous_id: str | None = None
    session_url: str | None = None
    session_referrer: str | None = None


def context_of(values: Values) -> Context:
    """The context in what was sent; whatever cannot be one is left out."""

    def text(name: str) -> str | None:
        given = next(iter(values.get(name, ())), "").strip()
        return given[:LONGEST_CONTEXT] if given and _can_be_kept(given) else None

    anonymous_id = text("_visitor")
    known = anonymous_id is not None and 8 <= len(anonymous_id) <= 100  # as the collector takes them
    return Context(
        url=text("_url"),
        referrer=text("_referrer"),
        anonymous_id=anonymous_id if known else None,
        session_url=text("_session_url"),
        session_referrer=text("_session_referrer"),
    )


@dataclass(frozen=True, slots=True)
class Signs:
    """What speaks for or against a person. `age` is how long the form was open; None: it was never shown by us.

    `proof` says whether the work was done; None: there was no script to do it.
    """

    trapped: bool
    age: timedelta | None
    proof: bool | None
    flooded: bool = False


def suspicions(signs: Signs, fastest: timedelta, fastest_unproven: timedelta) -> tuple[str, ...]:
    """Why a person has to look at what was sent; empty when nothing speaks against it."""
    found = []
    if signs.trapped:
        found.append("trap_filled_in")
    if signs.age is None:
        found.append("never_shown")
    elif signs.age < (fastest if signs.proof else fastest_unproven):
        found.append("too_fast")
    if signs.proof is False:
        found.append("wrong_proof")
    if signs.proof is None and signs.flooded:
        found.append("too_many_without_proof")
    return tuple(found)


def work_is_done(challenge: str, answer: str, bits: int) -> bool:
    """Whether SHA-256 over the challenge and the answer begins with so many zero bits."""
    if not answer.isascii() or not answer.isdigit() or len(answer) > 20:  # as many as a script counts to
        return False
    digest = hashlib.sha256(f"{challenge}:{answer}".encode()).digest()
    return int.from_bytes(digest, "big") >> (256 - bits) == 0


def fingerprint_of(key: bytes, form_id: str, values: Values) -> str:
    """The same for the same answers to the same form, and nothing that tells them."""
    said = sorted((name, tuple(given)) for name, given in values.items() if not name.startswith("_"))
    return hashlib.blake2b(repr((form_id, said)).encode("utf-8", "surrogatepass"), key=key, digest_size=16).hexdigest()


def readable_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour (WCAG 2 contrast)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "#000000"


@dataclass(frozen=True, slots=True)
class FormToken:
    """What a form that was shown carries with it."""

    submission_id: str
    version: int
    shown_at: datetime
    challenge: str = field(repr=False)
