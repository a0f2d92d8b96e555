"""Languages by their tags: which of those that there are serves somebody best."""

import re
from collections.abc import Iterable
from typing import Any

# A language, perhaps a script, perhaps a country, as browsers (de-AT) and systems (de_AT.UTF-8) write it.
_LANGUAGE_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z]{4})?(?:[-_]([A-Za-z]{2}))?(?=$|[-_.@])")


def relative_of(language: str) -> str:
    """The language without its country."""
    return language.partition("-")[0]


def nearest_language(wanted: str | None, offered: Iterable[str], default: str) -> str:
    """The language itself, else its relative (`de` for `de-AT`, `pt-BR` for `pt`), else the default one."""
    known = {*offered, default}
    if wanted is None:
        return default
    if wanted in known:
        return wanted
    relative = relative_of(wanted)
    if relative in known:
        return relative
    return next((name for name in sorted(known) if relative_of(name) == relative), default)


def language_of(lead: Any) -> str | None:
    """The language that a lead's profile names, as `de` or `de-AT`; None where it names none."""
    attributes = lead.get("attributes") if isinstance(lead, dict) else None
    for name in ("language", "locale", "lang"):
        written = attributes.get(name) if isinstance(attributes, dict) else None
        if found := _LANGUAGE_TAG.match(str(written or "").strip()):
            return found[1].lower() + (f"-{found[2].upper()}" if found[2] else "")
    return None
