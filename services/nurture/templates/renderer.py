"""Renders templates in a process of its own, which may be killed at any time; it knows nothing of the rest.

Started as a script by `rendering.py`: one JSON request a line on standard input, one JSON answer a line on standard
output. A template is checked when it is saved (`check.py`), so this process with its limits is the second wall.
"""

import json
import re
import resource
import sys
from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser
from typing import Any, NoReturn

from jinja2 import ChainableUndefined, Environment, TemplateError, Undefined, meta
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

FILTERS = frozenset(
    [
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "e",
        "escape",
        "first",
        "float",
        "int",
        "join",
        "last",
        "length",
        "lower",
        "round",
        "striptags",
        "title",
        "trim",
        "truncate",
        "upper",
        "urlencode",
        "wordcount",
    ]
)
TESTS = frozenset(
    [
        "defined",
        "undefined",
        "string",
        "number",
        "boolean",
        "eq",
        "equalto",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "in",
        "sequence",
    ]
)
MEMORY = 512 * 1024 * 1024
CPU_SECONDS = 3
LONGEST = 512 * 1024
FOOTER_TEXT = "\n\n--\nYou get this because you agreed to. Unsubscribe: {{ unsubscribe_url }}\n"
FOOTER_HTML = (
    '<p style="color:#777;font-size:12px">You get this because you agreed to. '
    '<a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
)
_PARAGRAPHS = re.compile(r"\n\s*\n")
_ADDRESS = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)]")
_BLOCKS = frozenset(
    ["p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "blockquote"]
)


class MissingValue(TemplateError):
    """The template prints a value that the lead does not have, and gives no default for it."""


class Absent(ChainableUndefined):
    """A value that is not there: false in a condition, replaced by `default`, and never printed."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> NoReturn:
        raise MissingValue(f"{self._undefined_name} is missing and has no default")

    __html__ = __str__


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja cut down to what a message needs: the fields of the values it is given, and harmless filters."""

    def __init__(self, *, html: bool) -> None:
        super().__init__(autoescape=html, undefined=Absent, keep_trailing_newline=True)
        self.globals.clear()
        self.filters = {name: run for name, run in self.filters.items() if name in FILTERS}
        self.tests = {name: run for name, run in self.tests.items() if name in TESTS}

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            return obj
        if isinstance(obj, Mapping) and isinstance(argument, str) and argument in obj:
            return obj[argument]
        if isinstance(obj, LoopContext) and argument in ("index", "index0", "first", "last", "length"):
            return getattr(obj, argument)
        if isinstance(obj, list) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(obj=obj, name=str(argument))


class Links(HTMLParser):
    """Copies HTML, with each web link replaced by a marker, and takes note of where the links lead."""

    def __init__(self, marker: str, kept: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []
        self._marker = marker
        self._kept = kept
        self._out: list[str] = []

    def rewritten(self, html: str) -> str:
        self.feed(html)
        self.close()
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._copy_tag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._copy_tag(tag, attrs)

    def _copy_tag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("a", "area") and any(name == "href" for name, _ in attrs):
            shown = "".join(
                f" {name}" if value is None else f' {name}="{escape(value)}"'
                for name, value in self._with_marker(attrs)
            )
            self._out.append(f"<{tag}{shown}>")
        else:
            self._out.append(self.get_starttag_text() or "")

    def _with_marker(self, attrs: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
        changed: list[tuple[str, str | None]] = []
        for name, value in attrs:
            target = (value or "").strip()
            if name != "href":
                changed.append((name, value))
            elif target == self._kept or target.lower().startswith("mailto:"):
                changed.append((name, target))
            elif target.lower().startswith(("http://", "https://")):
                if target not in self.found:
                    self.found.append(target)
                changed.append((name, f"{self._marker}{self.found.index(target)}."))
        return changed

    def handle_endtag(self, tag: str) -> None:
        self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self._out.append(data)

    def handle_entityref(self, name: str) -> None:
        self._out.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._out.append(f"&#{name};")

    def handle_comment(self, data: str) -> None:
        self._out.append(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self._out.append(f"<!{decl}>")


class Reading(HTMLParser):
    """What a person reads in HTML: the text, each link's address after its words."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._hidden = 0
        self._href = ""

    def of(self, html: str) -> str:
        self.feed(html)
        self.close()
        lines = (" ".join(line.split()) for line in "".join(self._out).split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("style", "script", "title", "head"):
            self._hidden += 1
        elif tag in _BLOCKS:
            self._out.append("\n")
        elif tag == "a":
            self._href = dict(attrs).get("href") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script", "title", "head"):
            self._hidden = max(self._hidden - 1, 0)
        elif tag in _BLOCKS:
            self._out.append("\n")
        elif tag == "a" and self._href.startswith(("http", "mailto")):
            self._out.append(f" ({self._href})")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._out.append(data)


def html_of(text: str) -> str:
    """Plain text as HTML: paragraphs, line breaks and clickable addresses."""
    shown = []
    for paragraph in _PARAGRAPHS.split(text.strip()):
        parts, end = [], 0
        for match in _ADDRESS.finditer(paragraph):
            address = escape(match.group())
            parts += [escape(paragraph[end : match.start()]), f'<a href="{address}">{address}</a>']
            end = match.end()
        parts.append(escape(paragraph[end:]))
        shown.append("<p>" + "".join(parts).replace("\n", "<br>\n") + "</p>")
    return "\n".join(shown)


def fill(source: str, context: Mapping[str, Any], *, html: bool) -> str:
    """The template with its values; raises TemplateError, also when the result is too long."""
    written: list[str] = []
    length = 0
    for piece in TemplateEnvironment(html=html).from_string(source).generate(context):
        length += len(piece)
        if length > LONGEST:
            raise TemplateError(f"the result is longer than {LONGEST} characters")
        written.append(piece)
    return "".join(written)


def _with_footer(source: str, footer: str, wanted: bool) -> str:
    names = meta.find_undeclared_variables(Environment(autoescape=True).parse(source))
    return source if not wanted or "unsubscribe_url" in names else source + footer


def render(request: Mapping[str, Any]) -> dict[str, Any]:
    """Subject, text, HTML with markers in place of links, and the links."""
    context, footer = request["context"], request["footer"]
    subject = fill(request["subject"], context, html=False)
    text = request["text"] and fill(_with_footer(request["text"], FOOTER_TEXT, footer), context, html=False)
    if request["html"]:
        html = fill(_with_footer(request["html"], FOOTER_HTML, footer), context, html=True)
    else:
        html = html_of(text)
    if not text:
        text = Reading().of(html)
    links = Links(request["marker"], context.get("unsubscribe_url", ""))
    return {"subject": subject, "text": text, "html": links.rewritten(html), "links": links.found}


def _limit_cpu() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))


def main() -> None:
    """Answer requests until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        _limit_cpu()
        try:
            answer = render(json.loads(line))
        except TemplateError as fault:
            answer = {"fault": str(fault.message or type(fault).__name__)}
        except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as fault:
            answer = {"fault": f"{type(fault).__name__} while rendering"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
