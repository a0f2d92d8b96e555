"""Forms as pages: plain HTML with nothing from elsewhere, under a policy that lets nothing else run."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rjsmin  # type: ignore[import-untyped]  # ships no types
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from services.capture.forms.document import ConsentBox, FormDocument, FormField, Theme, said
from services.capture.forms.domain import Values, readable_on, trap_of
from services.capture.hosted.words import WORDS, word

PAGES = Path(__file__).with_name("pages")
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(PAGES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_FONTS = {
    "sans": 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif',
    "serif": 'Georgia,Cambria,"Times New Roman",serif',
    "mono": "ui-monospace,SFMono-Regular,Menlo,Consolas,monospace",
}
_INPUTS = {"phone": "tel", "number": "text"}  # a number as text: a browser would change what was typed
_MODES = {"number": "decimal", "phone": "tel", "email": "email", "url": "url"}
_COMPLETES = {
    "email": "email",
    "phone": "tel",
    "name": "name",
    "first_name": "given-name",
    "last_name": "family-name",
    "company": "organization",
    "title": "organization-title",
    "country": "country",
    "region": "address-level1",
}
PLAIN = Theme()


@dataclass(frozen=True, slots=True)
class Shown:
    """A form as somebody sees it: in a language, at an address, with what they typed before and what is wrong."""

    form_id: str
    document: FormDocument
    language: str
    action: str
    token: str
    work_bits: int
    values: Values = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    notice: str | None = None
    carried: Mapping[str, str] = field(default_factory=dict)
    embedded: bool = False


def form_page(shown: Shown, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """The page of a form."""
    document, language = shown.document, shown.language
    items = [_item(shown, each) for each in document.fields]
    items += [_consent_item(shown, box) for box in document.consents]
    script = _script("form.js")
    style = _style(document.theme)
    page = _ENVIRONMENT.get_template("form.html").render(
        **_frame(shown.form_id, language, style, shown.embedded),
        title=_text(document, "title", language) or document.name,
        script=Markup(script),  # noqa: S704  # our own
        redirect=None,
        intro=_text(document, "intro", language),
        button=_text(document, "button", language) or word("button", language),
        words=_words(language),
        notice=shown.notice and word(shown.notice, language),
        faults=[item for item in items if item["fault"]],
        items=items,
        action=shown.action,
        carried=[("_token", shown.token), ("_proof", ""), *shown.carried.items()],
        work=shown.work_bits,
        trap=trap_of(document),
    )
    return _response(page, style, script, document, status, headers)


def message_page(  # noqa: PLR0913  # what a page with a message is made of
    title: str,
    paragraphs: Sequence[str],
    language: str,
    *,
    form_id: str = "",
    document: FormDocument | None = None,
    quotes: Sequence[str] = (),
    button: str | None = None,
    embedded: bool = False,
    redirect: str | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A page that says something, perhaps with one button."""
    style = _style(document.theme if document else PLAIN)
    script = _script("form.js") if embedded else None
    page = _ENVIRONMENT.get_template("message.html").render(
        **_frame(form_id, language, style, embedded),
        title=title,
        script=Markup(script) if script else None,  # noqa: S704  # our own
        redirect=redirect,
        paragraphs=[paragraph for paragraph in paragraphs if paragraph],
        quotes=quotes,
        button=button,
    )
    return _response(page, style, script, document, status, headers)


def thanks_page(form_id: str, document: FormDocument, language: str, *, asked: bool, embedded: bool) -> HTMLResponse:
    """What people see when a form was sent; `asked`: they were sent a link to confirm."""
    title, text = thanks(document, language)
    return message_page(
        title,
        [text, word("check_mail", language) if asked else ""],
        language,
        form_id=form_id,
        document=document,
        embedded=embedded,
        redirect=document.redirect if embedded else None,
    )


def thanks(document: FormDocument, language: str) -> tuple[str, str]:
    """The title and the text of that page."""
    return (
        _text(document, "thanks_title", language) or word("thanks_title", language),
        _text(document, "thanks", language) or word("thanks", language),
    )


