"""The text that a person reads in HTML, and HTML that shows a text; the code of a template stays in its place."""

import re
from html import escape
from html.parser import HTMLParser

from services.nurture.templates.marking import LINK_BEGIN, LINK_END
from services.nurture.templates.pieces import Hidden

WORDS_OF_LINK = "{% filter _shown %}"
LINK_IN_TEXT = "{% filter _text_link %}"
_PARAGRAPHS = re.compile(r"\n\s*\n")
_BLANKS = re.compile(r"[ \t\r\f\v]+")
_GAPS = re.compile(r"\n{3,}")
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_UNREAD = frozenset(["style", "script", "title", "head"])
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)
_BLOCKS = frozenset(
    ["p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "blockquote", "hr"]
)


class Reading(HTMLParser):
    """What a person reads in HTML: the text, each link's address after its words, an image's words in its place."""

    def __init__(self, hidden: Hidden) -> None:
        super().__init__(convert_charrefs=True)
        self._hidden = hidden
        self._out: list[str] = []
        self._unread: list[str] = []
        self._href, self._words_from = "", 0

    def of(self, html: str) -> str:
        """The text, its code still hidden but for the filters."""
        self.feed(html)
        self.close()
        return tidied("".join(self._out))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if self._unread or tag in _UNREAD or _HIDDEN.search(given.get("style") or ""):
            self._unread += [tag] if tag not in _VOID else []
        elif tag in _BLOCKS:
            self._out.append("\n- " if tag == "li" else "\n")
        elif tag == "td":
            self._out.append(" ")
        elif tag == "a":
            self._href, self._words_from = given.get("href") or "", len(self._out)
        elif tag == "img":
            self._out.append(_literal(given.get("alt") or ""))

    def handle_endtag(self, tag: str) -> None:
        if self._unread:
            if tag in self._unread:
                del self._unread[len(self._unread) - 1 - self._unread[::-1].index(tag) :]
        elif tag in _BLOCKS:
            self._out.append("\n")
        elif tag == "a" and self._href:
            words = "".join(self._out[self._words_from :]).strip()
            if self._hidden.restored(words) != self._hidden.restored(self._href):
                self._out.append(f"{WORDS_OF_LINK}{_literal(self._href)}{LINK_END}")
            self._href = ""

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self._out.append(_literal(data.replace("\n", " ")))

    def handle_comment(self, data: str) -> None:
        if self._hidden.statement(data) and not self._unread:
            self._out.append(f"<!--{data}-->")


def _literal(text: str) -> str:
    """A text without code, such that none comes of it where pieces meet."""
    return text.replace("{", "{{ '{' }}")


def tidied(text: str) -> str:
    """A text without blanks at the ends of lines, and without more than one empty line at a place."""
    lines = (_BLANKS.sub(" ", line).strip() for line in text.replace("\xa0", " ").split("\n"))
    return _GAPS.sub("\n\n", "\n".join(lines)).strip() + "\n"


def html_of(text: str, hidden: Hidden) -> str:
    """Plain text as HTML: paragraphs, line breaks and clickable addresses.

    An address begins in the text itself, or with code that prints one of ours: one that a stranger entered as their
    name becomes no link.
    """
    address = _own_address(hidden)
    shown = []
    for paragraph in _PARAGRAPHS.split(text.strip()):
        parts, end = [], 0
        for match in address.finditer(paragraph):
            parts += [escape(paragraph[end : match.start()]), _link_to(match[0])]
            end = match.end()
        parts.append(escape(paragraph[end:]))
        shown.append("<p>" + "".join(parts).replace("\n", "<br>\n") + "</p>")
    return "\n".join(shown)


def with_filtered_links(hidden: Hidden) -> str:
    """Plain text, its code still hidden, whose own addresses go through a filter: the same that are links in HTML."""
    return _own_address(hidden).sub(lambda match: f"{LINK_IN_TEXT}{match[0]}{LINK_END}", hidden.text)


def _own_address(hidden: Hidden) -> re.Pattern[str]:
    return re.compile(rf"(?:https?://|{hidden.starts_address()})(?:[^\s<>\"']*[^\s<>\"'.,;:!?)])?")


def _link_to(address: str) -> str:
    written = escape(address)
    return f"<a{LINK_BEGIN}{written}{LINK_END}>{written}</a>"
