"""The preference page: plain HTML that needs no script, under a policy that lets none run."""

import hashlib
from base64 import b64encode
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from services.nurture.people.domain import Person
from services.nurture.preferences.document import PreferencePage
from services.nurture.preferences.domain import rows_of
from services.nurture.preferences.words import word

PAGES = Path(__file__).with_name("pages")
NOT_FOUND = 404
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(PAGES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)


def preference_page(
    page: PreferencePage, person: Person, language: str, notice: str | None, *, paused: bool
) -> HTMLResponse:
    """A person's page, perhaps with what just happened."""
    texts = {choice.purpose: choice for choice in page.document.purposes}
    choices = [
        {
            "name": purpose,
            "title": page.said(texts[purpose].titles, language),
            "text": page.said(texts[purpose].texts, language),
            "rows": list(rows),
        }
        for purpose, rows in groupby(rows_of(page, person, language), key=lambda row: row.purpose)
    ]
    until = f"{person.paused_until:%Y-%m-%d}" if paused else None
    return _response(
        200,
        language,
        title=word("title", language),
        notice=word(notice, language) if notice else None,
        gone=None,
        version=page.version,
        choices=choices,
        languages=list(page.document.languages.items()),
        pause_days=page.document.pause_days,
        paused=word("paused", language).format(date=until) if until else None,
    )


def gone_page(language: str) -> HTMLResponse:
    """The page of a link that is nobody's."""
    return _response(NOT_FOUND, language, title=word("gone_title", language), notice=None, gone=word("gone", language))


def _response(status: int, language: str, **values: Any) -> HTMLResponse:
    style = _style()
    page = _ENVIRONMENT.get_template("preferences.html").render(
        language=language,
        style=Markup(style),  # noqa: S704  # our own
        say=lambda name: word(name, language),
        **values,
    )
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(page, status, headers)


@cache
def _style() -> str:
    return "".join(line.strip() for line in (PAGES / "preferences.css").read_text().splitlines())