def embedding_script(form_id: str, document: FormDocument) -> str:
    """The script that puts the form into a page."""
    title = document.name.encode("ascii", "ignore").decode()
    plain = "".join(char for char in title if char.isalnum() or char in " -")
    source = _script("embed.js").replace("{{form_id}}", form_id)
    return source.replace("{{title}}", plain or "Form")


def sentence(document: FormDocument, name: str, fault: str, language: str) -> str:
    """What is said about a fault of an answer."""
    asked = next((each for each in document.fields if each.id == name), None)
    if fault == "pattern" and asked is not None and asked.pattern_help:
        return said(asked.pattern_help, language, document.language)
    return word(fault, language)


def _item(shown: Shown, asked: FormField) -> dict[str, Any]:
    own, language = shown.document.language, shown.language
    given = [text for text in shown.values.get(asked.id, ()) if text]
    fault = shown.faults.get(asked.id)
    value = given[0] if given else ""
    return {
        "id": asked.id,
        "type": asked.type,
        "input": _INPUTS.get(asked.type, asked.type),
        "mode": _MODES.get(asked.type),
        "label": said(asked.label, language, own),
        "help": said(asked.help, language, own),
        "placeholder": said(asked.placeholder, language, own),
        "pattern": asked.pattern,
        "max_length": asked.max_length,
        "autocomplete": _COMPLETES.get(asked.place),
        "value": asked.value if asked.type == "hidden" and asked.value is not None else value,
        "required": asked.required,
        "fault": sentence(shown.document, asked.id, fault, language) if fault else None,
        "options": [
            {
                "value": option.value,
                "label": said(option.label, language, own) or option.value,
                "chosen": option.value in given,
            }
            for option in asked.options
        ],
    }


def _consent_item(shown: Shown, box: ConsentBox) -> dict[str, Any]:
    fault = shown.faults.get(box.id)
    return {
        "id": box.id,
        "type": "checkbox",
        "label": said(box.text, shown.language, shown.document.language),
        "help": "",
        "value": any(shown.values.get(box.id, ())),
        "required": box.required,
        "fault": word(fault, shown.language) if fault else None,
    }


def _text(document: FormDocument, name: str, language: str) -> str:
    return said(getattr(document.texts, name), language, document.language)


def _words(language: str) -> dict[str, str]:
    return {name: word(name, language) for name in WORDS["en"]}


def _frame(form_id: str, language: str, style: str, embedded: bool) -> dict[str, Any]:
    markup = Markup(style)  # noqa: S704  # our own, and colours that are checked
    return {"form_id": form_id, "language": language, "style": markup, "embedded": embedded}


@cache
def _script(name: str) -> str:
    return str(rjsmin.jsmin((PAGES / name).read_text()))


@cache
def _stylesheet() -> str:
    return "".join(line.strip() for line in (PAGES / "form.css").read_text().splitlines())


def _style(theme: Theme) -> str:
    names = (
        f"--accent:{theme.accent};--on-accent:{readable_on(theme.accent)};--background:{theme.background};"
        f"--text:{theme.text};--radius:{theme.radius}px;--font:{_FONTS[theme.font]}"
    )
    return f":root{{{names}}}{_stylesheet()}"


def _response(  # noqa: PLR0913  # the parts of a page
    page: str,
    style: str,
    script: str | None,
    document: FormDocument | None,
    status: int,
    headers: Mapping[str, str] | None,
) -> HTMLResponse:
    return HTMLResponse(page, status, {"Content-Security-Policy": _policy(style, script, document), **(headers or {})})


def _policy(style: str, script: str | None, document: FormDocument | None) -> str:
    """Only this style and this script; embedded only where the form says. `form-action` covers where it leads, too."""
    after = _origin_of(document.redirect) if document and document.redirect else ""
    frames = " ".join(document.origins) if document and document.origins else "'none'"
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src {_quoted(script)}; base-uri 'none'; "
        f"form-action 'self' {after}".rstrip()
        + f"; frame-ancestors {frames}"
    )


def _quoted(script: str | None) -> str:
    return f"'{_hash(script)}'" if script else "'none'"


def _hash(content: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _origin_of(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
