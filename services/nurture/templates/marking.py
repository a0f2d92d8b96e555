"""HTML with its code hidden, gone through once per template: links are guarded, values kept in safe places.

What is printed is escaped by Jinja, which is safe in text and in quoted attributes and nowhere else. So all attributes
with code are quoted, an address goes through a filter that drops what is not one, and elsewhere no value of others may
stand.
"""

import re
from html import escape
from html.parser import HTMLParser

from jinja2 import TemplateError

from services.nurture.templates.pieces import Hidden

LINK_BEGIN, LINK_END = "{% filter _link %}", "{% endfilter %}"
ADDRESS_BEGIN = "{% filter _address %}"
_ADDRESSES = frozenset({"src", "background", "cite", "poster", "longdesc", "href", "xlink:href", "action"})
_CLOSED = frozenset(
    ["script", "style", "iframe", "object", "embed", "base", "meta", "link", "form", "input", "button", "applet", "svg"]
)
_CONDITIONAL = re.compile(r"(\[if[^\]]*\]>)(.*)(<!\[endif\])", re.DOTALL | re.IGNORECASE)


class UnsafePlace(TemplateError):
    """A value stands where what a stranger wrote could do more than be read."""


class Marking(HTMLParser):
    """Copies HTML, link and address attributes put into filters; notes images that have no words."""

    def __init__(self, hidden: Hidden) -> None:
        super().__init__(convert_charrefs=False)
        self.wordless_images: list[str] = []
        self._hidden = hidden
        self._out: list[str] = []
        self._within = ""

    def of(self, html: str) -> str:
        """The HTML, its code still hidden but for the filters."""
        self.feed(html)
        self.close()
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        written = self.get_starttag_text() or ""
        if tag in ("script", "style"):
            self._within = tag
        if tag == "img" and not any(name == "alt" for name, _ in attrs):
            self.wordless_images.append(self._hidden.restored(dict(attrs).get("src") or ""))
        if self._hidden.codes_in(written) or (tag in ("a", "area") and any(name == "href" for name, _ in attrs)):
            self._refuse(tag, tag in _CLOSED, written)
            self._refuse("the name of a tag", True, tag)
            shown = "".join(self._attribute(tag, name, value) for name, value in attrs)
            written = f"<{tag}{shown}{' /' if written.endswith('/>') else ''}>"
        self._out.append(written)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._within = ""

    def _attribute(self, tag: str, name: str, value: str | None) -> str:
        self._refuse("the name of an attribute", True, name)
        if value is None:
            return f" {name}"
        self._refuse(f"the attribute {name}", name == "style" or name.startswith("on") or name == "srcdoc", value)
        shown = escape(value).replace("{", "&#123;")
        if name == "href" and tag in ("a", "area"):
            return f"{LINK_BEGIN}{shown}{LINK_END}"
        if name in _ADDRESSES and self._hidden.codes_in(value):
            shown = f"{ADDRESS_BEGIN}{shown}{LINK_END}"
        return f' {name}="{shown}"'

    def _refuse(self, place: str, closed: bool, text: str) -> None:
        if closed and (codes := self._hidden.foreign(text)):
            raise UnsafePlace(f"{codes[0]} cannot stand in {place}: values go into text, or into quoted attributes")

    def handle_endtag(self, tag: str) -> None:
        self._refuse("the name of a tag", True, tag)
        self._within = ""
        self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self._refuse(f"<{self._within}>", bool(self._within), data)
        self._out.append(data)

    def handle_entityref(self, name: str) -> None:
        self._out.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._out.append(f"&#{name};")

    def handle_comment(self, data: str) -> None:
        conditional = _CONDITIONAL.fullmatch(data)
        if conditional and self._hidden.codes_in(data):  # one program reads what is in it as HTML
            inner = Marking(self._hidden).of(conditional[2])
            data = f"{conditional[1]}{inner}{conditional[3]}"
        self._out.append(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self._out.append(f"<!{decl}>")

    def handle_pi(self, data: str) -> None:
        self._out.append(f"<?{data}>")

    def unknown_decl(self, data: str) -> None:
        self._out.append(f"<![{data}]>")
