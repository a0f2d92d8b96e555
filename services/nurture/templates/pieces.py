"""A template's code taken out of its text, so that what reads HTML, MJML and CSS does not stumble over it; and back.

Code in the text of HTML that prints nothing becomes a comment, which may stand everywhere, also between the rows of a
table; all other code becomes a word.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from jinja2 import Environment, nodes

from services.nurture.templates.environment import TemplateEnvironment

_LEXER = Environment(keep_trailing_newline=True)  # noqa: S701  # it renders nothing
_OPENERS = re.compile(r"\{(?=[{%#])")
_OPENER_CODE = "{{ '{' }}"
_PLACE = re.compile(r"<!--|<(/?)([a-zA-Z][^\s/>]*)")
_IN_TAG = re.compile(r"[\"'>]")
_TEXT_ONLY = frozenset({"style", "script", "title", "textarea", "mj-title", "mj-style", "mj-preview"})
INCLUDE = re.compile(r"\{%[-+]?\s*include\s+([\"'])([a-z0-9][a-z0-9_-]{0,62})\1\s*[-+]?%\}\s*")
# What an author writes, or the installation is set to: nothing that a stranger could have put there.
_OWN = frozenset({"sequence", "sender", "site_url", "form"})


def split(source: str) -> list[tuple[bool, str]]:
    """The source in its pieces: whether it is code, and what it says. Comments say nothing. Raises TemplateError."""
    pieces: list[tuple[bool, str]] = []
    code = ""
    for _, kind, value in _LEXER.lex(source):
        if code or kind in ("variable_begin", "block_begin"):
            code += value
            if kind in ("variable_end", "block_end"):
                pieces.append((True, code))
                code = ""
        elif kind == "data":
            pieces.append((False, value))
    return pieces


def included(source: str) -> set[str]:
    """The ids of the parts that a source takes in. Raises TemplateError."""
    found = (INCLUDE.fullmatch(text) for code, text in split(source) if code)
    return {match[2] for match in found if match}


def with_parts(source: str, part: Callable[[str], str]) -> str:
    """The source with each part in its place; `part` answers what one says."""
    if "include" not in source:
        return source
    shown = []
    for code, text in split(source):
        match = INCLUDE.fullmatch(text) if code else None
        shown.append(part(match[2]) if match else text if code else _OPENERS.sub(_OPENER_CODE, text))
    return "".join(shown)


class Hidden:
    """A source whose code is replaced by words and comments that begin with `mark`, which nothing else does."""

    def __init__(self, source: str, mark: str, *, html: bool) -> None:
        self._mark = mark
        self._codes: list[str] = []
        self._words = re.compile(rf"<!--/{mark}(\d+)x/-->|{mark}(\d+)x(?:=\"\")?")
        where = _Where()
        shown = []
        for code, text in split(source):
            if code:
                comment = html and where.in_text and text.startswith("{%")
                shown.append(f"<!--/{self._named(text)}/-->" if comment else self._named(text))
                continue
            where.read(text)
            shown.append(self.guarded(text))
        self.text = "".join(shown)

    def guarded(self, text: str) -> str:
        """A text that holds no code, such that none comes of it."""
        return _OPENERS.sub(lambda _: self._named(_OPENER_CODE), text)

    def _named(self, code: str) -> str:
        self._codes.append(code)
        return f"{self._mark}{len(self._codes) - 1}x"

    def restored(self, text: str) -> str:
        """A text with the code in place of what stood for it."""
        return self._words.sub(lambda match: self._codes[int(match[1] or match[2])], text)

    def codes_in(self, text: str) -> list[str]:
        """The code that a text holds."""
        return [self._codes[int(match[1] or match[2])] for match in self._words.finditer(text)]

    def foreign(self, text: str) -> list[str]:
        """The code in a text that prints what others may have written."""
        return [code for code in self.codes_in(text) if code.startswith("{{") and not _own(code)]

    def statement(self, comment: str) -> bool:
        """Whether a comment is one of ours."""
        return comment.startswith(f"/{self._mark}")

    def starts_address(self) -> str:
        """A pattern for code that prints an address: its name ends in `_url`."""
        found = [
            str(number) for number, code in enumerate(self._codes) if re.fullmatch(r"\{\{-?\s*\w+_url\s*-?\}\}", code)
        ]
        return f"{self._mark}(?:{'|'.join(found)})x" if found else "(?!)"


@lru_cache(maxsize=1_000)
def _own(code: str) -> bool:
    """Whether code prints nothing but what the author wrote or the installation is set to."""
    return {name.name for name in TemplateEnvironment(html=True).parse(code).find_all(nodes.Name)} <= _OWN


class _Where:
    """Where in HTML a text has come to: among its text, or inside of a tag, a comment or what holds text alone."""

    def __init__(self) -> None:
        self._end: re.Pattern[str] | None = None
        self._tag = ""
        self._after = ""

    @property
    def in_text(self) -> bool:
        """Whether a comment may stand here."""
        return self._end is None and not self._tag

    def read(self, text: str) -> None:
        """Go on to the end of a text."""
        at = 0
        while at < len(text):
            at = self._step(text, at)

    def _step(self, text: str, at: int) -> int:
        if self._end is not None:
            found = self._end.search(text, at)
            if found is None:
                return len(text)
            self._end = None
            return found.end()
        if self._tag:
            return self._in_tag(text, at)
        found = _PLACE.search(text, at)
        if found is None:
            return len(text)
        if found[2] is None:
            self._end = re.compile("-->")
        else:
            self._tag = found[2].lower()
            self._after = "" if found[1] else self._tag
        return found.end()

    def _in_tag(self, text: str, at: int) -> int:
        found = _IN_TAG.search(text, at)
        if found is None:
            return len(text)
        if found[0] != ">":
            self._end = re.compile(found[0])
        else:
            self._tag = ""
            if self._after in _TEXT_ONLY and text[found.start() - 1] != "/":
                self._end = re.compile(f"</{re.escape(self._after)}", re.IGNORECASE)
        return found.end()
