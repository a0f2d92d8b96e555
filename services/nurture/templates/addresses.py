"""The addresses in a message, as it is filled: what is none is dropped, and what is added by rule is added."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape, unescape
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

LINKS = "_links"
_WEB = ("http://", "https://")
_OTHERS = ("mailto:", "tel:", "sms:", "#")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ENCODED = re.compile(r"[\s<>\"`\\^{|}]")
_IN_TEXT = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)]")


@dataclass(slots=True)
class Addresses:
    """Takes note of the links of one message. `own` are addresses of ours, which stay as they are."""

    marker: str
    own: frozenset[str]
    marks: Sequence[tuple[str, str]] = ()
    hosts: Sequence[str] | None = None
    found: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def link(self, written: str) -> str:
        """The attribute of a link: a marker in place of a web address, nothing for what leads nowhere."""
        target = _clean(written)
        if target in self.own or target.lower().startswith(_OTHERS):
            return f' href="{escape(target)}"'
        if not target.lower().startswith(_WEB):
            self.dropped.append(target)
            return ""
        return f' href="{self._noted(target)}"'

    def text_link(self, written: str) -> str:
        """A link in a text: a marker in place of a web address that is not ours."""
        target = _clean(written)
        return self._noted(target) if target.lower().startswith(_WEB) and target not in self.own else target

    def _noted(self, target: str) -> str:
        target = self.marked(target)
        if target not in self.found:
            self.found.append(target)
        return f"{self.marker}{self.found.index(target)}."

    def marked(self, target: str) -> str:
        """A web address with what the rule adds."""
        return target if target in self.own else with_marks(target, self.marks, self.hosts)

    def marked_text(self, text: str) -> str:
        """A text, its web addresses with what the rule adds."""
        return _IN_TEXT.sub(lambda match: self.marked(match[0]), text) if self.marks else text


def with_marks(url: str, marks: Sequence[tuple[str, str]], hosts: Sequence[str] | None = None) -> str:
    """A web address with parameters that it does not have yet, where it leads to one of the hosts."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        said = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    except ValueError:
        return url
    if not host or (hosts and not any(host == name or host.endswith(f".{name}") for name in hosts)):
        return url
    added = urlencode([(name, value) for name, value in marks if name not in said], quote_via=quote)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, added))))) if added else url


def _clean(written: str) -> str:
    """An address on one line: what browsers take out of it is out, and what no address may hold is encoded."""
    return _ENCODED.sub(lambda match: quote(match[0]), _CONTROLS.sub("", written).strip())


@pass_context
def _link(context: Context, value: str) -> Markup:
    addresses: Addresses = context[LINKS]
    return Markup(addresses.link(unescape(str(value))))  # noqa: S704  # escaped by what makes it


@pass_context
def _address(context: Context, value: str) -> str:
    """The value of an attribute that programs follow by themselves: what would run is gone."""
    target = _clean(unescape(str(value)))
    scheme = _SCHEME.match(target)
    if scheme and scheme[0].lower() not in ("http:", "https:", "cid:", "mailto:"):
        addresses: Addresses = context[LINKS]
        addresses.dropped.append(target)
        return ""
    return target


@pass_context
def _text_link(context: Context, value: str) -> str:
    addresses: Addresses = context[LINKS]
    return addresses.text_link(str(value))


@pass_context
def _shown(context: Context, value: str) -> str:
    """The address of a link after its words, in a text."""
    addresses: Addresses = context[LINKS]
    target = addresses.marked(_clean(str(value)))
    return f" ({target})" if target.lower().startswith((*_WEB, "mailto:")) else ""


FILTERS_OF_LINKS: Mapping[str, Callable[..., str]] = {
    "_link": _link,
    "_address": _address,
    "_shown": _shown,
    "_text_link": _text_link,
}
