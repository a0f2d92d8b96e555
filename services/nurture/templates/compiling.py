"""From a template's source to what fills it: MJML made HTML, styles put into their elements, links guarded. Once each.

All of this goes before the values do, so that no value is ever read as MJML, HTML or CSS.
"""

import re
import secrets
from dataclasses import dataclass
from functools import lru_cache

import css_inline
import mrml
from jinja2 import Template, TemplateError, meta

from services.nurture.templates.addresses import FILTERS_OF_LINKS
from services.nurture.templates.environment import TemplateEnvironment
from services.nurture.templates.footers import footer_html, footer_mjml, footer_text
from services.nurture.templates.marking import Marking
from services.nurture.templates.pieces import Hidden
from services.nurture.templates.reading import Reading, html_of, with_filtered_links

KEPT = 128
LEAVE = "unsubscribe_url"
_TAGS = re.compile(r"<(mj-[a-z0-9-]+)")
# mrml leaves out what it does not know, and says nothing.
_KNOWN_TAGS = re.compile(
    r"mj-(?:accordion(?:-element|-text|-title)?|all|attributes|body|breakpoint|button|carousel(?:-image)?|class|column|"
    r"divider|font|group|head|hero|image|include|navbar(?:-link)?|preview|raw|section|social(?:-element)?|spacer|style|"
    r"table|text|title|wrapper)"
)
_OPTIONS = mrml.RenderOptions(fonts={})  # no font is fetched from elsewhere unless the author says so


@dataclass(frozen=True, slots=True)
class Compiled:
    """A message that waits for its values.

    `text_is_read`: the text was made out of the HTML. `own_leave`: there is a place of its own to unsubscribe.
    """

    subject: Template
    text: Template
    html: Template
    text_is_read: bool
    own_leave: bool
    wordless_images: tuple[str, ...]


def _environment(*, html: bool) -> TemplateEnvironment:
    environment = TemplateEnvironment(html=html)
    environment.filters |= FILTERS_OF_LINKS
    return environment


_TEXT, _HTML = _environment(html=False), _environment(html=True)


@lru_cache(maxsize=KEPT)
def line(source: str) -> Template:
    """A text of a line or so, to be filled. Raises TemplateError."""
    return _TEXT.from_string(source)


@lru_cache(maxsize=KEPT)
def compiled(  # noqa: PLR0913  # what a message is made of
    subject: str, html: str | None, mjml: str | None, text: str | None, *, footer: bool, mark_text: bool, language: str
) -> Compiled:
    """A message to be filled; `footer` adds a way to unsubscribe where it has none. Raises TemplateError.

    `mark_text` has the links of a text that there is no HTML to in filters as well.
    """
    source = mjml or html
    leaves = [_mentions(part, LEAVE) for part in (source, text) if part]
    text_is_read = text is None
    if footer and text and not leaves[-1]:
        text += footer_text(language)
    if source is None:
        assert text is not None, "a template has a body"
        hidden = Hidden(text, _mark(), html=False)
        page, wordless = html_of(hidden.text, hidden), list[str]()
        text = hidden.restored(with_filtered_links(hidden)) if mark_text else text
    else:
        if footer and not leaves[0]:
            source = _at_end(source, footer_mjml(language) if mjml else footer_html(language))
        hidden = Hidden(source, _mark(), html=True)
        page = _page(hidden, mjml is not None, language)
        text = text or hidden.restored(Reading(hidden).of(page))
        marking = Marking(hidden)
        page, wordless = marking.of(page), marking.wordless_images
    return Compiled(
        line(subject),
        _TEXT.from_string(text),
        _HTML.from_string(hidden.restored(page)),
        text_is_read,
        all(leaves),
        tuple(wordless),
    )


def _mark() -> str:
    return f"q{secrets.token_hex(6)}n"


def _mentions(source: str, name: str) -> bool:
    return name in meta.find_undeclared_variables(_TEXT.parse(source))


def _at_end(source: str, footer: str) -> str:
    """A source with a footer as the last thing in its body."""
    for closing in ("</mj-body>", "</body>"):
        before, found, after = source.rpartition(closing)
        if found:
            return f"{before}{footer}{found}{after}"
    return source + footer


def _page(hidden: Hidden, is_mjml: bool, language: str) -> str:
    """The HTML of a source: out of MJML, or with its styles put into their elements."""
    try:
        if is_mjml:
            for tag in _TAGS.findall(hidden.text):
                if not _KNOWN_TAGS.fullmatch(tag):
                    raise TemplateError(f"MJML has no {tag}")
            page = mrml.to_html(hidden.text, None, _OPTIONS).content.replace('lang="und"', f'lang="{language}"')
        elif "<style" in hidden.text.lower():
            Marking(hidden).of(hidden.text)  # what reads CSS leaves out code in it, and says nothing
            page = css_inline.inline(
                hidden.text, keep_style_tags=True, remove_inlined_selectors=True, load_remote_stylesheets=False
            )
        else:
            return hidden.text
    except OSError as exc:
        raise TemplateError(f"the MJML cannot be read: {hidden.restored(str(exc))}") from exc
    except css_inline.InlineError as exc:
        raise TemplateError(f"the styles cannot be read: {hidden.restored(str(exc))}") from exc
    return hidden.guarded(page)
